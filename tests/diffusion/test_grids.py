"""Grids: their ends, their laws, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from sciode.diffusion import EDM, GRIDS, Discrete, RectifiedFlow, VPCosine, VPLinear, karras, shifted
from sciode.diffusion.grids import times_of


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", [VPLinear(), VPCosine(), EDM(), RectifiedFlow(), Discrete.linear()], ids=type)
def test_grids_fall_from_start_to_end_without_repeats(grid: str, schedule) -> None:
    for steps in (1, 2, 50, 500):
        t = times_of(grid, schedule, steps, schedule.t_max, 1e-3)
        assert t.shape == (steps + 1,) and (np.diff(t) < 0).all()
        assert t[-1] == 1e-3 and (t[0] == schedule.t_max or grid == "leading")


def test_grids_are_uniform_in_what_they_say() -> None:
    schedule = VPLinear()

    def spread(values: np.ndarray) -> float:
        return float(np.ptp(np.diff(values)) / abs(np.diff(values)).max())

    times = {name: times_of(name, schedule, 20, 1.0, 1e-3) for name in GRIDS}
    ratio = {name: (schedule.sigma(_t(t)) / schedule.alpha(_t(t))).numpy() for name, t in times.items()}
    assert spread(times["uniform"]) < 1e-12 and spread(np.sqrt(times["quadratic"])) < 1e-12
    assert spread(np.log(ratio["log-snr"])) < 1e-11 and spread(ratio["karras"] ** (1 / 7)) < 1e-11
    lam = -np.log(ratio["middle"])
    assert spread(np.arcsinh((2 * lam - lam[0] - lam[-1]) / (lam[-1] - lam[0]) * np.sinh(2.5))) < 1e-9
    np.testing.assert_allclose(beta.cdf((times["beta"] - 1e-3) / 0.999, 0.6, 0.6), np.linspace(1, 0, 21), atol=1e-12)
    np.testing.assert_allclose(times["trailing"][:-1], 1 - np.arange(20) / 20, atol=1e-15)
    np.testing.assert_allclose(times["leading"][:-1], 1 - np.arange(1, 21) / 21, atol=1e-15)


def _t(values: np.ndarray):
    import torch

    return torch.as_tensor(values)


def test_edm_is_karras_grid_and_a_shift_of_one_changes_nothing() -> None:
    n, rho = 18, 7
    i = np.arange(n)
    sigma = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(times_of(karras(7), EDM(), n - 1, 80.0, 0.002), sigma, rtol=1e-12)
    flow = RectifiedFlow()
    np.testing.assert_allclose(
        times_of(shifted(1.0), flow, 9, 0.999, 1e-3), times_of("uniform", flow, 9, 0.999, 1e-3), atol=1e-15
    )
    assert (times_of(shifted(3.0), flow, 9, 0.999, 1e-3)[1:-1] > times_of("uniform", flow, 9, 0.999, 1e-3)[1:-1]).all()


@pytest.mark.parametrize(
    ("grid", "end", "said"),
    [("uniform", 0.0, "denoise_last"), ([1.0, 0.5, 0.5, 0.1], 0.1, "strictly"), ([0.1, 0.5], 0.5, "strictly"),
     ("uniforms", 0.1, "Did you mean 'uniform'"), ([1.0], 0.1, "at least two")],
)  # fmt: skip
def test_grids_that_cannot_be_are_refused(grid, end: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        times_of(grid, VPLinear(), 4, 1.0, end)
