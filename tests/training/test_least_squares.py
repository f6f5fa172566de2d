"""Levenberg-Marquardt: where theory says what a step is, what is judged by which points, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.insr.flat import Flat
from sciode.nn import Siren
from sciode.training import (
    Block,
    Descent,
    Following,
    LevenbergMarquardt,
    descend,
    gauss_newton,
    isolated_rng,
    minimise,
)
from sciode.training.blocks import loss_of, parts_of

FORMS = ("normal", "woodbury", "free")


def line(theta: Tensor, x: Tensor) -> Tensor:
    """A linear residual in five weights."""
    powers = torch.stack([(x[0] / 1.5 - 1.0) ** k for k in range(5)])
    return (theta @ powers - torch.sin(3 * x[0])).reshape(1)


def curve(theta: Tensor, x: Tensor) -> Tensor:
    """A residual with a known root: a exp(-b x) sin(c x) at (a, b, c) = (1, 0.5, 2)."""
    told = theta[0] * torch.exp(-theta[1] * x[0]) * torch.sin(theta[2] * x[0])
    return (told - torch.exp(-0.5 * x[0]) * torch.sin(2.0 * x[0])).reshape(1)


def points(n: int = 40, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, 1))) * 3.0


def same(residual: Any, x: Tensor) -> Any:
    return lambda k: [Block(residual, x)]


@pytest.mark.parametrize("form", FORMS)
def test_a_linear_problem_is_solved_by_its_first_step(form: Any) -> None:
    x = points()
    how = LevenbergMarquardt(iterations=1, damping=1e-10, tolerance=0.0, form=form, accelerate=False)
    found = minimise(same(line, x), torch.zeros(5, dtype=torch.float64), how)
    design = np.vander(x[:, 0].numpy() / 1.5 - 1.0, 5, increasing=True)
    expected = np.linalg.lstsq(design, np.sin(3 * x[:, 0].numpy()), rcond=None)[0]
    np.testing.assert_allclose(found.theta.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_all_forms_of_the_linear_system_take_the_same_step() -> None:
    start = torch.tensor([0.7, 0.2, 1.7], dtype=torch.float64)
    how = {form: LevenbergMarquardt(iterations=1, damping=1e-3, form=form) for form in FORMS}  # type: ignore[arg-type]
    found = [minimise(same(curve, points()), start, how[form]).theta for form in FORMS]
    assert not torch.equal(found[0], start)
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[2], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("rank", [0, 20])
def test_conjugate_gradients_come_to_the_dense_step_with_any_help(chunk: int | None, rank: int) -> None:
    """Two blocks of different weights, parts of seven points: the step of the dense form."""
    start, x = torch.tensor([0.7, 0.2, 1.7], dtype=torch.float64), points()

    def draw(k: int) -> list[Block]:
        return [Block(curve, x, 2.0), Block(lambda theta, at: curve(theta, at) * 0.5, x[:11], 0.3)]

    dense = minimise(draw, start, LevenbergMarquardt(iterations=1, damping=1e-3, form="normal"))
    free = LevenbergMarquardt(iterations=1, damping=1e-3, form="free", chunk=chunk, rank=rank)
    torch.testing.assert_close(minimise(draw, start, free).theta, dense.theta, rtol=1e-9, atol=1e-12)


def wide() -> tuple[Any, Tensor]:
    """A field of 22,645 weights, with random ones: its dense J^T J would take four gigabytes."""
    with isolated_rng(0):
        flat = Flat(Siren(2, 1, 148, 1, omega=3.0).double())
    return flat.field, flat.theta


def waves(x: Tensor) -> Tensor:
    return (torch.sin(3.0 * x[0]) * torch.cos(2.0 * x[1])).reshape(1)


def test_a_network_of_twenty_thousand_weights_is_fitted_without_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """From random weights far below what the field's own size is, in a few steps, on points that it has not seen."""
    field, theta = wide()
    monkeypatch.setattr(gauss_newton, "Dense", None)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)

    def draw(k: int) -> list[Block]:
        x = torch.from_numpy(np.random.default_rng(k).uniform(-1.0, 1.0, (200, 2)))
        return [Block(lambda theta, at: field(theta)(at) - waves(at), x)]

    how = LevenbergMarquardt(iterations=4, damping=1e-3, form="free", sweeps=12, rank=100, chunk=100, tolerance=0.0)
    assert len(theta) > 20_000
    found = minimise(draw, theta, how)
    assert found.loss < 1e-4 * found.losses[0], found.losses


