"""`direct` on the device: a turn in two halves gives the tape's gradients, and keeps no more than it must."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace

from sciode import PID, Error, SDETerm, Solution, Stiffness, solve
from sciode.solvers.engines import CannotCompile, Engine, compiled, machine
from sciode.solvers.engines.partition import Asked, Place, partition

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
        return [self.scale, *{id(x): x for x in (self.offset, *self.net.parameters())}.values()]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


@pytest.fixture
def setting(seeded: Seeded) -> Setting:
    return Setting(seeded)


@pytest.fixture(autouse=True)
def short_blocks(traced_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape has several blocks."""
    monkeypatch.setattr(compiled, "_ROWS", 8)


ADAPTIVE: dict[str, Any] = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-8}
PENALTIES: dict[str, Any] = {
    # An error estimate is a small difference of large numbers: tolerances that leave it twelve digits.
    "method": "dopri5", "rtol": 1e-3, "atol": 1e-4,
    "regularize": (Error(), Error(power=2, name="square"), Stiffness()),
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "per sample": ADAPTIVE,
    "coupled": {**ADAPTIVE, "coupled": True},
    "rejections": {**ADAPTIVE, "controller": PID(first_step=1.0)},
    "penalties": PENALTIES,
    "penalties, coupled": {**PENALTIES, "coupled": True},
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


class Mixed(nn.Module):
    """A field with a block that no gradient passes, and with writes to what it has made itself."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(0.3 * torch.arange(9, dtype=DOUBLE).reshape(3, 3).sin())

    def forward(self, t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        with torch.no_grad():
            brake = 1 / (1 + y.square())
        f = y @ self.w
        f += torch.sin(t)
        return torch.relu_(f) * scale * brake


def test_no_grad_blocks_end_where_they_end_and_writes_to_own_tensors_are_no_obstacle(setting: Setting) -> None:
    field = Mixed()
    setting.net, setting.offset = field, field.w  # type: ignore[assignment]
    assert_agrees(setting, field, TS, ADAPTIVE)


def test_a_sample_whose_step_is_infinite_spoils_no_gradient(setting: Setting) -> None:
    def field(t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        # Not a number below 0, where a long first step takes one of the samples.
        return 0.1 * setting.field(t, y, scale) - y * y[..., :1].sqrt()

    setting.y0.data[:, 0] = torch.tensor([1.0, 0.5, 0.8, 1.2, 90.0], dtype=DOUBLE)
    ts = torch.linspace(0.0, 0.3, 4, dtype=DOUBLE)
    options = {**ADAPTIVE, "controller": PID(first_step=0.1)}
    eager = solve(field, setting.y0, ts, args=setting.scale, engine="eager", adjoint="direct", **options)
    ours = assert_agrees(setting, field, ts, options)
    assert torch.equal(eager.status, ours.status) and torch.equal(eager.stats.accepted, ours.stats.accepted)
    assert torch.equal(eager.stats.rejected, ours.stats.rejected)


def test_where_nobody_says_how_a_loop_keeps_what_fits_and_takes_steps_again_where_it_cannot(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    loop = compiled.run

    def run(problem: Any, start: Any, max_steps: int, watch: Any, request: Any, engine: str) -> Any:
        asked.append(request.kept)
        if request.kept and refuses:
            raise CannotCompile("for the sake of the test")
        return loop(problem, start, max_steps, watch, request, engine)

    monkeypatch.setattr(compiled, "run", run)
    # What a CPU would never choose.
    monkeypatch.setattr(Engine, "keeps", lambda self, y, fits: True if self.past.keeps is None else self.past.keeps)

    def gradient(**how: Any) -> list[Tensor]:
        found = solve(setting.field, setting.y0, TS, args=setting.scale, **ADAPTIVE, **how)
        return list(torch.autograd.grad(found.ys.square().mean(), [setting.y0, *setting.leaves]))

    exact = gradient(engine="eager", adjoint="direct")
    for refuses, kept in ((False, [True]), (True, [True, False]), (True, [False])):  # noqa: B007 (run reads it)
        asked.clear()
        torch.testing.assert_close(gradient(engine="compiled"), exact, rtol=1e-8, atol=1e-10)
        # Asked again where a solve has to begin with a look.
        assert [wish for wish, _ in groupby(asked)] == kept


def test_what_an_mlp_keeps_is_its_hidden_layer_and_its_input_once_an_evaluation(
    seeded: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, size, hidden = 7, 3, 40
    with seeded(0):
        net = nn.Sequential(nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, size)).to(DOUBLE)
        y0 = torch.randn(batch, size, dtype=DOUBLE)

    def field(t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return net(y + scale * torch.sin(t))

    scale = torch.ones(3, dtype=DOUBLE)
    how: dict[str, Any] = {**ADAPTIVE, "coupled": True, "engine": "compiled", "adjoint": "direct"}
    made: list[machine.Machine] = []
    monkeypatch.setattr(compiled, "Machine", lambda *arguments: made.append(machine.Machine(*arguments)) or made[-1])
    solve(field, y0, TS, args=scale, **how)
    evaluations = 6
    # Every weight gradient is a product with the layer's input: nothing less will do. A step length besides.
    bound = 8 * evaluations * batch * (hidden + size)
    assert [m.kept.halves.bytes for m in made if m.kept is not None] == [bound + 8]


def test_nothing_is_kept_that_is_steady_held_or_a_view() -> None:
    x, w, s = draw(3, 4, 4)

    def graph(x: Tensor, w: Tensor, s: Tensor) -> list[Tensor]:
        return [torch.tanh(x @ (w.T @ w)).T @ w + s.exp(), s.exp()]

    halves = partition(symbolic_trace(graph), [x, w, s], Asked(
        wanted=[0, 1, 2], like=[x, w, s], steady=[False, True, False], held=[Place("input", 0), Place("output", 1)],
        differentiated=[0],
    ))  # fmt: skip
    # The product of weights is steady, x and exp(s) are in the row: tanh alone is left.
    assert [tuple(r.shape) for r in halves.residuals] == [(4, 4)] and halves.bytes == 8 * 16
    out, e, kept = halves.forward(x, w, s)
    assert (halves.fixed, halves.held, halves.strangers) == ((1,), (0, 1), ())
    torch.testing.assert_close(kept, torch.tanh(x @ (w.T @ w)))
    got = halves.backward(w, x, e, kept, torch.ones_like(out))
    marked = [a.clone().requires_grad_() for a in (x, w, s)]
    want = torch.autograd.grad(graph(*marked)[0].sum(), marked)
    torch.testing.assert_close(got, list(want), rtol=1e-14, atol=1e-14)


def test_a_chain_of_cheap_operations_is_done_again_from_its_narrowest_place() -> None:
    x, w, ramp = draw(8, 2), draw(2, 2), torch.arange(1.0, 9.0, dtype=DOUBLE)

    def graph(x: Tensor, w: Tensor, ramp: Tensor) -> list[Tensor]:
        wide = (x @ w).unsqueeze(-1) * ramp
        return [(torch.cos(wide) * torch.exp(torch.sin(wide))).sum(-1)]

    asked = Asked([0, 1, -1], [x, w], [False, True, True], [Place("input", 0)], [0])
    halves = partition(symbolic_trace(graph), [x, w, ramp], asked)
    assert halves.bytes == 8 * 16


def test_a_path_that_is_missing_gives_zeros_and_a_stranger_is_told() -> None:
    x, y, p = draw(3), draw(3), nn.Parameter(draw(3))
    halves = partition(symbolic_trace(lambda x, y, p: [x * p, y > 0]), [x, y, p], Asked(
        wanted=[0, 1, -1], like=[x, y], steady=[False, False, True], held=[], differentiated=[0]
    ))  # fmt: skip
    assert halves.strangers == (2,) and halves.bytes == 0
    gx, gy = halves.backward(p, torch.ones(3, dtype=DOUBLE))
    assert torch.equal(gx, p) and torch.equal(gy, torch.zeros(3, dtype=DOUBLE))


def test_a_graph_that_draws_or_writes_is_refused() -> None:
    x = draw(3)
    asked = Asked([0], [x], [False], [], [0])
    with pytest.raises(CannotCompile, match="random"):
        partition(symbolic_trace(lambda x: [nn.functional.dropout(x)]), [x], asked)
    with pytest.raises(CannotCompile, match="writes"):
        partition(symbolic_trace(lambda x: [x.mul_(2)]), [x], asked)


def assert_agrees(setting: Setting, field: Any, ts: Tensor, options: dict[str, Any]) -> Solution:
    """Against autograd's tape: outputs, penalties, and the gradients of y0, args and leaves; also when repeated."""
    inputs = [setting.y0, *setting.leaves]

    def solved(engine: str) -> tuple[Solution, list[Tensor], tuple[Tensor, ...]]:
        solution = solve(field, setting.y0, ts, args=setting.scale, engine=engine, adjoint="direct", **options)
        assert solution.stats.engine == engine
        results = [solution.ys, *solution.penalties.values()]
        loss = (solution.ys**2).sum() + sum(p.sum() for p in solution.penalties.values())
        return solution, results, torch.autograd.grad(loss, inputs)

    _, theirs, want = solved("eager")
    for _ in range(2):
        solution, ours, got = solved("compiled")
        for o, t in zip(ours, theirs, strict=True):
            torch.testing.assert_close(o, t, rtol=1e-10, atol=1e-12)
        for g, w in zip(got, want, strict=True):
            assert (g - w).norm() <= 1e-12 * w.norm()
    return solution
