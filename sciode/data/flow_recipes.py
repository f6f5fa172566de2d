"""Flow sets made on this machine by the solvers of `sciode.pde`: settings as data, a seed a flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciode.pde.penalised_flow import PenalisedFlow
from sciode.pde.shallow_water import jets, random_jets, simulate_shallow_water
from sciode.pde.spherical import SphereGrid
from sciode.pde.step_flow import VIEW, mesh_of, random_scene, sample_on_mesh, simulate_scenes
from sciode.pde.vorticity import diagonal_forcing, random_vorticity, simulate_vorticity
from sciode.solvers.suggest import choose

from .flow import Flow, FlowSet, Space
from .flow_files import write_flow_sets

__all__ = ["PARTS", "RECIPES", "ShallowWaterRecipe", "StepsRecipe", "VorticityRecipe", "make_flows", "write_flows"]

PARTS = ("train", "validation", "test")
Seeds = Sequence[Sequence[int]]


@dataclass(frozen=True)
class VorticityRecipe:
    """Periodic Navier-Stokes vorticity from Gaussian fields, as neural operators are tried on.

    n: points an axis of the unit square; every stride-th is kept. forcing: the amplitude of `diagonal_forcing`.
    burn_in: time before the first of `frames` frames, interval apart. alpha, tau: of `random_vorticity`. batch: flows
    at a time on a CPU.
    """

    n: int = 64
    stride: int = 1
    viscosity: float = 1e-3
    forcing: float = 0.1
    alpha: float = 2.5
    tau: float = 7.0
    burn_in: float = 30.0
    frames: int = 40
    interval: float = 1.0
    dt: float = 0.05
    batch: int = 16

    def simulate(self, seeds: Seeds, device: torch.device) -> FlowSet:
        """Flows of these seeds."""
        start = random_vorticity(self.n, seeds, alpha=self.alpha, tau=self.tau).to(device)
        ts = _clock(self.burn_in, self.frames, self.interval)
        forcing = diagonal_forcing(self.n, self.forcing).to(device)
        found = simulate_vorticity(
            start, ts, viscosity=self.viscosity, dt=self.dt, forcing=forcing, capture=_CAPTURE
        )[-self.frames :, :, :: self.stride, :: self.stride].float().cpu()  # fmt: skip
        kept = found.shape[-1]
        x = torch.arange(kept) / kept
        points = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
        return FlowSet(
            "navier_stokes",
            _flows(points, ts[-self.frames :], found.flatten(2)[..., None]),
            ("vorticity",),
            ("",),
            Space("periodic", (0.0, 0.0), (1.0, 1.0)),
            grid=(kept, kept),
        )


@dataclass(frozen=True)
class ShallowWaterRecipe:
    """Shallow water on the Earth: a random jet in each hemisphere that breaks up (`random_jets`).

    degree: of the harmonics; latitudes: of the grid, with twice as many longitudes; every stride-th of both is kept.
    hyperdiffusion in m^4/s, dt in s; burn_in: hours before the first of `frames` frames, interval hours apart.
    """

    degree: int = 85
    latitudes: int = 128
    stride: int = 2
    hyperdiffusion: float = 4e15
    burn_in: float = 72.0
    frames: int = 160
    interval: float = 1.0
    dt: float = 450.0
    batch: int = 4

    def simulate(self, seeds: Seeds, device: torch.device) -> FlowSet:
        """Flows of these seeds."""
        grid = SphereGrid(self.degree, self.latitudes, 2 * self.latitudes, device=device)
        hours = _clock(self.burn_in, self.frames, self.interval)
        found = simulate_shallow_water(
            grid, jets(grid, [random_jets(seed) for seed in seeds]), [3600.0 * t for t in hours],
            dt=self.dt, hyperdiffusion=self.hyperdiffusion, capture=_CAPTURE,
        )  # fmt: skip
        values = torch.stack((found.height, found.vorticity), -1)[-self.frames :, :, :: self.stride, :: self.stride]
        points = grid.points.reshape(*grid.shape, 3)[:: self.stride, :: self.stride]
        return FlowSet(
            "shallow_water",
            _flows(points.reshape(-1, 3).float().cpu(), hours[-self.frames :], values.float().cpu().flatten(2, 3)),
            ("height", "vorticity"),
            ("m", "1/s"),
            Space("sphere"),
            "h",
            tuple(points.shape[:2]),
        )


@dataclass(frozen=True)
class StepsRecipe:
    """Wind over random steps and rotors above them (`random_scene`), on a Delaunay mesh a flow: like Eagle, not Eagle.

    ny: points of the grid across, with twice as many along; viscosity, porosity, dt: see `simulate_penalised_flow`.
    burn_in: time before the first of `frames` frames, interval apart. finest, coarsest: of `mesh_of`.
    """

    ny: int = 128
    viscosity: float = 8e-4
    porosity: float = 2e-3
    finest: float = 0.008
    coarsest: float = 0.0165
    burn_in: float = 1.0
    frames: int = 80
    interval: float = 0.04
    dt: float = 0.0025
    batch: int = 4

    def simulate(self, seeds: Seeds, device: torch.device) -> FlowSet:
        """Flows of these seeds."""
        scenes = [random_scene(seed) for seed in seeds]
        ts = _clock(self.burn_in, self.frames, self.interval)
        found = simulate_scenes(
            scenes, self.ny, ts, viscosity=self.viscosity, porosity=self.porosity, dt=self.dt, device=device,
            capture=_CAPTURE,
        )  # fmt: skip
        found = PenalisedFlow(found.velocity[-self.frames :], found.pressure[-self.frames :])
        flows = []
        for number, (scene, seed) in enumerate(zip(scenes, seeds, strict=True)):
            mesh = mesh_of(scene, (*seed, 1), self.finest, self.coarsest)
            values = sample_on_mesh(found, number, mesh.points).float().cpu()
            points = torch.from_numpy(mesh.points).float()
            flows.append(Flow.from_arrays(points, ts[-self.frames :], values, mesh.walls, mesh.cells))
        return FlowSet("random_steps", tuple(flows), ("vx", "vy", "pressure"), ("", "", ""), Space("plane", *VIEW))


RECIPES: Mapping[str, type[VorticityRecipe] | type[ShallowWaterRecipe] | type[StepsRecipe]] = {
    "vorticity": VorticityRecipe,
    "shallow_water": ShallowWaterRecipe,
    "steps": StepsRecipe,
}
"""What a manifest's recipe may name as its solver: settings with defaults, and `simulate(seeds, device)`."""

