"""Empirical model statistics: closed forms for one Gaussian, smoothness, and what they are good for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciode.diffusion import ModelStatistics, VPLinear, estimate_ems, sample
from sciode.testing import GaussianMixture


def test_one_gaussian_is_linear_and_its_statistics_solve_it_in_one_step() -> None:
    """eps = sigma (x - alpha m) / (alpha^2 e + sigma^2): l is its slope, f depends on nothing, one step is exact."""
    schedule, e = VPLinear(), torch.tensor([0.04, 1.7], dtype=torch.float64)
    mixture = GaussianMixture([1.0], [[0.5, -1.0]], torch.diag(e)[None])
    ems = estimate_ems(mixture.model(schedule), mixture.draw(64, seed=0), schedule, points=64, degree=40)
    lam = np.linspace(ems.low, ems.high, 17)
    t = schedule.t_of(torch.from_numpy(lam))
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    np.testing.assert_allclose(ems.value("l", lam), (sigma**2 / (alpha**2 * e + sigma**2)).numpy(), atol=1e-5)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = mixture.end_of_ode(x, schedule, 1.0, 1e-3)
    errors = [
        float((sample(mixture.model(schedule), x, schedule, steps=2, sampler=name, ems=given) - exact).abs().max())
        for name, given in (("dpm-v3-1", ems), ("ddim", None))
    ]
    assert errors[0] < errors[1] / 20


def test_integrals_and_slopes_are_those_of_the_values() -> None:
    generator = np.random.default_rng(0)
    ems = ModelStatistics(-5.0, 4.0, *(generator.normal(size=(6, 3)) for _ in range(3)))
    lam = np.linspace(-5.0, 4.0, 100_001)
    value = ems.value("s", lam)
    steps = 0.5 * (value[1:] + value[:-1]) * (lam[1] - lam[0])
    np.testing.assert_allclose(ems.integral("s", lam)[1:], np.cumsum(steps, 0), atol=1e-6)
    np.testing.assert_allclose(
        ems.slope("s", lam[1:-1]), (value[2:] - value[:-2]) / (lam[2:] - lam[:-2])[:, None], atol=1e-5
    )
    with pytest.raises(ValueError, match="the grid leaves it"):
        ems.value("l", [4.1])


def test_differences_stand_in_for_forward_mode(case) -> None:
    data = case.mixture.draw(64, seed=1)
    one, other = (
        estimate_ems(case.model, data, case.schedule, points=12, degree=6, derivative=d)  # type: ignore[arg-type]
        for d in ("forward", "difference")
    )
    for name in ("l", "s", "b"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=2e-5)


def test_statistics_do_not_depend_on_what_the_model_predicts_or_on_batches(case) -> None:
    data = case.mixture.draw(64, seed=1)
    one = estimate_ems(case.model, data, case.schedule, points=12, degree=6)
    other = estimate_ems(
        case.mixture.model(case.schedule, "v"), data, case.schedule, points=12, degree=6, prediction="v"
    )
    np.testing.assert_allclose(one.l, other.l, atol=1e-8)
    np.testing.assert_allclose(one.b, other.b, atol=1e-6)


def test_a_model_without_forward_mode_is_named(case) -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(ValueError, match="derivative='difference'"):
        estimate_ems(lambda x, t: Opaque.apply(x), case.mixture.draw(8), case.schedule, points=4, degree=2)


def test_statistics_make_few_steps_better(cases) -> None:
    """Five evaluations, three mixtures: at most 0.55 of 2M's error in the geometric mean, and less in each."""
    ratios = []
    for one in cases:
        ems = estimate_ems(one.model, one.mixture.draw(512, seed=3), one.schedule)
        v3 = one.error(sample(one.model, one.x, one.schedule, sampler="dpm-v3", nfe=5, ems=ems))
        ratios.append(v3 / one.error(sample(one.model, one.x, one.schedule, sampler="dpm++-2m", nfe=5)))
    assert max(ratios) < 1 and math.prod(ratios) ** (1 / 3) <= 0.55, ratios


def test_the_middle_of_the_log_snr_is_where_few_steps_belong(cases) -> None:
    """Five evaluations, three mixtures: better there than in equal steps, and at most 0.55 of 2M on the same grid."""
    for one in cases:
        ems = estimate_ems(one.model, one.mixture.draw(512, seed=3), one.schedule)
        middle, even = (
            one.error(sample(one.model, one.x, one.schedule, sampler="dpm-v3", nfe=5, ems=ems, grid=grid))
            for grid in ("middle", "log-snr")
        )
        rival = one.error(sample(one.model, one.x, one.schedule, sampler="dpm++-2m", nfe=5, grid="middle"))
        assert middle < even and middle <= 0.55 * rival


def test_statistics_that_overflow_within_a_step_say_the_mend(case) -> None:
    """As those of four images do: s in the thousands is what noise makes of 0 / 0."""
    wild = ModelStatistics.constant(-6.0, 6.0, l=1.0, s=1e3, shape=tuple(case.x.shape[1:]))
    with pytest.raises(ValueError, match="more data"):
        sample(case.model, case.x, VPLinear(), sampler="dpm-v3", nfe=5, ems=wild)


def test_no_data_and_a_model_of_another_shape_are_named(case) -> None:
    data = case.mixture.draw(4, seed=3)
    with pytest.raises(ValueError, match="K >= 1"):
        estimate_ems(case.model, data[:0], case.schedule)
    with pytest.raises(ValueError, match="output has shape"):
        estimate_ems(lambda x, t: x[:, :1], data, case.schedule, points=4, degree=2)
