"""Schedules: exact inverses in float64, slopes, tables."""

from __future__ import annotations

import math

import pytest
import torch

from sciode.diffusion import (
    EDM,
    VE,
    Discrete,
    RectifiedFlow,
    Schedule,
    VPCosine,
    VPLinear,
    VPScaledLinear,
    zero_terminal_snr,
)

SCHEDULES = {
    "linear": VPLinear(),
    "scaled linear": VPScaledLinear(),
    "cosine": VPCosine(),
    "ve": VE(),
    "edm": EDM(),
    "flow": RectifiedFlow(),
    "table": Discrete.linear(),
    "zero snr": Discrete(zero_terminal_snr(Discrete.scaled_linear().alpha_bar)),
}
VARIANCE_PRESERVING = ("linear", "scaled linear", "cosine", "table", "zero snr")


def _times(schedule: Schedule) -> torch.Tensor:
    """From 1e-3 nearly to the end, densely near 0."""
    u = torch.linspace(0, 1, 301, dtype=torch.float64)
    return 1e-3 + u**3 * (schedule.t_max * 0.999 - 1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_inverse_of_the_log_snr_is_exact(name: str) -> None:
    schedule = SCHEDULES[name]
    t = _times(schedule)
    # What one rounding of lambda, or of alpha and sigma, is in t.
    lam = schedule.half_log_snr(t)
    slope = torch.diff(lam) / torch.diff(t)
    unit = 2e-16 * (lam.abs() + 1) / torch.cat((slope[:1], slope)).abs() + 2e-16 * t.clamp(min=1e-2)
    assert lam.dtype == torch.float64
    assert bool(((schedule.t_of(lam) - t).abs() < 60 * unit).all())


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_log_snr_is_that_of_alpha_and_sigma_and_falls(name: str) -> None:
    schedule = SCHEDULES[name]
    t = _times(schedule)
    lam = schedule.half_log_snr(t)
    torch.testing.assert_close(lam, torch.log(schedule.alpha(t) / schedule.sigma(t)), rtol=0, atol=1e-11)
    assert bool((lam.diff() < 0).all())
    if name in VARIANCE_PRESERVING:
        torch.testing.assert_close(
            schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("name", SCHEDULES)
def test_slopes_are_derivatives(name: str) -> None:
    schedule = SCHEDULES[name]
    # Off the entries of tables, where the slope jumps.
    t = torch.linspace(0.01234, 0.95 * schedule.t_max, 41, dtype=torch.float64).requires_grad_()
    for value, slope in zip((schedule.alpha(t), schedule.sigma(t)), schedule.slopes(t), strict=True):
        if value.requires_grad:
            (found,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
            torch.testing.assert_close(slope, found, rtol=1e-9, atol=1e-12)
        else:
            assert bool((slope == 0).all())


def test_linear_is_what_the_papers_integrate() -> None:
    t = torch.tensor(0.37, dtype=torch.float64)
    assert float(VPLinear().alpha(t).log()) == pytest.approx(-0.25 * 19.9 * 0.37**2 - 0.5 * 0.1 * 0.37, rel=1e-14)
    # Stable Diffusion's table is a sum over the same rates.
    table = Discrete.scaled_linear()
    assert float(table.alpha(499.0)) == pytest.approx(float(VPScaledLinear().alpha(0.5)), abs=2e-3)


def test_a_table_has_its_own_entries_and_lines_between_them() -> None:
    schedule = Discrete.linear()
    i = torch.arange(1000, dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(i) ** 2, schedule.alpha_bar, rtol=1e-13, atol=0)
    angle = torch.atan2(
        schedule.sigma(torch.tensor([10.0, 10.25, 11.0])), schedule.alpha(torch.tensor([10.0, 10.25, 11.0]))
    )
    assert float(angle[1]) == pytest.approx(float(0.75 * angle[0] + 0.25 * angle[2]), rel=1e-13)


def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_its_first_entry() -> None:
    before = Discrete.scaled_linear().alpha_bar
    after = zero_terminal_snr(before)
    assert float(after[-1]) == 0 and float(after[0]) == pytest.approx(float(before[0]), rel=1e-12)
    schedule = Discrete(after)
    assert float(schedule.alpha(999.0)) == 0 and float(schedule.half_log_snr(999.0)) == -math.inf
    assert float(schedule.t_of(-math.inf)) == 999.0


@pytest.mark.parametrize(
    "wrong", [lambda: VPLinear(20, 0.1), lambda: VE(1.0, 0.5), lambda: EDM(0), lambda: Discrete([0.5, 0.7]),
              lambda: Discrete([1.0, 0.5])]
)  # fmt: skip
def test_schedules_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"expected|must"):
        wrong()
