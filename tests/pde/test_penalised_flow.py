"""Flow around walls that hold it back: exact flows without walls, a channel's profile with them, nothing lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.pde.penalised_flow import FluidBox, simulate_penalised_flow
from sciode.pde.vorticity import random_vorticity, simulate_vorticity, velocity_of

F64 = torch.float64
SIDES = (2.0, 1.0)


def grid(nx: int, ny: int, sides: tuple[float, float] = SIDES) -> tuple[Tensor, Tensor]:
    return (sides[0] / nx * torch.arange(nx, dtype=F64))[:, None], (sides[1] / ny * torch.arange(ny, dtype=F64))[None]


def open_box(nx: int, ny: int, viscosity: float = 0.01, flows: int = 1, sides: tuple[float, float] = SIDES) -> FluidBox:
    return FluidBox(torch.zeros(flows, nx, ny, dtype=F64), viscosity, 1.0, sides)


def divergence(velocity: Tensor, sides: tuple[float, float] = SIDES) -> Tensor:
    nx, ny = velocity.shape[-2:]
    hat = torch.fft.rfft2(velocity)
    first = 2j * math.pi / sides[0] * torch.fft.fftfreq(nx, 1.0 / nx, dtype=F64)[:, None]
    second = 2j * math.pi / sides[1] * torch.fft.rfftfreq(ny, 1.0 / ny, dtype=F64)
    return torch.fft.irfft2(first * hat[..., 0, :, :] + second * hat[..., 1, :, :], s=(nx, ny))


def test_a_taylor_green_vortex_has_its_velocity_and_its_pressure() -> None:
    """u = m sin kx cos my e, v = -k cos kx sin my e, p = (m^2 cos 2kx + k^2 cos 2my) e^2 / 4, e = exp(-nu |k|^2 t)."""
    x, y = grid(32, 16)
    k, m = 2.0 * math.pi / SIDES[0], 2.0 * math.pi / SIDES[1]
    start = torch.stack((m * (k * x).sin() * (m * y).cos(), -k * (k * x).cos() * (m * y).sin()))[None]
    ts = [0.0, 0.4, 1.0]
    found = simulate_penalised_flow(open_box(32, 16), start, ts, dt=0.01)
    for t, velocity, pressure in zip(ts, found.velocity, found.pressure, strict=True):
        decay = math.exp(-0.01 * (k**2 + m**2) * t)
        torch.testing.assert_close(velocity, decay * start, rtol=0.0, atol=1e-8)
        exact = decay**2 / 4.0 * (m**2 * (2.0 * k * x).cos() + k**2 * (2.0 * m * y).cos())
        torch.testing.assert_close(pressure[0], exact, rtol=0.0, atol=1e-7)


def test_it_is_the_vorticity_solver_where_there_are_no_walls() -> None:
    vorticity = 20.0 * random_vorticity(32, range(2), alpha=4.0)
    start = velocity_of(vorticity).movedim(-1, -3)
    box = open_box(32, 32, 1e-3, 2, (1.0, 1.0))
    found = simulate_penalised_flow(box, start, [0.0, 0.3], dt=0.005)
    other = simulate_vorticity(vorticity, [0.0, 0.3], viscosity=1e-3, dt=0.005)
    torch.testing.assert_close(found.velocity, velocity_of(other).movedim(-1, -3), rtol=0.0, atol=1e-7)
    assert float((found.velocity[1] - found.velocity[0]).abs().max()) > 0.02


def test_a_force_that_is_a_gradient_is_held_by_the_pressure_alone() -> None:
    x, y = grid(16, 16)
    k, m = 2.0 * math.pi / SIDES[0], 2.0 * math.pi / SIDES[1]
    potential = (k * x).sin() * (m * y).cos()
    force = torch.stack((k * (k * x).cos() * (m * y).cos(), -m * (k * x).sin() * (m * y).sin()))
    found = simulate_penalised_flow(
        open_box(16, 16), torch.zeros(1, 2, 16, 16, dtype=F64), [0.0, 1.0], dt=0.1, force=lambda t: force
    )
    assert float(found.velocity.abs().max()) < 1e-13
    torch.testing.assert_close(found.pressure[1, 0], potential, rtol=0.0, atol=1e-12)


def test_a_force_in_time_moves_the_whole_by_its_integral() -> None:
    start = torch.zeros(1, 2, 8, 8, dtype=F64)

    def force(t: Tensor) -> Tensor:
        return torch.stack((t.cos(), t))[:, None, None].expand(2, 8, 8)

    found = simulate_penalised_flow(open_box(8, 8), start, [0.0, 1.0, 2.0], dt=0.1, force=force)
    for t, velocity in zip((0.0, 1.0, 2.0), found.velocity, strict=True):
        exact = torch.tensor([math.sin(t), t**2 / 2.0], dtype=F64)[None, :, None, None].expand(1, 2, 8, 8)
        torch.testing.assert_close(velocity, exact, rtol=0.0, atol=1e-6)


HALF, THICK, VISCOSITY = 0.25, 0.25, 0.1


def channel(n: int, porosity: float, dt: float, end: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    """(distance from the wall [n], velocity along the channel [n], all of it): driven by a force of 1, from rest."""
    y = torch.arange(n, dtype=F64) / n
    away = HALF - (y - 0.5).abs()
    solid = (0.5 * (1.0 - (away * n).tanh()))[None, None].expand(1, 8, n)
    box = FluidBox(solid, VISCOSITY, porosity, (1.0, 1.0))
    push = torch.tensor([1.0, 0.0], dtype=F64)[:, None, None].expand(2, 8, n)
    found = simulate_penalised_flow(
        box, torch.zeros(1, 2, 8, n, dtype=F64), [0.0, end], dt=dt, force=lambda t: push
    ).velocity[-1, 0]
    return away, found[0, 0], found


def brinkman(away: Tensor, porosity: float) -> Tensor:
    """The steady profile with walls of this porosity, by hand: a parabola that slips, and a layer in the wall."""
    layer = math.sqrt(VISCOSITY * porosity)
    size = HALF * layer / VISCOSITY / math.sinh(THICK / layer)
    slip = porosity + size * math.cosh(THICK / layer)
    inside = away * (2.0 * HALF - away) / (2.0 * VISCOSITY) + slip
    return torch.where(away > 0.0, inside, porosity + size * ((THICK + away) / layer).cosh())


def test_a_channel_of_porous_walls_has_brinkmans_profile_as_the_grid_is_refined() -> None:
    errors = []
    for n in (32, 64, 128):
        away, along, _ = channel(n, 0.01, 0.01)
        errors.append(float((along - brinkman(away, 0.01)).abs().max()))
    rates = np.log2(np.divide(errors[:-1], errors[1:]))
    assert bool((rates > 0.9).all()) and errors[-1] < 0.01 * float(brinkman(away, 0.01).max())


def test_as_walls_close_the_channel_has_poiseuilles_profile_at_the_root_of_porosity() -> None:
    """The slip is HALF sqrt(eta / nu): Brinkman's profile by hand, and the flow on a grid that resolves its layer."""
    away = torch.linspace(0.0, 2.0 * HALF, 51, dtype=F64)[:26]
    poiseuille = away * (2.0 * HALF - away) / (2.0 * VISCOSITY)
    for porosity in (1e-2, 1e-3):
        layer = math.sqrt(VISCOSITY * porosity)
        slip = float((brinkman(away + 1e-300, porosity) - poiseuille)[1:].max())
        assert slip == pytest.approx(porosity + HALF * layer / VISCOSITY, rel=1e-3)
    wrong, slips = [], []
    for porosity in (3.2e-2, 8e-3):
        distance, along, _ = channel(128, porosity, 0.01)
        exact = (distance * (2.0 * HALF - distance) / (2.0 * VISCOSITY)).clamp(min=0.0)
        wrong.append(float((along - exact)[distance > 0.02].abs().max()))
        slips.append(porosity + HALF * math.sqrt(porosity / VISCOSITY))
    assert wrong == pytest.approx(slips, rel=0.05)


