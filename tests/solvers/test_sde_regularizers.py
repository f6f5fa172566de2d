"""Regularizers along SDEs: the error of the method's own embedding, on the path of the solve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode import PID, Error, Local, SDETerm, sample_seeds, solve
from sciode.solvers.brownian import BrownianTree

A, B, RTOL, ATOL = 0.4, 0.8, 1e-3, 1e-4
SEEDS = sample_seeds(3, 3)
Y0 = torch.tensor([[1.0], [-0.5], [2.0]], dtype=torch.float64)
TERM = SDETerm(lambda t, y: A * y, lambda t, y: B * y, calculus="stratonovich")
ERRORS = [Error(), Error("mean", power=2), Error("max")]
LOCALS = [
    Local(),
    Local(at="accepted"),
    Local(step="solver"),
    Local(state="attached"),
    Local(at="accepted", step="solver"),
    Local(Error(power=2)),
]


def rows_by_hand(ts: np.ndarray, ys: np.ndarray, sample: int) -> tuple[list[float], list[float]]:
    """Scaled errors and lengths of Heun's steps between the times of one sample, computed in NumPy."""
    low, span = (torch.tensor([x], dtype=torch.float64) for x in (ts.min(), np.ptp(ts)))
    tree = BrownianTree(SEEDS[sample : sample + 1], 1, low, span, 26, False, torch.float64)
    w = tree.path(torch.from_numpy(ts)[:, None])[:, 0, 0].numpy()
    scaled, lengths = [], []
    for i, (h, dw) in enumerate(zip(np.diff(ts), np.diff(w), strict=True)):
        y = ys[i]
        predicted = y + A * y * h + B * y * dw
        y1 = y + 0.5 * A * (y + predicted) * h + 0.5 * B * (y + predicted) * dw
        np.testing.assert_allclose(y1, ys[i + 1], rtol=1e-7)
        scaled.append(abs(y1 - predicted) / (ATOL + RTOL * max(abs(y), abs(y1))))
        lengths.append(abs(h))
    return scaled, lengths


@pytest.mark.parametrize("ts", [[0.0, 1.0], [1.5, 0.5]])
def test_the_error_is_that_of_the_accepted_steps(ts: list[float]) -> None:
    kinds = [Error(), Error("mean", power=2, name="squared"), Error("max", name="largest")]
    solution = solve(TERM, Y0, ts, method="heun", rtol=RTOL, atol=ATOL, seed=SEEDS, regularize=kinds, save="steps")
    assert int(solution.stats.rejected.min()) > 0
    for i in range(3):
        steps = int(solution.stats.accepted[i]) + 1
        scaled, lengths = rows_by_hand(solution.ts[:steps, i].numpy(), solution.ys[:steps, i, 0].numpy(), i)
        each = np.array(scaled) * np.array(lengths)
        want = {"error": each.sum(), "squared": np.mean(np.square(scaled)), "largest": each.max()}
        for name, value in want.items():
            np.testing.assert_allclose(float(solution.penalties[name][i]), value, rtol=1e-6)


def loss(parameters: Tensor, y0: Tensor, regularizer: Any, **how: Any) -> Tensor:
    term = SDETerm(
        lambda t, y, a: torch.sin(a[0] * y) - t * y, lambda t, y, a: a[1] * torch.cos(y), calculus="stratonovich"
    )
    settled = {"rtol": 1e-1, "atol": 1e-1, "controller": PID(first_step=0.15, dtmax=0.15, factormin=0.9999), **how}
    solution = solve(term, y0, [0.0, 1.0], args=parameters, regularize=regularizer, seed=5, **settled)
    return solution.penalties[regularizer.name].sum()


@pytest.mark.parametrize("method", ["heun", "spark"])
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("regularizer", ERRORS, ids=str)
@pytest.mark.parametrize("fixed", [False, True])
def test_its_gradient_is_the_finite_difference_on_the_same_steps(
    regularizer: Any, adjoint: str, method: str, fixed: bool
) -> None:
    how: dict[str, Any] = {"method": method, "adjoint": adjoint}
    # Steps that no tolerance shortens are the same for neighbouring parameters.
    how |= {"dt": 0.15, "controller": None} if fixed else {"rtol": 10.0, "atol": 10.0}
    a = torch.tensor([1.3, 0.5], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[0.3], [-0.8]], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda a, y0: loss(a, y0, regularizer, **how), (a, y0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["sriw1", "sosri"])
