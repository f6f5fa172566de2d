"""Points that look where the residual is large: the mean they keep, the error they lower, and what they hang on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.insr import Fit, Galerkin, Points, evolve
from sciode.insr.flat import Flat
from sciode.insr.optimise import Work, fitted
from sciode.nn import PeriodicEmbedding, Siren
from sciode.pde import Evolution
from sciode.training import Descent, LevenbergMarquardt, isolated_rng

WIDTH = 0.02


def spike(x: Tensor) -> Tensor:
    """A hundredth of the ring is a front, the rest is smooth."""
    return torch.exp(-((x - 0.3) ** 2) / (2.0 * WIDTH**2)) + 0.3 * torch.sin(math.pi * x)


PROBLEM = Evolution(
    name="spike", lower=(-1.0,), upper=(1.0,), channels=1, walls="periodic", initial=spike,
    rate=lambda u, slopes: -0.1 * slopes[..., 0],
)  # fmt: skip
RING = torch.linspace(-1.0, 1.0, 2001, dtype=torch.float64)[:-1].unsqueeze(1)


def network(seed: int = 0) -> Siren:
    with isolated_rng(seed):
        return Siren(1, 1, 12, 1, omega=20.0, embedding=PeriodicEmbedding([2.0])).double()


def drawn(points: Points, seed: int) -> tuple[Tensor, Tensor | None]:
    return points.drawn(PROBLEM, spike, 100, torch.zeros(1, dtype=torch.float64), seed)


def test_the_mean_of_the_square_is_that_of_the_box() -> None:
    """Of |r|^2 for the residual that is aimed at, over 400 draws of 40 points; without weights it is far above."""
    exact = float(spike(RING).square().mean())
    for unbiased in (True, False):
        means = []
        for seed in range(400):
            x, weights = drawn(Points(40, aimed=0.5, unbiased=unbiased), seed)
            means.append(float((spike(x) * (1.0 if weights is None else weights)).square().mean()))
        found = torch.tensor(means)
        error = float(found.std()) / math.sqrt(len(means))
        assert (abs(float(found.mean()) - exact) < 4.0 * error) == unbiased
    assert float(found.mean()) > 1.5 * exact


def test_the_estimate_scatters_less_than_with_points_drawn_evenly() -> None:
    spreads = []
    for aimed in (0.0, 0.5):
        means = []
        for seed in range(200):
            x, weights = drawn(Points(40, how="random", aimed=aimed), seed)
            means.append(float((spike(x) * (1.0 if weights is None else weights)).square().mean()))
        spreads.append(float(torch.tensor(means).std()))
    assert spreads[1] < 0.6 * spreads[0]


def test_a_share_of_the_points_lies_where_the_residual_is_large() -> None:
    """The density is (1 - s) + s |r|/mean |r|: with r the indicator of a tenth of the ring, 0.1 (1 - s) + s of them."""

    def indicator(x: Tensor) -> Tensor:
        return ((x > 0.0) & (x < 0.2)).double()

    for share in (0.25, 0.75):
        x, weights = Points(4000, aimed=share).drawn(PROBLEM, indicator, 1, torch.zeros(1, dtype=torch.float64), 0)
        assert float(indicator(x).mean()) == pytest.approx(0.1 * (1.0 - share) + share, abs=0.01)
        assert weights is not None and float(weights.square().max()) == pytest.approx(1.0 / (1.0 - share), rel=1e-6)


def test_a_narrow_front_is_fitted_better() -> None:
    how = Fit(Descent(iterations=300), LevenbergMarquardt(iterations=20, tolerance=1e-14, damping=1e-4))
    errors = []
    for aimed in (0.0, 0.5):
        found = []
        for seed in range(2):
            flat = Flat(network(seed))
            theta = fitted(Work(PROBLEM, flat, 1, Points(100, aimed=aimed), seed), how).theta
            u = torch.vmap(flat.field(theta))(RING)
            found.append(float((u - spike(RING)).norm() / spike(RING).norm()))
        errors.append(max(found))
    assert errors[1] < 0.5 * errors[0], errors


@pytest.mark.parametrize("mode", ["optimise", "galerkin"])
def test_aimed_points_hang_on_the_seed_alone_and_belong_to_the_folder(mode: Any, tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "dt": 0.01, "mode": mode, "points": Points(60, aimed=0.5), "failing": "go on", "attempts": 1,
        "fit": Fit(Descent(iterations=20), LevenbergMarquardt(iterations=5, damping=1e-3)),
    }  # fmt: skip
    if mode == "galerkin":
        how["galerkin"] = Galerkin("heun", fixed=True, damping=1e-4)
    whole = evolve(PROBLEM, network(), [0.0, 0.02], **how)
    evolve(PROBLEM, network(), [0.0, 0.01], folder=tmp_path, **how)
    resumed = evolve(PROBLEM, network(), [0.0, 0.02], folder=tmp_path, **how)
    assert whole.complete and torch.equal(whole.thetas, resumed.thetas)
    with pytest.raises(ValueError, match="differs in how"):
        evolve(PROBLEM, network(), [0.0, 0.02], folder=tmp_path, **{**how, "points": Points(60, aimed=0.4)})


def test_a_projection_by_aimed_points_is_that_by_many() -> None:
    """Weighted as it is, theta' has the same limit as with points drawn evenly."""
    far = []
    fit = Fit(Descent(iterations=200), LevenbergMarquardt(iterations=20, damping=1e-4))
    start = Flat(network())
    field = start.load(fitted(Work(PROBLEM, start, 1, Points(400), 0), fit).theta)
    galerkin = Galerkin("euler", fixed=True, damping=1e-6)
    ends = [
        evolve(PROBLEM, field, [0.0, 0.01], dt=0.01, mode="galerkin", points=points, galerkin=galerkin,
               fit=Fit(None, None), failing="go on")(RING, 0.01)
        for points in (Points(20000), Points(4000, aimed=0.5), Points(4000, aimed=0.5, unbiased=False))
    ]  # fmt: skip
    far = [float((end - ends[0]).norm() / ends[0].norm()) for end in ends[1:]]
    assert far[0] < 1e-3 and far[0] < far[1], far


@pytest.mark.parametrize("mode", ["optimise", "galerkin"])
def test_what_is_not_finite_is_a_status_with_aimed_points_too(mode: Any) -> None:
    wild = replace(PROBLEM, rate=lambda u, slopes: u * torch.nan)
    found = evolve(wild, network(), [0.0, 0.1], dt=0.1, mode=mode, points=Points(50, aimed=0.5), fit=Fit(None, None),
                   failing="go on", attempts=1)  # fmt: skip
    assert not found.complete and len(found.times) == 1 and not math.isfinite(found.steps[-1].loss)


@pytest.mark.parametrize("wrong", [{"aimed": 1.0}, {"aimed": -0.1}, {"candidates": 0}])
def test_misuse_says_what_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="aimed must lie"):
        Points(**wrong)
