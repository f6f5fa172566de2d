"""Ways to evaluate a loss: they are one function, and programs of one family are compiled once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

from sciode.pde import Box
from sciode.pinn import (
    CPINN,
    FAMILIES,
    RAD,
    Causal,
    Face,
    Names,
    Network,
    Numbers,
    Problem,
    Redraw,
    dirichlet,
    solve,
    strips,
)
from sciode.pinn import engines as module
from sciode.training import LBFGS, Adam

TINY, FEW = Network(4, 1), Numbers(12, 6, 4)


def solved(family: str, value: float, engine: str, **changes):
    problem = FAMILIES[family].make(value)
    how = {"stages": [Adam(4, lr=1e-2), LBFGS(3)], "conditions": ("average",), **changes}
    return solve(problem, FAMILIES[family].cut(problem), network=TINY, numbers=FEW, engine=engine, **how)


def test_a_compiled_loss_trains_to_the_same_weights_and_tasks_of_a_family_compile_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    monkeypatch.setattr(module, "_compiled", type(module._compiled)())
    monkeypatch.setattr(module, "_inductor", lambda graph: made.append(graph) or graph)
    for value in (3.0, 7.0):
        theirs, ours = (solved("advection", value, engine, conditions=CPINN) for engine in ("eager", "compile"))
        torch.testing.assert_close(ours.theta, theirs.theta, rtol=1e-9, atol=1e-12)
    assert len(made) == 1


def test_another_number_of_arms_or_another_family_is_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(module, "_compiled", type(module._compiled)())
    monkeypatch.setattr(module, "_inductor", lambda graph: made.append(graph) or graph)
    solved("advection", 3.0, "compile")
    solved("advection", 3.0, "compile", conditions=[("average",)] * 2)
    solved("reaction", 3.0, "compile")
    assert len(made) == 3


def test_constants_of_a_program_tell_it_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is scaled by its piece's box: other cuts are other numbers in the same operations."""
    made = []
    monkeypatch.setattr(module, "_compiled", type(module._compiled)())
    monkeypatch.setattr(module, "_inductor", lambda graph: made.append(graph) or graph)
    problem = FAMILIES["reaction"].make(2.0)
    assert isinstance(problem.domain, Box)
    for cut in (0.5, 0.7):
        how = {"network": TINY, "numbers": FEW, "stages": [Adam(3, lr=1e-2)], "conditions": ("average",)}
        found = [
            solve(problem, strips(problem.domain, 1, [cut]), engine=engine, **how).theta
            for engine in ("eager", "compile")
        ]
        torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    assert len(made) == 2


