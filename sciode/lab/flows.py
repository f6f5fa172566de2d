"""Pictures of flow sets: a frame of a flow in a box, on a sphere or on a mesh, and several in a row.

Each function takes Axes, draws one thing with labelled axes, and returns the Axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sciode.data.flow import Flow, FlowSet
from sciode.lab.colours import colour_limits
from sciode.solvers.suggest import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["flow_frame", "flow_row"]


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
) -> Axes:
    """Draw one channel of one frame of a flow of a set: triangles in the plane, longitude and latitude on a sphere.

    Parameters
    ----------
    channel: its name; None: the first. limits: of the colours; None: the values' ends, about zero where they have both
    signs. mesh: draw the triangles' edges and the points on walls too. bar: a colour bar.

    Raises ValueError for an unknown channel, or points in space that are on no sphere.
    """
    name = flows.channels[0] if channel is None else choose("channel", channel, flows.channels)
    flow = flows[number].between(*_one(flows[number], frame))
    values = flow.values[0, :, flows.channels.index(name)].double().numpy()
    points = (flow.points[0] if flow.moves else flow.points).double().numpy()
    low, high = limits or colour_limits(values)
    look: dict[str, Any] = {
        "vmin": low, "vmax": high, "cmap": "RdBu_r" if low < 0.0 < high else "viridis", "shading": "gouraud",
    }  # fmt: skip
    if flows.space.kind == "sphere":
        east, north = _angles(points)
        drawn = ax.tripcolor(*_unrolled(east, north, values), **look)
        ax.set(xlabel="longitude", ylabel="latitude", xlim=(0, 360), ylim=(-90, 90))
    elif points.shape[1] == 2:
        cells = None if flow.cells is None else (flow.cells[0] if flow.cells.ndim == 3 else flow.cells).numpy()
        shape: dict[str, Any] = {} if cells is None else {"triangles": cells}
        drawn = ax.tripcolor(points[:, 0], points[:, 1], values, **shape, **look)
        ax.set(xlabel="x", ylabel="y", aspect="equal")
        if mesh:
            ax.triplot(points[:, 0], points[:, 1], **shape, color="white", linewidth=0.2)
            _mark_walls(ax, flow, points)
    else:
        raise ValueError(f"points with {points.shape[1]} coordinates in {flows.space.kind!r} have no picture")
    ax.grid(False)
    unit = flows.units[flows.channels.index(name)]
    ax.set_title(f"t = {float(flow.times[0]):.4g} {flows.time_unit}".rstrip())
    if bar:
        ax.figure.colorbar(drawn, ax=ax, shrink=0.8, label=f"{name} ({unit})" if unit else name)
    return ax


def flow_row(
    axes: Sequence[Axes], flows: FlowSet, number: int = 0, channel: str | None = None, **look: Any
) -> Sequence[Axes]:
    """Draw frames of one flow, evenly apart from first to last, one Axes each, in one scale; see `flow_frame`."""
    flow = flows[number]
    name = flows.channels[0] if channel is None else choose("channel", channel, flows.channels)
    frames = np.linspace(0, len(flow.times) - 1, len(axes)).round().astype(int).tolist()
    limits = colour_limits(flow.values[frames, :, flows.channels.index(name)].double().numpy())
    for place, frame in enumerate(frames):
        last = place == len(frames) - 1
        flow_frame(axes[place], flows, number, frame, name, **{"limits": limits, "bar": last, **look})
    return axes


def _one(flow: Flow, frame: int) -> tuple[int, int]:
    begin = range(len(flow.times))[frame]
    return begin, begin + 1


def _angles(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Longitudes in [0, 360) and latitudes, in degrees."""
    radius = np.linalg.norm(points, axis=1)
    # Rounded, for rows of a grid that are straight but for rounding would have slivers along the map's edge.
    east = np.degrees(np.arctan2(points[:, 1], points[:, 0])).round(3) % 360.0
    return east, np.degrees(np.arcsin(points[:, 2] / radius)).round(3)


def _unrolled(
    east: NDArray[Any], north: NDArray[Any], values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Points and values once more beyond both ends of the map, so that triangles close the seam."""
    left, right = east > 270.0, east < 90.0
    longitudes = np.concatenate((east, east[left] - 360.0, east[right] + 360.0))
    return (
        longitudes,
        np.concatenate((north, north[left], north[right])),
        np.concatenate((values, values[left], values[right])),
    )


def _mark_walls(ax: Axes, flow: Flow, points: NDArray[Any]) -> None:
    walls: Tensor | None = flow.walls[0] if flow.walls is not None and flow.walls.ndim == 2 else flow.walls
    if walls is not None:
        ax.plot(*points[walls.numpy()].T, ".", color="black", markersize=2, label="wall")
