"""Pictures of boundary-value problems solved by networks: fields, residuals and errors over a domain and its pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sciode.pinn import Solution

__all__ = ["field_map", "history"]

_LEAST = 1e-16


def field_map(
    ax: Axes,
    solution: Solution,
    of: str = "",
    *,
    arm: int = 0,
    at: Mapping[str, float] | None = None,
    side: int = 101,
    **options: Any,
) -> Axes:
    """Draw what an arm found over its domain: a line over one axis, an image with its colour bar over two.

    Parameters
    ----------
    of: a field or derivative by name, "u" or "u_x" (default: the first field); "residual", log10 of the equation's
        size; or "error", log10 of the distance from the exact solution.
    at: values of the coordinates that are not drawn, {"t": 0.5}; one or two are. side: points an axis.
    options: of matplotlib's `plot` or `pcolormesh`. Points outside the domain stay blank.

    Raises ValueError for a name that there is not, other than one or two coordinates left to draw, or an "error" of a
    problem without an exact solution.
    """
    names, domain = solution.representation.names, solution.representation.problem.domain
    pinned = dict(at or {})
    if unknown := set(pinned) - set(names.coordinates):
        raise ValueError(f"at: there is no coordinate {', '.join(sorted(unknown))}: {', '.join(names.coordinates)}")
    drawn = [axis for axis, name in enumerate(names.coordinates) if name not in pinned]
    if not 1 <= len(drawn) <= 2:
        raise ValueError(f"at: pin all but one or two of {', '.join(names.coordinates)}, as in at={{'t': 0.5}}")
    lines = [np.linspace(domain.hull.low[axis], domain.hull.high[axis], side) for axis in drawn]
    mesh = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(drawn))
    points = np.empty((len(mesh), names.axes))
    for axis, name in enumerate(names.coordinates):
        points[:, axis] = mesh[:, drawn.index(axis)] if axis in drawn else pinned[name]
    places = torch.from_numpy(points)
    inside = domain.contains(places)
    said = of or names.fields[0]
    values = np.full(len(points), np.nan)
    values[inside.numpy()] = _looked(solution, said)(places[inside])[arm].cpu().double().numpy()
    labels = [names.coordinates[axis] for axis in drawn]
    shown = f"log10 {said}" if said in ("residual", "error") else said
    if len(drawn) == 1:
        ax.plot(lines[0], values, **options)
        ax.set(xlabel=labels[0], ylabel=shown)
        return ax
    image = ax.pcolormesh(*lines, values.reshape(side, side).T, **{"shading": "nearest", **options})
    ax.figure.colorbar(image, ax=ax, label=shown)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.grid(False)
    return ax


def _looked(solution: Solution, of: str) -> Callable[[Tensor], Tensor]:
    """Points [N, d] -> what is drawn there, [arms, N]."""
    if of == "residual":
        return lambda x: solution.residual(x).norm(dim=-1).clamp(min=_LEAST).log10()
    if of != "error":
        return lambda x: solution.read(of, x)
    exact = solution.representation.problem.exact
    if exact is None:
        raise ValueError("error: the problem has no exact solution; draw the residual")
    return lambda x: (solution(x).cpu().double() - exact(x.double())).norm(dim=-1).clamp(min=_LEAST).log10()


def history(ax: Axes, solution: Solution, *, arm: int = 0) -> Axes:
    """Draw an arm's terms, without their weights, over its iterations, stage after stage; and its error where known.

    Stages are told apart by lines where one ends and the next begins.
    """
    entries, begun, shift, iterations = solution.history, 0, 0, []
    for entry in entries:
        if entry.stage != begun:
            begun, shift = entry.stage, iterations[-1]
            ax.axvline(shift, color="0.7", linewidth=0.8)
        iterations.append(shift + entry.iteration)
    terms = np.array([entry.terms[arm] for entry in entries])
    for column, name in enumerate(solution.terms):
        if np.nanmax(terms[:, column], initial=0.0) > 0:
            ax.semilogy(iterations, terms[:, column], label=name)
    errors = np.array([entry.error[arm] for entry in entries])
    if np.isfinite(errors).any():
        ax.semilogy(iterations, errors, "k--", label="relative error")
    ax.set(xlabel="iteration", ylabel="mean square")
    ax.legend(fontsize="x-small")
    return ax
