"""Fixed steps in the loop that keeps no books: the same states, gradients and resumptions as one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode import Save, SDETerm, Status, solve
from sciode.solvers.brownian.draws import Cells, standard_normals
from sciode.solvers.engines import march, products
from sciode.solvers.engines.straight import Straight

Seeded = Callable[[int], AbstractContextManager[None]]
DOUBLE = torch.float64


class Setting:
    """A network, a table of which a step reads one row, and a captured leaf."""

    def __init__(self, seeded: Seeded) -> None:
        with seeded(3):
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(DOUBLE)
            self.y0 = torch.randn(5, 3, dtype=DOUBLE).requires_grad_()
            self.table = torch.randn(33, 3, dtype=DOUBLE).requires_grad_()
            self.offset = torch.randn(3, dtype=DOUBLE).requires_grad_()

    def drift(self, t: Tensor, y: Tensor, table: Tensor) -> Tensor:
        row = (t.max() * 16).round().long().clamp(0, 32).view(1)
        return self.net(torch.cat((y, t.expand(len(y), 1)), -1)) + table.index_select(0, row)[0]

    def diffusion(self, t: Tensor, y: Tensor, table: Tensor) -> Tensor:
        return 0.3 * torch.cos(y + self.offset)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.y0, self.table, self.offset, *self.net.parameters()]


@pytest.fixture
def setting(seeded: Seeded) -> Setting:
    return Setting(seeded)


@pytest.fixture
def marches(traced_only: None, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each solve was a march."""
    seen: list[bool] = []
    inner = march.marched

    def watched(*arguments: Any) -> Any:
        found = inner(*arguments)
        seen.append(found is not None)
        return found

    monkeypatch.setattr("sciode.solvers.engines.march.marched", watched)
    return seen


GRIDS = {
    "end alone": torch.tensor([0.0, 2.0], dtype=DOUBLE),
    "every step": torch.arange(33, dtype=DOUBLE) / 16,
    "some steps, last one cut": torch.tensor([0.0, 0.25, 1.0, 1.98], dtype=DOUBLE),
    "backward": torch.tensor([2.0, 1.5, 0.0], dtype=DOUBLE),
}
METHODS = {"euler": "ito", "milstein": "ito", "heun": "stratonovich"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("cached", [True, False], ids=["kept", "taken again"])
def test_states_and_gradients_are_those_of_steps_one_by_one(
    setting: Setting, marches: list[bool], monkeypatch: pytest.MonkeyPatch, method: str, grid: str, cached: bool
) -> None:
    """In one stretch, and where a tape or the noise is long, in several."""
    ts = GRIDS[grid]
    term = SDETerm(setting.drift, setting.diffusion, calculus=METHODS[method])  # type: ignore[arg-type]
    if not cached:
        monkeypatch.setattr(products, "CACHED", 0)
        monkeypatch.setattr(march, "CACHED", 0)

    def found(engine: str) -> tuple[Tensor, ...]:
        how: dict[str, Any] = {"method": method, "dt": 1 / 16, "seed": 4, "engine": engine, "args": setting.table}
        solution = solve(term, setting.y0, ts, **how)
        assert solution.stats.engine == engine
        return (solution.ys, *torch.autograd.grad((solution.ys**2).sum(), setting.leaves))

    want = found("eager")
    for stretch in (10**6, 8 * setting.y0.numel() * 8):
        monkeypatch.setattr(march, "BLOCK_BYTES", stretch)
        for got, w in zip(found("compiled"), want, strict=True):
            torch.testing.assert_close(got, w, rtol=1e-11, atol=1e-12)
    assert marches[-1] and not (cached and not all(marches))


def test_an_output_within_a_step_and_an_adaptive_solve_are_no_marches(setting: Setting, marches: list[bool]) -> None:
    term = SDETerm(setting.drift, setting.diffusion)
    how: dict[str, Any] = {"dt": 1 / 16, "seed": 4, "args": setting.table}
    ts = torch.tensor([0.0, 0.3, 1.0], dtype=DOUBLE)
    with torch.no_grad():
        got, want = (solve(term, setting.y0, ts, engine=e, **how).ys for e in ("compiled", "eager"))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
    assert marches == [False]


def test_a_sample_that_fails_is_named_by_the_general_loop_and_spoils_no_other(marches: list[bool]) -> None:
    y0 = torch.tensor([[0.1], [30.0]], dtype=DOUBLE, requires_grad=True)
    term = SDETerm(lambda t, y: y**3, lambda t, y: 0.1 * y)
    found = {}
    for engine in ("compiled", "eager"):
        solution = solve(term, y0, [0.0, 0.5, 1.0], dt=1 / 16, seed=1, engine=engine, throw=False)
        assert solution.status.tolist() == [Status.SUCCESS, Status.NONFINITE]
        found[engine] = solution.ys[:, 0], torch.autograd.grad(solution.ys[-1, 0].sum(), y0)[0][0]
    assert marches and not any(marches)
    torch.testing.assert_close(found["compiled"], found["eager"], rtol=1e-11, atol=1e-12)


def test_a_march_is_resumed_from_before_its_last_step(setting: Setting, marches: list[bool]) -> None:
    term, how = SDETerm(setting.drift, setting.diffusion), {"dt": 1 / 16, "seed": 4, "engine": "compiled"}
    with torch.no_grad():
        begun = solve(term, setting.y0, [0.0, 1.0], args=setting.table, save=Save(state=True), **how)
        rest = solve(term, None, [1.0, 2.0], args=setting.table, resume=begun)
        whole = solve(term, setting.y0, [0.0, 1.0, 2.0], args=setting.table, **how)
    assert marches[0] and marches[-1]
    torch.testing.assert_close(rest.ys[-1], whole.ys[-1], rtol=1e-12, atol=1e-13)
    assert begun.stats.steps.tolist() == [16] * 5


def test_a_gradient_of_a_gradient_goes_through_a_march(setting: Setting, marches: list[bool]) -> None:
    term = SDETerm(setting.drift, setting.diffusion)
    ts = torch.tensor([0.0, 0.5], dtype=DOUBLE)

    def second(engine: str) -> Tensor:
        ys = solve(term, setting.y0, ts, args=setting.table, dt=1 / 16, seed=4, engine=engine).ys
        (slope,) = torch.autograd.grad(ys[-1].sum(), setting.y0, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), setting.offset)[0]

    torch.testing.assert_close(second("compiled"), second("eager"), rtol=1e-10, atol=1e-12)
    assert marches == [True]


