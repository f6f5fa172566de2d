"""The readings next to a time: numpy's own interpolation, and honest distances where there is none."""

from __future__ import annotations

import numpy as np
import torch

from sciode.timeseries.surroundings import surroundings


def test_between_readings_the_line_is_numpy_s_channel_by_channel() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.1, 1, (4, 12)), axis=1)
    values = rng.normal(size=(4, 12, 2))
    values[rng.random(values.shape) < 0.4] = np.nan
    times[3, 8:], values[3, 8:] = np.nan, np.nan
    queries = rng.uniform(0, 9, (4, 20))
    near = surroundings(*map(torch.from_numpy, (values, times, queries)), cap=3.0)
    for i in range(4):
        for c in range(2):
            seen = ~np.isnan(values[i, :, c])
            clock, readings = times[i, seen], values[i, seen, c]
            np.testing.assert_allclose(near.line[i, :, c], np.interp(queries[i], clock, readings), atol=1e-5)
            before = [min([q - t for t in clock if t <= q], default=3.0) for q in queries[i]]
            after = [min([t - q for t in clock if t > q], default=3.0) for q in queries[i]]
            np.testing.assert_allclose(near.before[i, :, c], np.minimum(before, 3), atol=1e-5)
            np.testing.assert_allclose(near.after[i, :, c], np.minimum(after, 3), atol=1e-5)


def test_a_channel_without_a_reading_is_at_the_mean_and_far_from_all() -> None:
    values = torch.tensor([[[1.0, torch.nan], [2.0, torch.nan]]]).double()
    times = torch.tensor([[0.0, 1.0]]).double()
    near = surroundings(values, times, torch.tensor([[0.0, 0.25, 1.0, torch.nan]]).double(), cap=7.0)
    assert near.line[0, :3].tolist() == [[1.0, 0.0], [1.25, 0.0], [2.0, 0.0]]
    assert near.before[0, :3, 0].tolist() == [0.0, 0.25, 0.0]
    assert (near.before[..., 1] == 7).all() and (near.after[..., 1] == 7).all() and near.features().isfinite().all()