def test_rows_that_precondition_save_sweeps() -> None:
    """As many sweeps with and without: of what could be taken from the linear problem, less is left with them."""
    field, theta = wide()
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1.0, 1.0, (300, 2)))
    block = Block(lambda theta, at: field(theta)(at) - waves(at), x)
    rows = gauss_newton.rows_of([block], theta)
    left = []
    for sweeps, rank in ((20, 0), (20, 100), (20, 300)):
        system = gauss_newton.Free([block], theta, None, sweeps, rank)
        step = system.pull(rows, 1e-6)
        assert step is not None
        left.append(float((rows + system.push(step)).square().sum() + 1e-6 * step.square().sum()))
    # With all rows the preconditioner is the inverse.
    assert left[1] - left[2] < 0.3 * (left[0] - left[2]), left


def test_no_more_points_than_a_chunk_are_differentiated_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    rows_of = gauss_newton.rows_of

    def counted(blocks: Sequence[Block], theta: Tensor) -> Tensor:
        seen.append(sum(block.count for block in blocks))
        return rows_of(blocks, theta)

    monkeypatch.setattr(gauss_newton, "rows_of", counted)
    how = LevenbergMarquardt(iterations=1, damping=1e-3, form="free", chunk=7, rank=5)
    minimise(same(line, points(40)), torch.zeros(5, dtype=torch.float64), how)
    assert seen and max(seen) == 7


def test_a_derivative_is_formed_only_where_a_step_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    formed = gauss_newton.jacobian_of

    def counted(*given: Any) -> Tensor:
        made.append(1)
        return formed(*given)

    monkeypatch.setattr(gauss_newton, "jacobian_of", counted)
    start = torch.tensor([0.7, 0.2, 1.7], dtype=torch.float64)
    found = minimise(same(curve, points()), start, LevenbergMarquardt(tolerance=1e-20))
    assert found.status == "converged" and len(made) == found.iterations


def test_a_draw_may_follow_the_weights() -> None:
    """Points are looked for where theta is: each iteration's draw sees the weights that it begins with."""
    seen: list[float] = []

    def blocks(k: int, theta: Tensor) -> list[Block]:
        seen.append(float(theta[0]))
        return [Block(curve, points(seed=k))]

    start = torch.tensor([0.7, 0.2, 1.7], dtype=torch.float64)
    for run, how in ((minimise, LevenbergMarquardt(iterations=2)), (descend, Descent(iterations=2))):
        seen.clear()
        run(Following(blocks), start, how)  # type: ignore[operator]
        assert len(seen) == 3 and seen[0] == 0.7 and len(set(seen)) == 3


