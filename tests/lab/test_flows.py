"""Pictures of flow sets: what is drawn is what was asked for, in a box, on a sphere and on a mesh."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from sciode.data import Flow, FlowSet, Space
from sciode.data.flow_recipes import make_flows
from sciode.lab.flows import answered, flow_film, flow_frame, flow_row
from sciode.lab.triangles import Picture, picture_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

matplotlib_figure = pytest.importorskip("matplotlib.figure")
SETTINGS: dict[str, dict[str, Any]] = {
    "vorticity": {"n": 16, "burn_in": 0.0, "frames": 3, "dt": 0.1},
    "shallow_water": {"degree": 10, "latitudes": 16, "stride": 1, "burn_in": 0.0, "frames": 3, "dt": 1800.0},
    "steps": {
        "ny": 16, "viscosity": 0.01, "porosity": 0.02, "finest": 0.04, "coarsest": 0.08, "burn_in": 0.0, "frames": 3,
        "dt": 0.02,
    },
}  # fmt: skip


@pytest.fixture
def figure() -> Figure:
    return matplotlib_figure.Figure()


@pytest.mark.parametrize("solver", SETTINGS)
def test_frames_of_every_kind_of_set_are_drawn_in_one_scale(solver: str, figure: Figure) -> None:
    flows = make_flows(solver, 1, **SETTINGS[solver])
    axes = figure.subplots(1, 3)
    channel = flows.channels[-1]
    assert flow_row(axes, flows, 0, channel, mesh=solver == "steps") is axes
    figure.draw_without_rendering()
    values = flows[0].values[..., -1].double().numpy()
    for ax, time in zip(axes, flows[0].times, strict=True):
        low, high = ax.collections[0].get_clim()
        assert low <= values.min() and values.max() <= high
        assert ax.get_title().startswith(f"t = {float(time):.4g}") and ax.get_xlabel() and ax.get_ylabel()
    assert len({ax.collections[0].get_clim() for ax in axes}) == 1
    assert figure.axes[-1].get_ylabel().startswith(channel)


def one(points: Any, values: Any, space: Space, times: Any = (0.0,), **more: Any) -> FlowSet:
    """A set of one flow of one channel, values [T, N]."""
    flow = Flow.from_arrays(points, times, np.asarray(values)[..., None], **more)
    return FlowSet("x", (flow,), ("a",), ("",), space)


def ball(count: int = 60) -> NDArray[Any]:
    points = np.random.default_rng(0).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


class Told(NamedTuple):
    """The flags of an answer."""

    outside: NDArray[np.bool_]
    beyond: NDArray[np.bool_]
    away: NDArray[np.bool_]


def shares(picture: Picture, places: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of places [Q, 2] the shares of the corners of each triangle that is no line, [Q, triangles, 3], and those."""
    corners = picture.at[picture.mesh]
    first, ways = corners[:, 0], np.stack((corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), 2)
    good = np.abs(np.linalg.det(ways)) > 1e-12
    share = np.einsum("kij,qkj->qki", np.linalg.inv(ways[good]), places[:, None] - first[good])
    return np.concatenate((1.0 - share.sum(2, keepdims=True), share), 2), picture.mesh[good]


def shown(picture: Picture, places: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """What a picture shows at places [Q, 2]; NaN where it shows nothing."""
    share, mesh = shares(picture, places)
    row, best = np.arange(len(places)), share.min(2).argmax(1)
    found = (share[row, best] * (picture.weights @ values)[mesh[best]]).sum(1)
    return np.where(share[row, best].min(1) > -1e-9, found, np.nan)


BOX, PLANE = Space("periodic", (0.0, 0.0), (1.0, 2.0)), Space("plane", (0.0, 0.0), (1.0, 1.0))
EVERY = np.stack(np.meshgrid(np.linspace(0.01, 0.99, 23), np.linspace(0.01, 0.99, 23)), -1).reshape(-1, 2)


@pytest.mark.parametrize("count", [1, 5, 300])
def test_a_periodic_box_is_drawn_to_its_seams(count: int) -> None:
    points = np.random.default_rng(1).random((count, 2)) * [1.0, 2.0] + [3.0, -4.0]  # images of points in the box
    picture = picture_of(points, np.ones(count, bool), BOX)
    assert np.isfinite(shown(picture, EVERY * [1.0, 2.0], points[:, 0])).all()
    up, down = (
        shown(picture, np.stack((EVERY[:23, 0], np.full(23, y)), 1), np.arange(count)) for y in (1e-6, 2 - 1e-6)
    )
    assert np.allclose(up, down, atol=1e-3 * count)


@pytest.mark.parametrize("count", [12, 300])
def test_a_map_shows_the_sphere_from_seam_to_seam_and_pole_to_pole(count: int) -> None:
    """A linear function of x, y and z is one on every geodesic triangle: within the depth of the triangles."""
    points = ball(count)
    picture = picture_of(points, np.ones(count, bool), Space("sphere"))
    places = EVERY[::3] * [360.0, 180.0] - [0.0, 90.0]
    places = np.concatenate((places, [[east, north] for east in (1.0, 100.0, 200.0) for north in (-90.0, 90.0)]))
    east, north = np.radians(places).T
    for axis, truth in enumerate((np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north))):
        missed = np.abs(shown(picture, places, points[:, axis]) - truth)
        assert missed.max() < 20.0 / count and missed.mean() < 6.0 / count
    assert np.isfinite(shown(picture, places, points[:, 0])).all()


