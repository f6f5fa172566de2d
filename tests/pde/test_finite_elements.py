"""Finite elements: exact on what they contain, convergent at their order, and lawful in motion."""

from __future__ import annotations

import sys
from itertools import pairwise
from math import log2

import pytest
import torch
from torch import Tensor

from sciode.pde.elastic import (
    Load,
    Material,
    NeoHookean,
    Plane,
    Setup,
    Solid,
    incremental_potential,
    penetration,
    potential,
)
from sciode.pde.finite_elements import Elements, Motion, elements, equilibrium, simulate, stored_energy, stretched
from sciode.pde.shapes import SHAPES

pytest.importorskip("skfem", reason="finite elements need scikit-fem: pip install 'sciode[pde]'")

SOLIDS: list[Solid] = [Material(2.0, 3.0), NeoHookean(2.0, 3.0)]


def _draw(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("name", ["disc", "ball"])
def test_polynomials_of_the_degree_are_met_exactly(name: str, degree: int) -> None:
    space = elements(SHAPES[name].mesh(4), degree)
    field = space.nodes**degree + space.nodes.flip(-1)
    points, _ = space.at_points(space.nodes)
    values, slopes = space.at_points(field)
    torch.testing.assert_close(values, points**degree + points.flip(-1))
    d = points.shape[-1]
    expected = torch.diag_embed(degree * points ** (degree - 1)) + torch.eye(d, dtype=torch.float64).flip(-1)
    torch.testing.assert_close(slopes, expected)
    volume = torch.tensor(SHAPES[name].mesh(4).volume(), dtype=torch.float64)
    torch.testing.assert_close(space.integral(torch.ones_like(points[..., 0])), volume)


@pytest.mark.parametrize("name, degree", [("square", 1), ("square", 2), ("cube", 1), ("cube", 2)])
def test_nodes_on_the_boundary_are_known(name: str, degree: int) -> None:
    space = elements(SHAPES[name].mesh(3), degree)
    assert torch.equal(space.boundary, (space.nodes.abs() > 1 - 1e-12).any(-1))


@pytest.mark.parametrize("material", SOLIDS, ids=["arap", "neo-hookean"])
@pytest.mark.parametrize("name, degree", [("disc", 1), ("disc", 2), ("ball", 1)])
def test_the_patch_test_is_passed(name: str, degree: int, material: Solid) -> None:
    """With an affine deformation on the boundary the inner nodes find it, from a disturbed start."""
    mesh = SHAPES[name].mesh(6 if name == "disc" else 4)
    space = elements(mesh, degree)
    d = mesh.dimension
    held = space.boundary
    assert 0 < int(held.sum()) < len(held)
    turn = torch.eye(d, dtype=torch.float64) + 0.1 * _draw(torch.Size((d, d)), 1)
    affine = space.nodes @ turn.T + 0.3
    start = torch.where(held.unsqueeze(-1), affine, affine + 0.02 * _draw(affine.shape, 2))
    found = equilibrium(space, lambda place, gradient: potential(gradient, material), start, held)
    assert found.status == "converged"
    torch.testing.assert_close(found.positions, affine, rtol=0, atol=1e-8)
    expected = float(potential(turn, material)) * mesh.volume()
    assert found.energy == pytest.approx(expected, rel=1e-12)
    assert stored_energy(space, found.positions, material) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("degree", [1, 2])
def test_the_energy_of_a_smooth_solution_converges_at_twice_the_degree(degree: int) -> None:
    """A manufactured deformation: its own load makes it the equilibrium, with nothing moved on the boundary."""
    material = NeoHookean(1.0, 2.0)

    def exact(x: Tensor) -> Tensor:
        bump = (1 - x[0] ** 2) * (1 - x[1] ** 2)
        return x + 0.15 * bump * torch.stack((torch.cos(x[1]), torch.sin(x[0] + 0.5)))

    def stress(x: Tensor) -> Tensor:
        return torch.func.grad(lambda gradient: potential(gradient, material))(torch.func.jacfwd(exact)(x))

    def load(x: Tensor) -> Tensor:
        return -torch.einsum("ijj->i", torch.func.jacfwd(stress)(x))

    energies = []
    for resolution in (4, 8, 16, 32):
        space = elements(SHAPES["square"].mesh(resolution), degree)
        points = space.at_points(space.nodes)[0]
        force = torch.func.vmap(load)(points.flatten(0, 1)).view_as(points)

        def density(place: Tensor, gradient: Tensor, force=force) -> Tensor:
            return incremental_potential(place, gradient, material, force=force)

        energies.append(equilibrium(space, density, space.nodes, space.boundary).energy)
    steps = [first - second for first, second in pairwise(energies)]
    orders = [log2(first / second) for first, second in pairwise(steps)]
    assert orders[-1] == pytest.approx(2 * degree, abs=0.25), (energies, orders)


def test_a_stretched_square_loses_energy_with_refinement_and_both_degrees_agree_in_the_limit() -> None:
    """Nested spaces: each minimum is below the last. Aitken's limits of the two degrees meet within half a percent.

    The held corners are singular, so that no degree reaches its full order.
    """
    material = Material(1.0, 10.0)
    limits = []
    for degree, resolutions in ((1, (8, 16, 32)), (2, (4, 8, 16))):
        found = [stretched(elements(SHAPES["square"].mesh(r), degree), material) for r in resolutions]
        assert [one.status for one in found] == ["converged"] * 3
        first, second, third = (one.energy for one in found)
        assert first > second > third
        limits.append(third - (second - third) ** 2 / (first - 2 * second + third))
    assert limits[0] == pytest.approx(limits[1], rel=5e-3)


def test_a_nearly_incompressible_square_is_reached_from_a_softer_one_too() -> None:
    """Two roads to one minimum: straight, and by volume weights that grow tenfold each."""
    space = elements(SHAPES["square"].mesh(8), 2)
    straight = stretched(space, Material(1.0, 1e3))
    start = None
    for volume in (10.0, 100.0, 1e3):
        found = stretched(space, Material(1.0, volume), start=start)
        start = found.positions
    assert found.status == straight.status == "converged"
    assert found.energy == pytest.approx(straight.energy, rel=1e-9)


def test_two_degrees_of_the_same_mesh_are_nested() -> None:
    mesh, material = SHAPES["square"].mesh(6), Material(1.0, 100.0)
    linear, quadratic = (stretched(elements(mesh, degree), material) for degree in (1, 2))
    assert quadratic.energy < linear.energy
    assert linear.unknowns < quadratic.unknowns


def _energies(space: Elements, motion: Motion, material: Solid) -> Tensor:
    energies = []
    for positions, velocity in zip(motion.positions, motion.velocities, strict=True):
        speed = space.at_points(velocity)[0].square().sum(-1)
        kinetic = float(space.integral(material.density / 2 * speed))
        energies.append(kinetic + stored_energy(space, positions, material))
    return torch.tensor(energies, dtype=torch.float64)


def test_a_free_swinging_body_keeps_its_momentum_and_its_energy_up_to_the_step_size() -> None:
    """Implicit Euler only loses energy, and the loss over a time is of first order in the step."""
    material = Material(10.0, 20.0, density=1.5)
    space = elements(SHAPES["square"].mesh(3))
    x, y = space.nodes.unbind(-1)
    velocity = 0.5 * torch.stack((x - 0.3 * y + 0.2, -y), -1)
    lost = []
    for steps in (20, 40, 80):
        setup = Setup(material, 2, dt=0.2 / steps, steps=steps)
        motion = simulate(space, setup, velocity=velocity)
        momentum = torch.stack([space.integral(space.at_points(rate)[0]) for rate in motion.velocities])
        torch.testing.assert_close(momentum, momentum[:1].expand_as(momentum), rtol=0, atol=1e-8)
        energy = _energies(space, motion, material)
        assert bool((energy.diff() < 0).all())
        lost.append(float(energy[0] - energy[-1]) / float(energy[0]))
    orders = [log2(first / second) for first, second in pairwise(lost)]
    assert orders[-1] == pytest.approx(1.0, abs=0.15), (lost, orders)


def test_a_body_falls_as_implicit_euler_falls_without_strain() -> None:
    """phi_n = phi_0 + g dt^2 n (n + 1) / 2 / rho, in space."""
    space = elements(SHAPES["ball"].mesh(4))
    setup = Setup(Material(5.0, 5.0, density=2.0), 3, dt=0.1, steps=3, loads=(Load((0.0, 0.0, -9.0)),))
    motion = simulate(space, setup)
    counts = torch.arange(4, dtype=torch.float64)
    drop = -9.0 / 2.0 * 0.1**2 * counts * (counts + 1) / 2
    expected = space.nodes + drop[:, None, None] * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(motion.positions, expected, rtol=0, atol=1e-8)


def test_a_dropped_disc_comes_to_rest_on_the_floor_which_carries_its_weight() -> None:
    floor, stiffness = Plane((0.0, 1.0), -1.5), 1e3
    space = elements(SHAPES["disc"].mesh(5))
    setup = Setup(Material(100.0, 200.0), 2, 0.4, 40, (Load((0.0, -2.0)),), (floor,), stiffness=stiffness)
    motion = simulate(space, setup)
    assert set(motion.status) == {"converged"}
    depth, _ = penetration(space.at_points(motion.positions[-1])[0], floor)
    assert float(penetration(motion.positions[0], floor)[0].max()) == 0
    # At rest, against a fall of sqrt(2 g h) = 1.4.
    assert float(motion.velocities[-1].abs().max()) < 0.02
    assert 0 < float(depth.max()) < 0.1
    weight = 2.0 * float(space.weights.sum())
    assert float(stiffness * space.integral(depth)) == pytest.approx(weight, rel=0.01)


def test_what_did_not_converge_says_so() -> None:
    space = elements(SHAPES["square"].mesh(4))
    found = stretched(space, Material(1.0, 10.0), max_iterations=1)
    assert found.status == "max iterations" and found.iterations == 1


def test_misuse_is_told_before_work_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = SHAPES["square"].mesh(2)
    space = elements(mesh)

    def density(place: Tensor, gradient: Tensor) -> Tensor:
        return potential(gradient, SOLIDS[0])

    with pytest.raises(ValueError, match="degree"):
        elements(mesh, 3)
    with pytest.raises(ValueError, match="start: expected float64"):
        equilibrium(space, density, space.nodes.float())
    with pytest.raises(ValueError, match="held"):
        equilibrium(space, density, space.nodes, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="its energy is"):
        equilibrium(space, density, space.nodes * torch.inf)
    with pytest.raises(ValueError, match="quasi-static"):
        simulate(space, Setup(Material(1.0, 1.0), 2))
    monkeypatch.setitem(sys.modules, "skfem", None)
    with pytest.raises(ImportError, match=r"sciode\[pde\]"):
        elements(mesh)
