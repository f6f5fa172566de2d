"""Gradients of weights as one product over all steps: the same numbers, and taken out of the loop where they can be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from sciode import PID, Error, SDETerm, solve
from sciode.solvers.engines import compiled, postpone, products
from sciode.solvers.engines.products import Postponed, totals

Seeded = Callable[[int], AbstractContextManager[None]]
DOUBLE, CPU = torch.float64, torch.device("cpu")
TS = torch.linspace(0.0, 2.0, 6, dtype=DOUBLE)


@pytest.fixture(autouse=True)
def worth_it_here(traced_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU too, and a tape has several blocks."""
    monkeypatch.setattr(products, "_PAYS", frozenset({"cpu"}))
    monkeypatch.setattr(compiled, "_ROWS", 8)


class Setting:
    """Two networks, one of them of several models side by side, and an argument of each sample."""

    def __init__(self, seeded: Seeded) -> None:
        with seeded(3):
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).to(DOUBLE)
            self.models = torch.randn(2, 3, 3, dtype=DOUBLE).mul(0.3).requires_grad_()
            self.y0 = torch.randn(6, 3, dtype=DOUBLE).requires_grad_()
            self.scale = (torch.rand(6, 3, 3, dtype=DOUBLE) * 0.2).requires_grad_()

    def field(self, t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        """The matrix of `models` is that of each half of the batch; `scale` is a matrix for every sample."""
        halves = torch.bmm(y.reshape(2, 3, 3), self.models).reshape(6, 3)
        return self.net(torch.cat((y, t), dim=-1)) + halves + (scale @ y.unsqueeze(-1)).squeeze(-1)

    def diffusion(self, t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return 0.2 * torch.cos(y @ self.models[0])

    @property
    def leaves(self) -> list[Tensor]:
        return [self.scale, self.models, *self.net.parameters()]


@pytest.fixture
def setting(seeded: Seeded) -> Setting:
    return Setting(seeded)


CASES: dict[str, dict[str, Any]] = {
    "per sample": {"method": "dopri5", "rtol": 1e-6, "atol": 1e-8},
    "coupled": {"method": "dopri5", "rtol": 1e-6, "atol": 1e-8, "coupled": True},
    "rejections": {"method": "dopri5", "rtol": 1e-6, "atol": 1e-8, "controller": PID(first_step=1.0)},
    "fixed steps, more than a block": {"method": "rk4", "dt": 0.13},
    "penalties": {"method": "dopri5", "rtol": 1e-3, "atol": 1e-4, "regularize": Error()},
}


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradients_are_those_of_the_tape(
    case: str, adjoint: Any, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_agrees(setting, setting.field, adjoint, CASES[case], monkeypatch)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_drift_and_diffusion_may_share_a_weight(
    adjoint: Any, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    term = SDETerm(setting.field, setting.diffusion)
    assert_agrees(setting, term, adjoint, {"method": "euler", "dt": 0.09, "seed": 5}, monkeypatch)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_a_long_tape_sums_its_products_step_by_step_and_a_short_end_of_it_does_not(
    adjoint: Any, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tape of two stretches, of which memory affords the factors of the second, shorter one."""
    monkeypatch.setattr(Postponed, "fits", lambda own, count: count < 8)
    seen = assert_agrees(setting, setting.field, adjoint, {"method": "rk4", "dt": 0.18}, monkeypatch)
    assert len(seen) == 2, "once in each of two walks"


def assert_agrees(
    setting: Setting, field: Any, adjoint: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> list[dict[int, Tensor]]:
    """Loop against tape; and of the loop's gradients those of the weights are products, which it returns."""
    inputs, seen = [setting.y0, *setting.leaves], []

    def watched(*arguments: Any) -> dict[int, Tensor]:
        seen.append(totals(*arguments))
        return seen[-1]

    monkeypatch.setattr("sciode.solvers.engines.walk.totals", watched)

    def gradients(engine: str, adjoint: Any) -> tuple[Tensor, ...]:
        solution = solve(field, setting.y0, TS, args=setting.scale, engine=engine, adjoint=adjoint, **options)
        assert solution.stats.engine == engine
        loss = (solution.ys**2).sum() + sum(p.sum() for p in solution.penalties.values())
        return torch.autograd.grad(loss, inputs)

    want = gradients("eager", "direct")
    assert not seen
    for _ in range(2):
        got = gradients("compiled", adjoint)
        for g, w in zip(got, want, strict=True):
            assert (g - w).norm() <= 1e-11 * w.norm()
    assert {g.shape for g in seen[0].values()} >= {p.shape for p in setting.net.parameters() if p.ndim > 1}
    return seen


def taken_out(f: Callable[..., Any], *inputs: Tensor, fixed: frozenset[int] = frozenset()) -> Postponed:
    return postpone(make_fx(f)(*inputs), 0, fixed, {}, CPU)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=DOUBLE)


def test_a_sum_over_stages_is_one_product_and_factors_that_serve_twice_are_written_once() -> None:
    x, g = draw(5, 3), draw(5, 2)

    def pulled(x: Tensor, g: Tensor) -> list[Tensor]:
        first, second = x.sin(), g * 2
        return [(first.t() @ g).t() + (x.t() @ second).t(), g.sum([0], True).view(2) + second.sum([0], True).view(2)]

    found = taken_out(pulled, x, g)
    assert set(found.products) == {0, 1} and len(found.factors) == 4
    rows = [torch.stack(column) for column in zip(found.graph(x, g), found.graph(2 * x, g), strict=True)]
    got = totals(found.products, {"written": rows}, 2)
    for i, want in enumerate(a + b for a, b in zip(pulled(x, g), pulled(2 * x, g), strict=True)):
        torch.testing.assert_close(got[i], want, rtol=1e-13, atol=1e-13)
    short = totals(found.products, {"written": rows}, 1)
    torch.testing.assert_close(short[0], pulled(x, g)[0], rtol=1e-13, atol=1e-13)


def test_what_is_no_such_sum_stays_where_it_is() -> None:
    x, w = draw(5, 3), draw(3, 3)
    assert not taken_out(lambda x, w: [x.sin()], x, w).products
    assert not taken_out(lambda x, w: [x.t() @ x + w], x, w).products
    assert not taken_out(lambda x, w: [x.t() @ x + (x.t() @ x).t().contiguous().exp()], x, w).products
    # A weight is the same in every step: writing it down would be no gain.
    assert not taken_out(lambda x, w: [x @ w], x, w, fixed=frozenset({1})).products
    assert taken_out(lambda x, w: [x @ w], x, w).products


def test_large_factors_are_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(5, 3)
    assert taken_out(lambda x: [x.t() @ x.sin()], x).products
    monkeypatch.setattr(products, "_ROOM", 2 * x.numel() * 8 - 1)
    assert not taken_out(lambda x: [x.t() @ x.sin()], x).products


def test_what_a_long_tape_would_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(5, 3)
    found = taken_out(lambda x: [x.t() @ x.sin()], x)
    monkeypatch.setattr(products, "_HELD", 17 * 2 * x.numel() * 8)
    assert found.fits(9) and found.fits(16) and not found.fits(17)
    assert Postponed.none(found.graph).fits(10**6)
