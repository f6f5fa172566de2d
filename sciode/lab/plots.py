"""House plots: each takes an Axes, draws one thing with labelled axes, and returns the Axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def series(
    ax: Axes,
    times: ArrayLike,
    values: ArrayLike,
    *,
    path: tuple[ArrayLike, ArrayLike] | None = None,
    names: Sequence[str] | None = None,
    unit: str = "time",
) -> Axes:
    """Draw one irregular series: its observed readings as points, one colour a channel, missing ones left out.

    Parameters
    ----------
    times: [L]. values: [L, C] (or [L]), NaN = missing.
    path: (times [T], values [T, C]) of a continuous path through the readings, drawn as lines.
    names: of the channels, shown in a legend if given. unit: label of the time axis.

    Raises ValueError if times and values disagree in length.
    """
    clock, readings = np.asarray(times), _columns(values)
    if clock.shape != readings.shape[:1]:
        raise ValueError(f"times {clock.shape} and values {readings.shape} differ in length")
    lines = None if path is None else (np.asarray(path[0]), _columns(path[1]))
    for channel in range(readings.shape[1]):
        seen = ~np.isnan(readings[:, channel])
        label = None if names is None else names[channel]
        (points,) = ax.plot(clock[seen], readings[seen, channel], "o", markersize=3, label=label)
        if lines is not None:
            ax.plot(lines[0], lines[1][:, channel], "-", color=points.get_color(), linewidth=1, alpha=0.6)
    ax.set_xlabel(unit)
    ax.set_ylabel("reading")
    if names is not None:
        ax.margins(y=0.12)
        ax.legend(handletextpad=0.2, loc="upper right")
    return ax


def fan(
    ax: Axes,
    t: ArrayLike,
    paths: ArrayLike,
    *,
    coverage: float = 0.9,
    color: str | None = None,
    label: str | None = None,
) -> Axes:
    """Draw sample paths as a fan: every path faintly, their median, and the central band that holds `coverage` of them.

    Parameters
    ----------
    t: [T]. paths: [S, T], one row a noise sample. coverage: in (0, 1].

    Raises ValueError for shapes that do not fit or a coverage outside (0, 1].
    """
    clock, samples = np.asarray(t), np.asarray(paths)
    if samples.ndim != 2 or samples.shape[1:] != clock.shape:
        raise ValueError(f"paths must be [S, {len(clock)}], one row a sample, got {samples.shape}")
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must lie in (0, 1], got {coverage}")
    low, middle, high = np.quantile(samples, [(1 - coverage) / 2, 0.5, (1 + coverage) / 2], axis=0)
    (line,) = ax.plot(clock, middle, color=color, label=label)
    shade = line.get_color()
    ax.fill_between(clock, low, high, color=shade, alpha=0.18, linewidth=0)
    ax.plot(clock, samples.T, color=shade, linewidth=0.5, alpha=0.35)
    ax.set_xlabel("time")
    return ax


def confusion(ax: Axes, true: ArrayLike, predicted: ArrayLike, classes: Sequence[Any] | None = None) -> Axes:
    """Draw the confusion matrix: rows are the true classes, columns the predicted ones, cells counts.

    Parameters
    ----------
    true, predicted: [n] labels. classes: their order; None = sorted.

    Raises ValueError for unequal lengths or labels outside `classes`.
    """
    counts, names = _counts(np.asarray(true), np.asarray(predicted), classes)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ax.grid(False)
    for row, column in np.argwhere(counts > 0):
        tone = "white" if share[row, column] > 0.5 else "black"
        ax.text(column, row, str(counts[row, column]), ha="center", va="center", color=tone, fontsize=9)
    turned = 30 if max(map(len, names)) > 3 else 0
    ax.set_xticks(range(len(names)), names, rotation=turned, ha="right" if turned else "center")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return ax


def work_precision(
    ax: Axes,
    work: ArrayLike,
    error: ArrayLike,
    *,
    label: str,
    spread: tuple[ArrayLike, ArrayLike] | None = None,
    work_label: str = "field evaluations",
) -> Axes:
    """Draw error against work, both logarithmic: the lower left is better, the slope is the order.

    Parameters
    ----------
    work, error: [k] positive. label: the method's name. spread: (low, high) [k] of the error over repetitions.
    work_label: what the work is, with its unit.

    Raises ValueError for unequal lengths or numbers that are not positive.
    """
    cost, accuracy = np.asarray(work, dtype=float), np.asarray(error, dtype=float)
    if cost.shape != accuracy.shape or cost.ndim != 1:
        raise ValueError(f"work {cost.shape} and error {accuracy.shape} must be equally long lists")
    if not ((cost > 0).all() and (accuracy > 0).all()):
        raise ValueError("work and error must be positive: logarithmic axes cannot show others")
    (line,) = ax.loglog(cost, accuracy, "o-", label=label)
    if spread is not None:
        low, high = map(np.asarray, spread)
        ax.fill_between(cost, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    ax.set_xlabel(work_label)
    ax.set_ylabel("error")
    ax.legend()
    return ax


def deformed(ax: Axes, places: ArrayLike, faces: ArrayLike, *, color: str = "C0", edges: bool = True) -> Axes:
    """Draw a deformed body as its faces, those further away first, in one scale on both axes.

    Parameters
    ----------
    places: [N, 2], or [N, 3], which are seen from the side (along the first axis) and shaded by their normals.
    faces: [K, m] numbers of the corners of each face, in order around it. edges: whether their outlines are drawn.

    Raises ValueError for places that are neither in the plane nor in space.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    corners = np.asarray(places, dtype=float)[np.asarray(faces)]
    if corners.ndim != 3 or corners.shape[2] not in (2, 3):
        raise ValueError(f"places must be [N, 2] or [N, 3] and faces [K, m], got corners {corners.shape}")
    tone = np.broadcast_to(np.array(to_rgb(color)), (len(corners), 3))
    if corners.shape[2] == 3:
        corners = corners[np.argsort(corners[:, :, 0].mean(1))]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
        light = np.clip(np.abs(normals @ np.array([0.75, -0.3, 0.6])), 0.0, 1.0)[:, None]
        tone, corners = 1.0 - (1.0 - tone) * (1.0 - 0.75 * light), corners[:, :, 1:]
    else:
        tone = 1.0 - 0.35 * (1.0 - tone)
    outline = color if edges else tone
    ax.add_collection(PolyCollection(list(corners), facecolors=tone, edgecolors=outline, linewidths=0.4))
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.grid(False)
    return ax


def _columns(values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    return array[:, None] if array.ndim == 1 else array


def _counts(
    true: NDArray[Any], predicted: NDArray[Any], classes: Sequence[Any] | None
) -> tuple[NDArray[np.int64], list[str]]:
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"true {true.shape} and predicted {predicted.shape} must be equally long lists")
    order = np.unique(np.concatenate([true, predicted])) if classes is None else np.asarray(classes)
    place = {label: number for number, label in enumerate(order.tolist())}
    unknown = set(true.tolist() + predicted.tolist()) - set(place)
    if unknown:
        raise ValueError(f"labels outside classes: {sorted(map(str, unknown))}")
    counts = np.zeros((len(order), len(order)), dtype=np.int64)
    for label, guess in zip(true.tolist(), predicted.tolist(), strict=True):
        counts[place[label], place[guess]] += 1
    return counts, [str(label) for label in order]