def test_walls_stop_the_flow_and_it_keeps_no_divergence() -> None:
    away, _, velocity = channel(128, 1e-3, 0.002)
    assert float(velocity[:, :, away < -0.05].abs().max()) < 0.01 * float(velocity.abs().max())
    x, y = grid(64, 32)
    away = ((x - 1.0) ** 2 + (y - 0.5) ** 2).sqrt() - 0.2
    box = FluidBox((0.5 * (1.0 - (away * 32).tanh()))[None], 0.005, 2e-3, SIDES)
    start = torch.zeros(1, 2, 64, 32, dtype=F64)
    start[:, 0] = 1.0
    found = simulate_penalised_flow(box, start, [0.0, 0.5], dt=0.004)
    speed = found.velocity[1, 0].square().sum(0).sqrt()
    assert float(speed[away < -0.1].max()) < 0.03 and float(speed[away > 0.1].max()) > 0.8
    assert float(divergence(found.velocity).abs().max()) < 1e-11


def test_an_inlet_draws_the_flow_to_its_velocity() -> None:
    x, _ = grid(64, 8)
    sponge = (20.0 * (-(((x - 1.0) / 0.2) ** 2)).exp()).expand(64, 8).contiguous()
    inflow = torch.zeros(2, 64, 8, dtype=F64)
    inflow[0] = 0.7
    box = FluidBox(torch.zeros(1, 64, 8, dtype=F64), 0.01, 1.0, SIDES, sponge, inflow)
    found = simulate_penalised_flow(box, torch.zeros(1, 2, 64, 8, dtype=F64), [0.0, 3.0], dt=0.02)
    torch.testing.assert_close(found.velocity[1, 0], inflow, rtol=0.0, atol=1e-4)


