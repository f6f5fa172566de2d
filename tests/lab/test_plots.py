"""Plots draw the numbers they were given, on the axes they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sciode.lab import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

matplotlib_figure = pytest.importorskip("matplotlib.figure")


@pytest.fixture
def ax() -> Axes:
    return matplotlib_figure.Figure().subplots()


def test_missing_readings_are_not_drawn(ax: Axes) -> None:
    values = np.array([[1.0, np.nan], [np.nan, 5.0], [3.0, 6.0]])
    assert plots.series(ax, [0, 1, 4], values, names=["a", "b"], unit="hours") is ax
    first, second = ax.get_lines()
    assert first.get_xydata().tolist() == [[0, 1], [4, 3]]  # type: ignore[union-attr]
    assert second.get_xydata().tolist() == [[1, 5], [4, 6]]  # type: ignore[union-attr]
    assert ax.get_xlabel() == "hours"


def test_a_path_is_drawn_in_the_colour_of_its_readings(ax: Axes) -> None:
    plots.series(ax, [0, 1], [1.0, 2.0], path=([0, 0.5, 1], [1.0, 1.5, 2.0]))
    points, line = ax.get_lines()
    assert points.get_color() == line.get_color() and len(line.get_xydata()) == 3  # type: ignore[arg-type]


def test_a_fan_shows_every_path_their_median_and_the_central_band(ax: Axes) -> None:
    paths = np.arange(5.0)[:, None] * np.ones(3)
    assert plots.fan(ax, [0, 1, 2], paths, coverage=0.5) is ax
    assert len(ax.get_lines()) == 1 + 5
    assert ax.get_lines()[0].get_ydata().tolist() == [2, 2, 2]  # type: ignore[union-attr]
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1.0, 3.0)  # type: ignore[index]


def test_the_confusion_matrix_counts(ax: Axes) -> None:
    true, predicted = ["cat", "cat", "dog", "dog", "dog"], ["cat", "dog", "dog", "dog", "dog"]
    plots.confusion(ax, true, predicted)
    assert sorted((text.get_position(), text.get_text()) for text in ax.texts) == [
        ((0, 0), "1"),
        ((1, 0), "1"),
        ((1, 1), "3"),
    ]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_work_and_precision_are_logarithmic(ax: Axes) -> None:
    plots.work_precision(ax, [10, 100], [1e-2, 1e-4], label="heun", spread=([9e-3, 9e-5], [2e-2, 2e-4]))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_legend_handles_labels()[1] == ["heun"]


def test_a_deformed_body_is_drawn_face_by_face_the_nearest_last(ax: Axes) -> None:
    flat = [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]
    plots.deformed(ax, flat, [[0, 1, 2, 3]])
    (drawn,) = ax.collections
    assert np.asarray(drawn.get_paths()[0].vertices)[:4].tolist() == flat
    assert ax.get_aspect() == 1.0 and ax.get_xlim()[0] <= 0.0 and ax.get_xlim()[1] >= 2.0
    near, far = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]], [[-1.0, 5.0, 5.0]] * 3
    other = matplotlib_figure.Figure().subplots()
    plots.deformed(other, [*near, *far], [[0, 1, 2], [3, 4, 5]])
    # Seen from the side: what is left of a place are its second and third coordinates.
    first, last = (np.asarray(path.vertices)[:3].tolist() for path in other.collections[0].get_paths())
    assert first == [[5.0, 5.0]] * 3 and last == [place[1:] for place in near]
    with pytest.raises(ValueError, match="faces"):
        plots.deformed(ax, [[0.0], [1.0]], [[0, 1]])


def test_misuse_says_the_mend(ax: Axes) -> None:
    with pytest.raises(ValueError, match="differ in length"):
        plots.series(ax, [0, 1], np.zeros((3, 1)))
    with pytest.raises(ValueError, match="one row a sample"):
        plots.fan(ax, [0, 1], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="coverage"):
        plots.fan(ax, [0, 1], np.zeros((2, 2)), coverage=0)
    with pytest.raises(ValueError, match="outside classes"):
        plots.confusion(ax, ["a"], ["b"], classes=["a"])
    with pytest.raises(ValueError, match="positive"):
        plots.work_precision(ax, [1, 2], [0, 1], label="x")
