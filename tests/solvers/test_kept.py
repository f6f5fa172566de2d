"""`direct` on the device: a turn in two halves gives the gradients of autograd's tape, and keeps no more than it must."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sciode import PID, Error, SDETerm, Stiffness, solve
from sciode.solvers.adjoints import unwind as unwinding
from sciode.solvers.adjoints.results import results
from sciode.solvers.adjoints.rewind import seeds_of
from sciode.solvers.adjoints.unwind import Kept, start_vjp, unwind
from sciode.solvers.engines import CannotCompile, KeptTurn, compiled, lift_take, split_clock
from sciode.solvers.engines.kept import take_flat
from sciode.solvers.engines.lift import Lift
from sciode.solvers.engines.partition import Asked, Place, partition
from sciode.solvers.engines.repeat import step_by_step
from sciode.solvers.outputs import Save
from sciode.solvers.terms import as_term
from sciode.solvers.begin import Wish, begin
from sciode.solvers.trajectory import Block, Run, Tape
from sciode.solvers.turn import Plan, Sinks

Seeded = Callable[[int], AbstractContextManager[None]]
DOUBLE = torch.float64
TS = torch.linspace(0.0, 2.0, 6, dtype=DOUBLE)


class Setting:
    """A neural field of (t, y, args) with a captured leaf beside its module."""

    def __init__(self, seeded: Seeded) -> None:
        with seeded(3):
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(DOUBLE)
            self.y0 = torch.randn(5, 3, dtype=DOUBLE).requires_grad_()
            self.scale = (torch.rand(5, 1, dtype=DOUBLE) + 0.5).requires_grad_()
            self.offset = torch.randn(3, dtype=DOUBLE).requires_grad_()

    def field(self, t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return self.net(torch.cat((y, t), dim=-1)) * scale + self.offset.sin()

    def diffusion(self, t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return 0.2 * scale * torch.cos(y + self.offset)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.scale, self.offset, *self.net.parameters()]


@pytest.fixture
def setting(seeded: Seeded) -> Setting:
    return Setting(seeded)


class Way(NamedTuple):
    """A solve by repeated halves: the last of the problem, its run, what its blocks kept."""

    turn: KeptTurn
    run: Run
    kept: list[Kept]


def there(field: Any, y0: Tensor, ts: Tensor, args: Tensor, leaves: list[Tensor], options: dict[str, Any]) -> Any:
    """Repeat the forward half until all samples have ended; the way, and a function from cotangents to gradients."""
    names = ("method", "dt", "rtol", "atol", "controller", "save", "batch_dims", "coupled", "noise", "seed", "regularize")
    usual = {"method": None, "dt": None, "rtol": 1e-5, "atol": 1e-6, "controller": None, "save": Save("ts"), "noise": None}
    usual |= {"batch_dims": None, "coupled": False, "seed": None, "regularize": ()}
    begun = begin(as_term(field), y0, ts, args, Wish(*((usual | options)[name] for name in names)))
    carry = pytree.tree_map(lambda x: x.detach(), begun.carry)
    own = [a.detach() for a in begun.arg_tensors]
    problem = replace(begun.problem, field=begun.bind(own))
    if problem.steps is not None and problem.s0.shape[0] == 1:
        problem, carry = split_clock(problem, carry)
    way = walk_there(problem, carry, [*own, *leaves])

    def back(cotangents: list[Tensor]) -> list[Tensor]:
        seeds = seeds_of(way.run, y0, tuple(cotangents))
        walk = unwind(way.turn, way.kept, seeds, "compiled")
        marked = [a.detach().requires_grad_() for a in own]
        start, totals = start_vjp(replace(problem, field=begun.bind(marked)), y0, walk, [*marked, *leaves])
        return [seeds.start + start, *totals]

    return way, back


def walk_there(problem: Any, carry: Any, sources: list[Tensor], room: int = 8) -> Way:
    """Blocks of `room` rows, one after the other."""
    plan = Plan(compiled._width(problem, carry), False, True, True)
    times = nn.functional.pad(problem.output.times, (0, plan.width + 1), value=torch.inf)
    out = carry.y.new_zeros(problem.output.times.shape[1] + 1, *carry.y.shape)
    loop, lift, turn = compiled._first(plan, carry), Lift(take_flat), None
    last = torch.full((), room)
    kept, word = [], [1, 1, 0, 0, 0, 0]
    while word[1]:
        block = compiled._block(problem, plan, loop)
        rows = pytree.tree_map(lambda c: c[: room + 1].clone(), block)
        fed, limits, first = compiled._feed(problem, loop, compiled._limits(1000, loop, word[5] + 1000))
        with torch.no_grad():
            lifted = lift_take(lift, fed, plan, times, limits, loop, last)
            if turn is None:
                turn = KeptTurn(lifted, fed, loop, sources)
            columns = turn.columns(room)
            tensors, positions, _ = turn.arguments(lifted.inputs, Sinks(out, rows), columns)
            found, word = step_by_step(turn.once, positions)(tensors)
        loop = pytree.tree_unflatten(found, pytree.tree_structure(loop))
        kept.append(Kept(Block(rows, word[4], first), columns, turn.fixed(lifted.inputs)))
        loop = loop._replace(row=torch.zeros_like(loop.row), word=torch.ones_like(loop.word))
    assert turn is not None and lift.traces == 1
    tape = Tape(out[:-1], loop.count, tuple(k.block for k in kept))
    run = Run(problem, loop.carry, loop.carry, [], [], word[5], word[5], problem.stepper.nfe, tape, "compiled", bool(word[2]))
    return Way(turn, run, kept)


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and repeated, but not compiled."""
    monkeypatch.setattr(unwinding, "loop_of", lambda engine, device, body, positions: step_by_step(body, positions))
    monkeypatch.setattr(compiled, "_widths", {})


