"""Regularizers against their formulas computed by hand in NumPy, their gradients, and what must be refused."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciode import PID, Backsolve, Error, Jacobian, Kinetic, SDETerm, Stiffness, Taylor, solve
from sciode.solvers.tableaux import explicit

RTOL, ATOL = 1e-4, 1e-6
REDUCE = {"sum": np.sum, "mean": np.mean, "max": np.max}
Y0 = torch.tensor([[2.0, 0.0], [0.5, -1.0], [1.0, 3.0]], dtype=torch.float64)


def field(t: Any, y: Any) -> Any:
    """Van der Pol's oscillator on NumPy arrays [2] and on tensors [B, 2]."""
    x, v = y[..., 0], y[..., 1]
    stack = torch.stack if isinstance(y, Tensor) else np.stack
    return stack((v, 3 * (1 - x * x) * v - x), -1)  # type: ignore[arg-type]


class Row(NamedTuple):
    """By hand, what a step of one sample gives: its error, scaled, its length, and the stiffness quotient."""

    scaled: float
    length: float
    stiffness: float


def step_by_hand(method: str, t: float, h: float, y: np.ndarray) -> tuple[np.ndarray, Row]:
    table = explicit()[method]
    slopes: list[np.ndarray] = []
    states: list[np.ndarray] = []
    for c, a in zip(table.c, table.a, strict=True):
        states.append(y + h * sum((w * k for w, k in zip(a, slopes, strict=False)), np.zeros_like(y)))
        slopes.append(field(t + c * h, states[-1]))
    assert table.b_error is not None
    y1 = y + h * sum(w * k for w, k in zip(table.b, slopes, strict=True))
    error = h * sum(w * k for w, k in zip(table.b_error, slopes, strict=True))
    scaled = np.sqrt(np.mean((error / (ATOL + RTOL * np.maximum(abs(y), abs(y1)))) ** 2))
    # The last two stages of tsit5 and dopri5 are both at the end of the step.
    quotient = np.linalg.norm(slopes[-1] - slopes[-2]) / np.linalg.norm(states[-1] - states[-2])
    return y1, Row(float(scaled), abs(h), float(quotient) / table.stability_extent)


def rows_by_hand(method: str, ts: Tensor, ys: Tensor) -> list[Row]:
    """One row for each step of one sample: times [N + 1], states [N + 1, 2]."""
    times, states = ts.numpy(), ys.numpy()
    rows = []
    for t, following, y, y1 in zip(times[:-1], times[1:], states[:-1], states[1:], strict=True):
        end, row = step_by_hand(method, t, following - t, y)
        np.testing.assert_allclose(end, y1, rtol=1e-9, atol=1e-12)
        rows.append(row)
    return rows


def check_against_hand(method: str, reduce: Any, ts: Any, coupled: bool = False) -> Tensor:
    terms = [Error(reduce), Error(reduce, power=2, name="squared"), Stiffness(reduce)]
    solution = solve(
        field, Y0, ts, method=method, rtol=RTOL, atol=ATOL, regularize=terms, save="steps", coupled=coupled
    )
    for i in range(len(Y0)):
        steps = int(solution.stats.accepted[i]) + 1
        times = solution.ts if solution.ts.ndim == 1 else solution.ts[:, i]
        rows = rows_by_hand(method, times[:steps], solution.ys[:steps, i])
        want = {
            "error": [r.scaled * r.length for r in rows],
            "squared": [r.scaled**2 for r in rows],
            "stiffness": [r.stiffness for r in rows],
        }
        for name, values in want.items():
            np.testing.assert_allclose(float(solution.penalties[name][i]), REDUCE[reduce](values), rtol=1e-6)
    return solution.stats.rejected


@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("ts", [[0.0, 4.0], [1.0, 0.2]])
def test_the_formulas_over_the_accepted_steps(method: str, reduce: str, ts: list[float]) -> None:
    check_against_hand(method, reduce, ts)


def test_rejected_steps_do_not_count() -> None:
    assert int(check_against_hand("tsit5", "sum", [0.0, 10.0]).max()) > 0


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_a_shared_step_size_still_gives_every_sample_its_own_value(reduce: str) -> None:
    check_against_hand("tsit5", reduce, [0.0, 4.0], coupled=True)


