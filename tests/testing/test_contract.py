"""`check_method` accepts good methods and names what a broken one breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import Tableau
from sciode.solvers import ExplicitRK, Step
from sciode.solvers.fields import Field
from sciode.solvers.steppers import Stepper
from sciode.solvers.steppers.explicit import scale_of
from sciode.testing import check_method

SSPRK3 = Tableau(
    name="ssprk3",
    order=3,
    c=(0, 1, 1 / 2),
    a=((), (1,), (1 / 4, 1 / 4)),
    b=(1 / 6, 1 / 6, 2 / 3),
    reference="Shu & Osher (1988)",
)


@dataclass(frozen=True)
class HeunByHand(Stepper):
    """Heun's method written out; subclasses break it."""

    name = "heunbyhand"
    kind = "ode"
    order = 2.0
    nstages = 2

    def start(self, field: Field, t: Tensor, y: Tensor, f0: Any) -> tuple[Tensor, ...]:
        return ()

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Any) -> Step:
        h = scale_of(dt, y)
        first = field.drift(t, y)
        second = field.drift(t + dt, y + h * first)
        return Step(self.combine(y, h, first, second), None, (), (first,), None, 2)

    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return y + h / 2 * (first + second)

    def basis(self, field: Field, t: Tensor, dt: Tensor, y: Tensor, step: Step) -> tuple[Tensor, ...]:
        return (step.stages[0], step.y1 - y)

    def weights(self, theta: Tensor, dt: Tensor) -> Tensor:
        return torch.stack((dt * theta * (1 - theta), theta * theta))


class WritesInPlace(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return first.add_(second).mul(h / 2) + y


class ReadsTheHost(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return y + (h / 2 if float(h.sum()) >= 0 else h / 2 + 0) * (first + second)


class ReadsUnseen(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return y + float(h.tolist()[0][0]) / 2 * (first + second)


class Draws(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return y + h / 2 * (first + second) + 0 * torch.rand_like(y)


class ClaimsMore(HeunByHand):
    order = 3.0


class MixesSamples(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return y + h / 2 * (first + second) + 1e-9 * h * y.mean()


class NeverRests(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return y + h / 2 * (first + second) + 1e-12


class LosesTheGradient(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return y + h / 2 * (first + second.detach())


class Miscounts(HeunByHand):
    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Any) -> Step:
        return super().step(field, noise, t, dt, y, memory)._replace(nfe=1)


class CrudeBetweenSteps(HeunByHand):
    def weights(self, theta: Tensor, dt: Tensor) -> Tensor:
        return torch.stack((0 * theta, theta.sqrt()))


class ForgetsWhatItHandsOn(HeunByHand):
    def start(self, field: Field, t: Tensor, y: Tensor, f0: Any) -> tuple[Tensor, ...]:
        return (y,)

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Any) -> Step:
        return super().step(field, noise, t, dt, y, memory)._replace(memory=(memory[0] + 1,))

    def essential(self, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return ()

    def restore(self, field: Field, t: Tensor, y: Tensor, essential: Any) -> tuple[Tensor, ...]:
        return (y,)


class WrongShape(HeunByHand):
    def combine(self, y: Tensor, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return (y + h / 2 * (first + second)).float()


def test_an_unregistered_table_passes() -> None:
    report = check_method(SSPRK3)
    assert (report.name, report.kind, report.nfe) == ("ssprk3", "ode", 3)
    assert report.order is not None and abs(report.order - 3) < 0.25
    assert check_method(ExplicitRK(SSPRK3)) == report


def test_a_stepper_written_by_hand_passes() -> None:
    report = check_method(HeunByHand())
    assert report.order is not None and abs(report.order - 2) < 0.25


def test_a_name_of_both_kinds_is_an_ode_method_unless_said() -> None:
    assert check_method("heun").kind == "ode"
    assert check_method("heun", kind="sde").kind == "sde"
    assert check_method("milstein").kind == "sde"


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (WritesInPlace, "writes in place"),
        (ReadsTheHost, "waits for the device"),
        (ReadsUnseen, "cannot trace a step as one graph"),
        (Draws, "global random stream"),
        (ClaimsMore, r"converges with order 2\.\d+ .* claims 3"),
        (MixesSamples, "alone and in a batch"),
        (NeverRests, "length zero moves the state"),
        (LosesTheGradient, "away from central differences"),
        (Miscounts, "evaluates the field 2 times and reports nfe=1"),
        (CrudeBetweenSteps, "dense output has order"),
        (ForgetsWhatItHandsOn, r"restore\(essential\(memory\)\) is not the memory"),
        (WrongShape, "y1 is torch.float32"),
    ],
)
def test_a_broken_stepper_is_refused_with_the_reason(broken: type[HeunByHand], sentence: str) -> None:
    with torch.random.fork_rng(devices=[]), pytest.raises(AssertionError, match=f"heunbyhand.*{sentence}"):
        check_method(broken())
