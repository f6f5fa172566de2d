"""Trees of derivatives solved on a circle: families' own solvers, exact solutions, orders, and what blows up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciode.prose import FAMILIES, Expression, equations_of_family, evolve_fields, sin, variable
from sciode.prose.circle import Circle, refined_grid
from sciode.prose.families import random_fields
from sciode.solvers.status import Status

TIMES = torch.linspace(0, 0.5, 5, dtype=torch.float64)


def grid(points: int, length: float = 2.0) -> Tensor:
    return length * torch.arange(points, dtype=torch.float64) / points


@pytest.mark.parametrize("name", FAMILIES)
def test_trees_are_solved_as_the_family_solves_its_terms(name: str) -> None:
    """Both have errors of order 4 in time on the same grid, below 1e-6 at these steps."""
    family = FAMILIES[name]
    numbers = torch.tensor([list(family.nominal.values())] * 2, dtype=torch.float64)
    start = random_fields(family, 2, 128, torch.Generator().manual_seed(1))
    # Shocks and solitons are steepest at the end, of which these steps resolve the first half.
    times = 0.5 * family.end * TIMES
    wanted = evolve_fields(family, numbers, start, times).values
    equations = [tuple(one.bound(family.nominal) for one in equations_of_family(family))] * 2
    circle = Circle(equations, family.length, 128)
    found = circle.moved(circle.constants, start[:, None], times, 8)
    assert found.status.tolist() == [0, 0]
    error = (found.values[:, :, 0].transpose(0, 1) - wanted).abs().amax() / wanted.abs().amax()
    assert float(error) < 1e-6


def test_what_is_linear_is_exact_in_one_step_of_any_size() -> None:
    """Modes of u_t = 0.1 u_xx - u_xxxx + 0.3 u_xxx, and of a wave, whose fields are coupled."""
    x, k = grid(32), 3 * math.pi
    system = (0.1 * variable(2) - 1.0 * variable(4) + 0.3 * variable(3),)
    circle = Circle([system], 2.0, 32)
    found = circle.moved(circle.constants, torch.sin(k * x)[None, None, None], TIMES[[0, 4]], 1).values[-1, 0, 0, 0]
    exact = math.exp(-0.5 * (0.1 * k**2 + k**4)) * torch.sin(k * x - 0.3 * k**3 * 0.5)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-14)
    wave = Circle([(1.0 * variable(5), 0.49 * variable(2))], 2.0, 32)
    start = torch.stack((torch.sin(k * x), torch.zeros_like(x)))
    found = wave.moved(wave.constants, start[None, None], TIMES[[0, 4]], 1).values[-1, 0, 0]
    torch.testing.assert_close(found[0], math.cos(0.7 * k * 0.5) * torch.sin(k * x), rtol=0, atol=1e-12)


def test_the_rest_is_of_order_four() -> None:
    circle = Circle([(0.05 * variable(2) - variable(0) * variable(1) + 2.0 * sin(variable(0)),)], 2.0, 64)
    start = (1.0 + 0.5 * torch.sin(math.pi * grid(64)))[None, None, None]
    ends = [circle.moved(circle.constants, start, TIMES, steps).values[-1] for steps in (2, 4, 32)]
    rough, fine = ((one - ends[2]).norm() for one in ends[:2])
    assert 3.7 < math.log2(float(rough / fine)) < 4.3


def test_each_start_may_have_numbers_of_its_own() -> None:
    circle = Circle([(0.5 * variable(1),), (0.5 * variable(1) - 0.1 * variable(0),)], 2.0, 16)
    x = grid(16)
    start = torch.sin(math.pi * x).expand(2, 3, 1, 16)
    numbers = torch.tensor([[0.5, 1.0, -1.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.2]], dtype=torch.float64)
    found = circle.moved(numbers, start, TIMES, 1).values[-1, :, :, 0]
    speeds, decays = numbers[:2, :, None], torch.stack((torch.zeros(3), numbers[2]))[..., None]
    exact = torch.exp(-0.5 * decays) * torch.sin(math.pi * (x + 0.5 * speeds))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("system", [(-1.0 * variable(2),), (1.0 * variable(0) * variable(0) ** 2,)])
def test_what_blows_up_says_so_and_holds_up_no_other(system: tuple[Expression, ...]) -> None:
    """Waves of backward diffusion overflow; u' = u^3 from 2 has no solution beyond t = 1 / 8."""
    circle = Circle([system, (0.1 * variable(2),)], 2.0, 64)
    start = 2.0 + torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = circle.moved(circle.constants, start.expand(2, 1, 1, 64), TIMES, 4)
    assert found.status.tolist() == [Status.NONFINITE, Status.SUCCESS]
    assert bool(found.values[:, 1].isfinite().all())


def test_grids_are_refined_by_their_modes() -> None:
    for waves in (0, 3, 8):
        few, many = (torch.cos(waves * math.pi * grid(points)) for points in (16, 48))
        torch.testing.assert_close(refined_grid(few, 48), many, rtol=0, atol=1e-13)
    given = torch.rand(3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(refined_grid(given, 64)[:, ::4], given, rtol=0, atol=1e-13)


def test_systems_that_do_not_fit_are_refused() -> None:
    u = variable(0)
    with pytest.raises(ValueError, match="one number of fields"):
        Circle([(u,), (u, u)], 2.0, 32)
    with pytest.raises(ValueError, match="u_5"):
        Circle([(variable(5),)], 2.0, 32)
    with pytest.raises(ValueError, match="length"):
        Circle([(u,)], 0.0, 32)