ADAPTIVE: dict[str, Any] = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-8}
PENALTIES = {"regularize": (Error(), Error(power=2, name="square"), Stiffness())}
CASES: dict[str, dict[str, Any]] = {
    "per sample": ADAPTIVE,
    "coupled": {**ADAPTIVE, "coupled": True},
    "rejections": {**ADAPTIVE, "controller": PID(first_step=1.0)},
    "penalties": {**ADAPTIVE, **PENALTIES},
    "penalties, coupled": {**ADAPTIVE, **PENALTIES, "coupled": True},
    "no fsal": {"method": "rk4", "dt": 0.13},
    "extra stages": {"method": "dopri8", "rtol": 1e-7},
    "tsit5": {},
}


@pytest.mark.parametrize("case", CASES)
def test_its_gradients_are_those_of_the_tape(case: str, setting: Setting) -> None:
    assert_agrees(setting, setting.field, TS, CASES[case])


@pytest.mark.parametrize("method", ["euler", "milstein", "heun", "reversibleheun"])
def test_noise_is_the_same_on_the_way_back(method: str, setting: Setting) -> None:
    calculus: Any = "ito" if method == "euler" else "stratonovich"
    term = SDETerm(setting.field, setting.diffusion, calculus=calculus)
    assert_agrees(setting, term, TS, {"method": method, "dt": 0.09, "seed": 5})


def test_samples_may_have_times_of_their_own(setting: Setting) -> None:
    own = TS[:, None] * torch.linspace(0.5, 1.5, 5, dtype=DOUBLE)
    own[4:, 2] = torch.nan
    assert_agrees(setting, setting.field, own, ADAPTIVE)
    assert_agrees(setting, setting.field, TS.flip(0), ADAPTIVE)


def test_a_step_that_passes_more_outputs_than_a_turn_writes_is_differentiated_once(setting: Setting) -> None:
    assert_agrees(setting, setting.field, torch.linspace(0.0, 2.0, 301, dtype=DOUBLE), {"rtol": 1e-3, "atol": 1e-3})


def assert_agrees(setting: Setting, field: Any, ts: Tensor, options: dict[str, Any], relative: float = 1e-12) -> Way:
    """Against `solve` with autograd's tape: outputs, penalties, and the gradients of y0, args and leaves."""
    eager = solve(field, setting.y0, ts, args=setting.scale, engine="eager", adjoint="direct", **options)
    way, back = there(field, setting.y0, ts, setting.scale, setting.leaves[1:], options)
    ours = results(setting.y0.detach(), way.run).tensors()
    theirs = [eager.ys, *eager.penalties.values()]
    for o, t in zip(ours, theirs, strict=True):
        torch.testing.assert_close(o, t, rtol=1e-10, atol=1e-12)
    loss = (eager.ys**2).sum() + sum(p.sum() for p in eager.penalties.values())
    want = torch.autograd.grad(loss, [setting.y0, *setting.leaves])
    got = back([2 * ours[0], *(torch.ones_like(p) for p in ours[1:])])
    for g, w in zip(got, want, strict=True):
        assert (g - w).norm() <= relative * w.norm()
    return way