def test_names_stand_for_the_defaults_and_several_come_together() -> None:
    options: dict[str, Any] = {"rtol": RTOL, "atol": ATOL}
    both = solve(field, Y0, [0, 2], regularize=["error", Stiffness("max")], **options).penalties
    assert torch.equal(both["error"], solve(field, Y0, [0, 2], regularize=Error(), **options).penalties["error"])
    assert torch.equal(both["error"], solve(field, Y0, [0, 2], regularize="error", **options).penalties["error"])
    assert set(both) == {"error", "stiffness"}
    assert both["error"].shape == (3,)
    assert solve(field, Y0, [0, 2], **options).penalties == {}


def test_they_change_nothing_of_the_solution() -> None:
    plain = solve(field, Y0, [0, 1, 4])
    watched = solve(field, Y0, [0, 1, 4], regularize=("error", "stiffness"))
    assert torch.equal(plain.ys, watched.ys)
    assert torch.equal(plain.stats.nfe, watched.stats.nfe)


@pytest.mark.parametrize(("method", "extent"), [("tsit5", 3.5068), ("dopri5", 3.3066)])
def test_stiffness_of_linear_decay_is_the_rate_over_the_stability_extent(method: str, extent: float) -> None:
    rates = torch.tensor([[0.5], [3.0], [40.0]], dtype=torch.float64)
    solution = solve(lambda t, y: -rates[: len(y)] * y, torch.ones(3, 1, dtype=torch.float64), [0, 1], method=method,
                     regularize=Stiffness("mean"), batch_dims=1)  # fmt: skip
    torch.testing.assert_close(solution.penalties["stiffness"], rates[:, 0] / extent, rtol=1e-4, atol=0)


def test_the_error_falls_with_the_order_of_the_estimate() -> None:
    """tsit5's estimate is O(h^5): with fixed steps the sum of E h falls 2^5 times a halving."""
    sizes = [
        solve(field, Y0, [0, 1], dt=dt, regularize="error").penalties["error"] for dt in (1 / 64, 1 / 128, 1 / 256)
    ]
    for coarse, fine in itertools.pairwise(sizes):
        assert float(((coarse / fine).log2() - 5).abs().max()) < 0.25


def test_integrals_of_linear_decay_are_known() -> None:
    """y = y0 exp(-a t): |f|^2 = a^2 y^2, J = -a, and the k-th derivative is (-a)^k y."""
    a, y0 = torch.tensor([0.5, 1.5], dtype=torch.float64), torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    kinds = [Kinetic(), Jacobian(), *(Taylor(k, name=f"taylor {k}") for k in (1, 2, 3))]
    found = solve(lambda t, y: -a * y, y0, [0.0, 2.0], rtol=1e-9, atol=1e-9, regularize=kinds, seed=0).penalties
    square = y0[0] ** 2 * (1 - torch.exp(-4 * a)) / (2 * a)
    want = {"kinetic": (a**2 * square).sum(), "jacobian": 2 * (a**2).sum()}
    want |= {f"taylor {k}": (a ** (2 * k) * square).mean() for k in (1, 2, 3)}
    for name, value in want.items():
        torch.testing.assert_close(found[name][0], value, rtol=1e-6, atol=0, msg=name)


def test_the_jacobians_mean_over_seeds_is_its_norm_and_seeds_repeat() -> None:
    matrix = torch.tensor([[0.2, -1.0, 0.4], [0.7, 0.1, -0.3], [0.0, 0.5, -0.9]], dtype=torch.float64)
    y0 = torch.ones(1000, 3, dtype=torch.float64)

    def measure(seed: int, back: bool = False) -> Tensor:
        ts = [1.5, 0.0] if back else [0.0, 1.5]
        found = solve(lambda t, y: y @ matrix.T, y0, ts, dt=0.5, regularize="jacobian", seed=seed)
        return found.penalties["jacobian"]

    values = measure(0)
    standard_error = values.std() / len(values) ** 0.5
    assert float((values.mean() - 1.5 * matrix.square().sum()).abs() / standard_error) < 4
    assert torch.equal(values, measure(0))
    assert not torch.equal(values, measure(1))
    torch.testing.assert_close(measure(0, back=True), values)


