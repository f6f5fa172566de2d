"""Distillation to few steps: trajectory-segmented consistency (TSCD) and sub-path linear approximation (SLAM).

A student f jumps from (x, t) to a time e below by its own noise prediction: f = alpha_e x0_hat + sigma_e eps_hat, as
DDIM does. It is consistent when the jumps from all points of a path end in one: so f at t has to agree with f at the
point that one step of a teacher leads to. Jumping to e = t changes nothing, whatever the network says: no boundary
condition is needed. With one segment TSCD is consistency distillation, with gamma = 1 SLAM is, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciode.diffusion.predictions import PREDICTIONS, Level
from sciode.diffusion.schedules import Schedule
from sciode.diffusion.training.denoising import level_of, noised
from sciode.diffusion.training.distances import Distance, elementwise_huber
from sciode.solvers.suggest import choose
from sciode.training import Batch

__all__ = [
    "STEPS", "Place", "Segments", "consistency", "ddim_step", "guided", "heun_step", "jump", "slam_loss", "sub_path",
    "sub_paths", "tscd_loss",
]  # fmt: skip

Model = Callable[..., Tensor]
Step = Callable[["Place", Tensor, Tensor], Tensor]
"""(model and where, x [B, ...] at its time s, times t [B]) -> the state at t, by one step of a teacher."""


@dataclass(frozen=True, eq=False)
class Segments:
    """The teacher's times, N + 1 of them from noise to data, cut into `count` segments of N / count steps.

    Raises ValueError for times that do not fall, or a count that does not divide N.
    """

    times: Any
    count: int = 1

    def __post_init__(self) -> None:
        times = np.asarray(self.times, dtype=np.float64)
        if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
            raise ValueError("times: expected at least two, falling from noise to data")
        if self.count < 1 or self.steps % self.count:
            raise ValueError(f"count: {self.count} segments do not divide {self.steps} steps")

    @property
    def steps(self) -> int:
        """N."""
        return len(self.times) - 1

    @property
    def edges(self) -> list[float]:
        """Where segments meet [count + 1]: the student's grid when it samples, by "ddim" (or "tcd" with noise)."""
        return [float(t) for t in self.times[:: self.steps // self.count]]

    def around(self, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of steps n [B] in 0 to N - 1: where they begin, where they end, and the lower edge of their segment."""
        times = torch.as_tensor(np.asarray(self.times, dtype=np.float64)).to(n.device)
        width = self.steps // self.count
        return times[n], times[n + 1], times[(n // width + 1) * width]


@dataclass(frozen=True, eq=False)
class Place:
    """A model at times t [B]: its schedule, what it predicts, and its conditions."""

    model: Model
    schedule: Schedule
    t: Tensor
    prediction: str = "eps"
    cond: Mapping[str, Any] | None = None

    def at(self, t: Tensor) -> Place:
        """The same model elsewhere."""
        return Place(self.model, self.schedule, t, self.prediction, self.cond)

    def level(self, x: Tensor) -> Level:
        """alpha and sigma, in the shape of the state."""
        return level_of(self.schedule, self.t, x)

    def eps(self, x: Tensor, **more: Any) -> Tensor:
        """The noise that the model sees in x."""
        into = PREDICTIONS[choose("prediction", self.prediction, PREDICTIONS)](self.level(x))
        return into.eps_x * x + into.eps_m * self.model(x, self.t.to(x), **(self.cond or {}), **more)


def jump(x: Tensor, eps: Tensor, s: Level, t: Level) -> Tensor:
    """From level s to level t along the line of one noise prediction eps [B, ...] at x [B, ...]: DDIM's step.

    alpha_t x0_hat + sigma_t eps, x0_hat = (x - sigma_s eps) / alpha_s.
    """
    ratio = t.alpha / s.alpha
    return ratio * x + (t.sigma - ratio * s.sigma) * eps


def ddim_step(at: Place, x: Tensor, t: Tensor) -> Tensor:
    """A teacher's step from x [B, ...] at a place to times t [B]: one evaluation, first order."""
    return jump(x, at.eps(x), at.level(x), at.at(t).level(x))


def heun_step(at: Place, x: Tensor, t: Tensor) -> Tensor:
    """The same in two evaluations, second order: by the mean of the noise at both ends."""
    first, end = at.eps(x), at.at(t)
    second = end.eps(jump(x, first, at.level(x), end.level(x)))
    return jump(x, 0.5 * (first + second), at.level(x), end.level(x))


STEPS: Mapping[str, Step] = {"ddim": ddim_step, "heun": heun_step}


def tscd_loss(
    student: Model, target: Model, teacher: Model, x0: Tensor, eps: Tensor, n: Tensor, segments: Segments,
    schedule: Schedule, *, step: str | Step = "ddim", distance: Distance | None = None, prediction: str = "eps",
    cond: Mapping[str, Any] | None = None,
) -> Tensor:  # fmt: skip
    """d(f(x_t, t -> e), f_target(step(x_t, t -> m), m -> e)) [B] for steps n [B] of the teacher's grid.

    x_t = alpha x0 + sigma eps, t and m the ends of step n, e the lower edge of its segment. Gradients reach the student
    alone. It vanishes if and only if the student does what the teacher's steps do one after another. step: a name of
    `STEPS`, or a function; distance: `elementwise_huber()`. The adversarial and human-feedback terms of Hyper-SD are
    not included. Source: Ren et al. (2024), Hyper-SD; Song et al. (2023), consistency models.
    """
    _check_begun(segments, schedule)
    t, m, e = segments.around(n)
    own = Place(student, schedule, t, prediction, cond)
    x = noised(x0, eps, own.level(x0))
    with torch.no_grad():
        there = _stepped(step, Place(teacher, schedule, t, prediction, cond), x, m)
        aim = _arrived(Place(target, schedule, m, prediction, cond), there, e)
    return (distance or elementwise_huber())(_arrived(own, x, e), aim)


def slam_loss(
    student: Model, target: Model, teacher: Model, x0: Tensor, eps: Tensor, n: Tensor, gamma: Tensor,
    segments: Segments, schedule: Schedule, *, step: str | Step = "ddim", distance: Distance | None = None,
    prediction: str = "eps", noise: str = "shared", tell: bool = False, cond: Mapping[str, Any] | None = None,
) -> Tensor:  # fmt: skip
    """As `tscd_loss`, from a point on the straight sub-path between both ends of the step, gamma [B] in [0, 1]:

        x_gamma = (1 - gamma) (alpha_t / alpha_s) x_s + gamma x_t,   x_s the teacher's step from x_t.

    noise: how much of it x_gamma has beside alpha_t x0. "shared": both ends have the same, as a deterministic step
    leaves it, sigma_gamma = (1 - gamma) (alpha_t / alpha_s) sigma_s + gamma sigma_t. "fresh": the authors', as if x_t
    were made of x_s by new noise, sigma_gamma^2 = (alpha_t sigma_s / alpha_s)^2 + gamma^2 (sigma_t^2 - (alpha_t sigma_s
    / alpha_s)^2); the same for short steps, and a student twice as far off for the eight steps of notebook 17.

    The student is asked at the time that has this level, log(alpha_t / sigma_gamma), for the state of its schedule
    there; the authors ask at t, and the network has to find the level out. tell: whether it is also called with
    gamma=gamma, as theirs is. Source: Xu et al. (2024), SLAM.
    """
    _check_begun(segments, schedule)
    t, s, e = segments.around(n)
    own, below = Place(student, schedule, t, prediction, cond), Place(target, schedule, s, prediction, cond)
    high, low = own.level(x0), below.level(x0)
    x = noised(x0, eps, high)
    with torch.no_grad():
        there = _stepped(step, Place(teacher, schedule, t, prediction, cond), x, s)
        aim = _arrived(below, there, e)
    between, here = sub_path(x, there, high, low, gamma, noise)
    level = (here.alpha / here.sigma).double().flatten().log()
    at = own.at(torch.where(gamma.double() == 1, t, schedule.t_of(level)))
    seen = between * (at.level(x).alpha / here.alpha)
    found = at.eps(seen, **({"gamma": gamma} if tell else {}))
    found = jump(between, found, here, own.at(e).level(x))
    return (distance or elementwise_huber())(found, aim)


def _check_begun(segments: Segments, schedule: Schedule) -> None:
    if not float(schedule.alpha(float(segments.times[0]))) > 0:
        raise ValueError("times: alpha is 0 at the first, where no noise prediction leads to the data; begin below it")


def sub_path(
    high: Tensor, low: Tensor, t: Level, s: Level, gamma: Tensor, noise: str = "shared"
) -> tuple[Tensor, Level]:
    """The point at gamma [B] between the states at both ends of a step, high at t and low at s, and its level."""
    part = gamma.to(high).reshape(-1, *[1] * (high.ndim - 1))
    ratio = t.alpha / s.alpha
    least = ratio * s.sigma
    if choose("noise", noise, ("fresh", "shared")) == "fresh":
        sigma = (least**2 + part**2 * (t.sigma**2 - least**2)).sqrt()
    else:
        sigma = (1 - part) * least + part * t.sigma
    here = t._replace(sigma=sigma)
    return (1 - part) * ratio * low + part * high, here


def _stepped(step: str | Step, at: Place, x: Tensor, t: Tensor) -> Tensor:
    return (STEPS[choose("step", step, STEPS)] if isinstance(step, str) else step)(at, x, t)


def _arrived(at: Place, x: Tensor, e: Tensor) -> Tensor:
    return jump(x, at.eps(x), at.level(x), at.at(e).level(x))


def guided(model: Model, scale: float, classes: int) -> Model:
    """A teacher that is guided: model(x, t, label) as u + scale (c - u), u being its answer without a label.

    What the student learns from it needs no guidance any more, and half the evaluations.
    """

    def teacher(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        none = torch.full_like(label, classes)
        without, told = model(torch.cat((x, x)), torch.cat((t, t)), label=torch.cat((none, label))).chunk(2)
        return torch.lerp(without, told, scale)

    return teacher


def consistency(teacher: Model, segments: Segments, schedule: Schedule, **options: Any) -> Any:
    """The loss for `train` by `tscd_loss`, of rows "x" (and conditions); the average of the weights is its target.

    Good: `TrainOptions(decay=0.95, lr=3e-4)`, the student a copy of the teacher; segments 8, 4, 2, 1 in turn, each
    student from the one before.
    """

    def loss(student: nn.Module, average: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        x0, eps, n, cond = _drawn(batch, segments, generator)
        return tscd_loss(student, average, teacher, x0, eps, n, segments, schedule, cond=cond, **options).mean()

    return loss


def sub_paths(teacher: Model, segments: Segments, schedule: Schedule, **options: Any) -> Any:
    """The same by `slam_loss`, gamma uniform. With tell=True the network must read gamma (`build(..., gamma=True)`)."""

    def loss(student: nn.Module, average: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        x0, eps, n, cond = _drawn(batch, segments, generator)
        gamma = torch.rand(len(x0), generator=generator, device=x0.device, dtype=x0.dtype)
        return slam_loss(
            student, average, teacher, x0, eps, n, gamma, segments, schedule, cond=cond, **options
        ).mean()  # fmt: skip

    return loss


def _drawn(
    batch: Batch, segments: Segments, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    if "x" not in batch:
        raise ValueError(f"data: expected rows 'x' (and conditions), got {', '.join(batch)}")
    x0 = batch["x"]
    eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    n = torch.randint(segments.steps, (len(x0),), generator=generator, device=x0.device)
    return x0, eps, n, {name: values for name, values in batch.items() if name != "x"}
