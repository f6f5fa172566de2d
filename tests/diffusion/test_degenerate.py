"""Samplers that must agree where one is a special case of the other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sciode.diffusion import EDM, ModelStatistics, RectifiedFlow, VPLinear, runge_kutta, sample, sampler
from sciode.diffusion.path import Path
from sciode.diffusion.weights import adams_weights, half_rule, keep
from sciode.testing import GaussianMixture

ALIASES = {
    "euler": "ddim", "deis-tab-0": "ddim", "deis-rho-ab-0": "ddim", "deis-rho-rk-euler": "ddim", "rk-euler": "ddim",
    "deis-rho-rk-heun": "edm-heun", "rk-heun": "edm-heun", "rk-heun3": "deis-rho-rk-heun3",
    "rk-rk4": "deis-rho-rk-rk4", "rk-bosh3": "deis-rho-rk-ralston3", "euler-ancestral": "ddpm", "dpm++-sde": "ddpm",
}  # fmt: skip
"""Names of the same steps: `test_orders.py` measures one of each pair."""
EQUAL = [
    ("ddim", sampler("tcd", gamma=0.0)), ("ddim", sampler("bdia", gamma=0.0)), ("ddim", sampler("ipndm", nodes=1)),
    ("rf-solver", runge_kutta("midpoint", "t")),
    ("unipc-3", "unipc-3-bh1"), ("unipc-3", "unipc-3-vary"),
    *ALIASES.items(), ("dpm++-2m-sde", sampler("sa-solver", corrector=0, half="bh2")),
]  # fmt: skip


def _name(value: object) -> str:
    return value if isinstance(value, str) else value.name  # type: ignore[attr-defined]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=_name)
def test_special_cases_agree(one, other, case) -> None:
    """To rounding, where both sums are of the same terms; unipc-3's kinds differ in their first two steps, see
    below."""
    far = _name(one) == "unipc-3"
    pair = [sample(case.model, case.x, case.schedule, sampler=s, steps=60, seed=1) for s in (one, other)]
    torch.testing.assert_close(*pair, rtol=0, atol=1e-5 if far else 1e-12)


def test_unipc_of_order_three_does_not_know_its_b(case) -> None:
    """Three nodes fix all weights: B(h) is left in the second step only, which has two."""
    path = Path.of(case.schedule, np.linspace(1, 0.5, 6))
    s, t, older = path.nodes[3], path.nodes[4], path.nodes[2:0:-1]
    exact = adams_weights(path, "data", s, t, [s, *older])
    h = t.lam - s.lam
    r = np.array([(node.lam - s.lam) / h for node in older])
    for b in (-h, math.expm1(-h)):
        # The system of the paper: sum_k r_k^(i-1) rho_k = b_i, b_i = i! q_i / B, q_(i+1) = q_i / (-h) - 1 / (i+1)!.
        q = [math.expm1(-h) / -h - 1]
        q.append(q[0] / -h - 1 / 2)
        rho = np.linalg.solve(np.vander(r, increasing=True).T, [q[0] / b, 2 * q[1] / b])
        np.testing.assert_allclose(-t.alpha * b * rho / r, exact[1:], rtol=1e-9)


def test_ddpm_is_the_first_order_sde_solver(case) -> None:
    """Ancestral noise and the exact exponential of the reverse SDE are the same Gaussian step."""
    for other in ("euler-ancestral", "dpm++-sde", sampler("ddim", eta=1.0)):
        pair = [sample(case.model, case.x, case.schedule, sampler=s, steps=30, seed=5) for s in ("ddpm", other)]
        torch.testing.assert_close(*pair, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("l", "s", "other"), [(1.0, 0.0, "dpm++-3m"), (0.0, -1.0, "dpm-3m")])
def test_v3_with_constant_statistics_is_data_or_noise_prediction(l: float, s: float, other: str, case) -> None:  # noqa: E741
    ends = [float(case.schedule.half_log_snr(t)) for t in (1.0, 1e-3)]
    ems = ModelStatistics.constant(ends[0], ends[1], l=l, s=s, shape=(3,))
    for steps in (8, 30):
        pair = [
            sample(case.model, case.x, case.schedule, sampler="dpm-v3-3", steps=steps, ems=ems),
            sample(case.model, case.x, case.schedule, sampler=other, steps=steps),
        ]
        torch.testing.assert_close(*pair, rtol=0, atol=1e-12)


def test_rf_solver_is_the_midpoint_rule_written_out(case) -> None:
    """x + h v + h^2 / 2 (v_mid - v) / (h / 2), as its authors have it."""
    flow = RectifiedFlow()
    velocity = case.mixture.model(flow, "flow")
    x, grid = case.x, np.linspace(0.9, 0.1, 9)
    for t, u in pairwise(grid):
        h, at = u - t, lambda t: torch.full((12,), t, dtype=torch.float64)
        v = velocity(x, at(t))
        slope = (velocity(x + h / 2 * v, at(t + h / 2)) - v) / (h / 2)
        x = x + h * v + h**2 / 2 * slope
    ours = sample(velocity, case.x, flow, sampler="rf-solver", grid=grid, prediction="flow")
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dpm-2s", "dpm++-2s", "dpm-2m", "dpm++-2m", "dpm++-3m", "dpm++-3s", "unipc-2"])
def test_constant_predictions_are_integrated_exactly(name: str) -> None:
    """A point mass has the data prediction D = mean; eps is then no constant, but the line of x that D makes it."""
    schedule, mean = VPLinear(), torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = schedule.alpha(1e-3) * mean + schedule.sigma(1e-3) / schedule.sigma(1.0) * (x - schedule.alpha(1.0) * mean)
    found = sample(lambda x, t: mean.expand_as(x), x, schedule, sampler=name, steps=5, prediction="x0")
    torch.testing.assert_close(found, end, rtol=0, atol=1e-12)


def test_one_gaussian_is_solved_in_closed_form(case) -> None:
    """x_t = m_t + sqrt(L_t / L_s) (x_s - m_s) with L = alpha^2 e + sigma^2 in each eigendirection."""
    schedule, variances = EDM(), torch.tensor([0.25, 4.0], dtype=torch.float64)
    mixture = GaussianMixture([1.0], [[0.5, -1.0]], torch.diag(variances)[None])
    x = 80 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = [variances + t**2 for t in (80.0, 0.01)]
    mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
    exact = mean + (spread[1] / spread[0]).sqrt() * (x - mean)
    found = sample(mixture.model(schedule), x, schedule, sampler="rk-dopri8", steps=40, t_end=0.01)
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(mixture.end_of_ode(x, schedule, 80.0, 0.01), exact, rtol=1e-10, atol=1e-10)


def test_weights_are_those_of_the_papers() -> None:
    """DPM-Solver's closed forms, where they have their digits."""
    path = Path.of(VPLinear(), [0.8, 0.65, 0.55, 0.4])
    c, b, s, t = path.nodes
    h = t.lam - s.lam
    e, f = math.expm1(h), math.expm1(-h)
    assert adams_weights(path, "noise", s, t, [s])[0] == pytest.approx(-t.sigma * e, rel=1e-13)
    assert adams_weights(path, "data", s, t, [s])[0] == pytest.approx(-t.alpha * f, rel=1e-13)
    assert keep("data", s, t) == pytest.approx(t.sigma / s.sigma, rel=1e-15)
    r0, r1 = (s.lam - b.lam) / h, (b.lam - c.lam) / h
    # 2M: base - alpha F D1 / 2 with D1 = (D_0 - D_-1) / r0.
    half = half_rule("data", -t.alpha * f, s, t, b, "bh2")
    np.testing.assert_allclose(half, [-t.alpha * f * (1 + 0.5 / r0), t.alpha * f * 0.5 / r0], rtol=1e-13)
    # 3M, with the factor 2 in the second derivative.
    phi2 = f / h + 1
    phi3 = phi2 / h - 0.5
    values = np.eye(3)
    d1_0, d1_1 = (values[0] - values[1]) / r0, (values[1] - values[2]) / r1
    d1, d2 = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1), 2 * (d1_0 - d1_1) / (r0 + r1)
    paper = -t.alpha * f * values[0] + t.alpha * phi2 * d1 - t.alpha * phi3 * d2
    np.testing.assert_allclose(adams_weights(path, "data", s, t, [s, b, c]), paper, rtol=1e-10)


def test_tab_weights_reproduce_polynomials_in_time() -> None:
    """eps = t^k: the exact integral of t^k drho, by fine quadrature."""
    path = Path.of(VPLinear(), [0.8, 0.65, 0.55, 0.4])
    nodes = path.nodes[2::-1]
    s, t = path.nodes[2], path.nodes[3]
    weights = adams_weights(path, "noise", s, t, nodes, "t")
    rho = np.linspace(s.rho, t.rho, 200_001)
    times = path.time(-np.log(rho))
    for k in range(3):
        wanted = t.alpha * np.trapezoid(times**k, rho)
        assert sum(w * n.t**k for w, n in zip(weights, nodes, strict=True)) == pytest.approx(wanted, rel=1e-8)