def test_both_adjoints_agree_on_it_where_steps_are_rejected(method: str) -> None:
    term = SDETerm(lambda t, y: A * y, lambda t, y: torch.cos(3 * y))
    found = []
    for adjoint in ("direct", "recompute"):
        y0 = Y0.clone().requires_grad_()
        solution = solve(term, y0, [0, 1], method=method, rtol=1e-2, atol=1e-2, seed=2, regularize="error",
                         adjoint=adjoint)  # fmt: skip
        assert int(solution.stats.rejected.max()) > 0
        found.append(torch.autograd.grad(solution.penalties["error"].sum(), y0)[0])
    assert float(found[0].abs().min()) > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["heun", "spark"])
@pytest.mark.parametrize("local", LOCALS, ids=str)
def test_a_local_step_is_positive_repeats_and_changes_nothing(local: Any, method: str) -> None:
    options: dict[str, Any] = {"method": method, "rtol": 1e-2, "atol": 1e-2, "seed": SEEDS}
    plain = solve(TERM, Y0, [0.0, 0.5, 1.0], **options)
    first, second = (solve(TERM, Y0, [0.0, 0.5, 1.0], regularize=local, **options) for _ in range(2))
    assert torch.equal(first.ys, plain.ys) and torch.equal(first.stats.steps, plain.stats.steps)
    assert bool((first.penalties["local"] > 0).all())
    assert torch.equal(first.penalties["local"], second.penalties["local"])


def test_a_local_step_of_the_solver_is_one_of_its_steps_on_its_path() -> None:
    """At an accepted step, with the solver's own length: the largest and the smallest of them enclose it."""
    options: dict[str, Any] = {"method": "heun", "rtol": RTOL, "atol": ATOL, "seed": SEEDS}
    steps = solve(TERM, Y0, [0.0, 1.0], save="steps", **options)
    value = solve(TERM, Y0, [0.0, 1.0], regularize=Local(at="accepted", step="solver"), **options).penalties["local"]
    for i in range(3):
        count = int(steps.stats.accepted[i]) + 1
        scaled, lengths = rows_by_hand(steps.ts[:count, i].numpy(), steps.ys[:count, i, 0].numpy(), i)
        each = np.array(scaled) * np.array(lengths)
        assert float(np.abs(each / float(value[i]) - 1).min()) < 1e-6


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("local", [Local(), Local(state="attached")], ids=str)
def test_its_gradient_with_respect_to_the_parameters(local: Any, fixed: bool) -> None:
    """The step's length and place are constants; with state="attached" the state there is none."""
    how: dict[str, Any] = {"method": "heun"}
    how |= {"dt": 0.15, "controller": None} if fixed else {"rtol": 10.0, "atol": 10.0}
    found = []
    for adjoint in ("direct", "recompute"):
        a = torch.tensor([1.3, 0.5], dtype=torch.float64, requires_grad=True)
        y0 = torch.tensor([[0.3], [-0.8]], dtype=torch.float64, requires_grad=True)
        value = loss(a, y0, local, adjoint=adjoint, **how)
        found.append(torch.autograd.grad(value, (a, y0), allow_unused=True))
    assert bool((found[0][0].abs() > 0).all())
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-13)
    assert (found[0][1] is None or not found[0][1].any()) == (local.state == "detached")
    if fixed and local.state == "attached":
        a = torch.tensor([1.3, 0.5], dtype=torch.float64, requires_grad=True)
        torch.autograd.gradcheck(lambda a: loss(a, y0, local, adjoint="direct", **how), (a,), rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("traced_only", "forgetful")
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_loops_on_the_device_measure_what_eager_measures(adjoint: str) -> None:
    found = []
    for engine in ("compiled", "eager"):
        y0 = Y0.clone().requires_grad_()
        solution = solve(TERM, y0, [0.0, 0.3, 1.0], method="spark", rtol=1e-2, atol=1e-2, seed=SEEDS, engine=engine,
                         regularize=Error(), adjoint=adjoint)  # fmt: skip
        assert solution.stats.engine == engine
        value = solution.penalties["error"]
        found.append((value.detach(), torch.autograd.grad(value.sum() + solution.ys.square().sum(), y0)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-9)