def test_a_curve_is_found_to_rounding() -> None:
    start = torch.tensor([0.7, 0.2, 1.7], dtype=torch.float64)
    found = minimise(lambda k: [Block(curve, points(seed=k))], start, LevenbergMarquardt(tolerance=1e-24))
    assert found.status == "converged" and found.iterations <= 12
    torch.testing.assert_close(found.theta, torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_correction_for_curvature_is_that_of_the_geodesic() -> None:
    # theta -> theta^2 has one weight: r = t^2 - 4, J = 2 t, and r'' along a step s is 2 s^2.
    def square(theta: Tensor, x: Tensor) -> Tensor:
        return theta**2 - 4.0 * x

    t, damping = 3.0, 1e-3
    start, x = torch.tensor([t], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    step = -2 * t * (t**2 - 4) / (4 * t**2 + damping)
    bend = -2 * t * (2 * step**2) / (4 * t**2 + damping)
    for accelerate, expected in ((False, t + step), (True, t + step + bend / 2)):
        how = LevenbergMarquardt(iterations=1, damping=damping, tolerance=0.0, accelerate=accelerate)
        assert float(minimise(same(square, x), start, how).theta) == pytest.approx(expected, rel=1e-12)


def test_a_step_that_keeps_its_promise_lowers_the_damping_tenfold() -> None:
    """On a linear problem each eigenvalue s shrinks what is left by d/(s + d), with d = 1, 0.1, 0.01, ..."""

    def scaled(theta: Tensor, x: Tensor) -> Tensor:
        return 2.0 * theta - 6.0 + 0.0 * x

    start, x = torch.zeros(1, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    left = 3.0
    for n, damping in enumerate((1.0, 0.1, 0.01), start=1):
        left *= damping / (4.0 + damping)
        how = LevenbergMarquardt(iterations=n, damping=1.0, tolerance=0.0, accelerate=False)
        assert 3.0 - float(minimise(same(scaled, x), start, how).theta) == pytest.approx(left, rel=1e-6)


def test_points_may_be_a_tree_and_count_once() -> None:
    x = points(9)
    nested = Block(lambda theta, at: theta * at[0]["x"] + at[1], ({"x": x}, x))
    expected = ((0.5 * x + x) ** 2).mean()
    assert float(loss_of([nested], torch.tensor([0.5], dtype=torch.float64))) == pytest.approx(float(expected))


def test_a_loss_is_that_of_points_that_theta_was_not_moved_by() -> None:
    """Five weights through five noisy points fit these exactly; the loss reported must not be that of these points."""
    rng = np.random.default_rng(0)

    def draw(k: int) -> list[Block]:
        x = torch.from_numpy(rng.random((5, 1)))
        noise = torch.from_numpy(rng.normal(size=(5, 1)))

        def residual(theta: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
            return (theta @ torch.stack([at[0][0] ** j for j in range(5)]) - at[1][0]).reshape(1)

        return [Block(residual, (x, noise))]

    found = minimise(draw, torch.zeros(5, dtype=torch.float64), LevenbergMarquardt(iterations=4, damping=1e-12))
    assert found.status != "converged" and min(found.losses) > 1e-3 and found.loss == min(found.losses)


def test_the_best_weights_come_back_even_where_later_points_mislead() -> None:
    def draw(k: int) -> list[Block]:
        target = {2: 100.0, 3: -100.0}.get(k, 1.0)

        def residual(theta: Tensor, x: Tensor) -> Tensor:
            return theta - target + 0 * x

        return [Block(residual, torch.zeros(3, 1, dtype=torch.float64))]

    found = minimise(draw, torch.zeros(1, dtype=torch.float64), LevenbergMarquardt(iterations=3, tolerance=0.0))
    assert float(found.theta) == pytest.approx(1.0, abs=1e-4) and found.loss < 1e-8


def test_blocks_add_up_with_their_weights() -> None:
    x = points(7)
    blocks = [Block(line, x, 2.0), Block(curve, x[:3], 0.5)]
    theta = torch.tensor([0.3, 0.1, 0.2, -0.1, 0.4], dtype=torch.float64)
    means = [sum(float(f(theta, p)[0] ** 2) for p in at) / len(at) for f, at in ((line, x), (curve, x[:3]))]
    assert float(loss_of(blocks, theta)) == pytest.approx(2.0 * means[0] + 0.5 * means[1], rel=1e-12)


def test_what_is_not_finite_leaves_the_weights_alone() -> None:
    start = torch.tensor([1.0], dtype=torch.float64)
    found = minimise(same(lambda theta, x: theta * x / 0.0, points()), start)
    assert found.status == "non-finite" and torch.equal(found.theta, start)


def _side_by_side(work: Callable[[int, Callable[[Tensor], Tensor]], Any], size: int) -> list[Any]:
    """What work(rank, sum over ranks) returns on each of some threads, which stand for processes and work in turn."""
    meet, turn, told = Barrier(size, timeout=60), Lock(), [torch.zeros(())] * size

    def met() -> None:
        turn.release()
        meet.wait()
        turn.acquire()

    def ranked(rank: int) -> Any:
        def summed(values: Tensor) -> Tensor:
            told[rank] = values
            met()
            total = torch.stack(told).sum(0)
            met()
            return total

        with turn:
            return work(rank, summed)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(ranked, range(size)))


@pytest.mark.parametrize(
    "how",
    [
        LevenbergMarquardt(form="auto", iterations=4),
        LevenbergMarquardt(form="free", iterations=4, rank=0, damping=1e-3),
        LevenbergMarquardt(form="free", iterations=12, rank=8, damping=1e-3),
    ],
    ids=["formed", "free", "preconditioned"],
)
def test_processes_that_share_the_points_take_the_steps_of_one(how: LevenbergMarquardt) -> None:
    """Unequal shares; what a step costs is divided, all ranks end in one place, that of one process."""
    start, blocks = (
        torch.tensor([0.9, 0.4, 1.9], dtype=torch.float64),
        [Block(curve, points(40)), Block(curve, points(9))],
    )
    parts = [[one.some(part) for one in blocks] for part in (slice(0, 7), slice(7, None))]
    found = _side_by_side(lambda rank, summed: minimise(lambda k: parts[rank], start, how, summed=summed), 2)
    alone = minimise(lambda k: blocks, start, how)
    assert torch.equal(found[0].theta, found[1].theta) and found[0].status == found[1].status == alone.status
    torch.testing.assert_close(found[0].theta, alone.theta, rtol=1e-6, atol=1e-8)
    assert found[0].losses[0] == pytest.approx(alone.losses[0], rel=1e-12)
    assert found[0].losses[-1] < 1e-3 * found[0].losses[0]


def test_processes_cannot_share_what_needs_all_rows() -> None:
    with pytest.raises(ValueError, match="one process"):
        minimise(same(line, points()), torch.zeros(2), LevenbergMarquardt(form="woodbury"), summed=lambda x: 2 * x)


@pytest.mark.parametrize("form", ["normal", "woodbury", "free"])
def test_a_residual_that_has_no_slope_is_not_finite_and_not_stuck(form: Any) -> None:
    """1 + sqrt|theta x| is 1 at theta = 0, its slope infinity times nothing."""
    start = torch.zeros(2, dtype=torch.float64)
    how = LevenbergMarquardt(form=form, rank=0)
    found = minimise(same(lambda theta, x: 1.0 + (theta[:1] * x).abs().sqrt() + theta[1:], points()), start, how)
    assert found.status == "non-finite" and torch.equal(found.theta, start) and found.loss == pytest.approx(1.0)


def test_steps_that_never_help_are_reported() -> None:
    """|theta| has no derivative that vanishes: from 0, its subgradient leads nowhere down."""

    def kink(theta: Tensor, x: Tensor) -> Tensor:
        return 1.0 + theta.abs() + 0 * x

    found = minimise(same(kink, points()), torch.full((1,), 1e-300, dtype=torch.float64))
    assert found.status == "stuck" and found.loss == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_descent_finds_what_least_squares_find(schedule: str) -> None:
    start = torch.tensor([0.9, 0.4, 1.9], dtype=torch.float64)
    how = Descent(iterations=1500, lr=2e-2, schedule=schedule, patience=30)
    found = descend(lambda k: [Block(curve, points(seed=k))], start, how)
    torch.testing.assert_close(found.theta, torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64), rtol=0, atol=1e-2)
    assert found.loss < 1e-5 and not found.theta.requires_grad


def test_descent_stops_at_its_tolerance_and_before_what_is_not_finite() -> None:
    start = torch.tensor([0.9, 0.4, 1.9], dtype=torch.float64)
    assert descend(same(curve, points()), start, Descent(tolerance=1.0)).iterations == 0

    def breaks(k: int) -> Sequence[Block]:
        return [Block((lambda t, x: curve(t, x) / (0.0 if k == 3 else 1.0)), points())]

    found = descend(breaks, start, Descent(iterations=9))
    assert found.status == "non-finite" and bool(torch.isfinite(found.theta).all()) and math.isfinite(found.loss)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LevenbergMarquardt(iterations=0),
        lambda: LevenbergMarquardt(damping=0.0),
        lambda: LevenbergMarquardt(form="dense"),  # type: ignore[arg-type]
        lambda: LevenbergMarquardt(chunk=0),
        lambda: LevenbergMarquardt(rank=-1),
        lambda: LevenbergMarquardt(fall=1.0),
        lambda: Descent(lr=-1.0),
        lambda: Descent(schedule="steps"),
    ],
)
def test_misuse_says_what_is_wrong(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|at least|unknown|there is no|form|schedule"):
        wrong()


@pytest.mark.parametrize("form", FORMS)
def test_work_that_is_linear_is_met_by_the_first_step(form: Any) -> None:
    """|theta - a|^2 + b . theta is least at a - b / 2, and may be below zero there."""
    a, b = (torch.from_numpy(np.random.default_rng(k).normal(size=6)) for k in (1, 2))
    terms = [
        Block(
            lambda theta, p: theta - p[0] * a, (torch.ones(1, 1, dtype=a.dtype),), 1.0, lambda theta, p: b @ theta - 99
        )
    ]
    how = LevenbergMarquardt(iterations=2, damping=1e-8, form=form)
    found = minimise(lambda k: terms, torch.zeros(6, dtype=a.dtype), how)
    torch.testing.assert_close(found.theta, a - b / 2, rtol=0, atol=1e-6)
    assert found.loss == pytest.approx(float(-b @ b / 4 + a @ b) - 99) and found.status == "budget"


def test_fewer_rows_than_weights_feel_the_same_work() -> None:
    """Both dense forms of one damped system, where rows see only some directions."""
    x, b = points(3), torch.linspace(-1, 1, 5, dtype=torch.float64)
    terms = [Block(line, x, 1.0, lambda theta, p: b @ theta)]
    found = [
        minimise(lambda k: terms, torch.zeros(5, dtype=torch.float64),
                 LevenbergMarquardt(iterations=1, damping=0.1, form=form, accelerate=False)).theta
        for form in FORMS
    ]  # fmt: skip
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-8, atol=1e-8)


