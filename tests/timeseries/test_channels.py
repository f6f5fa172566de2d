"""Channels beside the readings: by hand on small paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciode.data import IrregularSeries
from sciode.timeseries.channels import CHANNELS, Given, JoinedChannels, lags
from sciode.timeseries.controls import ControlGrid
from tests.timeseries.test_together import labelled, member


def given(series: IrregularSeries, steps: int, horizon: float) -> Given:
    """Series as an estimator would give them, not standardised."""
    grid = ControlGrid.of(series, steps, horizon)
    values, times = series.padded()
    control, ends = grid.controls(series)
    clock = torch.from_numpy(grid.clock(times, times[:, 0]))
    return Given(control, ends, torch.from_numpy(values).float(), clock, grid.dt, grid.steps)


def line(points: int, slope: float = 2.0) -> IrregularSeries:
    """x(t) = slope t at the times 0, 1, ..., and a second, shorter one."""
    clock = np.arange(float(points))
    return IrregularSeries([slope * clock[:, None], slope * clock[:-3, None]])


def test_lags_are_dyadic_up_to_half_of_the_path() -> None:
    assert [lags(steps) for steps in (1, 2, 8, 9, 64)] == [[1], [1], [1, 2, 4], [1, 2, 4], [1, 2, 4, 8, 16, 32]]


def test_a_line_rises_by_slope_times_lag_once_the_window_is_full() -> None:
    found = CHANNELS["rises"](given(line(9), 8, 8.0))
    assert found.shape == (2, 9, 3)
    for k, lag in enumerate((1, 2, 4)):
        expected = 2.0 * np.minimum(np.arange(9), lag)
        np.testing.assert_allclose(found[0, :, k], expected, atol=1e-5)


def test_the_mirror_of_a_line_falls_from_each_own_end() -> None:
    found = CHANNELS["mirror"](given(line(9), 8, 8.0))[..., 0]
    np.testing.assert_allclose(found[0], 2.0 * (8 - np.arange(9)), atol=1e-5)
    np.testing.assert_allclose(found[1, :6], 2.0 * (5 - np.arange(6)), atol=1e-5)


def test_mirrored_twice_a_path_is_itself_at_an_end_on_the_grid() -> None:
    control = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0))
    first = Given(control, torch.full((3,), 3.0).double(), control, torch.zeros(3, 7).double(), 0.5, 6)
    torch.testing.assert_close(CHANNELS["mirror"](first._replace(control=CHANNELS["mirror"](first))), control)


def test_age_counts_from_the_last_reading_of_each_channel() -> None:
    nan = np.nan
    values = np.array([[1.0, nan], [nan, 2.0], [nan, nan], [3.0, nan], [4.0, 5.0]])
    series = IrregularSeries([values, values[:2]], [np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0])])
    found = CHANNELS["age"](given(series, 8, 4.0))
    clock = np.arange(9) / 2
    np.testing.assert_allclose(found[0, :, 0], [0, 0.5, 1, 1.5, 2, 2.5, 0, 0.5, 0])
    np.testing.assert_allclose(found[0, :, 1], [0, 0.5, 0, 0.5, 1, 1.5, 2, 2.5, 0])
    np.testing.assert_allclose(found[1, :5, 0], clock[:5])
    np.testing.assert_allclose(found[1, :5, 1], [0, 0.5, 1, 1.5, 0])


@pytest.mark.parametrize("name", ["rises", "age"])
def test_channels_do_not_look_ahead(name: str) -> None:
    """The readings after the fourth are altered: up to it nothing changes (the control's own row grid is the clock)."""
    values = np.random.default_rng(0).normal(size=(2, 9, 2))
    values[:, 1, 0] = values[:, 6, 1] = np.nan
    other = values.copy()
    other[:, 5:] = other[:, 5:] * 2 + 1
    first, second = (CHANNELS[name](given(IrregularSeries(v), 8, 8.0)) for v in (values, other))
    torch.testing.assert_close(first[:, :5], second[:, :5])


def test_channels_of_training_series_have_mean_zero_and_deviation_one_up_to_the_ends() -> None:
    own = given(labelled(12, 3)[0], 10, 5.0)
    joined = JoinedChannels.fit(("rises", "mirror", "age"), own)
    inside = joined.join(own)[own.inside][:, 2:].double()
    assert inside.shape[1] == joined.width == 2 * 3 + 2 + 2
    np.testing.assert_allclose(inside.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(0, correction=0), 1, atol=1e-5)


def test_a_channel_that_never_moves_is_zero() -> None:
    own = given(IrregularSeries(np.ones((3, 6, 1))), 5, 1.0)
    joined = JoinedChannels.fit(("rises",), own)
    assert (joined.join(own)[..., 1:] == 0).all()
    assert JoinedChannels.fit((), own).join(own) is own.control


def test_series_do_not_change_one_anothers_channels() -> None:
    series, labels = labelled(24, 1)
    fitted = member(channels=("rises", "age", "mirror"), epochs=1).fit(series, labels)
    together = fitted._inputs(series)["control"]
    for k in (0, 5):
        alone = fitted._inputs(series[[k]])["control"]
        torch.testing.assert_close(together[k : k + 1, : alone.shape[1]], alone)
