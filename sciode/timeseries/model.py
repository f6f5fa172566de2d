"""What every model of irregular series takes and gives: the one interface that estimators know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sciode.solvers import Status, sample_seeds

__all__ = [
    "Batch",
    "Form",
    "Paths",
    "SequenceModel",
    "judged",
    "nothing_solved",
    "refuse_regularizers",
    "seeds_for",
    "sound",
]

Form = Literal["clipped", "paper"]


class Batch(NamedTuple):
    """B series as models read them.

    values: [B, T, C], standardised, NaN = missing. times: [B, T] float64 in the model's time, which starts at 0 for
    every series; increasing, short series end in NaN. control: [B, N + 1, C], the values of a causal path at the times
    n dt, or None for models that read `values`. dt: the distance of the control's rows, the step of fixed-step models.
    ends: [B] float64 > 0, each series' own last time. static: [B, S] or None; NaN (unknown) only in models that read
    `values`.
    """

    values: Tensor
    times: Tensor
    control: Tensor | None
    dt: float
    ends: Tensor
    static: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """Which readings are there [B, T, C]; a reading without a time is padding."""
        return self.values.isfinite() & self.times.isfinite().unsqueeze(-1)

    def clocked(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (times [B, T] with 0 for padding, values [B, T, C + S] with 0 where missing, seen [B, T, C + S] bool).

        Static covariates are channels that are read at the first time.
        """
        values, seen = self.values, self.seen
        if self.static is not None:
            static = self.static.to(values).unsqueeze(1)
            first = torch.arange(values.shape[1], device=values.device).view(1, -1, 1) == 0
            values = torch.cat((values, static.expand(-1, values.shape[1], -1)), -1)
            seen = torch.cat((seen, (first & static.isfinite()).expand(*values.shape[:2], -1)), -1)
        times = torch.where(self.times.isfinite(), self.times, 0.0)
        return times, torch.where(seen, values, 0.0), seen

    def path(self) -> Tensor:
        """Return the control [B, N + 1, C]. Raises ValueError if there is none."""
        if self.control is None:
            raise ValueError("control: this model is driven by a control path; give the batch its values at n dt")
        return self.control

    @property
    def reach(self) -> float:
        """The time of the control's last row."""
        return (self.path().shape[1] - 1) * self.dt

    def first(self) -> Tensor:
        """Return X(0), and the static covariates if there are any: [B, C + S]."""
        start = self.path()[:, 0]
        return start if self.static is None else torch.cat((start, self.static.to(start)), -1)


class Paths(NamedTuple):
    """What a model makes of a batch.

    states: [B, Q, H] at the query times, 0 where the query is NaN; Q = 0 without queries. last: [B, H], at each series'
    own end. status: [B] int8, `sciode.solvers.Status` (0 = success). nfe: [B], evaluations of the field. penalties:
    name -> [B], of `regularize`. kl: [B] in nats, of a model with a prior, else None.
    """

    states: Tensor
    last: Tensor
    status: Tensor
    nfe: Tensor
    penalties: dict[str, Tensor]
    kl: Tensor | None = None


class SequenceModel(nn.Module, ABC):
    """From a batch of irregular series to states of width `hidden` at the times that are asked for.

    causal: the state at time t depends on readings at times <= t, and on control rows n dt up to the first one at or
        after t, and on nothing later: forecasting may use it as it is. (Whether the control itself looks ahead is for
        the one who made it to say.)
    reads: "control" (`Batch.control` must not be None) or "values".
    noisy: whether the states depend on the seed: else one draw says what many would.

    Samples do not influence one another, and what is random is a pure function of the samples' seeds.
    """

    causal: ClassVar[bool]
    reads: ClassVar[Literal["control", "values"]]
    noisy: ClassVar[bool] = True
    hidden: int

    @abstractmethod
    def forward(
        self,
        batch: Batch,
        queries: Tensor | None,
        seed: int | Tensor,
        *,
        throw: bool = False,
        regularize: Any = (),
        engine: str = "auto",
    ) -> Paths:
        """Return the states at queries [B, Q] float64, and at the series' ends.

        queries: times >= 0 in any order, equal ones too, past a series' end too; NaN = none; None asks for the end
        only. A control-driven model needs a control that reaches as far. seed: int, or int64 [B], one stream a series.
        throw: raise SolveError where a solve failed, FloatingPointError where a state beside a solve is not finite;
        False: read `status`. regularize, engine: those of `sciode.solve`; a model without a solver refuses to be
        regularized.

        Raises ValueError for queries before 0, and for a control that is missing or too short.
        """


def seeds_for(seed: int | Tensor, batch: Batch) -> Tensor:
    """Return one int64 seed a series [B], as `solve` derives them."""
    if isinstance(seed, Tensor) and seed.ndim:
        return seed
    return sample_seeds(int(seed), len(batch.ends), batch.ends.device)


def nothing_solved(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return (status, nfe) before anything has been solved: zeros [B]."""
    size, device = len(batch.ends), batch.values.device
    return torch.zeros(size, dtype=torch.int8, device=device), torch.zeros(size, dtype=torch.int64, device=device)


def sound(states: Tensor, throw: bool) -> Tensor:
    """Return which series have finite states [B, ...]; throw: FloatingPointError that names the first without."""
    fine = states.isfinite().flatten(1).all(1)
    if throw and not bool(fine.all()):
        raise FloatingPointError(
            f"the state of series {int((~fine).nonzero()[0])} of the batch is NaN or infinite: it holds readings or "
            "gaps far outside of what training has seen, or training had diverged"
        )
    return fine


def judged(found: Tensor, status: Tensor, throw: bool = False) -> Tensor:
    """Return the status [B], NONFINITE for series with a state in found [B, Q, H] that is not finite (`sound`)."""
    bad = (status == int(Status.SUCCESS)) & ~sound(found, throw)
    return torch.where(bad, int(Status.NONFINITE), status).to(torch.int8)


def refuse_regularizers(regularize: Any, model: str) -> None:
    """ValueError if a regularizer is wished for of a model in closed form."""
    if regularize:
        raise ValueError(f"regularize: {model} has no solver whose work could be regularized; pass regularize=()")
