"""Spherical harmonics on a Gauss-Legendre grid: transforms, and wind from vorticity and divergence and back."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

__all__ = ["SphereGrid"]


@final
class SphereGrid:
    """Harmonics up to a degree, and a grid of latitudes and longitudes on which their products are exact.

    Coefficients c [..., m, l] of a real field: f = sum over 0 <= m <= l <= degree of c Y_lm and, for m > 0, its
    conjugate; Y_lm orthonormal on the unit sphere, [degree + 1] x [degree + 1] with zeros where l < m. Fields f
    [..., latitudes, longitudes], from north to south and from 0 eastwards. All are batches of any shape.

    - `degree`: of the triangular truncation, 1 or more. `latitudes`, `longitudes`: None for the least that keep
      products of two fields free of aliasing, (3 degree + 1) / 2 and 3 degree + 1 (the latter made even).
    - `dtype`: float32 or float64. `device`: where all is.

    Transforms are matrix products, of cost degree^2 latitudes a field. Raises ValueError for grids that do not carry
    the harmonics themselves.
    Source: Bourke (1972), Mon. Weather Rev. 100; Hack & Jakob (1992), NCAR/TN-343 (wind by its curl and divergence).
    """

    def __init__(
        self,
        degree: int,
        latitudes: int | None = None,
        longitudes: int | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        latitudes = latitudes or math.ceil((3 * degree + 1) / 2)
        longitudes = longitudes or 2 * math.ceil((3 * degree + 1) / 2)
        if degree < 1 or latitudes <= degree or longitudes <= 2 * degree:
            raise ValueError(
                f"degree {degree} needs degree >= 1, more than {degree} latitudes and more than {2 * degree} "
                f"longitudes, got {latitudes} and {longitudes}"
            )
        self.degree, self.shape = degree, (latitudes, longitudes)
        self._dtype, self._device = dtype, torch.device(device)
        sines, weights = np.polynomial.legendre.leggauss(latitudes)
        sines, weights = sines[::-1].copy(), weights[::-1].copy()
        values, slopes = _legendre(degree, sines)
        cosines = 1.0 - sines**2
        self.sines = self._tensor(sines)
        """Of the latitudes, [latitudes]."""
        self.weights = self._tensor(weights / 2.0 / longitudes)
        """Of the points of each latitude in means over the sphere, [latitudes]: longitudes times their sum is 1."""
        self._synthesis = self._tensor(values), self._tensor(slopes)
        share = 2.0 * math.pi * weights
        self._analysis = tuple(
            self._tensor((table * factor[:, None]).transpose(0, 2, 1))
            for table, factor in ((values, share), (values, share / cosines), (slopes, share / cosines))
        )
        orders, degrees = np.arange(degree + 1), np.arange(degree + 1)
        self.eigenvalues = self._tensor(-1.0 * degrees * (degrees + 1))
        """Of the Laplacian of the unit sphere, -l (l + 1), [l]."""
        self._inverse = self._tensor(np.where(degrees > 0, -1.0 / np.maximum(degrees * (degrees + 1), 1), 0.0))
        self._east = 1j * self._tensor(orders[:, None])

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(self._device, self._dtype)

    @cached_property
    def points(self) -> Tensor:
        """The grid's points on the unit sphere, [latitudes * longitudes, 3]: x towards longitude 0, z to the north."""
        east = 2.0 * math.pi / self.shape[1] * torch.arange(self.shape[1], dtype=torch.float64)
        north = self.sines.double().cpu()[:, None]
        around = (1.0 - north**2).sqrt()
        parts = torch.broadcast_tensors(around * east.cos(), around * east.sin(), north)
        return torch.stack(parts, -1).reshape(-1, 3).to(self._device, self._dtype)

    @property
    def latitudes(self) -> Tensor:
        """In radians, [latitudes], from north to south."""
        return self.sines.asin()

    @property
    def longitudes(self) -> Tensor:
        """In radians, [longitudes], from 0."""
        return 2.0 * math.pi / self.shape[1] * torch.arange(self.shape[1], device=self._device, dtype=self._dtype)

    def field(self, coefficients: Tensor) -> Tensor:
        """Coefficients [..., m, l] -> the field on the grid."""
        return self._around(_legendre_sum(self._synthesis[0], coefficients))

    def coefficients(self, field: Tensor) -> Tensor:
        """A field on the grid -> its coefficients [..., m, l], by quadrature; exact for fields of the truncation."""
        return _legendre_sum(self._analysis[0], self._waves(field))

    def at(self, coefficients: Tensor, places: Tensor) -> Tensor:
        """Coefficients [..., m, l] -> the field in the directions of places [Q, 3]: [..., Q]."""
        x, y, z = places.double().cpu().unbind(1)
        values, _ = _legendre(self.degree, (z / places.double().cpu().norm(dim=1)).clamp(-1.0, 1.0).numpy())
        waves = _legendre_sum(self._tensor(values), coefficients)
        turn = torch.arange(self.degree + 1)[:, None] * torch.atan2(y, x)
        # Orders above 0 stand for their conjugates too.
        count = torch.full_like(turn, 2.0)
        count[0] = 1.0
        east, north = (self._tensor((count * part).numpy()) for part in (turn.cos(), turn.sin()))
        return (waves.real * east - waves.imag * north).sum(-2)

    def laplacian(self, coefficients: Tensor) -> Tensor:
        """Coefficients of the Laplacian on the unit sphere."""
        return self.eigenvalues * coefficients

    def inverse_laplacian(self, coefficients: Tensor) -> Tensor:
        """Coefficients of the field of mean 0 whose Laplacian on the unit sphere these are, but for their mean."""
        return self._inverse * coefficients

    def wind(self, vorticity: Tensor, divergence: Tensor) -> tuple[Tensor, Tensor]:
        """(east, north) components times cos(latitude), on the grid, of a wind on the unit sphere of these
        coefficients."""
        stream, potential = self._inverse * vorticity, self._inverse * divergence
        ahead = _legendre_sum(self._synthesis[0], self._east * torch.stack((potential, stream)))
        aside = _legendre_sum(self._synthesis[1], torch.stack((-stream, potential)))
        east, north = self._around(ahead + aside)
        return east, north

    def curl_and_divergence(self, east: Tensor, north: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of curl and divergence of a vector field given as `wind` gives it; on the unit sphere."""
        waves = self._waves(torch.stack((east, north)))
        ahead = self._east * _legendre_sum(self._analysis[1], waves)
        aside = _legendre_sum(self._analysis[2], waves)
        return ahead[1] + aside[0], ahead[0] - aside[1]

    def mean(self, field: Tensor) -> Tensor:
        """The mean over the sphere of fields [..., latitudes, longitudes]."""
        return (field.sum(-1) * self.weights).sum(-1)

    def _waves(self, field: Tensor) -> Tensor:
        """[..., m, latitude]: means over longitude of field exp(-i m longitude)."""
        return torch.fft.rfft(field, norm="forward")[..., : self.degree + 1].transpose(-1, -2)

    def _around(self, waves: Tensor) -> Tensor:
        return torch.fft.irfft(waves.transpose(-1, -2), n=self.shape[1], norm="forward")


def _legendre_sum(table: Tensor, values: Tensor) -> Tensor:
    """sum over b of table [m, a, b] values [..., m, b], [..., m, a]: one real matrix product an order m."""
    batch = values.shape[:-2]
    columns = torch.view_as_real(values.reshape(-1, *values.shape[-2:])).permute(1, 2, 0, 3)
    found = torch.bmm(table, columns.reshape(*columns.shape[:2], -1))
    parts = found.reshape(*found.shape[:2], -1, 2).permute(2, 0, 1, 3)
    return torch.view_as_complex(parts.contiguous()).reshape(*batch, *parts.shape[1:3])


def _legendre(degree: int, sines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P_lm and (1 - s^2) dP_lm/ds at s, [m, len(s), l]; exp(i m longitude) P_lm has norm 1 on the sphere.

    By the recurrence in l, which is stable, from P_mm, in double precision.
    """
    top = degree + 1
    values = np.zeros((degree + 1, len(sines), top + 1))
    sectoral = np.full(len(sines), math.sqrt(1.0 / (4.0 * math.pi)))
    cosines = np.sqrt(1.0 - sines**2)

    def coupling(degrees: np.ndarray | int, m: int) -> np.ndarray:
        squares = np.square(np.asarray(degrees, dtype=float))
        return np.sqrt((squares - m**2) / (4.0 * squares - 1.0))

    slopes = np.zeros((degree + 1, len(sines), degree + 1))
    for m in range(degree + 1):
        if m:
            sectoral = -math.sqrt((2 * m + 1) / (2 * m)) * cosines * sectoral
        values[m, :, m] = sectoral
        for k in range(m + 1, top + 1):
            before = coupling(k - 1, m) * values[m, :, k - 2] if k > m + 1 else 0.0
            values[m, :, k] = (sines * values[m, :, k - 1] - before) / coupling(k, m)
        degrees = np.arange(max(m, 1), degree + 1)
        slopes[m, :, degrees] = (degrees + 1)[:, None] * coupling(degrees, m)[:, None] * values[
            m, :, degrees - 1
        ] - degrees[:, None] * coupling(degrees + 1, m)[:, None] * values[m, :, degrees + 1]
    return values[:, :, : degree + 1], slopes