def test_a_high_derivative_of_a_pendulum_is_that_of_its_exact_series() -> None:
    """The second derivative of the speed is -v cos theta, its third v^2 sin theta + sin theta cos theta."""

    def pendulum(t: Tensor, y: Tensor) -> Tensor:
        angle, speed = y.unbind(-1)
        return torch.stack((speed, -torch.sin(angle)), -1)

    y0 = torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    found = solve(pendulum, y0, [0.0, 1.0], rtol=1e-10, atol=1e-10, regularize=Taylor(3)).penalties["taylor"][0]
    ts = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)
    angle, speed = solve(pendulum, y0, ts, rtol=1e-10, atol=1e-10).ys[:, 0].unbind(-1)
    third = torch.stack((-torch.cos(angle) * speed, torch.sin(angle) * speed**2 + torch.sin(angle) * torch.cos(angle)))
    torch.testing.assert_close(found, torch.trapezoid(third.square().mean(0), ts), rtol=1e-5, atol=0)


def test_a_part_of_the_state_is_measured_as_if_it_were_alone() -> None:
    """The third component keeps an account of the other two, and is no place to be."""

    def moving(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(1.3 * y.flip(-1)) - t * y

    def kept(t: Tensor, y: Tensor) -> Tensor:
        account = 40.0 * y[..., :2].square().sum(-1, keepdim=True) + y[..., 2:]
        return torch.cat((moving(t, y[..., :2]), account), -1)

    y0 = torch.tensor([[0.3, -0.8], [1.2, 0.4]], dtype=torch.float64)
    wide = torch.cat((y0, torch.zeros(2, 1, dtype=torch.float64)), 1)
    alone = solve(moving, y0, [0.0, 1.0], dt=0.1, regularize=(Kinetic(), Jacobian(), Taylor(2)), seed=5).penalties
    parts = (Kinetic(part=2), Jacobian(part=2), Taylor(2, part=2))
    found = solve(kept, wide, [0.0, 1.0], dt=0.1, regularize=parts, seed=5).penalties
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=0, msg=name)
    with pytest.raises(ValueError, match=r"^part: how many"):
        Kinetic(part=0)


