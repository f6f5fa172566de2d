"""Every sampler keeps the order that it claims, in float64, against the exact end of the ODE."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciode.diffusion import estimate_ems, sample, sampler, samplers
from sciode.diffusion.samplers.registry import catalogue

# Held to be the same steps as others, in test_degenerate.py.
ALIASES = (
    "euler", "deis-tab-0", "deis-rho-ab-0", "deis-rho-rk-euler", "rk-euler", "deis-rho-rk-heun", "rk-heun", "rk-heun3",
    "rk-rk4", "rk-bosh3", "euler-ancestral", "dpm++-sde", "unipc-3-bh1", "unipc-3-vary",
)  # fmt: skip
TOLERANCE = 0.15
FLOOR = 1e-13
DISTINCT = {name: info for name, info in samplers().items() if name not in ALIASES}
FIXED = [name for name, info in DISTINCT.items() if info.kind == "ode" and info.evaluations is not None]
WITH_STATISTICS = [name for name in FIXED if name.startswith("dpm-v3")]
STOCHASTIC = [name for name, info in DISTINCT.items() if info.kind == "sde" and name != "edm-churn"]


def _steps(order: int) -> tuple[int, ...]:
    """First-order errors need many steps to be in their asymptotic range, those of high order reach rounding early."""
    return {1: (640, 1280, 2560)}.get(order, (160, 320, 640) if order < 5 else (10, 20, 40, 80, 160))


def _best_slope(order: int, error: Callable[[int], float]) -> float:
    """Of the error over the steps, above rounding; nothing finer is computed once a slope keeps the claim."""
    slopes, before = [], (0, math.inf)
    for n in _steps(order):
        here = (n, error(n))
        if before[0] and here[1] > FLOOR:
            slopes.append(math.log(before[1] / here[1]) / math.log(n / before[0]))
            if slopes[-1] >= order - TOLERANCE:
                break
        before = here
    return max(slopes)


@pytest.mark.parametrize("name", [name for name in FIXED if name not in WITH_STATISTICS])
def test_every_ode_sampler_is_of_the_order_it_claims(name: str, case) -> None:
    order = samplers()[name].order
    assert order is not None
    slope = _best_slope(order, lambda n: case.error(sample(case.model, case.x, case.schedule, sampler=name, steps=n)))
    assert slope >= order - TOLERANCE


@pytest.fixture(scope="module")
def ems(case):
    return estimate_ems(case.model, case.mixture.draw(1024, seed=3), case.schedule)


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_v3_is_of_its_order_with_statistics_of_the_exact_score(name: str, case, ems) -> None:
    order = samplers()[name].order
    assert order is not None

    def error(n: int) -> float:
        return case.error(sample(case.model, case.x, case.schedule, sampler=name, steps=n, ems=ems))

    assert _best_slope(order, error) >= order - TOLERANCE


def _reverse_drift(case, eta: float) -> torch.Tensor:
    """The noise-free reverse SDE: d(x e^(eta lambda) / sigma) = (1 + eta) e^((1 + eta) lambda) D dlambda."""
    low, high = (float(case.schedule.half_log_snr(t)) for t in (1.0, 1e-3))

    def slope(lam: float, w: np.ndarray) -> np.ndarray:
        t = case.schedule.t_of(lam)
        alpha, sigma = case.schedule.alpha(t), case.schedule.sigma(t)
        x = torch.from_numpy(w).view(case.x.shape) * sigma * math.exp(-eta * lam)
        data = (x + sigma**2 * case.mixture.score(x, alpha, sigma)) / alpha
        return ((1 + eta) * math.exp((1 + eta) * lam) * data).numpy().ravel()

    start = (case.x / case.schedule.sigma(1.0) * math.exp(eta * low)).numpy().ravel()
    end = solve_ivp(slope, (low, high), start, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    return torch.from_numpy(end.copy()).view(case.x.shape) * case.schedule.sigma(1e-3) * math.exp(-eta * high)


@pytest.fixture(scope="module")
def reverse_drift(case) -> torch.Tensor:
    return _reverse_drift(case, 1.0)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_every_sde_sampler_has_a_drift_of_the_order_it_claims(name: str, case, drift, reverse_drift) -> None:
    order = samplers()[name].order
    assert order is not None
    row = catalogue()[name]
    slope = _best_slope(order, lambda n: float((drift(row, case, n) - reverse_drift).square().mean().sqrt()))
    assert slope >= order - TOLERANCE


ADAPTIVE = [name for name, info in samplers().items() if info.evaluations is None]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_samplers_follow_their_tolerance(name: str, case) -> None:
    """A hundredth of the tolerance gives at most a fifth of the error, however the pair estimates it."""
    errors = [
        case.error(sample(case.model, case.x, case.schedule, sampler=sampler(name, rtol=tol, atol=tol / 10)))
        for tol in (1e-2, 1e-4)
    ]
    assert errors[1] < errors[0] / 5 and errors[1] < 0.1


@pytest.mark.parametrize("name", ["dpm-adaptive-3", "dpm++-adaptive-2", "adaptive-tsit5"])
def test_adaptive_samplers_give_each_sample_its_own_steps(name: str, case) -> None:
    both = sample(case.model, case.x, case.schedule, sampler=name, return_info=True)
    assert int(both.status.max()) == 0 and both.nfe.unique().numel() > 1
    for b in (0, 7):
        alone = sample(case.model, case.x[b : b + 1], case.schedule, sampler=name, return_info=True)
        torch.testing.assert_close(alone.x[0], both.x[b], rtol=1e-12, atol=1e-12)
        assert int(alone.nfe[0]) == int(both.nfe[b])


def test_too_few_steps_are_a_status(case) -> None:
    short = sampler("dpm-adaptive-2", max_steps=3)
    found = sample(case.model, case.x, case.schedule, sampler=short, return_info=True)
    assert found.status.tolist() == [1] * 12
