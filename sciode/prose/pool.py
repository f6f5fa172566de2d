"""A pool of trajectories on the device, out of which batches are drawn without a look at it from the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, final

import torch
from torch import Tensor

from sciode.prose.guesses import Guesses, Told, guesses_of, padded
from sciode.prose.samples import Drawing, draw
from sciode.prose.vocabulary import Vocabulary

__all__ = ["Batch", "Pool", "Reading", "filled"]


@dataclass(frozen=True)
class Reading:
    """What of a trajectory is read, and asked.

    frames: the first ones are read; the paper's 64 of 192. queries: frames that are asked for, drawn among all; 0: all
    that are not read, in their order. noise: the largest level; each sample draws its own between 0 and that (`fixed`:
    all have it). told: see `Told`. Raises ValueError for sizes below one or a negative level.
    """

    frames: int = 64
    queries: int = 64
    noise: float = 0.05
    fixed: bool = False
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        if self.frames < 2 or self.queries < 0 or not 0 <= self.noise < float("inf"):
            raise ValueError(f"frames must be at least 2, queries and noise 0 or more, got {self}")


class Batch(NamedTuple):
    """times [B, R], values [B, R, D]: what is read; symbols [B, L]: the guess; components [B].

    ask [B, Q], answers [B, Q, D]: times and true values. written, following [B, W]: ids of the equations from "start"
    on, and what comes after each.
    """

    times: Tensor
    values: Tensor
    symbols: Tensor
    components: Tensor
    ask: Tensor
    answers: Tensor
    written: Tensor
    following: Tensor


@final
@dataclass(frozen=True)
class Pool:
    """times [T], float64; values [N, T, D], float32, zeros beyond a system's components; system, owner [N]: numbers of
    a sample's system and of its row in targets [E, W], ids of equations; names: of the systems; left_out: what drawing
    left out.
    """

    times: Tensor
    values: Tensor
    system: Tensor
    owner: Tensor
    targets: Tensor
    components: Tensor
    guesses: Guesses
    names: tuple[str, ...]
    vocabulary: Vocabulary
    left_out: int

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, size: int, how: Reading, generator: torch.Generator) -> Batch:
        """Return samples drawn at random, with noise and guesses of their own."""
        device = self.values.device
        rows = (torch.rand(size, generator=generator, device=device, dtype=torch.float64) * len(self)).long()
        return self.rows(rows, how, generator)

    def rows(self, rows: Tensor, how: Reading, generator: torch.Generator) -> Batch:
        """Return certain samples [B], with noise and guesses that are drawn. ValueError if no frames would be left."""
        device, count, frames = self.values.device, len(rows), len(self.times)
        if how.frames >= frames:
            raise ValueError(f"of {frames} frames at most {frames - 1} can be read, not {how.frames}")
        if how.queries:
            asked = (torch.rand(count, how.queries, generator=generator, device=device) * frames).long()
        else:
            asked = torch.arange(how.frames, frames, device=device).expand(count, -1)
        values = self.values[rows]
        read = values[:, : how.frames]
        there = torch.arange(values.shape[-1], device=device) < self.components[self.system[rows], None]
        level = how.noise * (1.0 if how.fixed else torch.rand(count, 1, 1, generator=generator, device=device))
        # Relative to all components that there are, as `noisy` has it.
        size = read.square().sum((1, 2), keepdim=True) / (how.frames * there.sum(-1)[:, None, None])
        white = torch.randn(read.shape, generator=generator, device=device) * there[:, None]
        ids, targets = self.vocabulary.ids, self.targets[self.owner[rows]]
        written = torch.cat((torch.full_like(targets[:, :1], ids["start"]), targets[:, :-1]), 1)
        return Batch(
            self.times[: how.frames].float().expand(count, -1),
            read + level * size.sqrt() * white,
            self.guesses.drawn(self.system[rows], how.told, generator),
            self.components[self.system[rows]],
            self.times[asked].float(),
            values.gather(1, asked[..., None].expand(-1, -1, values.shape[-1])),
            written,
            targets,
        )


def filled(how: Drawing, seed: int, dimension: int, device: torch.device | str = "cpu") -> Pool:
    """Draw a pool: the same for the same seed on the same kind of device.

    dimension: of the model; ValueError for a system that has more components.
    """
    vocabulary = Vocabulary(dimension)
    values, owner, system, rows, components = [], [], [], [], []
    left_out = 0
    for number, found in enumerate(draw(how, seed, device)):
        own = found.values.shape[-1]
        if own > dimension:
            raise ValueError(f"{found.system} has {own} components, the model {dimension}")
        values.append(torch.nn.functional.pad(found.values.float(), (0, dimension - own)))
        owner.append(found.owner + len(rows))
        system.append(torch.full((len(found.owner),), number))
        components.append(own)
        rows += [vocabulary.encoded(one) for one in found.equations]
        left_out += found.left_out
    return Pool(
        how.times.to(device),
        torch.cat(values),
        torch.cat(system).to(device),
        torch.cat(owner).to(device),
        padded(rows, vocabulary, device),
        torch.tensor(components).to(device),
        guesses_of(how.chosen, vocabulary, device),
        how.names,
        vocabulary,
        left_out,
    )
