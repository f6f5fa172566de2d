"""Pictures of flow sets: a frame of a flow in a box, on a sphere or on a mesh, several in a row, and all as a film.

Each function takes Axes, draws with labelled axes, and returns the Axes; `flow_film` returns the animation. What an
observer answers is drawn as a flow too (`answered`), with its flags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sciode.data.flow import Flow, FlowSet
from sciode.lab.colours import colour_limits
from sciode.lab.triangles import Picture, picture_of
from sciode.solvers.suggest import choose

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes

__all__ = ["answered", "flow_film", "flow_frame", "flow_row"]


class _Flags(Protocol):
    """What is not to be trusted: of places [N] and of times [T], as `sciode.observers.Prediction` says it."""

    @property
    def outside(self) -> NDArray[np.bool_]: ...

    @property
    def beyond(self) -> NDArray[np.bool_]: ...

    @property
    def away(self) -> NDArray[np.bool_]: ...


class _Look(NamedTuple):
    """How all frames of a flow are drawn."""

    name: str
    limits: tuple[float, float]
    mesh: bool
    flags: _Flags | None
    heading: str


def flow_frame(
    ax: Axes,
    flows: FlowSet,
    number: int = 0,
    frame: int = -1,
    channel: str | None = None,
    *,
    limits: tuple[float, float] | None = None,
    mesh: bool = False,
    bar: bool = True,
    flags: _Flags | None = None,
    heading: str = "",
) -> Axes:
    """Draw one channel of one frame of a flow of a set, smooth on triangles between its points.

    In a periodic box they reach over the seams; a sphere is a map of longitude and latitude, on geodesic triangles from
    pole to pole. Where a flow has walls and no mesh, triangles between walls alone are left out: they lie in obstacles.
    A point without a value (NaN) is left out too, of a mesh with its triangles, else its neighbours fill the gap.

    Parameters
    ----------
    channel: its name; None: the first. limits: of the colours; None: the values' ends, about zero where they have both
    signs. mesh: draw the triangles' edges and the points on walls too, not on maps. bar: a colour bar.
    flags: of an answer, such as `Prediction`: what is `outside` is pale and hatched, the title says of a frame that it
    is `beyond` the times of training, or that the forecast has run `away`. heading: before the time in the title.

    Raises ValueError for an unknown channel, a flow, frame or flags that are not there, points in other than two
    dimensions that are on no sphere, or that span no triangle, and where no value is there to choose colours by.
    """
    flow, name = _flow(flows, number), _channel(flows, channel)
    values = _values(flows, flow, name)[_frame(flow, frame)]
    look = _Look(name, limits or colour_limits(values), mesh, flags, heading)
    _check_flags(flow, flags)
    picture = _pictured(flows, flow, _frame(flow, frame), np.isfinite(values))
    _drawn(ax, flows, flow, _frame(flow, frame), look, picture)
    if bar:
        _bar(ax, flows, look)
    return ax


def flow_row(
    axes: Axes | Sequence[Axes] | NDArray[Any], flows: FlowSet, number: int = 0, channel: str | None = None, **look: Any
) -> Any:
    """Draw frames of one flow, evenly apart from first to last, one of the Axes each (any array of them, or one, which
    gets the first), in one scale; look: of `flow_frame`. Returns axes."""
    flow, name = _flow(flows, number), _channel(flows, channel)
    every = _every(axes)
    frames = np.linspace(0, len(flow.times) - 1, len(every)).round().astype(int).tolist()
    limits = colour_limits(_values(flows, flow, name)[frames])
    for place, (ax, frame) in enumerate(zip(every, frames, strict=True)):
        flow_frame(ax, flows, number, frame, name, **{"limits": limits, "bar": place == len(every) - 1, **look})
    return axes


def flow_film(
    axes: Axes | Sequence[Axes] | NDArray[Any],
    flows: FlowSet,
    number: int = 0,
    channel: str | None = None,
    *,
    beside: FlowSet | None = None,
    flags: _Flags | None = None,
    headings: Sequence[str] = ("", ""),
    limits: tuple[float, float] | None = None,
    mesh: bool = False,
    interval: int = 120,
) -> FuncAnimation:
    """Animate one channel of a flow as `flow_frame` draws it, in one scale; points and meshes may move.

    `HTML(flow_film(...).to_jshtml())` plays it in a notebook; `evolutions.save_animation` writes it. A frame of less
    than three values is empty.

    Parameters
    ----------
    axes: one, or two with `beside`: a set whose first flow, of the same times, is drawn on the second, such as an
    answer (`answered`). flags: of `beside`, where it is given. headings: before the time in the titles. limits: of the
    colours of both; None: the ends of all values of the first flow. interval: milliseconds a frame.

    Raises ValueError for what `flow_frame` refuses, another number of Axes, or other times beside.
    """
    from matplotlib.animation import FuncAnimation

    name, every = _channel(flows, channel), _every(axes)
    shown = [(flows, _flow(flows, number))] + ([] if beside is None else [(beside, _flow(beside, 0))])
    if len(every) != len(shown) or len(headings) < len(shown):
        raise ValueError(f"axes, headings: give {len(shown)} each, got {len(every)} and {len(headings)}")
    clock = shown[0][1].times
    if len(shown[-1][1].times) != len(clock) or not torch.allclose(shown[-1][1].times, clock):
        raise ValueError("beside: its frames have other times than the flow's; ask for an answer at `flow.times`")
    scale = limits or colour_limits(_values(flows, shown[0][1], name))
    looks = [
        _Look(_channel(part, name), scale, mesh, flags if place == len(shown) - 1 else None, headings[place])
        for place, (part, _) in enumerate(shown)
    ]
    _check_flags(shown[-1][1], flags)
    kept: list[tuple[bytes, Picture | None]] = [(b"none yet", None)] * len(shown)

    def draw(frame: int) -> list[Any]:
        for place, (ax, (part, flow), look) in enumerate(zip(every, shown, looks, strict=True)):
            there = np.isfinite(_values(part, flow, look.name)[frame])
            moves = flow.moves or any(
                x is not None and x.ndim == axes for x, axes in ((flow.cells, 3), (flow.walls, 2))
            )
            key = there.tobytes() + (str(frame).encode() if moves else b"")
            if kept[place][0] != key:
                enough = there if there.sum() >= 3 else np.zeros_like(there)
                kept[place] = key, _pictured(part, flow, frame, enough)
            ax.clear()
            _drawn(ax, part, flow, frame, look, kept[place][1])
        return []

    draw(0)
    _bar(every, flows, looks[0])
    return FuncAnimation(every[0].figure, draw, frames=len(clock), interval=interval, blit=False)  # type: ignore[arg-type]


def answered(
    flows: FlowSet, values: ArrayLike, times: ArrayLike, positions: ArrayLike | None = None, number: int = 0
) -> FlowSet:
    """What an observer answers as a set of one flow, for pictures of it: values [T, Q, c], such as `Prediction.values`,
    at times [T] and positions [Q, d]; channels, units and space are those of `flows`.

    positions None: the answer is at the points of that flow `number`, and has its walls and its mesh. Raises ValueError
    for values that do not fit.
    """
    like = _flow(flows, number)
    if positions is None and like.moves:
        raise ValueError("positions: the points of this flow move; say where the answer is")
    told = (
        Flow.from_arrays(like.points, times, values, *(_still(x, n) for x, n in ((like.walls, 1), (like.cells, 2))))
        if positions is None
        else Flow.from_arrays(positions, times, values)
    )
    return replace(flows, flows=(told,), grid=flows.grid if positions is None else None)


def _still(array: Any, axes: int) -> Any:
    return array if array is not None and array.ndim == axes else None


def _every(axes: Any) -> list[Axes]:
    found = list(np.ravel(np.asarray(axes, dtype=object)))
    if not found:
        raise ValueError("axes: give one at least, as plt.subplots does")
    return found


def _channel(flows: FlowSet, channel: str | None) -> str:
    return flows.channels[0] if channel is None else choose("channel", channel, flows.channels)


def _flow(flows: FlowSet, number: int) -> Flow:
    if not -len(flows) <= number < len(flows):
        raise ValueError(f"flow {number}: the set has {len(flows)}, counted from 0")
    return flows[number]


def _frame(flow: Flow, frame: int) -> int:
    if not -len(flow.times) <= frame < len(flow.times):
        raise ValueError(
            f"frame {frame}: the flow has {len(flow.times)}, counted from 0, or from the end by -1, -2, ..."
        )
    return frame % len(flow.times)


def _values(flows: FlowSet, flow: Flow, name: str) -> NDArray[Any]:
    return flow.values[:, :, flows.channels.index(name)].double().numpy()


def _check_flags(flow: Flow, flags: _Flags | None) -> None:
    if flags is not None:
        found, (frames, count) = (len(flags.outside), len(flags.beyond), len(flags.away)), flow.values.shape[:2]
        if found != (count, frames, frames):
            raise ValueError(
                f"flags are of {found[0]} places, {found[1]} and {found[2]} times, the flow has {count} and {frames}"
            )


def _pictured(flows: FlowSet, flow: Flow, frame: int, there: NDArray[np.bool_]) -> Picture | None:
    """None where nothing is there."""
    if not there.any():
        return None
    one = flow.between(frame, frame + 1)
    points, cells, walls = (
        None if x is None else (x[0] if x.ndim == axes else x).numpy()
        for x, axes in ((one.points, 3), (one.cells, 3), (one.walls, 2))
    )
    assert points is not None
    return picture_of(points.astype(np.float64), there, flows.space, cells, walls)


def _drawn(ax: Axes, flows: FlowSet, flow: Flow, frame: int, look: _Look, picture: Picture | None) -> None:
    if picture is not None and len(picture.cells):
        shown = picture.weights @ _values(flows, flow, look.name)[frame]
        how: dict[str, Any] = {"triangles": picture.cells, "shading": "gouraud", **_colours(look)}
        ax.tripcolor(picture.at[:, 0], picture.at[:, 1], shown, **how)
        if look.mesh and flows.space.kind != "sphere":
            ax.triplot(*picture.at.T, triangles=picture.mesh, color="white", linewidth=0.2)
        if look.flags is not None:
            _hatch(ax, picture, np.asarray(look.flags.outside, dtype=np.float64))
    if look.mesh:
        _mark_walls(ax, flow, frame)
    _frame_axes(ax, flows, flow)
    time = f"t = {float(flow.times[frame]):.4g} {flows.time_unit}".rstrip()
    said = f"{look.heading}, {time}" if look.heading else time
    ax.set_title(said if look.flags is None else said + _said(look.flags, frame))


def _colours(look: _Look) -> dict[str, Any]:
    from matplotlib.colors import Normalize

    low, high = look.limits
    return {"norm": Normalize(low, high), "cmap": "RdBu_r" if low < 0.0 < high else "viridis"}


def _bar(axes: Axes | list[Axes], flows: FlowSet, look: _Look) -> None:
    from matplotlib.cm import ScalarMappable

    unit = flows.units[flows.channels.index(look.name)]
    label = f"{look.name} ({unit})" if unit else look.name
    figure = (axes[0] if isinstance(axes, list) else axes).figure
    figure.colorbar(ScalarMappable(**_colours(look)), ax=axes, shrink=0.8, label=label)


def _frame_axes(ax: Axes, flows: FlowSet, flow: Flow) -> None:
    ax.grid(False)
    if flows.space.kind == "sphere":
        ax.set(xlabel="longitude", ylabel="latitude", xlim=(0, 360), ylim=(-90, 90))
        ax.set(xticks=(0, 90, 180, 270, 360), yticks=(-90, -45, 0, 45, 90))
        return
    if flows.space.kind == "periodic":
        sides = np.stack((flows.space.lower, flows.space.upper), 1)
    else:
        points = flow.points.reshape(-1, 2).double().numpy()
        room = 0.02 * np.ptp(points, axis=0).max()
        sides = np.stack((points.min(0) - room, points.max(0) + room), 1)
    ax.set(xlabel="x", ylabel="y", aspect="equal", xlim=sides[0], ylim=sides[1])


def _said(flags: _Flags, frame: int) -> str:
    said = [text for text, there in (("beyond", flags.beyond), ("ran away", flags.away)) if there[frame]]
    return f" ({', '.join(said)})" if said else ""


def _hatch(ax: Axes, picture: Picture, outside: NDArray[Any]) -> None:
    """Pale and hatched, to halfway from corners outside to others."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    ends = picture.at[picture.cells[(picture.weights @ outside)[picture.cells].mean(1) >= 0.5]]
    if len(ends):
        closed = np.concatenate((ends, ends[:, :1]), 1).reshape(-1, 2)
        codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(ends))
        pale = {"facecolor": (1.0, 1.0, 1.0, 0.5), "edgecolor": "0.4", "hatch": "////", "linewidth": 0.0}
        ax.add_patch(PathPatch(Path(closed, codes), antialiased=False, **pale))


def _mark_walls(ax: Axes, flow: Flow, frame: int) -> None:
    if flow.walls is not None:
        walls = flow.walls[frame] if flow.walls.ndim == 2 else flow.walls
        points = flow.points[frame] if flow.moves else flow.points
        ax.plot(*points[walls].double().numpy().T, ".", color="black", markersize=2, label="wall")
