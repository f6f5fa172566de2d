"""Hamiltonian and Lagrangian fields: the equations of motion, what they conserve, and what the others do not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from sciode import solve
from sciode.nn import Autonomous, Hamiltonian, Joined, Lagrangian, mlp

Seeded = Callable[[int], AbstractContextManager[None]]
G = 9.81


def _states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pendulum_energy(q: Tensor, p: Tensor) -> Tensor:
    return (p**2 / 2 - G * q.cos()).sum(-1)


def double_pendulum(q: Tensor, v: Tensor) -> Tensor:
    """Kinetic minus potential energy of two unit masses on two unit rods, angles from the vertical."""
    (a, b), (va, vb) = q.unbind(-1), v.unbind(-1)
    kinetic = va**2 + vb**2 / 2 + va * vb * (a - b).cos()
    return kinetic + G * (2 * a.cos() + b.cos())


def double_pendulum_accelerations(q: Tensor, v: Tensor) -> Tensor:
    """The textbook's equations, solved for the accelerations by Cramer's rule."""
    (a, b), (va, vb) = q.unbind(-1), v.unbind(-1)
    s, c = (a - b).sin(), (a - b).cos()
    first, second = -(vb**2) * s - 2 * G * a.sin(), va**2 * s - G * b.sin()
    determinant = 2 - c**2
    return torch.stack(((first - c * second) / determinant, (2 * second - c * first) / determinant), -1)


def test_the_true_energy_gives_the_equations_of_the_pendulum() -> None:
    y = _states(6, 2)
    wanted = torch.stack((y[:, 1], -G * y[:, 0].sin()), -1)
    torch.testing.assert_close(Hamiltonian(pendulum_energy)(torch.zeros(()), y), wanted)


def test_a_hamiltonian_field_conserves_its_energy_over_a_long_solve_and_a_perturbed_one_does_not() -> None:
    field = Hamiltonian(pendulum_energy)
    y0 = torch.tensor([[0.5, 0.0], [2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    ts = torch.linspace(0, 30, 16)

    def drift(f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        energy = field.energy(solve(f, y0, ts, method="dopri8", rtol=1e-10, atol=1e-12).ys)
        return (energy - energy[0]).abs().amax(0)

    def perturbed(t: Tensor, y: Tensor) -> Tensor:
        return field(t, y) - 1e-3 * torch.stack((torch.zeros_like(y[..., 0]), y[..., 1]), -1)

    conserved = drift(field)
    # About 30 s × 5 steps a second, each true to 1e-10 of energies near 20.
    assert bool((conserved < 1e-6).all()), conserved
    assert bool((drift(perturbed) > 1000 * conserved).all())


def test_an_untrained_network_conserves_its_own_energy_as_the_true_one_does_and_a_plain_one_does_not(
    seeded: Seeded,
) -> None:
    with seeded(0):
        field = Hamiltonian(Joined(mlp([4, 16, 1], nn.Tanh))).double()
        plain = Autonomous(mlp([4, 16, 4], nn.Tanh)).double()
    for net in (field, plain):
        net.requires_grad_(False)
    y0 = _states(3, 4)
    along = field.energy(solve(field, y0, [0.0, 5.0, 20.0], rtol=1e-10, atol=1e-12).ys)
    torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-8)
    astray = field.energy(solve(plain, y0, [0.0, 5.0, 20.0], rtol=1e-10, atol=1e-12).ys)
    assert float((astray[-1] - astray[0]).abs().min()) > 1e-4


def test_a_hamiltonian_field_keeps_volume(seeded: Seeded) -> None:
    with seeded(0):
        field = Hamiltonian(Joined(mlp([4, 16, 1], nn.Tanh))).double()
    for y in _states(5, 4):
        slopes = torch.func.jacrev(lambda state: field(torch.zeros(()), state))(y)
        assert abs(float(torch.trace(slopes.detach()))) < 1e-12


def test_the_true_lagrangian_gives_the_equations_of_the_pendulum() -> None:
    field = Lagrangian(lambda q, v: (v**2 / 2 + G * q.cos()).sum(-1))
    y = _states(6, 2)
    torch.testing.assert_close(field(torch.zeros(()), y), torch.stack((y[:, 1], -G * y[:, 0].sin()), -1))
    torch.testing.assert_close(field.energy(y), pendulum_energy(*y.split(1, -1)))


def test_the_double_pendulums_lagrangian_gives_its_known_equations_of_motion() -> None:
    field, y = Lagrangian(double_pendulum), _states(3, 5, 4)
    wanted = torch.cat((y[..., 2:], double_pendulum_accelerations(y[..., :2], y[..., 2:])), -1)
    torch.testing.assert_close(field(torch.zeros(()), y), wanted)
    torch.testing.assert_close(field(torch.zeros(()), y[0, 0]), wanted[0, 0])


def test_the_mass_matrix_is_that_of_the_kinetic_energy() -> None:
    y = _states(5, 4)
    c = (y[:, 0] - y[:, 1]).cos()
    one = torch.ones_like(c)
    wanted = torch.stack((torch.stack((2 * one, c), -1), torch.stack((c, one), -1)), -2)
    torch.testing.assert_close(Lagrangian(double_pendulum).mass(y), wanted)


def test_a_lagrangian_field_conserves_its_energy() -> None:
    field = Lagrangian(double_pendulum)
    y0 = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.3, -0.2, 0.5, 0.0]], dtype=torch.float64)
    energy = field.energy(solve(field, y0, [0.0, 1.0, 3.0], method="dopri8", rtol=1e-9, atol=1e-11).ys)
    torch.testing.assert_close(energy, energy[:1].expand_as(energy), rtol=0, atol=1e-7)


def test_a_lagrangian_and_its_legendre_transform_move_alike() -> None:
    """L = v²/2 · m(q) − V and H = p²/(2 m(q)) + V with p = m(q) v: a mass that depends on the place."""

    def mass(q: Tensor) -> Tensor:
        return 1 + q**2 / 2

    along = Lagrangian(lambda q, v: (mass(q) * v**2 / 2 - q**4 / 4).sum(-1))
    beside = Hamiltonian(lambda q, p: (p**2 / (2 * mass(q)) + q**4 / 4).sum(-1))
    q, v = torch.tensor([[0.8], [-0.3]], dtype=torch.float64), torch.tensor([[0.1], [1.0]], dtype=torch.float64)
    ts = [0.0, 1.0, 4.0]
    ours = solve(along, torch.cat((q, v), -1), ts, rtol=1e-10, atol=1e-12).ys
    theirs = solve(beside, torch.cat((q, mass(q) * v), -1), ts, rtol=1e-10, atol=1e-12).ys
    torch.testing.assert_close(ours[..., :1], theirs[..., :1], rtol=0, atol=1e-8)
    torch.testing.assert_close(mass(ours[..., :1]) * ours[..., 1:], theirs[..., 1:], rtol=0, atol=1e-8)


def test_a_singular_mass_is_that_samples_own_failure() -> None:
    field = Lagrangian(lambda q, v: (q * v**2 / 2).sum(-1))
    y0 = torch.tensor([[1.0, 0.5], [0.0, 0.5]], dtype=torch.float64)
    found = solve(field, y0, [0.0, 0.1], throw=False, batch_dims=1)
    assert found.status.tolist()[0] == 0 and found.status.tolist()[1] != 0


def test_misuse_says_the_mend(seeded: Seeded) -> None:
    with seeded(0), pytest.raises(ValueError, match=r"nn\.Softplus"):
        Lagrangian(Joined(mlp([2, 8, 1])))
    with pytest.raises(ValueError, match="ridge must be >= 0"):
        Lagrangian(double_pendulum, ridge=-1.0)
    with pytest.raises(ValueError, match="sum over its last axis"):
        Hamiltonian(lambda q, p: q**2 + p**2)(torch.zeros(()), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="even last axis"):
        Hamiltonian(pendulum_energy)(torch.zeros(()), torch.zeros(3, 3))
