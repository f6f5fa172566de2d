"""Shallow water on a sphere: steady flows stay, waves travel at their speeds, mass and energy are kept."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from sciode.pde.shallow_water import (
    EARTH,
    Jet,
    Planet,
    Weather,
    balanced,
    jets,
    random_jets,
    simulate_shallow_water,
    still,
    weather,
)
from sciode.pde.spherical import SphereGrid

F64 = torch.float64
HOUR, DAY = 3600.0, 86400.0


@cache
def grid(degree: int = 21) -> SphereGrid:
    return SphereGrid(degree)


def harmonic(degree: int, order: int, size: float) -> Tensor:
    found = torch.zeros(1, grid().degree + 1, grid().degree + 1, dtype=torch.complex128)
    found[:, order, degree] = size
    return found


def solid_rotation(speed: float) -> tuple[Tensor, Tensor]:
    """Vorticity of u = speed cos(latitude), [1, m, l]; the depth that balances it, by hand (Williamson's case 2)."""
    sines = grid().sines[:, None].expand(grid().shape)
    vorticity = grid().coefficients((2.0 * speed / EARTH.radius * sines)[None].contiguous())
    fall = (EARTH.radius * EARTH.rotation * speed + speed**2 / 2.0) / EARTH.gravity
    return vorticity, EARTH.depth + fall * (1.0 / 3.0 - sines**2)


def test_a_zonal_flow_in_balance_stays_for_five_days() -> None:
    """Case 2 of Williamson et al. (1992), J. Comput. Phys. 102: u = 2 pi a / 12 days at the equator."""
    vorticity, depth = solid_rotation(2.0 * math.pi * EARTH.radius / (12.0 * DAY))
    start = balanced(grid(), vorticity)
    found = simulate_shallow_water(grid(), start, [0.0, 5.0 * DAY], dt=1800.0)
    for height in found.height[:, 0]:
        torch.testing.assert_close(height, depth, rtol=1e-11, atol=0.0)
    torch.testing.assert_close(found.east[1], found.east[0], rtol=0.0, atol=1e-8)
    assert float(found.divergence[1].abs().max()) < 1e-14


def test_a_wave_of_gravity_on_still_water_has_its_frequency() -> None:
    """h' = Y_lm cos(w t) with w = sqrt(g H l (l + 1)) / a, without rotation and but for the square of its height."""
    planet = replace(EARTH, rotation=0.0)
    degree, order = 5, 3
    frequency = math.sqrt(planet.gravity * planet.depth * degree * (degree + 1)) / planet.radius
    shape = grid().field(harmonic(degree, order, 1.0))[0]
    errors = []
    for size in (1.0, 0.5):
        start = still(grid(), planet.depth + size * shape[None], planet)
        found = simulate_shallow_water(grid(), start, [0.0, 1.3 * 2.0 * math.pi / frequency], dt=300.0, planet=planet)
        wave = (found.height[1, 0] - planet.depth) / size
        errors.append(float((wave - math.cos(2.6 * math.pi) * shape).abs().max()))
    assert errors[0] < 1e-3 and errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)


def drift_of_a_rossby_haurwitz_wave(planet: Planet, dt: float, hours: float) -> tuple[float, float]:
    """(found, exact) angle by which the wave of a flow without divergence turns, rad."""
    order, turning, size = 4, 2e-6, 2e-6
    sines = grid().sines[None, :, None].expand(1, *grid().shape)
    vorticity = grid().coefficients((2.0 * turning * sines).contiguous()) + harmonic(order + 1, order, size)
    start = balanced(grid(), vorticity, planet)
    end = hours * HOUR
    states = simulate_shallow_water(grid(), start, [0.0, end], dt=dt, planet=planet)
    wave = grid().coefficients(states.vorticity)[:, 0, order, order + 1]
    spin = 2.0 * (planet.rotation + turning)
    exact = (turning - spin / ((order + 1) * (order + 2))) * end
    return -float((wave[1] / wave[0]).angle()) / order, exact


