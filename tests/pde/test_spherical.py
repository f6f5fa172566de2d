"""Spherical harmonics: SciPy's values, exact transforms, and the calculus of winds on a sphere."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import sph_harm_y
from torch import Tensor

from sciode.pde.spherical import SphereGrid

F64 = torch.float64


def random_coefficients(grid: SphereGrid, *batch: int, seed: int = 0) -> Tensor:
    """Of real fields, up to the grid's degree."""
    generator = torch.Generator().manual_seed(seed)
    side = grid.degree + 1
    drawn = torch.randn(*batch, side, side, dtype=torch.complex128, generator=generator)
    drawn[..., 0, :] = drawn[..., 0, :].real.to(drawn.dtype)
    return drawn * torch.ones(side, side, dtype=F64).triu()


def harmonic(grid: SphereGrid, degree: int, order: int) -> Tensor:
    found = torch.zeros(grid.degree + 1, grid.degree + 1, dtype=torch.complex128)
    found[order, degree] = 1.0
    return found


@pytest.mark.parametrize(("degree", "latitudes", "longitudes"), [(21, None, None), (42, 64, 128), (5, 6, 11)])
def test_fields_are_scipys_harmonics_and_transforms_are_inverse(
    degree: int, latitudes: int | None, longitudes: int | None
) -> None:
    grid = SphereGrid(degree, latitudes, longitudes)
    colatitudes, east = math.pi / 2 - grid.latitudes.numpy()[:, None], grid.longitudes.numpy()[None]
    for k, m in [(0, 0), (1, 0), (1, 1), (degree, 0), (degree, degree // 2), (degree, degree), (degree - 1, 3)]:
        expected = sph_harm_y(k, m, colatitudes, east)
        field = grid.field(harmonic(grid, k, m))
        torch.testing.assert_close(field, torch.from_numpy((2 - (m == 0)) * expected.real), rtol=0.0, atol=1e-12)
    drawn = random_coefficients(grid, 2, 3)
    torch.testing.assert_close(grid.coefficients(grid.field(drawn)), drawn, rtol=0.0, atol=1e-12)


def test_between_the_points_of_the_grid_fields_are_scipys_harmonics_too() -> None:
    grid = SphereGrid(12)
    places = torch.randn(40, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    places[0] = torch.tensor([0.0, 0.0, 2.0])
    colatitudes = (places[:, 2] / places.norm(dim=1)).acos().numpy()
    east = torch.atan2(places[:, 1], places[:, 0]).numpy()
    for k, m in [(0, 0), (1, 1), (12, 0), (12, 7), (12, 12)]:
        expected = torch.from_numpy((2 - (m == 0)) * sph_harm_y(k, m, colatitudes, east).real)
        torch.testing.assert_close(grid.at(harmonic(grid, k, m), places), expected, rtol=0.0, atol=1e-12)
    drawn = random_coefficients(grid, 2, 3)
    torch.testing.assert_close(grid.at(drawn, grid.points), grid.field(drawn).flatten(2), rtol=0.0, atol=1e-11)


def test_the_grid_goes_from_north_to_south_and_eastwards_and_weighs_areas() -> None:
    grid = SphereGrid(10)
    assert bool((grid.latitudes.diff() < 0).all()) and float(grid.latitudes[0]) > 0
    points = grid.points.reshape(*grid.shape, 3)
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(grid.shape, dtype=F64))
    torch.testing.assert_close(points[..., 2], grid.sines[:, None].expand(grid.shape))
    torch.testing.assert_close(points[:, 1, 1] / points[:, 1, 0], grid.longitudes[1].tan().expand(grid.shape[0]))
    # Means of 1, x^2 and x^2 y^2 z^2 over the sphere.
    x, y, z = points.unbind(-1)
    for field, mean in ((torch.ones_like(x), 1.0), (x**2, 1 / 3), ((x * y * z) ** 2, 1 / 105)):
        assert float(grid.mean(field)) == pytest.approx(mean, rel=1e-12)


def test_energy_is_the_same_in_harmonics_and_on_the_grid() -> None:
    grid = SphereGrid(15)
    drawn = random_coefficients(grid, 4)
    powers = drawn.abs().square()
    total = powers[..., 0, :].sum(-1) + 2.0 * powers[..., 1:, :].sum((-2, -1))
    torch.testing.assert_close(4.0 * math.pi * grid.mean(grid.field(drawn).square()), total, rtol=1e-12, atol=0.0)


def test_curl_and_divergence_undo_the_wind() -> None:
    grid = SphereGrid(21)
    vorticity, divergence = random_coefficients(grid, 2, 3, seed=1)
    vorticity[:, 0, 0] = divergence[:, 0, 0] = 0.0
    curl, spread = grid.curl_and_divergence(*grid.wind(vorticity, divergence))
    torch.testing.assert_close(curl, vorticity, rtol=0.0, atol=1e-11)
    torch.testing.assert_close(spread, divergence, rtol=0.0, atol=1e-11)


def test_a_solid_rotation_is_the_wind_of_twice_its_rate_and_the_sine_of_latitude() -> None:
    """u = cos(latitude): vorticity 2 sin(latitude); `wind` has it times cos(latitude) once more."""
    grid = SphereGrid(8)
    vorticity = grid.coefficients((2.0 * grid.sines[:, None]).expand(grid.shape).contiguous())
    east, north = grid.wind(vorticity, torch.zeros_like(vorticity))
    torch.testing.assert_close(east, (1.0 - grid.sines[:, None] ** 2).expand(grid.shape), rtol=0.0, atol=1e-13)
    torch.testing.assert_close(north, torch.zeros(grid.shape, dtype=F64), rtol=0.0, atol=1e-13)


def test_a_potential_wind_is_the_gradient_by_autograd() -> None:
    """Phi = x y + z: of its divergence Lap Phi = -6 x y - 2 z the wind is grad Phi along east and north."""
    grid = SphereGrid(6)
    angles = torch.stack(torch.broadcast_tensors(grid.latitudes[:, None], grid.longitudes[None, :]), -1)
    angles = angles.clone().requires_grad_()
    latitude, longitude = angles.unbind(-1)
    x, y = latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin()
    (slopes,) = torch.autograd.grad((x * y + latitude.sin()).sum(), angles)
    divergence = grid.coefficients((-6.0 * x * y - 2.0 * latitude.sin()).detach())
    east, north = grid.wind(torch.zeros_like(divergence), divergence)
    torch.testing.assert_close(east, slopes[..., 1], rtol=0.0, atol=1e-12)
    torch.testing.assert_close(north, slopes[..., 0] * grid.latitudes.cos()[:, None], rtol=0.0, atol=1e-12)


def test_the_laplacian_has_its_eigenvalues_and_an_inverse_but_for_the_mean() -> None:
    grid = SphereGrid(12)
    torch.testing.assert_close(grid.laplacian(harmonic(grid, 7, 4)), -56.0 * harmonic(grid, 7, 4))
    drawn = random_coefficients(grid)
    back = grid.inverse_laplacian(grid.laplacian(drawn))
    assert back[0, 0] == 0.0
    drawn[0, 0] = 0.0
    torch.testing.assert_close(back, drawn)


def test_products_of_two_fields_of_the_truncation_are_free_of_aliasing() -> None:
    coarse, fine = SphereGrid(10), SphereGrid(10, 40, 80)
    one, other = random_coefficients(coarse, 2, seed=3)
    found = coarse.coefficients(coarse.field(one) * coarse.field(other))
    torch.testing.assert_close(found, fine.coefficients(fine.field(one) * fine.field(other)), rtol=0.0, atol=1e-12)


def test_single_precision_is_the_double_one_rounded() -> None:
    double, single = SphereGrid(42), SphereGrid(42, dtype=torch.float32)
    drawn = random_coefficients(double)
    field = single.field(drawn.to(torch.complex64))
    assert field.dtype == torch.float32
    torch.testing.assert_close(field.double(), double.field(drawn), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("wrong", [(0, None, None), (10, 10, 40), (10, 20, 20)])
def test_a_grid_too_coarse_for_its_harmonics_is_refused(wrong: tuple[int, int | None, int | None]) -> None:
    with pytest.raises(ValueError, match="more than"):
        SphereGrid(*wrong)
