"""Pictures of fields in time draw the values that the fields have, where and when they have them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.lab import evolutions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

matplotlib_figure = pytest.importorskip("matplotlib.figure")

LINE, SQUARE = ((-1.0,), (1.0,)), ((0.0, 0.0), (1.0, 2.0))


class Went(NamedTuple):
    t: float
    loss: float
    iterations: int


@pytest.fixture
def ax() -> Axes:
    return matplotlib_figure.Figure().subplots()


def wave(x: Tensor, t: float) -> Tensor:
    """On the line: x + t, and a second channel."""
    return torch.cat((x + t, 0 * x), 1)


def slope(x: Tensor, t: float) -> Tensor:
    """On the rectangle: larger to the right, much larger upwards, and growing."""
    return (t * (x[:, 0] + 10.0 * x[:, 1])).unsqueeze(1)


def test_an_image_has_x_to_the_right_and_y_upwards(ax: Axes) -> None:
    assert evolutions.field_image(ax, slope, 2.0, *SQUARE, side=11) is ax
    image = np.asarray(ax.images[0].get_array())
    assert image.shape == (10, 10) and ax.images[0].origin == "lower"
    # Pixel (row 3, column 7) lies at x = 0.75, y = 0.7.
    assert image[3, 7] == pytest.approx(2.0 * (0.75 + 7.0))
    assert tuple(ax.images[0].get_extent()) == (0.0, 1.0, 0.0, 2.0) and ax.get_title(loc="center") == "t = 2"


def test_colours_are_about_zero_only_for_fields_of_both_signs(ax: Axes) -> None:
    evolutions.field_image(ax, slope, 1.0, *SQUARE, bar=False)
    evolutions.field_image(ax, lambda x, t: slope(x, t) - 10.0, 1.0, *SQUARE, bar=False)
    positive, both = ax.images
    assert positive.get_clim()[0] == 0.0 and both.get_clim()[0] == -both.get_clim()[1] < 0
    assert positive.get_cmap().name != both.get_cmap().name


def test_space_and_time_are_the_axes_of_one_image(ax: Axes) -> None:
    evolutions.space_time(ax, wave, [0.0, 1.0, 2.0], *LINE, side=5)
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array())[:, 2], [0.0, 1.0, 2.0], atol=1e-15)
    assert tuple(ax.images[0].get_extent()) == (-1.0, 1.0, 0.0, 2.0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "t")


def test_errors_are_relative_to_the_exact_field(ax: Axes) -> None:
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    times = [0.5, 1.0]
    evolutions.error_over_time(ax, {"network": lambda x, t: wave(x, t) * (1.0 + 0.1 * t)}, wave, x, times)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [0.05, 0.1])  # type: ignore[arg-type]
    assert ax.get_yscale() == "log" and ax.get_legend() is not None


def test_steps_show_their_loss_and_their_iterations(ax: Axes) -> None:
    steps = [Went(0.0, 1e-14, 60), Went(0.1, 1e-12, 2), Went(0.2, 1e-13, 3)]
    assert evolutions.progress_of_steps(ax, steps) is ax
    assert list(ax.get_lines()[0].get_ydata()) == [1e-14, 1e-12, 1e-13]  # type: ignore[arg-type]
    beside = ax.figure.axes[1]
    assert [bar.get_height() for bar in beside.patches] == [2, 3]  # type: ignore[attr-defined]


def test_an_animation_moves_the_line_and_keeps_its_scale(ax: Axes) -> None:
    pytest.importorskip("PIL.Image")
    moving = evolutions.animate(ax, wave, [0.0, 1.0, 4.0], *LINE, exact=wave, side=3)
    exact, line = ax.get_lines()
    assert moving.to_jshtml(fps=5).count("data:image/png") == 3
    moving._draw_frame(2)  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_ydata(), [3.0, 4.0, 5.0])  # type: ignore[arg-type]
    np.testing.assert_allclose(exact.get_ydata(), [3.0, 4.0, 5.0])  # type: ignore[arg-type]
    assert ax.get_ylim()[0] < -1.0 and ax.get_ylim()[1] > 5.0 and ax.get_title() == "t = 4"


def test_an_animation_of_a_rectangle_is_written_and_plays(ax: Axes, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    moving = evolutions.animate(ax, slope, [1.0, 2.0, 3.0], *SQUARE, side=9)
    with image.open(evolutions.save_animation(moving, tmp_path / "heat.gif", dpi=40)) as written:
        assert written.n_frames == 3
    moving._draw_frame(2)  # type: ignore[attr-defined]
    assert float(np.asarray(ax.images[0].get_array())[0, 0]) == pytest.approx(3.0 * (1 / 16 + 10.0 * 0.125))
    # One scale for all frames: that of the last one's highest pixel.
    assert ax.images[0].get_clim()[1] == pytest.approx(3.0 * (15 / 16 + 10.0 * 1.875))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda ax: evolutions.field_image(ax, wave, 0.0, *LINE), "two dimensions"),
        (lambda ax: evolutions.space_time(ax, slope, [0.0, 1.0], *SQUARE), "one dimension"),
        (lambda ax: evolutions.space_time(ax, wave, [0.0], *LINE), "two at least"),
        (lambda ax: evolutions.space_time(ax, wave, [0.0, 1.0, 1.5], *LINE), "evenly spaced"),
        (lambda ax: evolutions.space_time(ax, wave, [1.0, 0.0], *LINE), "increasing"),
        (lambda ax: evolutions.error_over_time(ax, {}, wave, torch.zeros(1, 1), [0.0]), "one at least"),
        (lambda ax: evolutions.progress_of_steps(ax, []), "none to draw"),
        (lambda ax: evolutions.animate(ax, wave, [], *LINE), "one frame"),
        (lambda ax: evolutions.animate(ax, slope, [1.0], *SQUARE, exact=slope), "no room"),
        (lambda ax: evolutions.animate(ax, slope, [1.0], (0.0,) * 3, (1.0,) * 3), "two dimensions"),
        (lambda ax: evolutions.save_animation(None, "u.avi"), "gif or"),  # type: ignore[arg-type]
    ],
)
def test_misuse_says_what_is_wrong(call: Any, says: str, ax: Axes) -> None:
    with pytest.raises(ValueError, match=says):
        call(ax)


def test_a_field_that_is_zero_has_a_scale(ax: Axes) -> None:
    evolutions.space_time(ax, lambda x, t: 0 * x, [0.0, 1.0], *LINE)
    assert math.isfinite(ax.images[0].get_clim()[1]) and ax.images[0].get_clim()[1] > 0
