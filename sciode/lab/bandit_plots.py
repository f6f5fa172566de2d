"""Plots of bandits over sets of conditions: regret, what conditions add, rewards of all arms. Each takes an Axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["conditions", "regret", "rewards"]


def regret(ax: Axes, curves: ArrayLike, *, label: str, color: str | None = None, style: str = "-") -> Axes:
    """Draw cumulative regret over plays: the mean of runs, in the band of its 95 % interval.

    curves: [runs, plays], cumulative; one run has no band. Raises ValueError for another shape.
    """
    values = np.asarray(curves, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"curves must be [runs, plays], got {values.shape}")
    plays = np.arange(1, values.shape[1] + 1)
    (line,) = ax.plot(plays, values.mean(0), style, color=color, label=label)
    if len(values) > 1:
        from scipy.stats import t

        half = t.ppf(0.975, len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
        ax.fill_between(
            plays, values.mean(0) - half, values.mean(0) + half, color=line.get_color(), alpha=0.15, linewidth=0
        )
    ax.set_xlabel("plays")
    ax.set_ylabel("cumulative regret, decades")
    return ax


def conditions(
    ax: Axes, names: Sequence[str], values: ArrayLike, spread: ArrayLike | None = None, *, unit: str = "weight"
) -> Axes:
    """Draw one bar a condition: its weight in the kernel, or what it adds to the reward, with its standard deviation.

    values, spread: [c]. unit: label of the axis. Raises ValueError for lengths that do not fit.
    """
    lengths = np.asarray(values, dtype=float)
    errors = None if spread is None else np.asarray(spread, dtype=float)
    if lengths.shape != (len(names),) or (errors is not None and errors.shape != lengths.shape):
        raise ValueError(f"values and spread must be [{len(names)}], one for each name")
    places = np.arange(len(names))[::-1]
    ax.barh(places, lengths, xerr=errors, height=0.6, alpha=0.8, error_kw={"linewidth": 1})
    ax.axvline(0.0, color="0.4", linewidth=0.8)
    ax.set_yticks(places, names)
    ax.set_xlabel(unit)
    return ax


def rewards(
    ax: Axes, contexts: ArrayLike, values: ArrayLike, *, marks: Sequence[int] = (), unit: str = "context"
) -> Axes:
    """Draw rewards of all arms (rows, best mean on top) in all tasks (columns, by context), less each task's best.

    contexts [T]; values [T, A], decades. marks: for each task an arm to be marked, in the order of `contexts`. Raises
    ValueError for shapes that do not fit.
    """
    order, table = np.argsort(np.asarray(contexts)), np.asarray(values, dtype=float)
    if table.ndim != 2 or order.shape != table.shape[:1] or (len(marks) and len(marks) != len(order)):
        raise ValueError(f"contexts must be [T], values [T, A] and marks [T] or none, got {order.shape} {table.shape}")
    arms = np.argsort(-table.mean(0), kind="stable")
    lost = (table - table.max(1, keepdims=True))[order][:, arms].T
    image = ax.imshow(
        lost, aspect="auto", cmap="viridis", vmin=np.quantile(lost, 0.05), vmax=0.0, interpolation="nearest"
    )
    ax.grid(False)
    if len(marks):
        rows = np.argsort(arms)[np.asarray(marks)[order]]
        ax.plot(np.arange(len(order)), rows, "o", color="tab:red", markersize=3, clip_on=False)
    ax.set_xlabel(f"tasks, by {unit}")
    ax.set_ylabel("arms, best on top")
    ax.figure.colorbar(image, ax=ax, label="decades below the best")
    return ax