def test_an_energy_is_no_minimum_where_conjugate_gradients_only_gave_up() -> None:
    """1 + |S theta - e|^2, S from 1 to 1e-3: all directions hold as much, and the small ones come late."""
    count = 200
    sizes = torch.logspace(0, -3, count, dtype=torch.float64)

    def bowl(theta: Tensor, x: Tensor) -> Tensor:
        return torch.cat([sizes * theta - math.sqrt(0.3 / count), x])

    how = LevenbergMarquardt(iterations=30, damping=1e-10, fall=3e-3, form="free", rank=0, accelerate=False)
    found = minimise(same(bowl, torch.ones(2, 1, dtype=torch.float64)), torch.zeros(count, dtype=torch.float64), how)
    assert found.status == "converged" and found.loss - 1.0 < 1e-2, found.losses


def test_parts_of_blocks_add_up_to_the_loss_work_included() -> None:
    x, theta = points(11), torch.tensor([0.7, 0.2, 1.7], dtype=torch.float64)
    blocks = [Block(curve, x, 2.0, lambda theta, at: theta[0] * at[0] - 1.0), Block(curve, x[:5], 0.5)]
    parts = list(parts_of(blocks, 4))
    assert [part.count for part in parts] == [4, 4, 3, 4, 1]
    assert float(loss_of(parts, theta)) == pytest.approx(float(loss_of(blocks, theta)), rel=1e-12)


def test_a_minimum_that_is_not_zero_is_known_by_what_a_step_promises() -> None:
    x = points()

    def off(theta: Tensor, x: Tensor) -> Tensor:
        return torch.cat([line(theta, x), torch.ones(1, dtype=torch.float64)])

    found = minimise(same(off, x), torch.zeros(5, dtype=torch.float64), LevenbergMarquardt(fall=1e-6))
    assert found.status == "converged" and found.fall <= 1e-6 and 1.0 < found.loss < 1.02
    far = LevenbergMarquardt(iterations=1, damping=1.0, fall=1e-6)
    early = minimise(same(off, x), torch.zeros(5, dtype=torch.float64), far)
    assert early.status == "budget" and early.fall > 1e-3
    assert descend(same(off, x), torch.zeros(5, dtype=torch.float64), Descent(100)).fall > 0.0