def test_a_rossby_haurwitz_wave_travels_at_its_speed_where_the_water_is_deep() -> None:
    """Y_54 on a solid rotation is an exact wave of the barotropic equation; the free surface slows it by ~ 1/depth."""
    wrong = []
    for depth in (4e5, 8e5):
        found, exact = drift_of_a_rossby_haurwitz_wave(replace(EARTH, depth=depth), 240.0, 12.0)
        wrong.append(abs(found - exact) / abs(exact))
    assert wrong[1] < 0.02 and wrong[0] / wrong[1] == pytest.approx(2.0, rel=0.15)


def stormy(degree: int = 21) -> Tensor:
    return jets(grid(degree), [random_jets(0), random_jets(1)])


def energy(found: Weather, on: SphereGrid) -> Tensor:
    """Of the mean column: (h |u|^2 + g h^2) / 2."""
    wind = found.east.square() + found.north.square()
    return on.mean(found.height * wind + EARTH.gravity * found.height.square()) / 2.0


def test_mass_is_kept_to_rounding_and_energy_to_the_error_of_the_steps() -> None:
    drifts = []
    for dt in (1200.0, 600.0):
        found = simulate_shallow_water(grid(), stormy(), [0.0, DAY / 2], dt=dt)
        mass = grid().mean(found.height)
        torch.testing.assert_close(mass[1], mass[0], rtol=1e-13, atol=0.0)
        total = energy(found, grid())
        drifts.append(float((total[1] / total[0] - 1.0).abs().max()))
    # Energy is cubic: the truncation in space changes it too, but by less than these steps do.
    assert drifts[0] < 1e-6 and drifts[1] < drifts[0] / 8.0


def test_diffusion_takes_energy_and_no_mass() -> None:
    start = stormy()
    free = simulate_shallow_water(grid(), start, [0.0, DAY], dt=1200.0)
    held = simulate_shallow_water(grid(), start, [0.0, DAY], dt=1200.0, hyperdiffusion=4e16)
    assert bool((energy(held, grid())[1] < energy(free, grid())[1]).all())
    torch.testing.assert_close(grid().mean(held.height[1]), grid().mean(free.height[0]), rtol=1e-13, atol=0.0)
    assert float(held.vorticity[1].square().mean()) < float(free.vorticity[1].square().mean())


def test_steps_are_of_fourth_order() -> None:
    how: dict[str, Any] = {"hyperdiffusion": 4e15}
    reference = simulate_shallow_water(grid(), stormy(), [0.0, 4 * HOUR], dt=75.0, **how).height[-1]
    errors = [
        float((simulate_shallow_water(grid(), stormy(), [0.0, 4 * HOUR], dt=dt, **how).height[-1] - reference).norm())
        for dt in (1200.0, 600.0, 300.0)
    ]
    rates = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(rates, 4.0, atol=0.4)


def test_convergence_in_the_degree_is_faster_than_any_power() -> None:
    """A smooth flow of degree 5 at first, after six hours: eight degrees gain as much anywhere.

    A power that gains 50 from 16 to 24 would gain 16 from 24 to 32.
    """

    def run(degree: int) -> Tensor:
        on = SphereGrid(degree, 64, 128)
        vorticity = torch.zeros(1, degree + 1, degree + 1, dtype=torch.complex128)
        vorticity[0, 0, 1], vorticity[0, 2, 4], vorticity[0, 3, 5] = 4e-5, 3e-5, 2e-5
        return simulate_shallow_water(on, balanced(on, vorticity), [0.0, 6 * HOUR], dt=600.0).height[-1]

    reference = run(42)
    errors = [float((run(degree) - reference).abs().max()) for degree in (16, 24, 32)]
    gains = np.divide(errors[:-1], errors[1:])
    assert gains[0] > 30.0 and gains[1] > gains[0]


