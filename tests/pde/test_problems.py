"""Evolution problems: exact solutions solve their equations, initial data are what the texts say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jvp, vmap

from sciode.pde.evolution import Evolution
from sciode.pde.problems import PROBLEMS, advection, allen_cahn, burgers, heat, problem_of, taylor_green, two_scale

every_problem = pytest.mark.parametrize("problem", [make() for make in PROBLEMS.values()], ids=PROBLEMS.keys())
F64 = torch.float64


def points(problem: Evolution, count: int = 64, seed: int = 0) -> Tensor:
    low, high = torch.tensor(problem.lower, dtype=F64), torch.tensor(problem.upper, dtype=F64)
    unit = torch.rand(count, problem.dimension, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * unit


def close(found: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=atol)


@every_problem
def test_a_problem_has_its_name_its_source_and_a_field_at_single_points_in_any_dtype(problem: Evolution) -> None:
    assert PROBLEMS[problem.name]().name == problem.name and problem.reference
    x = points(problem)
    values = vmap(problem.initial)(x)
    assert values.shape == (64, problem.channels) and values.dtype == F64
    single = vmap(problem.initial)(x.float())
    assert single.dtype == torch.float32
    close(single.double(), values, atol=1e-4)
    assert vmap(problem.equation(problem.initial))(x).shape == values.shape
    with pytest.raises(TypeError):
        problem.parameters["speed"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize("name", ["advection", "heat"])
@pytest.mark.parametrize("t", [0.0, 0.7, 3.0])
def test_exact_solutions_solve_the_equation(name: str, t: float) -> None:
    problem = problem_of(name)
    exact: Any = problem.exact
    time = torch.tensor(t, dtype=F64)
    x = points(problem, 256)
    rates = vmap(lambda p: jvp(lambda s: exact(p, s), (time,), (torch.ones_like(time),))[1])(x)
    close(rates, vmap(problem.equation(lambda p: exact(p, time)))(x), atol=1e-11)
    close(vmap(lambda p: exact(p, 0.0))(x), vmap(problem.initial)(x))


def test_advection_starts_as_a_gaussian_and_moves_at_its_speed() -> None:
    problem = advection()
    x = torch.linspace(-2.0, 2.0, 41, dtype=F64)[:, None]
    close(vmap(problem.initial)(x), torch.exp(-((x + 1.5) ** 2) / 0.02))
    exact: Any = problem.exact
    assert float(exact(torch.tensor([-1.5 + 0.25 * 12.0], dtype=F64), 12.0)) == 1.0
    # Five of its widths from a wall, at the start and at the end: exp(-12.5).
    for t in (0.0, 12.0):
        assert max(float(exact(torch.tensor([wall], dtype=F64), t)) for wall in (-2.0, 2.0)) < 1e-5


def test_the_right_hand_sides_are_those_of_the_names() -> None:
    x = points(heat())
    wave = vmap(lambda p: torch.stack([p[0].sin() * (2.0 * p[1]).cos()]))
    close(vmap(heat(0.3).equation(lambda p: torch.stack([p[0].sin() * (2.0 * p[1]).cos()])))(x), -1.5 * wave(x))
    for value in (-1.0, 0.0, 0.5):
        constant = torch.full((64, 1), value, dtype=F64)
        close(vmap(allen_cahn().equation(lambda p, value=value: 0.0 * p[:1] + value))(x), constant - constant**3)
    along = vmap(burgers(0.2).equation(lambda p: torch.stack([p[0].sin(), 0.0 * p[1]])))(x)
    sine, cosine = x[:, 0].sin(), x[:, 0].cos()
    close(along, torch.stack([-0.2 * sine - sine * cosine, torch.zeros_like(sine)], -1))
    # A shear flow doesn't carry itself: (u . grad) u mixes the components the right way round.
    shear = vmap(taylor_green().equation(lambda p: torch.stack([p[1] ** 2, 0.0 * p[0]])))(x)
    close(shear, torch.zeros_like(shear))


@pytest.mark.parametrize("name", ["heat", "allencahn", "burgers"])
def test_initial_data_are_periodic_of_the_stated_size_and_drawn_by_the_seed_alone(name: str) -> None:
    problem = problem_of(name)
    x = points(problem)
    here = vmap(problem.initial)(x)
    for shift in ((2.0 * math.pi, 0.0), (0.0, -2.0 * math.pi)):
        close(vmap(problem.initial)(x + torch.tensor(shift, dtype=F64)), here)
    axis = torch.arange(16, dtype=F64) * (2.0 * math.pi / 16)
    values = vmap(vmap(problem.initial))(torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1))
    # The trapezoidal rule is exact for such sums.
    sizes = (values**2).mean((0, 1)).sqrt()
    close(sizes, torch.full_like(sizes, 1.0 if name == "heat" else 0.5))
    close(values.mean((0, 1)), torch.zeros_like(sizes))
    close(vmap(problem_of(name, seed=0).initial)(x), here, atol=0.0)
    assert float((vmap(problem_of(name, seed=1).initial)(x) - here).abs().max()) > 0.1


@pytest.mark.parametrize("problem", [taylor_green(), two_scale(), two_scale(0.5)], ids=["taylorgreen", "1/4", "1/2"])
def test_no_fluid_starts_through_a_wall(problem: Evolution) -> None:
    along = torch.linspace(-1.0, 1.0, 201, dtype=F64)
    for wall in (-1.0, 1.0):
        side = torch.full_like(along, wall)
        close(vmap(problem.initial)(torch.stack([side, along], -1))[:, 0], 0.0 * along)
        close(vmap(problem.initial)(torch.stack([along, side], -1))[:, 1], 0.0 * along)


def test_taylor_green_is_free_of_divergence_and_its_acceleration_is_a_gradient() -> None:
    """So a pressure balances it, and the flow is steady: curl((u . grad) u) = 0."""
    problem = taylor_green()
    x = points(problem, 128)
    slopes = vmap(jacfwd(problem.initial))(x)
    close(slopes.diagonal(dim1=1, dim2=2).sum(-1), torch.zeros(128, dtype=F64))
    twist = vmap(jacfwd(problem.equation(problem.initial)))(x)
    assert float(vmap(problem.equation(problem.initial))(x).abs().max()) > 0.1
    close(twist[:, 1, 0], twist[:, 0, 1])
    exact: Any = problem.exact
    close(vmap(lambda p: exact(p, 2.0))(x), vmap(problem.initial)(x), atol=0.0)
    scaled = (x + 1.0) * math.pi
    expected = torch.stack([scaled[:, 0].sin() * scaled[:, 1].cos(), -scaled[:, 0].cos() * scaled[:, 1].sin()], -1)
    close(vmap(problem.initial)(x), expected / math.pi)


@pytest.mark.parametrize("ratio", [0.25, 0.1, 0.6])
def test_the_small_vortex_is_the_large_one_shrunk_ramps_included(ratio: float) -> None:
    velocity, unit = (
        vmap(two_scale(ratio).initial),
        torch.rand(400, 2, dtype=F64, generator=torch.Generator().manual_seed(1)),
    )
    inside = velocity(unit - 1.0)
    close(inside, vmap(taylor_green().initial)(unit - 1.0))
    close(velocity(1.0 - ratio + ratio * unit), inside)
    # Ramps: off a side the boundary's velocity falls linearly to 0, and is 0 from there on.
    side = torch.stack([torch.zeros(9, dtype=F64), torch.linspace(-0.9, -0.1, 9, dtype=F64)], -1)
    edge = velocity(side)
    assert float(edge[:, 1].abs().min()) > 0.05
    for share in (0.25, 0.5, 1.0, 1.2):
        off = torch.tensor([0.05 * share, 0.0], dtype=F64)
        close(velocity(side + off), max(0.0, 1.0 - share) * edge)
    corner = 1.0 - ratio + ratio * (side + 1.0)
    for share in (0.5, 1.0):
        # The small one's lower and left sides are free; a point below it, seen from the one inside.
        below = torch.stack([corner[:, 1], torch.full((9,), 1.0 - ratio - 0.05 * ratio * share, dtype=F64)], -1)
        at_side = torch.stack([corner[:, 1], torch.full((9,), 1.0 - ratio, dtype=F64)], -1)
        close(velocity(below), (1.0 - share) * velocity(at_side))


def test_the_two_vortices_have_energies_as_the_squares_of_their_sides() -> None:
    n = 2000
    axis = -1.0 + (torch.arange(n, dtype=F64) + 0.5) * (2.0 / n)
    # Without the ramps: they stick out of the small one on the sides where the large one has walls, and conversely.
    for low, side in ((-1.0, 1.0), (0.75, 0.25)):
        line = axis[(axis > low) & (axis < low + side)]
        values = vmap(vmap(two_scale().initial))(torch.stack(torch.meshgrid(line, line, indexing="ij"), -1))
        energy = float((values**2).sum()) * (2.0 / n) ** 2 / 2.0
        # int (sin^2 cos^2 + cos^2 sin^2) / pi^2 / 2 over a square of the side.
        assert energy == pytest.approx(side**2 / (4.0 * math.pi**2), rel=1e-9)


def test_names_and_parameters_are_found_or_suggested() -> None:
    assert problem_of("heat", diffusion=0.25).diffusion == 0.25
    assert problem_of("advection", speed=1.0).parameters["speed"] == 1.0
    with pytest.raises(ValueError, match=r"problem: unknown 'burger'. Did you mean 'burgers'"):
        problem_of("burger")
    with pytest.raises(ValueError, match=r"heat's parameter: unknown 'difusion'. Did you mean 'diffusion'"):
        problem_of("heat", difusion=0.25)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heat(diffusion=0.0), "diffusion is 0.0; it must be positive"),
        (lambda: burgers(diffusion=math.nan), "diffusion is nan; it must be positive"),
        (lambda: heat(highest=0), "highest is 0"),
        (lambda: advection(width=-1.0), "width is -1.0; it must be positive"),
        (lambda: two_scale(1.0), "ratio is 1.0; it must lie between 0 and 1"),
        (lambda: replace(heat(), upper=(1.0,)), "one number an axis each"),
        (lambda: replace(heat(), upper=(1.0, 0.0)), "lower must be below upper"),
        (lambda: replace(heat(), walls="wall"), "walls: unknown 'wall'"),
        (lambda: replace(heat(), diffusion=-1.0), "diffusion is -1.0"),
        (lambda: replace(heat(), end=0.0), "end is 0.0"),
        (lambda: replace(heat(), incompressible=True), "a velocity has 2 components here, got channels=1"),
        (lambda: replace(heat(), channels=2), r"initial gives \(1,\) at a point, expected \(2,\)"),
        (lambda: replace(heat(), rate=lambda u, slopes: slopes[..., 0, :]), r"rate gives \(2,\) at a point"),
        (lambda: replace(heat(), exact=lambda x, t: x), r"exact gives \(2,\) at a point"),
    ],
)
def test_a_mistake_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_an_error_in_a_users_equation_comes_as_it_is_and_at_once() -> None:
    def broken(u: Tensor, slopes: Tensor) -> Tensor:
        raise KeyError("viscosity")

    with pytest.raises(KeyError, match="viscosity"):
        replace(heat(), rate=broken)


def test_numbers_of_any_kind_become_floats() -> None:
    problem = replace(heat(), lower=(np.float32(0.0), 0), upper=[1, 2])  # type: ignore[arg-type]
    assert problem.lower == (0.0, 0.0) and problem.upper == (1.0, 2.0) and problem.dimension == 2 and problem.periodic