REGULARIZERS = [
    Kinetic(),
    Jacobian(),
    Taylor(2),
    Error(),
    Error("mean", power=2),
    Error("max"),
    Stiffness(),
    Stiffness("mean"),
    Stiffness("max"),
]


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=str)
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_gradients_are_finite_differences_where_the_steps_are_fixed(regularizer: Any, adjoint: str) -> None:
    def penalty(y0: Tensor, a: Tensor) -> Tensor:
        solution = solve(lambda t, y, a: torch.sin(a * y.flip(-1)) - y * t, y0, [0.0, 1.0], args=a, dt=0.23,
                         regularize=regularizer, adjoint=adjoint, rtol=1e-3, atol=1e-3, seed=0)  # fmt: skip
        return solution.penalties[regularizer.name]

    y0 = torch.tensor([[0.3, -0.8], [1.2, 0.4]], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([1.3, 0.7], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(penalty, (y0, a), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["error", "stiffness"])
def test_both_adjoints_agree_where_steps_are_rejected(name: str) -> None:
    gradients = []
    for adjoint in ("direct", "recompute"):
        y0 = Y0.clone().requires_grad_()
        solution = solve(field, y0, [0, 4], regularize=name, adjoint=adjoint, controller=PID(first_step=1.0))
        assert int(solution.stats.rejected.min()) > 0
        gradients.append(torch.autograd.grad(solution.penalties[name].sum() + solution.ys[-1].sum(), y0)[0])
    assert bool(torch.isfinite(gradients[0]).all())
    assert float(gradients[0].abs().min()) > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("regularizer", [r for r in REGULARIZERS if not isinstance(r, Jacobian)], ids=str)
def test_an_error_of_exactly_zero_has_a_gradient_of_zero(regularizer: Any, adjoint: str) -> None:
    """Sample 0 rests at 0, where all of them are 0 (0/0 for the stiffness) but the Jacobian; sample 1 moves."""
    y0 = torch.tensor([[0.0], [1.0]], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    solution = solve(lambda t, y, a: -a * y, y0, [0, 1], args=rate, regularize=regularizer, adjoint=adjoint)
    penalties = solution.penalties[regularizer.name]
    assert penalties[0] == 0
    assert penalties[1] > 0
    gradients = torch.autograd.grad(penalties.sum(), (y0, rate))
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert float(gradients[0][0]) == 0
    assert float(gradients[1]) > 0


def test_a_failed_sample_leaves_the_others_penalties_and_their_gradient_untouched() -> None:
    def breaking(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((y > 100) & (t > 0.5), torch.nan, -y)

    found = []
    for rows in ([1.0, 1000.0, 2.0], [1.0, 2.0]):
        y0 = torch.tensor(rows, dtype=torch.float64)[:, None].requires_grad_()
        solution = solve(breaking, y0, [0, 1], regularize=("error", "stiffness"), throw=False)
        keep = torch.tensor([0, -1])
        total = torch.stack([p[keep] for p in solution.penalties.values()])
        found.append((total.detach(), torch.autograd.grad(total.sum(), y0)[0][keep]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["error", "stiffness"])
@pytest.mark.parametrize("adjoint", ["backsolve", Backsolve()])
def test_backsolve_refuses_with_the_reason(name: str, adjoint: Any) -> None:
    with pytest.raises(ValueError, match=r"^adjoint: backsolve cannot .*solver's own steps.*adjoint='recompute'"):
        solve(field, Y0, [0, 1], regularize=name, adjoint=adjoint)


def test_methods_that_cannot_tell_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^regularize: 'bosh3' has no two stages at the same node.*tsit5 or dopri5"):
        solve(field, Y0, [0, 1], method="bosh3", regularize="stiffness")
    with pytest.raises(ValueError, match=r"^regularize: 'rk4' has no error estimate.*tsit5"):
        solve(field, Y0, [0, 1], method="rk4", dt=0.1, regularize="error")
    term = SDETerm(lambda t, y: -y, lambda t, y: torch.ones_like(y))
    for name in ("error", "stiffness"):
        with pytest.raises(ValueError, match=r"^regularize: 'euler' has no"):
            solve(term, Y0, [0, 1], dt=0.1, seed=0, regularize=name)
    with pytest.raises(ValueError, match=r"^regularize: 'sosri' has no two stages at the same node.*use 'error'"):
        solve(term, Y0, [0, 1], method="sosri", seed=0, regularize="stiffness")


@pytest.mark.parametrize(
    ("regularize", "message"),
    [
        ("eror", "error"),
        (3, "^regularize: expected a name or a Regularizer, got int"),
        (["error", Error("max")], "^regularize: two regularizers share a name"),
    ],
)
def test_what_is_no_regularizer_is_refused(regularize: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(field, Y0, [0, 1], regularize=regularize)


@pytest.mark.parametrize("kind", [Error, Stiffness])
def test_an_unknown_reduction_or_power_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="mean"):
        kind(reduce="men")
    with pytest.raises(ValueError, match=r"^Error: power must be 1"):
        Error(power=3)  # type: ignore[arg-type]


@pytest.mark.usefixtures("traced_only", "forgetful")
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=str)
def test_loops_on_the_device_measure_what_eager_measures(regularizer: Any, adjoint: str, seeded: Any) -> None:
    with seeded(0):
        net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    found = []
    for engine in ("compiled", "eager"):
        y0 = Y0.clone().requires_grad_()
        solution = solve(lambda t, y: net(y) - t * y, y0, [0.0, 1.0], regularize=regularizer, adjoint=adjoint,
                         engine=engine, rtol=1e-2, atol=1e-2, seed=0)  # fmt: skip
        assert solution.stats.engine == engine
        value = solution.penalties[regularizer.name]
        found.append((value.detach(), *torch.autograd.grad(value.sum(), (y0, *net.parameters()))))
    for ours, eager in zip(*found, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-6, atol=1e-9)