def test_jets_are_in_balance_with_the_depth_of_galewskys_integral() -> None:
    """g h = const - integral of a u (f + tan(latitude) u / a) over latitude; and divergence arises from bumps alone."""
    on, jet = SphereGrid(85, 128, 256), Jet(bump=0.0)
    start = jets(on, [[jet]])
    height = weather(on, start).height[0, :, 0]

    def slope(latitude: float) -> float:
        u = float(jet.wind(torch.tensor(latitude, dtype=F64)))
        return u * (2.0 * EARTH.rotation * math.sin(latitude) * EARTH.radius + math.tan(latitude) * u) / EARTH.gravity

    rows = (5, 20, 32, 40, 60)
    falls = [quad(slope, float(on.latitudes[60]), float(on.latitudes[row]), limit=200)[0] for row in rows]
    drop = height[60] - height[list(rows)]
    torch.testing.assert_close(drop, torch.tensor(falls, dtype=F64), rtol=1e-3, atol=0.5)
    assert float(on.mean(weather(on, start).height)[0]) == pytest.approx(EARTH.depth, rel=1e-12)
    found = weather(on, start)
    torch.testing.assert_close(found.east[0, :, 0], jet.wind(on.latitudes), rtol=0.0, atol=1e-2)
    assert float(jet.wind(torch.tensor(math.pi / 4.0, dtype=F64))) == pytest.approx(80.0)
    kept = simulate_shallow_water(on, start, [0.0, 6 * HOUR], dt=450.0)
    torch.testing.assert_close(kept.height[1], kept.height[0], rtol=0.0, atol=1e-6)


def test_turning_the_start_turns_the_flow() -> None:
    shift = 2.0 * math.pi / grid().shape[1] * 5
    jet = Jet(bump_at=(0.7, 1.0))
    turned = replace(jet, bump_at=(0.7, 1.0 + shift))
    found = simulate_shallow_water(grid(), jets(grid(), [[jet], [turned]]), [0.0, 6 * HOUR], dt=900.0)
    torch.testing.assert_close(found.height[:, 1], found.height[:, 0].roll(5, -1), rtol=1e-10, atol=0.0)
    assert float((found.height[1, 0] - found.height[1, 1]).abs().max()) > 1.0


def test_mirrored_jets_stay_mirrored() -> None:
    """Across the equator height is even and vorticity odd."""
    north = Jet()
    south = replace(north, edges=(-north.edges[1], -north.edges[0]), bump_at=(-north.bump_at[0], 0.0))
    found = simulate_shallow_water(grid(), jets(grid(), [[north, south]]), [0.0, DAY], dt=1200.0)
    torch.testing.assert_close(found.height, found.height.flip(-2), rtol=1e-10, atol=0.0)
    torch.testing.assert_close(found.vorticity, -found.vorticity.flip(-2), rtol=0.0, atol=1e-14)


def test_a_flow_is_the_same_alone_and_in_a_batch_and_in_single_precision_nearly() -> None:
    start = stormy()
    both = simulate_shallow_water(grid(), start, [0.0, 6 * HOUR], dt=900.0)
    alone = simulate_shallow_water(grid(), start[1:], [0.0, 6 * HOUR], dt=900.0)
    torch.testing.assert_close(both.height[:, 1:], alone.height, rtol=1e-12, atol=0.0)
    small = SphereGrid(21, dtype=torch.float32)
    single = simulate_shallow_water(small, jets(small, [random_jets(0), random_jets(1)]), [0.0, 6 * HOUR], dt=900.0)
    assert single.height.dtype == torch.float32
    torch.testing.assert_close(single.height.double(), both.height, rtol=0.0, atol=0.5)


def test_random_jets_are_functions_of_their_seed_one_in_each_hemisphere() -> None:
    north, south = random_jets((1, 2))
    assert (north, south) == random_jets((1, 2)) and (north, south) != random_jets((1, 3))
    assert 0 < north.edges[0] < north.bump_at[0] < north.edges[1]
    assert south.edges[0] < south.bump_at[0] < south.edges[1] < 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": torch.zeros(1, 3, 5, 5, dtype=torch.complex128)}, "complex"),
        ({"start": torch.zeros(1, 3, 22, 22)}, "complex"),
        ({"hyperdiffusion": -1.0}, "not well posed"),
        ({"ts": [1.0, 0.0]}, "increasing"),
    ],
)
def test_misuse_says_the_mend(wrong: dict[str, Any], message: str) -> None:
    sensible: dict[str, Any] = {"start": stormy(), "ts": [0.0, 1.0], "dt": 1.0}
    with pytest.raises(ValueError, match=message):
        simulate_shallow_water(grid(), **{**sensible, **wrong})
    with pytest.raises(ValueError, match="must be positive"):
        replace(EARTH, depth=0.0)
