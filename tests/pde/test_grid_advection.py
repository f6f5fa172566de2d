"""Interpolation on grids and semi-Lagrangian advection in 1-D: orders, what is kept, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import vmap

from sciode.pde.grid_advection import advect
from sciode.pde.lagrange import DEGREES, degree_of, interpolate
from sciode.pde.problems import advection, heat

every_interpolation = pytest.mark.parametrize(("name", "degree"), DEGREES.items(), ids=DEGREES.keys())


# --- interpolation


@every_interpolation
@pytest.mark.parametrize("axes", [1, 2])
def test_polynomials_of_the_degree_are_interpolated_exactly_at_the_edges_and_beyond_too(
    name: str, degree: int, axes: int
) -> None:
    rng = np.random.default_rng(axes)
    coefficients = rng.normal(size=(degree + 1,) * axes)
    shape = (6, 9)[:axes]
    grid = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    places = tuple(rng.uniform(-0.5, n - 0.5, size=200) for n in shape)
    polynomial: Any = np.polynomial.polynomial.polyval if axes == 1 else np.polynomial.polynomial.polyval2d
    found = interpolate(polynomial(*grid, coefficients), places, degree)
    expected = polynomial(*places, coefficients)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    nodes = tuple(axis.ravel() for axis in grid)
    np.testing.assert_allclose(
        interpolate(polynomial(*grid, coefficients), nodes, degree), polynomial(*nodes, coefficients), rtol=1e-13
    )


@every_interpolation
def test_interpolation_errors_fall_at_the_degree_plus_one(name: str, degree: int) -> None:
    def error(n: int) -> float:
        x = np.linspace(0.0, 1.0, n + 1)
        field = np.sin(5.0 * x)[:, None] * np.cos(3.0 * x + 1.0)[None, :]
        u, v = np.random.default_rng(0).uniform(0.0, 1.0, size=(2, 4000))
        return float(np.abs(interpolate(field, (u * n, v * n), degree) - np.sin(5.0 * u) * np.cos(3.0 * v + 1.0)).max())

    assert np.log2(error(40) / error(80)) == pytest.approx(degree + 1, abs=0.25)


def test_names_are_suggested_and_a_grid_may_be_too_small() -> None:
    with pytest.raises(ValueError, match=r"interpolation: unknown 'qubic'. Did you mean 'cubic'\?"):
        degree_of("qubic")
    with pytest.raises(ValueError, match="3 nodes on an axis are too few for degree 3"):
        interpolate(np.zeros((5, 3)), (np.zeros(1), np.zeros(1)), 3)


# --- advection


def error_at(n: int, dt: float, steps: int, interpolation: str) -> float:
    problem: Any = advection()
    run = advect(problem, n, dt, steps, interpolation=interpolation)
    points = np.linspace(-2.0, 2.0, 1601)
    exact = vmap(lambda x: problem.exact(x, dt * steps))(torch.from_numpy(points)[:, None])[:, 0].numpy()
    return float(np.sqrt(np.mean((run.at(points) - exact) ** 2)))


@every_interpolation
def test_errors_fall_at_the_interpolations_order_where_the_step_is_the_same_part_of_a_cell(
    name: str, degree: int
) -> None:
    """h^(p+1)/dt at a fixed time, p the degree: of order p where dt falls with h; a step crosses 2.4 cells."""

    def error(n: int) -> float:
        steps = round(n / 9.6)
        return error_at(n + 1, 4.0 / steps, steps, name)

    assert np.log2(error(384) / error(768)) == pytest.approx(degree, abs=0.25)


@every_interpolation
def test_whole_cells_are_crossed_without_any_error(name: str, degree: int) -> None:
    problem = advection()
    n, cells, steps = 161, 3, 8
    dt = cells * (4.0 / (n - 1)) / 0.25
    run = advect(problem, n, dt, steps, interpolation=name)
    np.testing.assert_allclose(run.values[-1, cells * steps : -1], run.values[0, : -cells * steps - 1], atol=1e-13)


@every_interpolation
@pytest.mark.parametrize("speed", [0.25, -0.25])
def test_nothing_enters_grows_or_stays_behind(name: str, degree: int, speed: float) -> None:
    run = advect(advection(speed=speed, start=0.0), 101, 0.3, 60, interpolation=name)
    sizes = np.sqrt((run.values**2).sum(1))
    assert (np.diff(sizes) <= 1e-12).all() and np.isfinite(run.values).all()
    assert (run.values[:, [0, -1]] == 0.0).all()
    # Gone through the wall by t = 18.
    assert sizes[-1] < 1e-2 * sizes[0]
    # What goes left is the mirror image of what goes right.
    mirrored = advect(advection(speed=-speed, start=0.0), 101, 0.3, 60, interpolation=name)
    np.testing.assert_allclose(run.values, mirrored.values[:, ::-1], atol=1e-12)


def test_the_cubic_grid_of_the_networks_memory_is_far_better_than_the_linear_one() -> None:
    run = advect(advection(), 901, 0.05, 1)
    assert run.memory == 3604
    linear, cubic = (error_at(901, 0.05, 20, name) for name in DEGREES)
    assert cubic < 0.01 * linear


def test_values_between_and_at_nodes_are_those_of_the_interpolation() -> None:
    run = advect(advection(), 201, 0.1, 5)
    np.testing.assert_allclose(run.at(run.x, step=3), run.values[3], atol=1e-14)
    assert run.ts[-1] == pytest.approx(0.5)
    np.testing.assert_allclose(run.at(np.array([-3.0, 2.5])), 0.0, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem": heat()}, "'heat' is not 1-D advection"),
        ({"n": 4}, "n >= 5"),
        ({"dt": 0.0}, "dt > 0"),
        ({"steps": 0}, "steps >= 1"),
        ({"interpolation": "cubical"}, "Did you mean 'cubic'"),
    ],
)
def test_a_mistake_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advect(**{"problem": advection(), "n": 101, "dt": 0.1, "steps": 1, **arguments})
