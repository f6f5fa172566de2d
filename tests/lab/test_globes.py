"""Globes: what faces the eye is drawn where it should be, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sciode.lab.globes import globe, globe_edges, globe_points, seen_from, spin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

matplotlib_figure = pytest.importorskip("matplotlib.figure")


@pytest.fixture
def figure() -> Figure:
    return matplotlib_figure.Figure()


def scattered(count: int = 60) -> NDArray[Any]:
    points = np.random.default_rng(0).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_the_eye_is_above_the_centre_with_north_up() -> None:
    points = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    at, front = seen_from(points, (90.0, 0.0))
    assert np.allclose(at[:3], [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # the centre, the pole, 90 degrees further east
    assert front[0] and not front[3]
    at, front = seen_from(scattered(), (30.0, 70.0))
    assert (np.linalg.norm(at, axis=1) <= 1.0 + 1e-12).all() and 20 < front.sum() < 40


def test_a_globe_shows_triangles_of_what_is_in_front(figure: Figure) -> None:
    points = scattered()
    ax = figure.subplots()
    assert globe(ax, points, points[:, 2], (0.0, 90.0), label="height") is ax
    figure.draw_without_rendering()
    shown = ax.collections[0]
    at, front = seen_from(points, (0.0, 90.0))
    corners = np.concatenate([np.asarray(path.vertices) for path in shown.get_paths()])
    near = np.linalg.norm(corners[:, None] - at[front], axis=-1).min(1)
    inside = np.linalg.norm(corners, axis=1) <= 1.0
    assert inside.sum() > 90 and near[inside].max() < 1e-12 and not inside.all()
    assert shown.get_clip_path() is not None
    assert shown.get_clim() == pytest.approx((-np.abs(points[:, 2]).max(), np.abs(points[:, 2]).max()))
    (bar,) = [other for other in figure.axes if other is not ax]
    assert bar.get_ylabel() == "height"


def test_a_globe_has_no_gap_at_its_rim(figure: Figure) -> None:
    points = scattered(600)
    ax = figure.subplots()
    globe(ax, points, points[:, 0], (20.0, 30.0), bar=False)
    triangles = np.array([np.asarray(path.vertices)[:3] for path in ax.collections[0].get_paths()])
    turn = np.linspace(0.0, 2.0 * np.pi, 50)
    asked = 0.98 * np.stack((np.cos(turn), np.sin(turn)), 1)[:, None, None]
    sides = np.roll(triangles, -1, 1) - triangles
    way = asked - triangles
    left = sides[..., 0] * way[..., 1] - sides[..., 1] * way[..., 0]  # [places, triangles, sides]
    assert np.any(np.all(left >= 0.0, axis=2) | np.all(left <= 0.0, axis=2), axis=1).all()


def test_a_globe_leaves_out_what_is_missing(figure: Figure) -> None:
    points = scattered()
    values = points[:, 2].copy()
    values[::3] = np.nan
    ax = globe(figure.subplots(), points, values, (0.0, 90.0))
    figure.draw_without_rendering()
    assert np.isfinite(np.asarray(ax.collections[0].get_array())).all()
    with pytest.raises(ValueError, match="3 of 60 points have values"):
        globe(ax, points, np.where(np.arange(60) < 3, 1.0, np.nan))


def test_points_and_edges_behind_are_left_out(figure: Figure) -> None:
    points = scattered()
    front = seen_from(points, (0.0, 0.0))[1]
    ax = figure.subplots()
    globe_points(ax, points, (0.0, 0.0))
    assert len(ax.lines[0].get_xdata()) == front.sum()  # type: ignore[arg-type]
    near, far = np.flatnonzero(front)[:2], np.flatnonzero(~front)[:2]
    other = figure.add_subplot()
    globe_edges(other, points, np.array([[near[0], near[0], far[0]], [near[1], far[0], far[1]]]), (0.0, 0.0))
    great = np.array(other.lines[0].get_xydata())
    assert great.shape == (9, 2) and np.allclose(great[[0, -1]], seen_from(points[near], (0.0, 0.0))[0])


def test_a_film_has_a_frame_a_title_in_one_scale(figure: Figure) -> None:
    points = scattered()
    values = np.stack([points[:, 0], 3.0 * points[:, 1]])
    ax = figure.subplots()
    film = spin(ax, points, values, ["one", "two"], degrees=10.0)
    film._init_draw()  # type: ignore[attr-defined]
    limits = ax.collections[0].get_clim()
    film._draw_frame(1)  # type: ignore[attr-defined]
    assert ax.get_title() == "two" and ax.collections[0].get_clim() == limits
    with pytest.raises(ValueError, match="a title a frame"):
        spin(ax, points, values, ["one"])


def test_misuse_is_named(figure: Figure) -> None:
    with pytest.raises(ValueError, match="a globe has points"):
        globe(figure.subplots(), scattered()[:, :2], np.zeros(60))
