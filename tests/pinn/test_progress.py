"""A bar over a stage shows every iteration and the least loss of an arm."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tqdm.auto

from sciode.pde import Box
from sciode.pinn import Face, Names, Network, Numbers, Problem, dirichlet, solve
from sciode.pinn.progress import bar
from sciode.training import LBFGS, Adam


class Shown(list[Any]):
    """In the place of tqdm: what it was told."""

    def __init__(self, told: list[list[Any]], **options: Any) -> None:
        super().__init__([options["total"], options["desc"]])
        told.append(self)

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self) -> None:
        self.append(1)

    def set_postfix_str(self, said: str, refresh: bool) -> None:
        self.append(said)


def test_each_stage_has_a_bar_with_its_iterations_and_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[Any]] = []
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: Shown(told, **options))
    problem = Problem(
        "heat", Names(("x", "t"), ("u",)), Box((0, 0), (1, 1)), lambda d, p: d.u_t - d.u_xx,
        (dirichlet(Face("t", -1), 1.0),),
    )  # fmt: skip
    found = solve(
        problem, network=Network(4, 1), numbers=Numbers(8, 4, 4), stages=[Adam(4), LBFGS(3)], log=2, progress=True
    )
    for place, (shown, said) in enumerate(zip(told, ("stage 1 of 2", "stage 2 of 2"), strict=True)):
        losses = [f"loss {min(entry.loss):.2e}" for entry in found.history if entry.stage == place]
        assert shown[:2] == [(4, 3)[place], said] and shown.count(1) == shown[0]
        assert [one for one in shown[2:] if one != 1] == losses


def test_a_bar_tells_the_loss_of_arms_that_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[Any]] = []
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: Shown(told, **options))
    with bar(1, "x", True) as (_, tell):
        tell([math.nan, 0.25, 3.0])
        tell([math.nan])
    assert told[0][2:] == ["loss 2.50e-01", "loss nan"]