def test_books_are_those_of_the_general_loop(setting: Setting, traced_only: None, monkeypatch: Any) -> None:
    """The same numbers to the last bit, the general loop being forced by taking marches away."""
    term = SDETerm(setting.drift, setting.diffusion)
    how: dict[str, Any] = {"dt": 0.07, "seed": 4, "engine": "compiled", "args": setting.table.detach()}
    ts = [0.0, 0.7, 1.0]
    with torch.no_grad():
        marched = solve(term, setting.y0, ts, **how)
        monkeypatch.setattr("sciode.solvers.engines.march.marched", lambda *arguments: None)
        general = solve(term, setting.y0, ts, **how)
    assert torch.equal(marched.ys, general.ys) and torch.equal(marched.valid, general.valid)
    assert marched.stats.steps.tolist() == general.stats.steps.tolist()
    assert marched.stats.calls == general.stats.calls


def test_normals_hashed_by_compiled_code_are_the_same_to_the_last_bit() -> None:
    seeds = torch.randint(-(2**62), 2**62, (7,), generator=torch.Generator().manual_seed(0))
    for channels, dtype in ((3, torch.float32), (9, torch.float64)):
        for cells in (Cells(0, 1, 40), Cells(11, -1, 11), Cells(0, 1, 1)):
            plain, fast = (standard_normals(seeds, cells, channels, 1, dtype, fast) for fast in (False, True))
            assert torch.equal(plain, fast)


def test_what_goes_past_the_guards_is_what_they_would_let_pass() -> None:
    """Other layouts and modes of gradients are compiled for anew."""
    traced = []

    def function(first: list[Tensor], second: list[Tensor] | None) -> tuple[Tensor, ...]:
        traced.append(1)
        return (first[0] * 2, first[1] + first[0]) if second is None else (first[0] - second[0],)

    straight = Straight(function, {})
    for x in (torch.ones(3), torch.ones(3) * 2, torch.ones(6)[::2]):
        for _ in range(2):
            y = x + 1
            double, both = straight([x, y], None)
            assert torch.equal(double, 2 * x) and torch.equal(both, x + y)
            assert torch.equal(straight([x], [y])[0], x - y)
    weight, other = torch.ones(3, requires_grad=True), torch.ones(3)
    assert straight([weight, other], None)[0].requires_grad
