"""Pictures of fields that change in time: what a trajectory looks like, how wrong it is, how its steps went.

A trajectory is anything that gives u at points [N, d] and a time, [N, c], as `sciode.insr.Trajectory` does. Each
function takes Axes, draws one thing with labelled axes, and returns the Axes; `animate` returns the animation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes

__all__ = ["animate", "error_over_time", "field_image", "progress_of_steps", "save_animation", "space_time"]

Field = Callable[[Tensor, float], Tensor]
"""(points [N, d], t) -> u [N, c]."""


class _Went(Protocol):
    """How one step went, as `sciode.insr.Step` says it."""

    @property
    def t(self) -> float: ...

    @property
    def loss(self) -> float: ...

    @property
    def iterations(self) -> int: ...


def field_image(
    ax: Axes,
    u: Field,
    t: float,
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    channel: int = 0,
    side: int = 65,
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
    bar: bool = True,
) -> Axes:
    """Draw one component of a field on a rectangle at a time as an image, with its colour bar.

    Parameters
    ----------
    lower, upper: [2] corners, `problem.lower` and `problem.upper`. side: points an axis.
    limits: of the colours; None: the largest magnitude, on both sides of zero where the field has both signs.
    cmap: None: blue to red about zero for a field of both signs, else viridis.

    Raises ValueError for a field of other than two dimensions.
    """
    values = _image(u, t, lower, upper, channel, side)
    low, high = limits or _around_zero(values)
    extent, colours = (lower[0], upper[0], lower[1], upper[1]), cmap or _colours(low)
    image = ax.imshow(values, origin="lower", extent=extent, vmin=low, vmax=high, cmap=colours)
    ax.grid(False)
    ax.set(xlabel="x", ylabel="y", title=f"t = {t:.3g}")
    if bar:
        ax.figure.colorbar(image, ax=ax, shrink=0.8, label="u")
    return ax


def space_time(
    ax: Axes,
    u: Field,
    times: Iterable[float],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    channel: int = 0,
    side: int = 201,
    cmap: str | None = None,
) -> Axes:
    """Draw one component of a field on a line over time as an image: x to the right, t upwards.

    Parameters
    ----------
    times: evenly spaced, increasing. lower, upper: [1] ends of the line. side: points on it.

    Raises ValueError for a field of other than one dimension, fewer than two times, or times that an image cannot show.
    """
    clock = [float(t) for t in times]
    if len(clock) < 2:
        raise ValueError(f"times: give two at least, got {len(clock)}")
    if not np.allclose(np.diff(clock), (clock[-1] - clock[0]) / (len(clock) - 1)) or clock[-1] <= clock[0]:
        raise ValueError("times: an image has even rows: give times evenly spaced and increasing, as np.linspace does")
    values = np.stack([_line(u, t, lower, upper, channel, side)[1] for t in clock])
    low, high = _around_zero(values)
    extent, colours = (lower[0], upper[0], clock[0], clock[-1]), cmap or _colours(low)
    image = ax.imshow(values, origin="lower", extent=extent, aspect="auto", vmin=low, vmax=high, cmap=colours)
    ax.grid(False)
    ax.set(xlabel="x", ylabel="t")
    ax.figure.colorbar(image, ax=ax, label="u")
    return ax


def error_over_time(
    ax: Axes, fields: Mapping[str, Field], exact: Field, points: Tensor, times: Iterable[float]
) -> Axes:
    """Draw the relative L2 errors of fields, a line each by name, over time on a logarithmic axis.

    Parameters
    ----------
    exact: (points [N, d], t) -> u [N, c], the exact solution or a reference. points: [N, d], evenly drawn.

    Raises ValueError without a field to draw.
    """
    if not fields:
        raise ValueError("fields: give one at least, by the name that the legend shows")
    clock = [float(t) for t in times]
    true = [exact(points, t) for t in clock]
    for name, u in fields.items():
        wrong = [float((u(points, t) - one).norm() / one.norm()) for t, one in zip(clock, true, strict=True)]
        ax.semilogy(clock, wrong, label=name)
    ax.set(xlabel="t", ylabel="relative L2 error")
    ax.legend()
    return ax


def progress_of_steps(ax: Axes, steps: Sequence[_Went], *, label: str | None = None) -> Axes:
    """Draw how each step of an evolution went: its loss as a line, its iterations as bars on an axis at the right.

    Parameters
    ----------
    steps: `Trajectory.steps`; the first is the fit of the initial values, which is marked.

    Raises ValueError without steps.
    """
    from matplotlib.ticker import MaxNLocator

    if not steps:
        raise ValueError("steps: there are none to draw")
    clock, losses = [step.t for step in steps], [step.loss for step in steps]
    (line,) = ax.semilogy(clock, losses, "o-", label=label, zorder=3)
    ax.plot(clock[:1], losses[:1], "s", color=line.get_color(), markersize=8, fillstyle="none")
    ax.annotate("fit", (clock[0], losses[0]), xytext=(9, 0), textcoords="offset points", va="center")
    beside = ax.twinx()
    width = 0.6 * min((b - a for a, b in pairwise(clock)), default=1.0)
    beside.bar(clock[1:], [step.iterations for step in steps[1:]], width, color="0.85", zorder=0)
    beside.set_ylabel("iterations a step")
    beside.yaxis.set_major_locator(MaxNLocator(integer=True))
    beside.grid(False)
    # The line belongs above the bars, and a twin is drawn later.
    ax.set_zorder(beside.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.set(xlabel="t", ylabel="loss")
    if label is not None:
        ax.legend()
    return ax


def animate(
    ax: Axes,
    u: Field,
    times: Iterable[float],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    exact: Field | None = None,
    channel: int = 0,
    side: int | None = None,
    interval: float = 80.0,
) -> FuncAnimation:
    """Animate a field: a line over x in one dimension (the exact one, broad and grey, beneath it), an image in two.

    `HTML(animate(...).to_jshtml())` plays it in a notebook; `save_animation` writes it. All frames are worked out here,
    on one scale.

    Parameters
    ----------
    times: of the frames. lower, upper: [d] corners, d 1 or 2. exact: drawn beside a line; not for images.
    side: points an axis; None: 201 on a line, 65 on a rectangle. interval: between frames, in ms.

    Raises ValueError for other dimensions, no frame, or an exact solution with an image.
    """
    from matplotlib.animation import FuncAnimation

    clock = [float(t) for t in times]
    if not clock:
        raise ValueError("times: give one frame at least")
    if len(lower) == 2 and exact is not None:
        raise ValueError("exact: an image has no room for a second field; animate the difference on Axes of its own")
    draw = (_moving_line if len(lower) == 1 else _moving_image)(ax, u, clock, lower, upper, exact, channel, side)
    return FuncAnimation(ax.figure, draw, frames=len(clock), interval=interval, blit=False)  # type: ignore[arg-type]


def save_animation(animation: FuncAnimation, file: str | Path, *, fps: int = 12, dpi: int = 100) -> Path:
    """Write an animation as .gif (by pillow, which matplotlib brings) or .mp4 (by ffmpeg, if it is here); its path.

    Raises ValueError for another ending, or where there is no writer for it.
    """
    from matplotlib.animation import writers

    path = Path(file)
    kinds = {".gif": "pillow", ".mp4": "ffmpeg"}
    if path.suffix not in kinds:
        raise ValueError(f"file: {path.name} must end in .gif or .mp4")
    if not writers.is_available(kinds[path.suffix]):
        raise ValueError(
            f"file: there is no {kinds[path.suffix]} here to write {path.suffix}; take .gif, or install it"
        )
    animation.save(path, writer=writers[kinds[path.suffix]](fps=fps), dpi=dpi)
    return path


def _moving_line(
    ax: Axes, u: Field, clock: list[float], lower: Sequence[float], upper: Sequence[float],
    exact: Field | None, channel: int, side: int | None,
) -> Callable[[int], Any]:  # fmt: skip
    frames = [_line(u, t, lower, upper, channel, side or 201) for t in clock]
    true = None if exact is None else [_line(exact, t, lower, upper, channel, side or 201) for t in clock]
    every = np.stack([values for _, values in [*frames, *(true or [])]])
    margin = 0.05 * max(float(np.ptp(every)), 1e-12)
    if true is not None:
        (beneath,) = ax.plot(*true[0], color="0.8", linewidth=4, label="exact")
    (line,) = ax.plot(*frames[0], label="network")
    ax.set(xlabel="x", ylabel="u", xlim=(lower[0], upper[0]), ylim=(every.min() - margin, every.max() + margin))
    if true is not None:
        ax.legend(loc="upper right")

    def draw(k: int) -> Any:
        line.set_ydata(frames[k][1])
        if true is not None:
            beneath.set_ydata(true[k][1])
        ax.set_title(f"t = {clock[k]:.3g}")
        return (line,)

    return draw


def _moving_image(
    ax: Axes, u: Field, clock: list[float], lower: Sequence[float], upper: Sequence[float],
    exact: Field | None, channel: int, side: int | None,
) -> Callable[[int], Any]:  # fmt: skip
    frames = [_image(u, t, lower, upper, channel, side or 65) for t in clock]
    limits = _around_zero(np.stack(frames))
    field_image(ax, u, clock[0], lower, upper, channel=channel, side=side or 65, limits=limits)
    image = ax.images[-1]

    def draw(k: int) -> Any:
        image.set_data(frames[k])
        ax.set_title(f"t = {clock[k]:.3g}")
        return (image,)

    return draw


def _line(
    u: Field, t: float, lower: Sequence[float], upper: Sequence[float], channel: int, side: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(lower) != 1:
        raise ValueError(f"a line is for fields of one dimension, this one has {len(lower)}")
    x = torch.linspace(lower[0], upper[0], side, dtype=torch.float64).unsqueeze(1)
    return x[:, 0].numpy(), _values(u, x, t, channel)


def _image(u: Field, t: float, lower: Sequence[float], upper: Sequence[float], channel: int, side: int) -> NDArray[Any]:
    """[y, x]: rows upwards."""
    if len(lower) != 2:
        raise ValueError(f"an image is for fields of two dimensions, this one has {len(lower)}")
    axes = [torch.linspace(low, high, side, dtype=torch.float64) for low, high in zip(lower, upper, strict=True)]
    # The middles of pixels, whose edges are the box.
    axes = [(edges[1:] + edges[:-1]) / 2 for edges in axes]
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return _values(u, x, t, channel).reshape(len(axes[0]), len(axes[1])).T


def _values(u: Field, x: Tensor, t: float, channel: int) -> NDArray[Any]:
    return u(x, t)[:, channel].detach().cpu().numpy()


def _around_zero(values: NDArray[Any]) -> tuple[float, float]:
    size = max(float(np.abs(values).max()), 1e-12)
    # A network oscillates a little about the zero that it means.
    return (0.0, size) if values.min() > -0.02 * size else (-size, size)


def _colours(low: float) -> str:
    return "RdBu_r" if low < 0 else "viridis"
