"""Series on their own clocks become controls on one grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciode.data import IrregularSeries
from sciode.timeseries import ControlGrid, controls


def lines(times: list[list[float]]) -> IrregularSeries:
    """Series whose two channels are t and -2 t."""
    clocks = [np.array(clock) for clock in times]
    return IrregularSeries([np.stack([clock, -2 * clock], -1) for clock in clocks], clocks)


def test_steps_are_as_long_as_the_median_gap_by_default() -> None:
    grid = ControlGrid.of(lines([[0, 2, 4], [5, 7, 9, 9.5, 11, 13, 15]]), horizon=2.0)
    assert (grid.duration, grid.steps, grid.dt) == (10.0, 5, 0.4)
    regular = lines([list(range(30)), list(range(12))])
    assert ControlGrid.of(regular).steps == 29 and ControlGrid.of(regular, steps=20).steps == 20


def test_bursts_make_no_more_steps_than_a_series_has_points() -> None:
    series = lines([[0, 1, 2], [5, 5.001, 5.002, 5.003, 15]])
    assert ControlGrid.of(series).steps == 4


def test_the_order_of_the_series_does_not_matter() -> None:
    """Two last as long: one has two points, the other eleven."""
    series = lines([[0, 10], list(range(11)), [0, 1, 2]])
    assert ControlGrid.of(series).steps == ControlGrid.of(series[::-1]).steps == 10


def test_paths_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    series = lines([[0, 1, 2], [5, 6, 8, 9, 15], [1, 3], [0.5], [2, 2.5, 7]])
    whole = ControlGrid.of(series).controls(series)
    monkeypatch.setattr(controls, "_AT_ONCE", 2)
    parts = ControlGrid.of(series).controls(series)
    assert torch.equal(whole.values, parts.values) and torch.equal(whole.ends, parts.ends)


def test_series_start_at_zero_and_end_at_their_own_time() -> None:
    series = lines([[0, 1, 2], [5, 6, 8, 9, 15]])
    values, ends = ControlGrid(10.0, 20, horizon=2.0).controls(series)
    assert ends.tolist() == pytest.approx([0.4, 2.0])
    assert values.shape == (2, 21, 2)
    elapsed = np.arange(21) * 0.5
    np.testing.assert_allclose(values[0, :, 0].numpy(), np.minimum(elapsed, 2), rtol=1e-6)
    np.testing.assert_allclose(values[1, :, 1].numpy(), -2 * (5 + elapsed), rtol=1e-6)


def test_a_series_longer_than_the_training_s_gets_more_steps() -> None:
    grid = ControlGrid.of(lines([[0, 1, 2]]))
    values, ends = grid.controls(lines([[0, 1, 2, 3, 4, 5]]))
    assert ends.tolist() == [2.5] and values.shape[1] == 6


def test_a_single_time_point_is_one_step_long() -> None:
    grid = ControlGrid.of(lines([[0, 1, 2]]))
    values, ends = grid.controls(lines([[7.0]]))
    assert ends.tolist() == [grid.dt] and values.shape == (1, 2, 2)
    assert ControlGrid.of(lines([[7.0]])).dt == 1.0


def test_the_unit_of_time_does_not_matter() -> None:
    seconds = [[0.0, 1.0, 3.0], [2.0, 2.5, 6.0]]
    hours = [[t / 3600 for t in clock] for clock in seconds]
    values = [np.arange(3.0)[:, None]] * 2
    found = []
    for times in (seconds, hours):
        series = IrregularSeries(values, [np.array(clock) for clock in times])
        found.append(ControlGrid.of(series).controls(series))
    np.testing.assert_allclose(found[0].values.numpy(), found[1].values.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found[0].ends.numpy(), found[1].ends.numpy(), rtol=1e-12)