def test_only_the_latest_programs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_compiled", type(module._compiled)())
    monkeypatch.setattr(module, "_inductor", lambda graph: graph)
    monkeypatch.setattr(module, "_KEPT", 2)
    for count in (1, 2, 3):
        solved("advection", 3.0, "compile", conditions=[("average",)] * count)
    assert len(module._compiled) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"causal": Causal(), "stages": [Adam(4, lr=1e-2)]},
        {"redraw": Redraw(2, RAD(candidates=32)), "stages": [Adam(5, lr=1e-2)]},
        {"chunk": 5},
    ],
    ids=["causal", "redrawn", "chunked"],
)
def test_what_moves_or_weighs_points_reaches_a_program(changes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_inductor", lambda graph: graph)
    theirs, ours = (solved("burgers", 0.02, engine, **changes) for engine in ("eager", "compile"))
    torch.testing.assert_close(ours.theta, theirs.theta, rtol=1e-9, atol=1e-12)


def test_inductor_gives_the_same_numbers() -> None:
    how = {"stages": [Adam(3, lr=1e-2)], "conditions": ()}
    theirs, ours = (solved("reaction", 2.0, engine, **how) for engine in ("eager", "compile"))
    torch.testing.assert_close(ours.theta, theirs.theta, rtol=1e-9, atol=1e-12)


def test_a_number_of_the_equation_may_be_anything_that_is_no_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """An int stays one: equations may count with it."""
    monkeypatch.setattr(module, "_inductor", lambda graph: graph)
    problem = Problem(
        name="waves",
        names=Names(("x",), ("u",)),
        domain=Box((0,), (1,)),
        equation=lambda d, p: d.u_xx + sum(p.size * torch.sin(math.pi * k * d.x) for k in range(1, p.terms + 1)),
        conditions=(dirichlet(Face("x"), lambda x: 0 * x),),
        parameters={"terms": 2, "size": 1.5},
    )
    found = [
        solve(problem, network=TINY, numbers=FEW, stages=[Adam(3)], engine=engine).theta
        for engine in ("eager", "compile")
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "of",
    [lambda k: math.sqrt(k), lambda k: 1.0 if k > 1 else 2.0, lambda k: float(int(k)), lambda k: float(f"{k:.3f}")],
    ids=["math", "if", "int", "format"],
)
def test_an_equation_may_ask_for_a_numbers_value_and_is_compiled_for_each(of, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(module, "_compiled", type(module._compiled)())
    monkeypatch.setattr(module, "_inductor", lambda graph: made.append(graph) or graph)
    told = dirichlet(Face("x"), 0.0)
    for size in (1.5, 2.5):
        problem = Problem(
            "sized", Names(("x",), ("u",)), Box(0, 1), lambda d, p: d.u_xx - of(p.size), (told,), {"size": size}
        )
        how = {"network": TINY, "numbers": FEW, "stages": [Adam(3)]}
        theirs, ours = (solve(problem, engine=engine, **how) for engine in ("eager", "compile"))
        torch.testing.assert_close(ours.theta, theirs.theta, rtol=1e-9, atol=1e-12)
    assert len(made) == (1 if of(1.5) == of(2.5) else 2)


def test_an_equation_that_looks_at_its_fields_values_is_not_compiled() -> None:
    def equation(d, p):
        return d.u_xx if bool((d.u > -9).any()) else d.u

    problem = Problem("looks", Names(("x",), ("u",)), Box(0, 1), equation, (dirichlet(Face("x"), 0.0),))
    with pytest.raises(ValueError, match="cannot be compiled"):
        solve(problem, network=TINY, numbers=FEW, stages=[Adam(3)], engine="compile")


def test_unknown_engines_and_recording_without_a_card_are_refused() -> None:
    with pytest.raises(ValueError, match="engine"):
        solved("reaction", 2.0, "fast")
    with pytest.raises(ValueError, match="CUDA"):
        solved("reaction", 2.0, "capture")


@final
class Whole(module.Engine):
    """Makes a program of every iteration, and runs it as it is written."""

    records = True
    made: ClassVar[list[module.Program]] = []
    evaluations: ClassVar[list[module.Program]] = []

    def prepared(self, program: module.Program, inputs: Sequence[Tensor]) -> module.Program:
        self.evaluations.append(program)
        return program

    def recorded(self, program: module.Program, inputs: Sequence[Tensor]) -> module.Program:
        self.made.append(program)
        return program


def test_an_iteration_as_one_program_is_the_same_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.ENGINES, "auto", lambda device: Whole())
    stages = [Adam(6, lr=1e-2, schedule="cosine"), LBFGS(8)]
    Whole.made.clear()
    Whole.evaluations.clear()
    theirs, ours = (solved("burgers", 0.02, engine, stages=stages) for engine in ("eager", "auto"))
    torch.testing.assert_close(ours.theta, theirs.theta, rtol=0, atol=0)
    # Both stages' iterations, and the evaluation that was made more than once.
    assert len(Whole.made) == 3
    assert len(Whole.evaluations) == 1


def test_an_iteration_that_meets_what_is_singular_is_made_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The square root of a distance has no slope at the interface; the arm that does not look there is not touched."""
    problem = Problem(
        name="root",
        names=Names(("x",), ("u",)),
        domain=Box((0,), (1,)),
        equation=lambda d, p: d.u_xx,
        conditions=(dirichlet(Face("x"), lambda x: 0 * x),),
        flux=lambda d, p: (torch.sqrt(0 * d.u**2) * d.u_x,),
    )
    monkeypatch.setitem(module.ENGINES, "auto", lambda device: Whole())
    how = {"network": TINY, "numbers": FEW, "stages": [Adam(5, lr=1e-2)], "conditions": [("average",), ("flux",)]}
    cut = strips(Box((0,), (1,)), 0, [0.5])
    theirs, ours = (solve(problem, cut, engine=engine, **how) for engine in ("eager", "auto"))
    assert theirs.status[0] == "budget" and theirs.status[1].startswith("non-finite")
    assert ours.status == theirs.status
    torch.testing.assert_close(ours.theta, theirs.theta, rtol=0, atol=0)