def test_steps_are_of_fourth_order_with_walls_and_forces_in_time() -> None:
    x, y = grid(32, 16)
    away = ((x - 1.0) ** 2 + (y - 0.5) ** 2).sqrt() - 0.2
    box = FluidBox((0.5 * (1.0 - (away * 16).tanh()))[None], 0.01, 0.05, SIDES)
    start = torch.stack(((2.0 * math.pi * y).sin().expand(32, 16), (math.pi * x).sin().expand(32, 16)))[None]

    def force(t: Tensor) -> Tensor:
        return (3.0 * t).sin() * start

    def run(dt: float) -> Tensor:
        return simulate_penalised_flow(box, start, [0.0, 0.8], dt=dt, force=force).velocity[-1]

    reference = run(0.0025)
    errors = [float((run(dt) - reference).norm()) for dt in (0.04, 0.02, 0.01)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 4.0, atol=0.4)


def test_a_flow_is_the_same_alone_and_in_a_batch() -> None:
    solid = torch.rand(3, 16, 16, dtype=F64, generator=torch.Generator().manual_seed(0))
    start = torch.randn(3, 2, 16, 16, dtype=F64, generator=torch.Generator().manual_seed(1))
    both = simulate_penalised_flow(FluidBox(solid, 0.1, 0.1, SIDES), start, [0.0, 0.2], dt=0.01)
    for k in range(3):
        one = simulate_penalised_flow(
            FluidBox(solid[k : k + 1], 0.1, 0.1, SIDES), start[k : k + 1], [0.0, 0.2], dt=0.01
        )
        torch.testing.assert_close(both.velocity[:, k], one.velocity[:, 0], rtol=0.0, atol=1e-12)
        torch.testing.assert_close(both.pressure[:, k], one.pressure[:, 0], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"solid": torch.zeros(8, 8)}, "solid is real"),
        ({"solid": torch.zeros(1, 8, 9)}, "even"),
        ({"viscosity": 0.0}, "must be positive"),
        ({"porosity": -1.0}, "must be positive"),
        ({"sponge": torch.zeros(8, 8)}, "both or neither"),
        ({"sponge": torch.zeros(4, 4), "inflow": torch.zeros(2, 8, 8)}, "another grid"),
    ],
)
def test_a_box_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    sensible: dict[str, Any] = {"solid": torch.zeros(1, 8, 8), "viscosity": 0.1, "porosity": 0.1}
    with pytest.raises(ValueError, match=message):
        FluidBox(**{**sensible, **wrong})
    with pytest.raises(ValueError, match="on the grid of solid"):
        simulate_penalised_flow(FluidBox(**sensible), torch.zeros(1, 2, 8, 4), [0.0], dt=0.1)
