"""Flow solvers on a CUDA device: the CPU's answers, and the same ones from captured graphs as step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciode.data.flow_recipes import make_flows
from sciode.pde.semilinear import march
from sciode.pde.shallow_water import jets, random_jets, simulate_shallow_water
from sciode.pde.spherical import SphereGrid
from sciode.pde.step_flow import random_scene, simulate_scenes
from sciode.pde.vorticity import diagonal_forcing, random_vorticity, simulate_vorticity

pytestmark = pytest.mark.gpu
TS = [0.0, 0.5, 0.75, 1.5]
SETTINGS: dict[str, dict[str, Any]] = {
    "vorticity": {"n": 32, "burn_in": 0.5, "frames": 3},
    "shallow_water": {"degree": 21, "latitudes": 32, "burn_in": 6.0, "frames": 2, "dt": 900.0},
    "steps": {"ny": 32, "viscosity": 5e-3, "porosity": 0.01, "burn_in": 0.2, "frames": 3, "dt": 0.01},
}


@pytest.mark.parametrize("scheme", ["ifrk4", "cn"])
@pytest.mark.parametrize("capture", [0, 7])
def test_vorticity_is_the_cpus_answer(scheme: str, capture: int) -> None:
    """Gaps of two lengths, neither a multiple of a graph's seven steps."""
    start, forcing = 5.0 * random_vorticity(32, range(3)), diagonal_forcing(32)

    def run(device: str) -> torch.Tensor:
        return simulate_vorticity(
            start.to(device), TS, viscosity=1e-3, dt=0.02, forcing=forcing, scheme=scheme, capture=capture
        )

    found = run("cuda")
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), run("cpu"), rtol=0.0, atol=1e-9)


def test_a_graph_knows_the_time() -> None:
    """u' = cos t, whose rate reads the clock that the graph advances by itself."""
    start = torch.zeros(4, dtype=torch.float64, device="cuda")
    found = list(march(torch.zeros_like(start), lambda t, u: t.cos().expand_as(u), start, TS, 0.01, capture=8))
    exact = torch.tensor(TS, dtype=torch.float64).sin()
    torch.testing.assert_close(torch.stack(found)[:, 0].cpu(), exact, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("capture", [0, 4])
def test_shallow_water_is_the_cpus_answer(capture: int) -> None:
    def run(device: str) -> torch.Tensor:
        grid = SphereGrid(21, device=device)
        start = jets(grid, [random_jets(0), random_jets(1)])
        return simulate_shallow_water(grid, start, [0.0, 3600.0, 21600.0], dt=600.0, capture=capture).height

    torch.testing.assert_close(run("cuda").cpu(), run("cpu"), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("capture", [0, 4])
def test_flow_over_steps_is_the_cpus_answer(capture: int) -> None:
    """Its force reads the clock too."""

    def run(device: str) -> torch.Tensor:
        scenes = [random_scene(0), random_scene(1)]
        how: dict[str, Any] = {"viscosity": 0.01, "porosity": 0.02, "dt": 0.02, "dtype": torch.float64}
        return simulate_scenes(scenes, 16, [0.0, 0.2, 0.5], device=device, capture=capture, **how).velocity

    torch.testing.assert_close(run("cuda").cpu(), run("cpu"), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("solver", SETTINGS)
def test_a_set_is_the_same_from_both_devices(solver: str) -> None:
    one, other = (make_flows(solver, 2, device=device, **SETTINGS[solver]) for device in ("cuda", "cpu"))
    for first, second in zip(one, other, strict=True):
        scale = float(second.values.abs().amax())
        torch.testing.assert_close(first.values, second.values, rtol=1e-4, atol=1e-5 * scale)
