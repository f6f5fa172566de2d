"""What the tables of vortices share: a flow by a neural field or by a grid, and what is measured of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import vmap

from sciode.insr import Fit, Galerkin, Points, Splitting, Trajectory, evolve
from sciode.nn import HardBoundary, Siren, Solenoidal
from sciode.pde import Box, Evolution, divergence
from sciode.pde.grid_fluid import GridFluid, Velocity, divergence_of, simulate
from sciode.training import INSR, Descent, LevenbergMarquardt, isolated_rng, threads

__all__ = ["LINES", "Line", "Size", "energy", "flow", "network", "parts", "probes"]

Array = NDArray[np.float64]

_SIDE = 100
"""Of the square of points on which flows are compared, the centres of cells."""


class Size(NamedTuple):
    """Of the networks of a table: a sine network's width, frequency and points, least-squares iterations of its fit and
    of a step; descent: iterations of gradient descent before the fit."""

    width: int
    omega: float
    points: int
    fit: int = 25
    step: int = 6
    descent: int = 1000
    device: str = "cpu"


class Line(NamedTuple):
    """A line of a table. dt: of a step; field: "stream", of a stream function that is 0 on the walls, "velocity", a
    network of both components, or "grid"; pressure: of a splitting; how: arguments of `evolve`, or of `simulate`."""

    dt: float
    field: str
    how: Mapping[str, Any] = {}
    pressure: Mapping[str, Any] | None = None
    steps: int | None = None


_GALERKIN: Mapping[str, Any] = {"mode": "galerkin", "galerkin": Galerkin("rk4", fixed=True, damping=1e-6)}
_PAPER = {"kind": "chorin", "trace": "euler"}

LINES: dict[str, Line] = {
    "Galerkin, stream function": Line(0.1, "stream", _GALERKIN),
    "midpoint, stream function": Line(0.25, "stream", {"scheme": "implicitmidpoint"}),
    "reflection, stream function": Line(0.2, "stream", {}, {"kind": "reflect"}),
    "reflection, velocity": Line(0.1, "velocity", {}, {"kind": "reflect"}),
    "Chorin, velocity": Line(0.05, "velocity", {}, _PAPER),
    "Adam recipe, velocity": Line(0.05, "velocity", {"optimiser": INSR, "fit": Fit(INSR, None)}, _PAPER, steps=1),
    "grid, linear, Chorin": Line(0.05, "grid", {"interpolation": "linear"}),
    "grid, cubic, Chorin": Line(0.05, "grid", {"interpolation": "cubic"}),
    "grid, linear, reflection": Line(0.05, "grid", {"interpolation": "linear", "splitting": "reflect"}),
    "grid, cubic, reflection": Line(
        0.05, "grid", {"interpolation": "cubic", "splitting": "reflect", "trace": "midpoint"}
    ),
}
"""By the name that tables give them."""


def network(problem: Evolution, kind: str, size: Size, seed: int, outputs: int = 2) -> nn.Module:
    """A field in float64 with the weights of its seed; kind as in `Line`."""
    box = Box(problem.lower, problem.upper)
    with isolated_rng(seed, outputs):
        if kind == "stream":
            psi = Siren(2, 1, size.width, 2, omega=size.omega)
            field: nn.Module = Solenoidal(HardBoundary(psi, lambda x: 0.0 * x[..., :1], box.vanishing))
        else:
            field = Siren(2, outputs, size.width, 2, omega=size.omega)
    return field.double().to(size.device)


def probes(problem: Evolution) -> Tensor:
    """The points on which flows are compared, [N, 2]."""
    axes = [
        low + (high - low) * (torch.arange(_SIDE, dtype=torch.float64) + 0.5) / _SIDE
        for low, high in zip(problem.lower, problem.upper, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def parts(end: float, dt: float) -> int:
    """How many equal steps of dt at most lead from 0 to `end`."""
    return max(math.ceil(end / dt * (1.0 - 1e-9)), 1)


def energy(velocities: Array) -> Array:
    """Half the mean of |u|^2 at the probes, [..., N, 2] -> [...]."""
    return 0.5 * (velocities**2).sum(-1).mean(-1)


def flow(
    problem: Evolution, line: Line, size: Size, seed: int, end: float, n: int, places: Sequence[Tensor]
) -> dict[str, Any]:
    """Run a line from 0 to `end`, in steps of its dt, cut to fit. n: cells an axis of a grid. places: points [N, 2],
    several times.

    Keys: ts, velocities (arrays [T, N, 2], one of each of the places: take them out), divergence (rms at the last
    time), weights, bytes (float32), fit_loss, fit_seconds, step_seconds, loss (the largest of a step), reached, status.
    """
    if line.field == "grid":
        return _gridded(problem, line, end, n, places)
    how: dict[str, Any] = {
        "fit": Fit(Descent(size.descent), LevenbergMarquardt(size.fit, tolerance=1e-11, damping=1e-4)),
        "points": Points(size.points, weight=0.0 if line.field == "stream" else 1.0),
        **line.how,
    }
    if line.pressure is not None:
        scalar = network(problem, "velocity", size, seed, 1)
        how["scheme"] = Splitting(scalar, **line.pressure)
    if how.get("mode") != "galerkin":
        how.setdefault("optimiser", LevenbergMarquardt(size.step, tolerance=1e-10))
    field = network(problem, line.field, size, seed)
    last = end if line.steps is None else min(line.dt * line.steps, end)
    with threads(1):
        found = evolve(problem, field, [0.0, last], dt=line.dt, seed=seed, failing="go on", attempts=1, **how)
    return _measured(found, [x.to(size.device) for x in places])


def _measured(found: Trajectory, places: Sequence[Tensor]) -> dict[str, Any]:
    fields = [found.field(k) for k in range(len(found.times))]
    with torch.no_grad():
        sources = vmap(divergence(fields[-1]))(places[0])
        velocities = [np.stack([vmap(field)(x).cpu().numpy() for field in fields]) for x in places]
    return {
        "ts": list(found.times),
        "velocities": velocities,
        "divergence": float(sources.square().mean().sqrt()),
        "weights": found.thetas.shape[1],
        "bytes": 4 * found.thetas.shape[1],
        "fit_loss": found.steps[0].loss,
        "fit_seconds": found.seconds[0],
        "step_seconds": fmean(found.seconds[1:]) if len(found.seconds) > 1 else 0.0,
        "loss": max((step.loss for step in found.steps[1:]), default=0.0),
        "reached": found.times[-1],
        "status": found.steps[-1].status,
    }


def _gridded(problem: Evolution, line: Line, end: float, n: int, places: Sequence[Tensor]) -> dict[str, Any]:
    steps, began = parts(end, line.dt), time.perf_counter()
    found = simulate(problem, n, end / steps, steps, **line.how)
    seconds = time.perf_counter() - began
    return {
        "ts": found.ts.tolist(),
        "velocities": [np.stack([found.at(x.numpy(), k) for k in range(steps + 1)]) for x in places],
        "divergence": _rms_divergence(found),
        "weights": found.memory // 4,
        "bytes": found.memory,
        "fit_loss": 0.0,
        "fit_seconds": 0.0,
        "step_seconds": seconds / steps,
        "loss": 0.0,
        "reached": float(found.ts[-1]),
        "status": "converged",
    }


def _rms_divergence(found: GridFluid) -> float:
    cells = divergence_of(Velocity(found.us[-1], found.vs[-1])) / found.spacing
    return float(np.sqrt(np.mean(cells**2)))