def test_poles_among_the_points_and_points_on_one_side_only() -> None:
    points = np.concatenate((ball(), [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))
    picture = picture_of(points, np.ones(62, bool), Space("sphere"))
    top = shown(picture, np.stack((360.0 * EVERY[:23, 0], np.full(23, 89.9999)), 1), np.eye(62)[60])
    assert np.allclose(top, 1.0, atol=1e-3)
    north = points[points[:, 2] > 0.0]
    half = picture_of(north, np.ones(len(north), bool), Space("sphere"))
    assert half.at[half.cells.ravel(), 1].min() > -1.0 and half.at[:, 1].max() == 90.0
    share, _ = shares(half, EVERY[::7] * [360.0, 50.0] + [0.0, 40.0])
    assert np.allclose((share.min(2) > 1e-9).sum(1), 1), "once, not by what closes the hull behind too"


@pytest.mark.parametrize("space", [PLANE, BOX, Space("sphere")], ids=["plane", "box", "sphere"])
def test_points_without_values_are_left_out(space: Space, figure: Figure) -> None:
    points = ball() if space.kind == "sphere" else np.random.default_rng(0).random((60, 2))
    values = np.ones((1, 60))
    values[0, ::3] = np.nan
    ax = flow_frame(figure.subplots(), one(points, values, space))
    drawn = np.asarray(ax.collections[0].get_array())
    assert np.allclose(drawn, 1.0) and len(drawn) > 40
    mesh = np.array([[0, 1, 2], [1, 2, 4], [2, 4, 5]])
    picture = picture_of(np.random.default_rng(0).random((6, 2)), np.arange(6) != 0, PLANE, mesh)
    assert np.array_equal((picture.weights @ np.arange(6.0))[picture.mesh], mesh[1:])


def test_obstacles_between_walls_stay_empty() -> None:
    """A step whose walls are known, in a flow that sensors read without a mesh."""
    line = np.linspace(0.3, 0.7, 9)
    walls = np.concatenate([np.stack((line, np.full(9, y)), 1) for y in (0.3, 0.7)])
    walls = np.unique(np.concatenate((walls, walls[:, ::-1])).round(6), axis=0)
    free = EVERY[((EVERY < 0.28) | (EVERY > 0.72)).any(1)]
    points, on_walls = np.concatenate((free, walls)), np.arange(len(free) + len(walls)) >= len(free)
    picture = picture_of(points, np.ones(len(points), bool), PLANE, None, on_walls)
    found = np.isfinite(shown(picture, EVERY, points[:, 0]))
    inside = ((EVERY > 0.31) & (EVERY < 0.69)).all(1)
    assert not found[inside].any() and found[((EVERY < 0.3) | (EVERY > 0.7)).any(1)].all()


def test_what_is_flagged_is_hatched_and_said(figure: Figure) -> None:
    points = np.random.default_rng(0).random((60, 2))
    flags = Told(points[:, 0] > 0.5, np.array([False, True]), np.array([False, True]))
    flows = one(points, points[:, :1].T.repeat(2, 0), PLANE, (0.0, 1.0))
    sure, unsure = figure.subplots(1, 2)
    flow_frame(sure, flows, 0, 0, flags=flags._replace(outside=np.zeros(60, bool)))
    flow_frame(unsure, flows, 0, 1, flags=flags, heading="observer")
    assert (sure.get_title(), unsure.get_title()) == ("t = 0", "observer, t = 1 (beyond, ran away)")
    assert not sure.patches and unsure.patches[0].get_hatch()
    hatched = np.asarray(unsure.patches[0].get_path().vertices)
    assert hatched[:, 0].max() == pytest.approx(points[:, 0].max()) and 0.2 < hatched[:, 0].min() < 0.5
    with pytest.raises(ValueError, match="flags are of 60 places, 2 and 2 times, the flow has 59 and 2"):
        flow_frame(sure, one(points[1:], flows[0].values[:, 1:, 0], PLANE, (0.0, 1.0)), flags=flags)


@pytest.mark.parametrize("moves", [False, True])
def test_a_film_shows_every_frame_of_two_flows_in_one_scale(moves: bool, figure: Figure) -> None:
    rng = np.random.default_rng(0)
    points, values = rng.random((3, 30, 2)), rng.normal(size=(3, 30))
    values[1, 4] = np.nan
    values[2, 2:] = np.nan
    flows = one(points if moves else points[0], values, PLANE, (0.0, 1.0, 2.0))
    beside = answered(flows, np.ones((3, 50, 1)), flows[0].times, rng.random((50, 2)))
    axes = figure.subplots(1, 2)
    film = flow_film(axes, flows, beside=beside, headings=("truth", "observer"))
    film._init_draw()  # type: ignore[attr-defined]
    limits = axes[0].collections[0].get_clim()
    for frame, kept in ((0, 30), (1, 29), (0, 30)):
        film._draw_frame(frame)  # type: ignore[attr-defined]
        drawn = np.asarray(axes[0].collections[0].get_array())
        there = values[frame][np.isfinite(values[frame])]
        assert np.isin(there, drawn).sum() == kept and np.isfinite(drawn).all()
        assert [ax.get_title() for ax in axes] == [f"truth, t = {frame}", f"observer, t = {frame}"]
        assert all(ax.collections[0].get_clim() == limits for ax in axes)
    film._draw_frame(2)  # type: ignore[attr-defined]
    assert not axes[0].collections and len(axes[1].collections) == 1 and len(figure.axes) == 3


def test_walls_that_come_and_go_are_drawn_as_they_are(figure: Figure) -> None:
    points, values = np.random.default_rng(0).random((60, 2)), np.ones((2, 60))
    walls = np.zeros((2, 60), dtype=bool)
    walls[1] = np.abs(points - 0.5).max(1) < 0.25
    flows = FlowSet("made", (Flow.from_arrays(points, [0.0, 1.0], values[..., None], walls),), ("u",), ("",), PLANE)
    axes = figure.subplots()
    film = flow_film(axes, flows, limits=(0.0, 2.0))
    film._init_draw()  # type: ignore[attr-defined]
    counts = []
    for frame in (0, 1, 0):
        film._draw_frame(frame)  # type: ignore[attr-defined]
        counts.append(len(axes.collections[0]._triangulation.triangles))  # type: ignore[attr-defined]
    assert counts[0] == counts[2] > counts[1]


def test_an_answer_at_a_flows_own_points_has_its_mesh_and_its_walls() -> None:
    flows = make_flows("steps", 1, **SETTINGS["steps"])
    told = answered(flows, flows[0].values[:2] + 1.0, [0.5, 0.75])
    assert told[0].cells is flows[0].cells and told[0].walls is flows[0].walls and told.channels == flows.channels
    assert told[0].times.tolist() == [0.5, 0.75]


def test_what_cannot_be_drawn_says_why(figure: Figure) -> None:
    flow = Flow.from_arrays(np.random.default_rng(0).random((5, 3)), [0.0], np.ones((1, 5, 1)))
    flows = FlowSet("x", (flow,), ("a",), ("",), Space("plane", (0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match="have no picture"):
        flow_frame(figure.subplots(), flows)
    with pytest.raises(ValueError, match="channel"):
        flow_frame(figure.subplots(), flows, channel="b")
    flat = one(np.linspace(0, 1, 9)[:, None] * [1.0, 1.0], np.ones((1, 9)), PLANE)
    circle = np.stack((np.cos(np.arange(6.0)), np.sin(np.arange(6.0)), np.zeros(6)), 1)
    for flows in (flat, one(np.eye(2), np.ones((1, 2)), PLANE), one(circle, np.ones((1, 6)), Space("sphere"))):
        with pytest.raises(ValueError, match="span no"):
            flow_frame(figure.subplots(), flows)
    for number, frame, said in ((0, 1, "frame 1: the flow has 1"), (1, 0, "flow 1: the set has 1")):
        with pytest.raises(ValueError, match=said):
            flow_frame(figure.subplots(), flat, number, frame)
    good = one(np.random.default_rng(0).random((9, 2)), np.ones((1, 9)), PLANE)
    with pytest.raises(ValueError, match="none of the values"):
        flow_frame(figure.subplots(), one(good[0].points, np.full((1, 9), np.nan), PLANE))
    with pytest.raises(ValueError, match="give 2 each"):
        flow_film(figure.subplots(), good, beside=good)
    with pytest.raises(ValueError, match="other times"):
        flow_film(figure.subplots(1, 2), good, beside=one(good[0].points, np.ones((1, 9)), PLANE, (1.0,)))
    moving = replace(good, flows=(Flow.from_arrays(good[0].points[None], (0.0,), np.ones((1, 9, 1))),))
    with pytest.raises(ValueError, match="say where the answer is"):
        answered(moving, np.ones((1, 9, 1)), (0.0,))


def test_one_of_the_axes_is_enough_for_a_row(figure: Figure) -> None:
    flows = one(np.random.default_rng(0).random((9, 2)), np.ones((2, 9)), PLANE, (0.0, 1.0))
    ax = figure.subplots()
    assert flow_row(ax, flows) is ax and ax.get_title() == "t = 0"
    every = figure.subplots(2, 2)
    assert flow_row(every, flows) is every and every[1, 1].get_title() == "t = 1"