_CAPTURE = 20
"""Steps of a CUDA graph."""


def make_flows(
    solver: str,
    count: int,
    *,
    seed: int = 0,
    part: str = "train",
    device: torch.device | str | None = None,
    progress: Callable[[int], Any] | None = None,
    **settings: Any,
) -> FlowSet:
    """Simulate `count` flows of a recipe, with other settings than its defaults where they are given.

    Flow k is a function of (seed, part, k) and the settings: fewer flows are the first of more, and parts share none.
    `device`: None is CUDA where there is one. `progress` is called with the number of flows after each batch.
    Raises ValueError for unknown solvers and settings, RuntimeError if a flow blows up (a smaller dt mends it).
    """
    recipe = _recipe(solver, settings)
    if count < 1 or seed < 0:
        raise ValueError(f"count must be >= 1 and seed >= 0, got {count} and {seed}")
    stream = PARTS.index(choose("part", part, PARTS))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    seeds = [(seed, stream, k) for k in range(count)]
    batch = recipe.batch if where.type == "cpu" else 16 * recipe.batch
    found: list[FlowSet] = []
    for begin in range(0, count, batch):
        found.append(recipe.simulate(seeds[begin : begin + batch], where))
        for k, flow in enumerate(found[-1], begin):
            if not bool(flow.values.isfinite().all()):
                raise RuntimeError(f"flow {k} of {solver!r} (seed {seed}, {part}) blew up: choose a smaller dt")
        if progress is not None:
            progress(len(found[-1]))
    return FlowSet(**{**vars(found[0]), "flows": tuple(flow for part_ in found for flow in part_)})


def write_flows(target: Path, recipe: Mapping[str, Any], progress: bool = False) -> None:
    """Make a manifest's set: its [recipe] names the solver, the seed, the flows of each part, and the settings."""
    from tqdm.auto import tqdm

    sizes = recipe["flows"]
    with tqdm(total=sum(sizes.values()), disable=not progress, desc=recipe["name"], unit="flow") as bar:
        parts = {
            part: make_flows(
                recipe["solver"], sizes[part], seed=recipe["seed"], part=part, progress=bar.update,
                **recipe.get("settings", {}),
            )
            for part in PARTS
        }  # fmt: skip
    named = {part: FlowSet(**{**vars(found), "name": recipe["name"]}) for part, found in parts.items()}
    write_flow_sets(target, named, recipe)


def _recipe(solver: str, settings: Mapping[str, Any]) -> VorticityRecipe | ShallowWaterRecipe | StepsRecipe:
    made = RECIPES[choose("solver", solver, RECIPES)]
    known = [field.name for field in fields(made)]
    for name in settings:
        choose(f"setting of {solver}", name, known)
    return made(**settings)


def _clock(burn_in: float, frames: int, interval: float) -> list[float]:
    """The initial time, and those of frames, the first of them after burn_in."""
    if frames < 1 or not interval > 0.0 or burn_in < 0.0:
        raise ValueError(f"need frames >= 1, interval > 0 and burn_in >= 0, got {frames}, {interval}, {burn_in}")
    kept = [burn_in + k * interval for k in range(frames)]
    return kept if burn_in == 0.0 else [0.0, *kept]


def _flows(points: Tensor, ts: Sequence[float], values: Tensor) -> tuple[Flow, ...]:
    """Of values [T, B, N, c] on shared points."""
    times = torch.tensor(ts, dtype=torch.float64)
    return tuple(Flow(points, times, one) for one in values.unbind(1))
