"""Strain measures: the singular values' own sums where those are smooth, and right derivatives where they coincide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciode.pde.strain import arap, determinant, rotation, stretch_sum


def _draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _turn(d: int, seed: int) -> Tensor:
    """A rotation."""
    q = torch.linalg.qr(_draw((d, d), seed)).Q
    return q * torch.cat((torch.linalg.det(q).reshape(1), torch.ones(d - 1, dtype=torch.float64)))


def _signed_values(gradient: Tensor) -> Tensor:
    """Singular values, the smallest with the sign of the determinant: from LAPACK, as an oracle."""
    values = torch.linalg.svdvals(gradient).clone()
    values[..., -1] *= torch.linalg.det(gradient).sign()
    return values


def _with_values(values: list[float], seed: int = 3) -> Tensor:
    d = len(values)
    return _turn(d, seed) @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ _turn(d, seed + 1)


COINCIDENT = {
    "at rest in the plane": [1.0, 1.0],
    "both equal": [0.7, 0.7],
    "inverted in the plane": [1.2, -0.5],
    "at rest in space": [1.0, 1.0, 1.0],
    "all equal": [1.7, 1.7, 1.7],
    "two larger equal": [2.0, 2.0, 0.5],
    "two smaller equal": [2.0, 0.8, 0.8],
    "flat in space": [1.5, 0.9, 0.0],
    "inverted in space": [1.3, 1.3, -0.4],
}


@pytest.mark.parametrize("d", [2, 3])
def test_the_sum_and_the_energy_are_those_of_the_singular_values(d: int) -> None:
    gradients = _draw((500, d, d), d)
    values = _signed_values(gradients)
    assert bool((torch.linalg.det(gradients) < 0).any() and (torch.linalg.det(gradients) > 0).any())
    torch.testing.assert_close(stretch_sum(gradients), values.sum(-1), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(arap(gradients), (values - 1).square().sum(-1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("d", [2, 3])
def test_no_rotation_is_nearer_than_the_nearest(d: int) -> None:
    gradients = _draw((200, d, d), 10 + d)
    nearest = rotation(gradients)
    one = torch.eye(d, dtype=torch.float64).expand_as(nearest)
    torch.testing.assert_close(nearest @ nearest.mT, one, rtol=0, atol=1e-9)
    torch.testing.assert_close(determinant(nearest), torch.ones(200, dtype=torch.float64), rtol=0, atol=1e-9)
    least = arap(gradients)
    torch.testing.assert_close((gradients - nearest).square().sum((-2, -1)), least, rtol=1e-9, atol=1e-9)
    for seed in range(50):
        assert bool(((gradients - _turn(d, seed)).square().sum((-2, -1)) >= least - 1e-9).all())


@pytest.mark.parametrize("values", COINCIDENT.values(), ids=COINCIDENT.keys())
def test_derivatives_are_right_where_singular_values_coincide(values: list[float], seeded) -> None:
    """First and second derivatives against central differences, by autograd's own checks."""
    gradient = _with_values(values).requires_grad_(True)
    for energy in (stretch_sum, arap, determinant, rotation):
        with seeded(0):  # the checks draw directions from the global stream
            assert torch.autograd.gradcheck(energy, (gradient,))
            assert torch.autograd.gradgradcheck(energy, (gradient,))


@pytest.mark.parametrize("values", COINCIDENT.values(), ids=COINCIDENT.keys())
def test_the_slope_of_the_sum_is_the_rotation(values: list[float]) -> None:
    gradient = _with_values(values)
    slope = torch.func.grad(stretch_sum)(gradient)
    torch.testing.assert_close(slope, rotation(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [2, 3])
def test_at_rest_the_energy_is_the_square_of_the_symmetric_strain(d: int) -> None:
    """arap(1 + t e) = t^2 |sym e|^2 + O(t^3): its second derivative sees no infinitesimal rotation."""
    strain = _draw((d, d), 20)
    at_rest = torch.eye(d, dtype=torch.float64)
    second = torch.func.jacfwd(torch.func.grad(arap))(at_rest)
    doubled = torch.einsum("ij,ijkl,kl", strain, second, strain)
    torch.testing.assert_close(doubled, ((strain + strain.T) / 2).square().sum() * 2)


@pytest.mark.parametrize("d", [2, 3])
def test_a_reflection_costs_four_and_is_no_rest(d: int) -> None:
    """At a kink of the sum, which is a triple root in space, and so known to the cube root of rounding alone."""
    mirror = torch.eye(d, dtype=torch.float64)
    mirror[-1, -1] = -1.0
    known = 4 * torch.finfo(torch.float64).eps ** (1 / 3)
    torch.testing.assert_close(arap(mirror), torch.tensor(4.0, dtype=torch.float64), rtol=0, atol=known)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("diagonal", [(0, 0), (1, -1), (0, 0, 0), (1, 0, 0), (1, 1, -1)])
def test_values_and_slopes_are_finite_at_the_kinks(diagonal: tuple[float, ...], dtype: torch.dtype) -> None:
    gradient = torch.diag(torch.tensor(diagonal, dtype=dtype))
    assert bool(arap(gradient).isfinite())
    assert bool(torch.func.grad(arap)(gradient).isfinite().all())
    assert bool(torch.func.hessian(arap)(gradient).isfinite().all())


@pytest.mark.parametrize("d", [2, 3])
def test_single_precision_has_its_rounding_error_and_no_more(d: int) -> None:
    """Near rest the sums are of numbers of size d, so that a few units of their rounding are all that is lost."""
    gradients = torch.eye(d, dtype=torch.float64) + 0.3 * _draw((500, d, d), 30)
    gradients = gradients[torch.linalg.det(gradients) > 0.1]
    error = (arap(gradients.float()).double() - arap(gradients)).abs() / gradients.square().sum((-2, -1))
    assert float(error.max()) < 50 * torch.finfo(torch.float32).eps


def test_other_shapes_are_refused() -> None:
    for wrong in (torch.ones(2), torch.ones(2, 3), torch.ones(4, 4)):
        with pytest.raises(ValueError, match="deformation gradient"):
            arap(wrong)
