"""The staggered fluid: an exact projection, advection of its order, energies and symmetries of exact flows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.func import vmap

from sciode.pde.evolution import Evolution
from sciode.pde.grid_fluid import Velocity, advect, divergence_of, kinetic_energy, project, simulate
from sciode.pde.problems import advection, heat, taylor_green, two_scale

INTERPOLATIONS = ("linear", "cubic", "maccormack")
Array = NDArray[np.floating[Any]]

every_interpolation = pytest.mark.parametrize("interpolation", INTERPOLATIONS)


def random_velocity(n: int, seed: int) -> Velocity:
    rng = np.random.default_rng(seed)
    return Velocity(rng.normal(size=(n + 1, n)), rng.normal(size=(n, n + 1)))


def vortices(x: Array, y: Array) -> tuple[Array, Array]:
    a, b = (x + 1.0) * math.pi, (y + 1.0) * math.pi
    return np.sin(a) * np.cos(b) / math.pi, -np.cos(a) * np.sin(b) / math.pi


def faces(n: int) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    edges, centres = np.linspace(-1.0, 1.0, n + 1), (np.arange(n) + 0.5) * (2.0 / n) - 1.0
    return tuple(np.meshgrid(edges, centres, indexing="ij")), tuple(np.meshgrid(centres, edges, indexing="ij"))


def sampled(n: int) -> Velocity:
    across_x, across_y = faces(n)
    return Velocity(vortices(*across_x)[0], vortices(*across_y)[1])


# --- the projection


@pytest.mark.parametrize("n", [4, 7, 57])
def test_a_projected_velocity_has_no_divergence_and_doesnt_cross_walls(n: int) -> None:
    projected = project(random_velocity(n, n))
    assert np.abs(divergence_of(projected)).max() < 1e-13
    assert not projected.u[[0, -1]].any() and not projected.v[:, [0, -1]].any()


def test_the_projection_is_orthogonal_and_changes_nothing_twice() -> None:
    velocity = random_velocity(12, 0)
    velocity.u[[0, -1]], velocity.v[:, [0, -1]] = 0.0, 0.0
    projected = project(velocity)
    for once, twice in zip(projected, project(projected), strict=True):
        np.testing.assert_allclose(twice, once, atol=1e-13)
    # What is taken off is a gradient: orthogonal to every velocity without divergence, so to another projected one.
    other = project(random_velocity(12, 1))
    taken = [before - after for before, after in zip(velocity, projected, strict=True)]
    assert abs(sum(float((part * w).sum()) for part, w in zip(taken, other, strict=True))) < 1e-11
    assert kinetic_energy(projected, 1.0) < kinetic_energy(velocity, 1.0)


def test_a_gradient_is_projected_to_rest() -> None:
    pressure = np.random.default_rng(0).normal(size=(9, 9))
    gradient = Velocity(
        np.pad(np.diff(pressure, axis=0), ((1, 1), (0, 0))), np.pad(np.diff(pressure, axis=1), ((0, 0), (1, 1)))
    )
    for part in project(gradient):
        np.testing.assert_allclose(part, 0.0, atol=1e-13)


# --- advection


@pytest.mark.parametrize(("interpolation", "order"), [("linear", 2), ("cubic", 4)])
def test_one_advection_is_of_the_interpolations_order_in_the_spacing(interpolation: str, order: int) -> None:
    """Against u(x - dt u(x)) in closed form. The step crosses up to 10 cells, so that all parts of a cell are met."""
    dt = 0.5

    def error(n: int) -> float:
        moved = advect(sampled(n), dt * n / 2.0, interpolation)
        gaps = []
        for axis, (x, y) in enumerate(faces(n)):
            u, v = vortices(x, y)
            origin = np.clip(x - dt * u, -1.0, 1.0), np.clip(y - dt * v, -1.0, 1.0)
            gaps.append(np.abs(moved[axis] - vortices(*origin)[axis]).max())
        return max(gaps)

    assert np.log2(error(64) / error(128)) == pytest.approx(order, abs=0.25)


def flowed_back(x: Array, y: Array, dt: float) -> tuple[Array, Array]:
    """Where the steady vortices carried (x, y) from, by 8 steps of the classical Runge-Kutta method."""
    h = -dt / 8
    for _ in range(8):
        k1 = vortices(x, y)
        k2 = vortices(x + h / 2 * k1[0], y + h / 2 * k1[1])
        k3 = vortices(x + h / 2 * k2[0], y + h / 2 * k2[1])
        k4 = vortices(x + h * k3[0], y + h * k3[1])
        x, y = (at + h / 6 * (a + 2 * b + 2 * c + d) for at, a, b, c, d in zip((x, y), k1, k2, k3, k4, strict=True))
    return x, y


@pytest.mark.parametrize(
    ("interpolation", "trace", "order"),
    [
        ("linear", "midpoint", 2),
        ("maccormack", "midpoint", 3),
        ("cubic", "euler", 2),
        ("cubic", "midpoint", 3),
    ],
)
def test_steps_that_shrink_with_the_cells_have_local_errors_of_the_lower_of_both_orders(
    interpolation: str, trace: str, order: int
) -> None:
    """A step of Euler's trace errs by dt^2 and the midpoint's by dt^3; in the mean, limiters act on few points."""

    def error(n: int) -> float:
        dt = 4.0 / n
        moved = advect(sampled(n), dt * n / 2.0, interpolation, trace)
        gaps = [
            moved[axis] - vortices(*flowed_back(place[0], place[1], dt))[axis] for axis, place in enumerate(faces(n))
        ]
        return float(np.mean([np.abs(gap).mean() for gap in gaps]))

    assert np.log2(error(64) / error(128)) == pytest.approx(order, abs=0.25)


@every_interpolation
def test_a_uniform_component_is_kept(interpolation: str) -> None:
    """The other component moves it about; without walls that are normal to it, nothing may change it."""
    n = 12
    flow = Velocity(np.zeros((n + 1, n)), np.full((n, n + 1), 0.7))
    flow.v[:, [0, -1]] = 0.0
    sideways = np.random.default_rng(0).normal(size=(n + 1, n))
    moved = advect(Velocity(sideways, flow.v), 0.4, interpolation)
    inner = moved.v[:, 4:-4]
    np.testing.assert_allclose(inner, 0.7, atol=1e-14)


# --- whole runs


@every_interpolation
@pytest.mark.parametrize("problem", [taylor_green(), two_scale()], ids=["taylorgreen", "twoscale"])
def test_runs_have_no_divergence_lose_energy_and_keep_to_the_walls(problem: Evolution, interpolation: str) -> None:
    run = simulate(problem, 24, 0.1, 10, interpolation=interpolation)
    assert run.divergence[1:].max() < 1e-12
    assert (np.diff(run.energy) < 0.0).all() and run.energy[-1] > 0.3 * run.energy[0]
    assert not run.us[:, [0, -1]].any() and not run.vs[:, :, [0, -1]].any()
    assert run.ts[-1] == pytest.approx(1.0)


def test_the_initial_energies_are_those_of_the_integrals() -> None:
    run = simulate(taylor_green(), 57, 0.05, 1)
    assert run.energy[0] == pytest.approx(1.0 / math.pi**2, rel=1e-13)
    assert run.divergence[0] < 1e-12
    # 6,612 numbers, and 6,627 in the network of the paper, pressure included.
    assert run.memory == 4 * 6612


@pytest.mark.parametrize("trace", ["euler", "midpoint"])
def test_the_energy_lost_to_linear_interpolation_falls_by_its_order_to_what_the_splitting_costs(trace: str) -> None:
    """At a fixed step: the loss tends to that of exact space at order 2, as differences of three grids show."""

    def loss(n: int, interpolation: str) -> float:
        energy = simulate(taylor_green(), n, 0.5, 2, interpolation=interpolation, trace=trace).energy
        return float(1.0 - energy[-1] / energy[0])

    linear = [loss(n, "linear") for n in (48, 96, 192)]
    assert np.log2((linear[0] - linear[1]) / (linear[1] - linear[2])) == pytest.approx(2.0, abs=0.25)
    limit = linear[2] - (linear[1] - linear[2]) / 3.0
    # The cubic grid is there at once; what is left falls at order 4, then at the projection's 2.
    cubic = [loss(n, "cubic") - limit for n in (24, 48)]
    assert abs(cubic[1]) < 0.1 * (linear[0] - limit)
    assert abs(cubic[0]) < 0.05 * (loss(24, "linear") - limit)


@pytest.mark.parametrize(
    ("splitting", "trace", "order"), [("chorin", "midpoint", 1), ("reflect", "midpoint", 2), ("reflect", "euler", 1)]
)
def test_a_fine_grid_errs_by_the_order_of_the_splitting_and_of_the_trace(
    splitting: str, trace: str, order: int
) -> None:
    """Taylor-Green is steady: what has changed until t = 1 is error."""

    def error(steps: int) -> float:
        run = simulate(taylor_green(), 96, 1.0 / steps, steps, splitting=splitting, trace=trace)
        return float(np.sqrt(np.mean((run.us[-1] - run.us[0]) ** 2)))

    assert np.log2(error(4) / error(8)) == pytest.approx(order, abs=0.25)


def test_the_plain_splitting_loses_energy_in_proportion_to_the_step_and_reflection_hardly_any() -> None:
    def loss(steps: int, splitting: str) -> float:
        energy = simulate(taylor_green(), 48, 1.0 / steps, steps, splitting=splitting).energy
        return float(1.0 - energy[-1] / energy[0])

    plain = loss(10, "chorin")
    assert np.log2(plain / loss(20, "chorin")) == pytest.approx(1.0, abs=0.25)
    assert abs(loss(10, "reflect")) < 0.02 * plain


@every_interpolation
def test_reflected_and_transposed_flows_stay_reflected_and_transposed(interpolation: str) -> None:
    velocity = project(random_velocity(10, 3))
    moved = project(advect(velocity, 0.3, interpolation))
    mirrored = project(advect(Velocity(-velocity.u[::-1], velocity.v[::-1]), 0.3, interpolation))
    np.testing.assert_allclose(mirrored.u, -moved.u[::-1], atol=1e-12)
    np.testing.assert_allclose(mirrored.v, moved.v[::-1], atol=1e-12)
    transposed = project(advect(Velocity(velocity.v.T, velocity.u.T), 0.3, interpolation))
    np.testing.assert_allclose(transposed.u, moved.v.T, atol=1e-12)
    np.testing.assert_allclose(transposed.v, moved.u.T, atol=1e-12)


def test_the_velocity_is_known_between_the_faces_and_at_the_walls() -> None:
    run = simulate(taylor_green(), 48, 0.05, 1)
    points = torch.rand(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    exact = vmap(taylor_green().initial)(points).numpy()
    assert np.abs(run.at(points.numpy(), step=0) - exact).max() < 2e-5
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_allclose(run.at(corners), 0.0, atol=1e-14)
    rough = simulate(taylor_green(), 48, 0.05, 1, interpolation="linear")
    assert 1e-5 < np.abs(rough.at(points.numpy(), step=0) - exact).max() < 2e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem": heat()}, "'heat' is not incompressible Euler"),
        ({"problem": advection()}, "'advection' is not incompressible Euler"),
        ({"n": 3}, "n >= 4"),
        ({"dt": -0.1}, "dt > 0"),
        ({"steps": 0}, "steps >= 1"),
        ({"interpolation": "bicubic"}, "interpolation: unknown 'bicubic'. Did you mean 'cubic'"),
        ({"splitting": "reflection"}, "splitting: unknown 'reflection'. Did you mean 'reflect'"),
        ({"trace": "heun"}, "trace: unknown 'heun'"),
    ],
)
def test_a_mistake_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(**{"problem": taylor_green(), "n": 8, "dt": 0.1, "steps": 1, **arguments})
