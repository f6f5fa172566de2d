"""Wind over random steps of the ground, and two rotors that fly above it and blow on it: scenes, flows and meshes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.pde.lagrange import periodic_stencil
from sciode.pde.penalised_flow import FluidBox, PenalisedFlow, simulate_penalised_flow
from sciode.pde.scattered import delaunay_cells, scatter

__all__ = ["BOX", "VIEW", "Scene", "SceneMesh", "mesh_of", "random_scene", "sample_on_mesh", "simulate_scenes"]

Array = NDArray[np.floating[Any]]

BOX = (2.0, 1.0)
"""Sides of the periodic box."""
VIEW = ((0.15, 0.0), (1.85, 0.85))
"""Corners of the part that is looked at; around it the flow is drawn to the wind again."""
_ROTOR, _APART = 0.035, 0.09
_PULL = 20.0


@final
@dataclass(frozen=True)
class Scene:
    """A ground of steps, a wind over it, and the flight of two rotors side by side.

    edges [K], heights [K + 1]: the ground is heights[k] high between edges[k - 1] and edges[k]. wind: its speed.
    thrust: the force of a rotor on the air in its middle (per mass). path: middle, half width, turns a unit of time and
    phase of the flight along x. altitude: of the flight.
    """

    edges: tuple[float, ...]
    heights: tuple[float, ...]
    wind: float
    thrust: float
    path: tuple[float, float, float, float]
    altitude: float

    def __post_init__(self) -> None:
        if len(self.heights) != len(self.edges) + 1 or list(self.edges) != sorted(self.edges):
            raise ValueError(f"a ground has edges in order and one height more, got {self.edges} and {self.heights}")
        if not all(0.05 <= height < self.altitude for height in self.heights) or self.altitude > VIEW[1][1]:
            raise ValueError(f"heights lie between 0.05 and the altitude, it below {VIEW[1][1]}, got {self}")

    def corners(self) -> Array:
        """The line of the ground from left to right, [2 K + 2, 2]."""
        xs = [0.0, *np.repeat(self.edges, 2).tolist(), BOX[0]]
        return np.stack((xs, np.repeat(self.heights, 2)), 1)

    def distance(self, points: Array) -> Array:
        """Distances of points [N, 2] from the ground's line, negative in the ground: [N]."""
        line = self.corners()
        starts, ways = line[:-1], np.diff(line, axis=0)
        squares = np.maximum((ways**2).sum(1), 1e-300)
        offsets = points[:, None] - starts
        shares = np.clip((offsets * ways).sum(2) / squares, 0.0, 1.0)
        away = np.sqrt(((offsets - shares[..., None] * ways) ** 2).sum(2).min(1))
        height = np.asarray(self.heights)[np.searchsorted(self.edges, points[:, 0])]
        return np.where(points[:, 1] > height, away, -away)


