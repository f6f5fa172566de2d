"""What plots of bandits show: means and bands, bars in order, arms sorted, marks where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

from sciode.lab import bandit_plots


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def test_regret_is_the_mean_in_the_band_of_its_interval(ax: Axes) -> None:
    curves = np.array([[1.0, 3.0], [2.0, 5.0], [3.0, 7.0]])
    assert bandit_plots.regret(ax, curves, label="UCB") is ax
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata()), [2.0, 5.0])
    half = t.ppf(0.975, 2) * 2.0 / np.sqrt(3)
    heights = np.asarray(ax.collections[0].get_paths()[0].vertices)[:, 1]
    assert heights.max() == pytest.approx(5 + half)
    assert len(bandit_plots.regret(ax, curves[:1], label="one").collections) == 1
    with pytest.raises(ValueError, match="runs, plays"):
        bandit_plots.regret(ax, [1.0, 2.0], label="flat")


def test_conditions_are_bars_from_the_top(ax: Axes) -> None:
    assert bandit_plots.conditions(ax, ["flux", "value"], [0.5, -1.0], [0.1, 0.2]) is ax
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in ax.patches}  # type: ignore[attr-defined]
    labels = dict(zip(ax.get_yticks(), (text.get_text() for text in ax.get_yticklabels()), strict=True))
    assert {labels[place]: width for place, width in widths.items()} == {"flux": 0.5, "value": -1.0}
    assert labels[max(labels)] == "flux"
    with pytest.raises(ValueError, match="one for each name"):
        bandit_plots.conditions(ax, ["flux"], [0.5, 1.0])


def test_rewards_are_sorted_and_marks_lie_on_their_arms(ax: Axes) -> None:
    values = np.array([[0.0, 1.0, 3.0], [0.0, 2.0, 1.0]])
    assert bandit_plots.rewards(ax, [2.0, 1.0], values, marks=[1, 0]) is ax
    # The second task has the smaller context and comes first; arms by mean: 2, 1, 0.
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), [[-1.0, 0.0], [0.0, -2.0], [-2.0, -3.0]])
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata()), [2, 1])
    with pytest.raises(ValueError, match="contexts"):
        bandit_plots.rewards(ax, [1.0], values)
