"""One run on several processes: the points spread over ranks, or the pieces.

    # torchrun --nproc-per-node 4 mine.py
    torch.distributed.init_process_group()
    solve(problem, ..., share=averaged())  # every rank draws points of its own
    solve(problem, ..., share=divided())  # every rank has some of the pieces

All ranks hold all weights, which are few, and move them by the same steps. What is large, the derivatives at points,
is spread. Give all ranks the same arguments, and one `folder`: the first rank writes it, for all.

Arms need no word between processes: give rank r of R `conditions=masks[r::R]` and a folder of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor

from sciode.pinn.loss import Loss, Measured
from sciode.pinn.terms import Sample

__all__ = ["Averaged", "Divided", "Share", "averaged", "divided"]


@dataclass(frozen=True)
class Share(ABC):
    """What rank `rank` of `size` evaluates, and how it all comes together."""

    rank: int
    size: int

    @property
    @abstractmethod
    def same(self) -> bool:
        """Whether all ranks draw the same points, and each keeps some; else each draws its own."""

    @property
    def stream(self) -> int:
        """What of a seed is a rank's own."""
        return 0 if self.same else self.rank

    def check(self, pieces: int, windows: bool) -> None:  # noqa: B027 - most have nothing to say
        """Raise ValueError for pieces that cannot be spread like this."""

    def own(self, sample: Sample, pieces: int) -> Sample:
        """The part of a sample that this rank evaluates."""
        return sample

    def squares(self, loss: Loss, theta: Tensor, sample: Sample) -> Tensor:
        """|residual|^2 of the equation at a sample's points, [arms, K, N]."""
        return loss.squares(theta, sample)

    def summed(self, values: Tensor) -> Tensor:
        """The sum of a tensor over ranks, the same on each."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    def total(self, values: Tensor) -> Tensor:
        """A part of the loss, or of its derivatives, of all ranks."""
        return self.summed(values) if self.same else self.summed(values) / self.size

    def __call__(self, measured: Measured) -> Measured:
        """Return what all ranks measured, the same on each."""
        flat = self.total(torch.cat([part.reshape(-1) for part in measured]))
        parts = flat.split([part.numel() for part in measured])
        return Measured(*(new.reshape(old.shape) for new, old in zip(parts, measured, strict=True)))

    def of_first(self, value: float, like: Tensor) -> float:
        """A number of the first rank's, on all."""
        return float(self.summed(like.new_full((), value if self.rank == 0 else 0.0)))

    def gathered(self, values: Tensor, like: Tensor) -> Tensor:
        """Values on the host that are a rank's own, of all ranks [size, ...]."""
        every = torch.zeros(self.size, *values.shape, dtype=values.dtype, device=like.device)
        every[self.rank] = values.to(every)
        return self.summed(every).cpu()


@final
@dataclass(frozen=True)
class Averaged(Share):
    """Data parallel: every rank draws its own points of all sets, and losses, gradients and terms are means over ranks.

    With R ranks the loss is that of R times as many points.
    """

    @property
    def same(self) -> bool:
        """False."""
        return False


@final
@dataclass(frozen=True)
class Divided(Share):
    """Domain parallel: every rank evaluates the equation and the data in its own pieces, and the interfaces on whose
    left one of these lies; losses and gradients are sums over ranks.

    So the numbers are those of one process, to rounding, and the work and memory of the points are divided, nearly
    evenly where pieces have equal numbers of points and ranks equal numbers of pieces, which are neighbours.
    """

    @property
    def same(self) -> bool:
        """True."""
        return True

    def check(self, pieces: int, windows: bool) -> None:
        """See `Share.check`."""
        if windows:
            raise ValueError("share: windows are heard at all points and cannot be divided: take averaged()")
        if pieces < self.size:
            raise ValueError(
                f"share: {pieces} pieces leave some of {self.size} ranks without: cut the domain into more, or take "
                "averaged()"
            )

    def own(self, sample: Sample, pieces: int) -> Sample:
        """See `Share.own`; where it has none of a term's sets, the first one with a share of nothing."""
        places = self._places(sample, pieces)
        part = sample.sets(places or [0])
        return part if places else Sample(part.which, {**part.data, "share": torch.zeros_like(part.data["share"])})

    def squares(self, loss: Loss, theta: Tensor, sample: Sample) -> Tensor:
        """See `Share.squares`; each rank's own pieces, put together."""
        places = self._places(sample, len(sample.which))
        own = loss.squares(theta, sample.sets(places))
        every = own.new_zeros(len(own), len(sample.which), own.shape[2])
        every[:, places] = own
        return self.summed(every)

    def _places(self, sample: Sample, pieces: int) -> list[int]:
        sets = sample.data["share"].shape[1]
        return [k for k in range(sets) if sample.which[k] * self.size // pieces == self.rank]


def averaged() -> Averaged:
    """Return the means over the process group that was started. ValueError without one."""
    return Averaged(*_group("averaged"))


def divided() -> Divided:
    """Return the division of pieces over the process group that was started. ValueError without one."""
    return Divided(*_group("divided"))


def _group(who: str) -> tuple[int, int]:
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(f"{who}() needs a process group: call torch.distributed.init_process_group() under torchrun")
    return dist.get_rank(), dist.get_world_size()
