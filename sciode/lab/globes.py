"""Pictures on a sphere, seen from afar: a field, the sensors that read it, and how it changes.

Each function takes Axes, draws one thing, and returns the Axes; `spin` returns the animation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from sciode.lab.colours import colour_limits

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes

__all__ = ["globe", "globe_edges", "globe_points", "seen_from", "spin"]


def seen_from(points: NDArray[Any], centre: tuple[float, float]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Where points [N, 3] of a sphere about the origin appear [N, 2], in radii, and which are in front [N].

    centre: longitude and latitude in degrees of the point that faces the eye, which is infinitely far away.
    """
    east, north = np.radians(centre)
    unit = np.asarray(points, dtype=np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    toward = np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    right = np.array([-np.sin(east), np.cos(east), 0.0])
    return unit @ np.stack((right, np.cross(toward, right)), 1), unit @ toward > 0.0


def globe(
    ax: Axes,
    points: NDArray[Any],
    values: NDArray[Any],
    centre: tuple[float, float] = (0.0, 30.0),
    *,
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
    label: str = "",
    bar: bool = True,
) -> Axes:
    """Draw values [N] at points [N, 3] of a sphere, smooth between them, as seen from above `centre`.

    Points without a value (NaN) are left out; their neighbours fill the gap. limits: of the colours; None: the values'
    ends, about zero where they have both signs. bar: a colour bar, with its label. Raises ValueError for shapes that do
    not fit, or fewer than four points with values.
    """
    from matplotlib.patches import Circle

    points, values = np.asarray(points, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 4 or values.shape != (len(points),):
        raise ValueError(f"a globe has points [N, 3], N > 3, and values [N], got {points.shape} and {values.shape}")
    there = np.isfinite(values)
    points, values = points[there], values[there]
    if len(values) < 4:
        raise ValueError(f"{len(values)} of {len(there)} points have values: a globe needs four; take globe_points")
    low, high = limits or colour_limits(values)
    look: dict[str, Any] = {"vmin": low, "vmax": high, "shading": "gouraud"}
    at, cells = _front(points, centre)
    colours = cmap or ("RdBu_r" if low < 0.0 < high else "viridis")
    drawn = ax.tripcolor(at[:, 0], at[:, 1], values, triangles=cells, cmap=colours, **look)
    _bare(ax, centre)
    drawn.set_clip_path(Circle((0.0, 0.0), 1.0, transform=ax.transData))
    if bar:
        ax.figure.colorbar(drawn, ax=ax, shrink=0.7, label=label)
    return ax


def globe_points(ax: Axes, points: NDArray[Any], centre: tuple[float, float] = (0.0, 30.0), **look: Any) -> Axes:
    """Mark those of points [N, 3] that are in front; look: of `Axes.plot`."""
    at, front = seen_from(points, centre)
    ax.plot(*at[front].T, **{"linestyle": "none", "marker": ".", "markersize": 4, "color": "black", **look})
    _bare(ax, centre)
    return ax


def globe_edges(
    ax: Axes, points: NDArray[Any], edges: NDArray[Any], centre: tuple[float, float] = (0.0, 30.0), **look: Any
) -> Axes:
    """Draw edges [2, E] between points [N, 3] as great circles; those with an end behind are left out."""
    front = seen_from(points, centre)[1]
    first, second = (points[ends] for ends in np.asarray(edges)[:, front[edges[0]] & front[edges[1]]])
    share = np.linspace(0.0, 1.0, 9)[:, None, None]
    ways = (1.0 - share) * first + share * second  # [9, E, 3], brought back to the sphere by `seen_from`
    lines = seen_from(ways.reshape(-1, 3), centre)[0].reshape(9, -1, 2)
    ax.plot(lines[..., 0], lines[..., 1], **{"color": "0.5", "linewidth": 0.5, **look})
    _bare(ax, centre)
    return ax


def spin(
    ax: Axes,
    points: NDArray[Any],
    values: NDArray[Any],
    titles: Sequence[str],
    centre: tuple[float, float] = (0.0, 30.0),
    *,
    degrees: float = 0.0,
    interval: int = 120,
    **look: Any,
) -> FuncAnimation:
    """Animate frames [T, N] on a globe that turns `degrees` east a frame, in one scale; look: of `globe`.

    `HTML(spin(...).to_jshtml())` plays it in a notebook. interval: milliseconds a frame. Raises ValueError for another
    number of titles.
    """
    from matplotlib.animation import FuncAnimation

    if len(titles) != len(values):
        raise ValueError(f"a title a frame: got {len(titles)} for {len(values)}")
    shown = {"limits": colour_limits(np.asarray(values)), **look}

    def draw(frame: int) -> list[Any]:
        ax.clear()
        globe(ax, points, values[frame], (centre[0] + degrees * frame, centre[1]), **{**shown, "bar": False})
        ax.set_title(titles[frame])
        return []

    globe(ax, points, values[0], centre, **shown)
    return FuncAnimation(ax.figure, draw, frames=len(values), interval=interval, blit=False)  # type: ignore[arg-type]


def _front(points: NDArray[Any], centre: tuple[float, float]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where the points appear, those behind folded out over the rim, and the geodesic triangles that reach the front.

    Triangles across the rim then cover it, without a gap.
    """
    at, front = seen_from(points, centre)
    away = np.linalg.norm(at, axis=1, keepdims=True)
    at = np.where(front[:, None], at, at * (2.0 / np.maximum(away, 1e-12) - 1.0))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    cells = ConvexHull(unit).simplices
    return at, cells[front[cells].any(1)]


def _bare(ax: Axes, centre: tuple[float, float]) -> None:
    """No axes but the rim, parallels and meridians."""
    turn = np.linspace(0.0, 2.0 * np.pi, 181)
    ax.plot(np.cos(turn), np.sin(turn), color="black", linewidth=0.8)
    for north in (-60, -30, 0, 30, 60):
        _line(ax, centre, turn, np.full_like(turn, np.radians(north)))
    for east in range(0, 180, 30):
        _line(ax, centre, np.where(turn < np.pi, np.radians(east), np.radians(east) + np.pi),
              np.where(turn < np.pi, turn - np.pi / 2, 1.5 * np.pi - turn))  # fmt: skip
    ax.set(aspect="equal", xlim=(-1.03, 1.03), ylim=(-1.03, 1.03))
    ax.set_axis_off()


def _line(ax: Axes, centre: tuple[float, float], east: NDArray[Any], north: NDArray[Any]) -> None:
    points = np.stack((np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)), 1)
    at, front = seen_from(points, centre)
    at = np.where(front[:, None], at, np.nan)
    ax.plot(*at.T, color="black", linewidth=0.3, alpha=0.4)
