"""Families of equations in one dimension: exact solutions, laws of conservation, and refinement in time and space."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.prose import variables
from sciode.prose.families import FAMILIES, Family, Term, draw_fields, evolve_fields, random_fields

TIMES = torch.linspace(0, 1, 5, dtype=torch.float64)


def grid(points: int = 128, length: float = 2.0) -> Tensor:
    return length * torch.arange(points, dtype=torch.float64) / points


def solved(name: str, start: Tensor, numbers: list[float], times: Tensor = TIMES, **how: Any) -> Tensor:
    """Of one start [fields, points], [T, fields, points]."""
    given = torch.tensor([numbers], dtype=torch.float64)
    return evolve_fields(FAMILIES[name], given, start[None], times, **how).values[0]


def test_advection_carries_along_and_heat_smooths() -> None:
    x = grid()
    start = (torch.sin(math.pi * x) + 0.3 * torch.cos(3 * math.pi * x))[None]
    found = solved("advection", start, [0.5])[:, 0]
    moved = x - 0.5 * TIMES[:, None]
    exact = torch.sin(math.pi * moved) + 0.3 * torch.cos(3 * math.pi * moved)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-11)
    found = solved("heat", start, [0.01])[:, 0]
    first, third = (torch.exp(-0.01 * (k * math.pi) ** 2 * TIMES)[:, None] for k in (1, 3))
    exact = first * torch.sin(math.pi * x) + 0.3 * third * torch.cos(3 * math.pi * x)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-11)


def test_burgers_is_heat_by_cole_and_hopf() -> None:
    """u = -2 nu phi_x / phi with phi a solution of the heat equation: 2 + e^{-nu k^2 t} cos(k x)."""
    nu, k, x = 0.05, math.pi, grid()
    fall = torch.exp(-nu * k**2 * TIMES)[:, None]
    phi = 2 + fall * torch.cos(k * x)
    exact = 2 * nu * k * fall * torch.sin(k * x) / phi
    found = solved("burgers", exact[:1], [nu])[:, 0]
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-8)


def test_a_soliton_of_kdv_keeps_its_shape() -> None:
    """u = 3 c sech^2(sqrt(c / delta) (x - c t - 1) / 2)."""
    c, delta, x = 0.6, 2e-3, grid(256)

    def shape(t: Tensor) -> Tensor:
        return 3 * c / torch.cosh(0.5 * math.sqrt(c / delta) * (x - c * t - 1)) ** 2

    times = torch.linspace(0, 0.4, 3, dtype=torch.float64)
    found = solved("kdv", shape(times[0])[None], [delta], times)[:, 0]
    exact = torch.stack([shape(t) for t in times])
    torch.testing.assert_close(found, exact, rtol=0, atol=3e-4)


def test_reactions_without_space_are_their_ordinary_equations() -> None:
    start = torch.full((1, 16), 0.2, dtype=torch.float64)
    found = solved("logistic_reaction", start, [0.003, 1.3])[:, 0, 0]
    grown = 0.2 * torch.exp(1.3 * TIMES)
    torch.testing.assert_close(found, grown / (0.8 + grown), rtol=1e-10, atol=0)
    for level in (0.0, 0.3, 1.0):
        rest = torch.full((1, 16), level, dtype=torch.float64)
        torch.testing.assert_close(solved("bistable_reaction", rest, [0.003, 1.0, 0.3])[-1], rest)


def test_standing_waves_swing_and_mass_makes_them_faster() -> None:
    x, c, k = grid(), 0.7, 2 * math.pi
    start = torch.stack((torch.sin(k * x), torch.zeros_like(x)))
    for name, numbers, squared in (("wave", [c], (c * k) ** 2), ("klein_gordon", [c, 3.0], (c * k) ** 2 + 3.0)):
        speed = math.sqrt(squared)
        found = solved(name, start, numbers)
        torch.testing.assert_close(found[:, 0], torch.cos(speed * TIMES)[:, None] * start[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(
            found[:, 1], -speed * torch.sin(speed * TIMES)[:, None] * start[0], rtol=0, atol=1e-6
        )


def test_sine_gordon_without_space_is_a_pendulum_and_keeps_its_energy() -> None:
    x = grid()
    start = torch.stack((2.0 * torch.sin(math.pi * x), torch.cos(math.pi * x)))
    c, k = 0.8, 1.5

    def energy(u: Tensor) -> Tensor:
        waves = math.pi * torch.arange(65, dtype=torch.float64)
        slope = torch.fft.irfft(1j * waves * torch.fft.rfft(u[:, 0]), n=128)
        return (0.5 * u[:, 1] ** 2 + 0.5 * (c * slope) ** 2 + k * (1 - torch.cos(u[:, 0]))).mean(-1)

    found = energy(solved("sine_gordon", start, [c, k]))
    torch.testing.assert_close(found, found[:1].expand_as(found), rtol=1e-6, atol=0)
    flat = torch.stack((torch.full((16,), 0.01), torch.zeros(16))).double()
    swing = solved("sine_gordon", flat, [c, k])[:, 0, 0]
    torch.testing.assert_close(swing, 0.01 * torch.cos(math.sqrt(k) * TIMES), rtol=0, atol=1e-6)


def test_phases_part_without_loss_of_mass_and_with_less_energy() -> None:
    gamma, m = 1e-5, 2e-3
    family = FAMILIES["cahn_hilliard"]
    start = random_fields(family, 1, 128, torch.Generator().manual_seed(0))[0]
    times = torch.linspace(0, 5, 6, dtype=torch.float64)
    u = solved("cahn_hilliard", start, [gamma, m], times)[:, 0]
    mass = u.mean(-1)
    torch.testing.assert_close(mass, mass[:1].expand_as(mass), rtol=0, atol=1e-12)
    waves = math.pi * torch.arange(65, dtype=torch.float64)
    slope = torch.fft.irfft(1j * waves * torch.fft.rfft(u), n=128)
    energy = (m * (u**2 - 1) ** 2 / 4 + gamma * slope**2 / 2).mean(-1)
    assert bool((energy.diff() < 0).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_half_steps_and_twice_the_points_change_little(name: str) -> None:
    family = FAMILIES[name]
    numbers = torch.tensor([list(family.nominal.values())], dtype=torch.float64)
    ends = []
    for points, dt in ((128, family.dt), (128, family.dt / 2), (256, family.dt / 2)):
        start = random_fields(family, 1, points, torch.Generator().manual_seed(3))
        times = torch.tensor([0.0, 0.5 * family.end], dtype=torch.float64)
        ends.append(evolve_fields(family, numbers, start, times, dt).values[0, -1, :, :: points // 128])
    size = ends[2].square().mean().sqrt()
    assert float((ends[0] - ends[1]).abs().max() / size) < 1e-5
    assert float((ends[1] - ends[2]).abs().max() / size) < 2e-3


def test_draws_are_seeded_bounded_and_each_its_own() -> None:
    family = FAMILIES["advection"]
    first, again, other = (draw_fields(family, 3, 2, seed, points=32, frames=3) for seed in (0, 0, 1))
    assert torch.equal(first.values, again.values) and not torch.equal(first.values, other.values)
    assert first.values.shape == (6, 3, 1, 32) and bool(first.fine.all())
    assert float(first.values[:, 0].abs().max()) <= 1 and torch.equal(first.numbers[0], first.numbers[1])
    assert bool(((first.numbers / 0.5 - 1).abs() <= 0.1 + 5e-3).all())


def test_families_and_starts_that_do_not_fit_are_refused() -> None:
    (u,) = variables(1)
    with pytest.raises(ValueError, match="nominal"):
        Family("odd", (Term(0, 1, u),), {"a": 1.0})
    with pytest.raises(ValueError, match="fields 0 to 0"):
        Family("odd", (Term(1, 1, u),), {})
    with pytest.raises(ValueError, match="8 points"):
        evolve_fields(FAMILIES["heat"], torch.ones(1, 2), torch.zeros(1, 1, 16), TIMES)