def random_scene(seed: int | Sequence[int]) -> Scene:
    """A scene with three to six steps of 0.07 to 0.35, a wind of 0.05 to 0.25 and rotors at 0.5 to 0.6, by its seed."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(3, 7))
    # Apart by a tenth at least: what is left of the view is shared out at random.
    low, high = 0.35, 1.65
    gaps = rng.dirichlet(np.ones(steps + 1)) * (high - low - 0.1 * (steps - 1))
    edges = low + np.cumsum(gaps)[:-1] + 0.1 * np.arange(steps)
    heights = rng.uniform(0.07, 0.35, steps + 1)
    # Left and right meet in the periodic box.
    heights[-1] = heights[0]
    path = (rng.uniform(0.9, 1.1), rng.uniform(0.2, 0.4), rng.uniform(0.15, 0.3), rng.uniform(0.0, 2.0 * math.pi))
    return Scene(
        tuple(edges.tolist()), tuple(heights.tolist()), rng.uniform(0.05, 0.25), rng.uniform(20.0, 40.0),
        path, rng.uniform(0.5, 0.6),
    )  # fmt: skip


def simulate_scenes(
    scenes: Sequence[Scene],
    ny: int,
    ts: Sequence[float],
    *,
    viscosity: float,
    porosity: float,
    dt: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    capture: int = 0,
) -> PenalisedFlow:
    """The flows of scenes from the wind at rest over them on, on 2 ny x ny points; see `simulate_penalised_flow`."""
    nx = 2 * ny
    x, y = (side / n * torch.arange(n, dtype=torch.float64) for side, n in zip(BOX, (nx, ny), strict=True))
    grid = np.stack(np.meshgrid(x.numpy(), y.numpy(), indexing="ij"), -1).reshape(-1, 2)
    away = torch.from_numpy(np.stack([scene.distance(grid) for scene in scenes])).reshape(-1, nx, ny)
    solid = 0.5 * (1.0 - (away / (BOX[1] / ny)).tanh())
    wind = torch.tensor([scene.wind for scene in scenes], dtype=torch.float64)[:, None, None] * (1.0 - solid)
    inflow = torch.stack((wind, torch.zeros_like(wind)), 1).to(device, dtype)
    box = FluidBox(solid.to(device, dtype), viscosity, porosity, BOX, _sponge(x, y).to(device, dtype), inflow)
    rotors = _Rotors(scenes, x.to(device, dtype), y.to(device, dtype))
    return simulate_penalised_flow(box, inflow, ts, dt=dt, force=rotors, capture=capture)


def _sponge(x: Tensor, y: Tensor) -> Tensor:
    """The rate at which the flow is drawn to the wind, smooth: beside the view and above it."""
    (left, _), (right, top) = VIEW

    def ramp(into: Tensor) -> Tensor:
        return into.clamp(0.0, 1.0).square() * (3.0 - 2.0 * into.clamp(0.0, 1.0))

    beside = ramp((left - x) / left) + ramp((x - right) / (BOX[0] - right))
    # The ground below is solid, and the ramp falls before it.
    above = ramp((y - top) / (0.6 * (BOX[1] - top)))
    return _PULL * torch.maximum(beside[:, None], above[None, :])


class _Rotors:
    """t -> the force [B, 2, nx, ny] of two rotors a scene, each a Gaussian that blows downwards."""

    def __init__(self, scenes: Sequence[Scene], x: Tensor, y: Tensor) -> None:
        self.path = torch.tensor([scene.path for scene in scenes], dtype=torch.float64, device=x.device)
        thrust = torch.tensor([scene.thrust for scene in scenes], dtype=x.dtype, device=x.device)
        altitude = torch.tensor([scene.altitude for scene in scenes], dtype=x.dtype, device=x.device)
        self.x = x
        self.column = thrust[:, None] * (-((y - altitude[:, None]) / _ROTOR).square()).exp()

    def __call__(self, t: Tensor) -> Tensor:
        middle, reach, turns, phase = self.path.unbind(1)
        place = (middle + reach * (2.0 * math.pi * turns * t + phase).sin()).to(self.x.dtype)[:, None]
        row = sum((-((self.x - place - side) / _ROTOR).square()).exp() for side in (-_APART, _APART))
        down = -torch.as_tensor(row)[:, :, None] * self.column[:, None, :]
        return torch.stack((torch.zeros_like(down), down), 1)


class SceneMesh(NamedTuple):
    """points [N, 2], cells [M, 3], and which points lie on the ground [N]."""

    points: Array
    cells: NDArray[np.int64]
    walls: NDArray[np.bool_]


def mesh_of(scene: Scene, seed: int | tuple[int, ...], finest: float = 0.008, coarsest: float = 0.0165) -> SceneMesh:
    """A Delaunay mesh of the view above the ground: some 3,000 points with the defaults, densest at the ground.

    Points on the ground stand `finest` apart; above it spacings grow with the distance, by a quarter of it at most, up
    to `coarsest`, at which points stand on the other sides of the view.
    """
    (left, _), (right, top) = VIEW
    line = scene.corners()
    line[0, 0], line[-1, 0] = left, right
    ground = _along(line, finest)
    open_sides = _along(np.array([line[-1], (right, top), (left, top), line[0]]), coarsest)[1:-1]

    def spacing(away: Array) -> Array:
        return np.minimum(finest + 0.25 * away, coarsest)

    points = scatter(scene.distance, (left, 0.0), (right, top), spacing, seed, np.concatenate((ground, open_sides)))
    cells = delaunay_cells(points, scene.distance)
    return SceneMesh(points, cells, np.arange(len(points)) < len(ground))


def _along(line: Array, apart: float) -> Array:
    """Points of a line, its corners among them, at most so far apart."""
    pieces = []
    for start, end in pairwise(line):
        count = max(1, math.ceil(float(np.hypot(*(end - start))) / apart))
        pieces.append(start + (end - start) * (np.arange(count) / count)[:, None])
    return np.concatenate((*pieces, line[-1:]))


def sample_on_mesh(flow: PenalisedFlow, number: int, points: Array) -> Tensor:
    """Velocity and pressure of flow `number` at points [N, 2] of the box, cubically from the grid: [T, N, 3]."""
    fields = torch.cat((flow.velocity[:, number], flow.pressure[:, number, None]), 1)
    index, weights = periodic_stencil(points, tuple(fields.shape[2:]), BOX)
    around = fields.flatten(2)[:, :, torch.from_numpy(index).to(fields.device)]
    return (around * torch.from_numpy(weights).to(fields)).sum(-1).transpose(1, 2)
