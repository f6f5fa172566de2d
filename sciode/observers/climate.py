"""The climate of flows: a Gaussian model of all their fields at once, found from what fixed sensors read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.data.flow import Space

from .waves import wave_numbers, waves_at

__all__ = ["Climate", "Grouped", "climate_of", "fitted_climate", "suited_degree"]

_FLOOR = 1e-10
"""Of noise, in units of the readings' variance: below it rounding is what is met."""
_SLOPE = 3.0
"""Of the spectrum at the start: the variance of a wave falls as (1 + its number)^-3."""


class Grouped(NamedTuple):
    """Waves of a space, sorted: groups that its symmetry keeps uncorrelated stand together, the first of what it
    leaves unchanged (zonal harmonics, the constant).

    order: [P], their numbers among those of `wave_numbers`. size: [P] int, the degree, or |k| rounded. parts: a slice
    a group.
    """

    order: Tensor
    size: Tensor
    parts: tuple[slice, ...]


def grouped(space: Space, degree: int) -> Grouped:
    """Orders of harmonics on a sphere, single waves in a periodic box. ValueError for a plane, which no motion maps to
    itself."""
    if space.kind == "plane":
        raise ValueError("a climate needs a sphere or a periodic box; in a plane, take a surface (base='fitted')")
    numbers = wave_numbers(space, degree)
    sphere = space.kind == "sphere"
    size = numbers[:, 0] if sphere else numbers.double().norm(dim=1).round().long()
    key = numbers[:, 1] if sphere else torch.arange(len(numbers)) + (size > 0)
    order = key.argsort(stable=True)
    counts = key[order].unique_consecutive(return_counts=True)[1].tolist()
    ends = torch.tensor(counts).cumsum(0).tolist()
    return Grouped(order, size[order], tuple(slice(end - n, end) for end, n in zip(ends, counts, strict=True)))


class Climate(NamedTuple):
    """Fields f_i(x) = Re sum over waves p of conj(h_p(x)) z_ip, of channels i: Gaussian, with what a symmetry of the
    space leaves of a covariance.

    blocks: of each group g, [c, L, c, L] complex: cov(f_i(x), f_j(y)) = sum over g of Re(conj(h_g(x)) block h_g(y)).
    mean: [c, L] float64, of z of the first group, which is real. noise: [c], the variance of readings beside it; what
    shorter waves have is in it too. offset, scale: [c], readings are (value - offset) / scale. waves: see `Grouped`.
    likelihood: of the readings, the log a frame at each step of the fit, before it.
    """

    space: Space
    degree: int
    waves: Grouped
    blocks: tuple[Tensor, ...]
    mean: Tensor
    noise: Tensor
    offset: Tensor
    scale: Tensor
    likelihood: tuple[float, ...] = ()

    def basis(self, places: Tensor) -> Tensor:
        """h [Q, P] complex at places [Q, d]."""
        return torch.view_as_complex(waves_at(places.double(), self.space, self.degree)[:, self.waves.order])

    def rows(self, sensors: Tensor, places: Tensor) -> Tensor:
        """[Q c, N c] float64: values at places, less their mean, are these times readings less theirs (channel last)."""
        h = self.basis(sensors)
        root, count, c = _root(self, h), len(sensors), len(self.noise)
        solved = torch.cholesky_solve(torch.eye(c * count, dtype=torch.float64), root)
        found = _field(self, self.basis(places), _coefficients(self, h, solved))  # [c, Q, c N]
        return found.unflatten(2, (c, count)).permute(1, 0, 3, 2).reshape(c * len(places), c * count)

    def through(self, sensors: Tensor, values: Tensor, places: Tensor) -> Tensor:
        """The best linear estimate at places [Q, d] of values [T, N, c] at sensors [N, d]: [T, Q, c] float64.

        One Cholesky factorisation of N c rows. Raises ValueError for values that are not finite.
        """
        if not bool(values.isfinite().all()):
            raise ValueError("values have gaps: leave those sensors out, or those frames")
        h = self.basis(sensors)
        y = (values.double() - self.offset) / self.scale
        y = y.permute(2, 1, 0) - _zonal(self, h).unsqueeze(2)
        solved = torch.cholesky_solve(y.flatten(0, 1), _root(self, h))
        asked = self.basis(places)
        found = _field(self, asked, _coefficients(self, h, solved)) + _zonal(self, asked).unsqueeze(2)
        return found.permute(2, 1, 0) * self.scale + self.offset


def _zonal(climate: Climate, h: Tensor) -> Tensor:
    """The mean at the places of h, [c, Q]."""
    return climate.mean @ h.real[:, climate.waves.parts[0]].T


def _coefficients(climate: Climate, h: Tensor, solved: Tensor) -> Tensor:
    """z [c, P, T] less its mean, of K^-1 (readings less their mean), [c N, T]."""
    c = len(climate.noise)
    seen = h.T @ solved.unflatten(0, (c, -1)).to(h.dtype)  # [c, P, T]
    parts = zip(climate.waves.parts, climate.blocks, strict=True)
    return torch.cat([torch.einsum("iajb,jbt->iat", block, seen[:, part]) for part, block in parts], 1)


def _field(climate: Climate, h: Tensor, z: Tensor) -> Tensor:
    return h.real @ z.real + h.imag @ z.imag


def _covariance(climate: Climate, h: Tensor) -> Tensor:
    """Of readings, K [c N, c N]."""
    c, rows = len(climate.noise), []
    beside = torch.cat((h.real, -h.imag), 1).T.contiguous()
    parts = list(zip(climate.waves.parts, climate.blocks, strict=True))
    found = torch.empty(c, len(h), c, len(h), dtype=torch.float64)
    for i in range(c):
        for j in range(i + 1):
            left = torch.cat([h[:, part].conj() @ block[i, :, j] for part, block in parts], 1)
            rows = torch.cat((left.real, left.imag), 1) @ beside
            found[i, :, j], found[j, :, i] = rows, rows.T
    found = found.reshape(c * len(h), c * len(h))
    found.diagonal().add_(climate.noise.repeat_interleave(len(h)))
    return found


def _root(climate: Climate, h: Tensor) -> Tensor:
    return torch.linalg.cholesky(_covariance(climate, h))


def climate_of(space: Space, channels: int, degree: int) -> Climate:
    """An isotropic climate of variance 1, its spectrum a power of the wave's number: where a fit begins."""
    waves = grouped(space, degree)
    spectrum = (1.0 + waves.size.double()) ** -_SLOPE
    # A wave of the first group has one part that counts, cosines; the mean square of any other's two is 1 in all.
    spectrum = spectrum / spectrum.sum()
    one = torch.ones(channels, dtype=torch.float64)
    blocks = _diagonal(waves, spectrum.expand(channels, -1))
    mean = torch.zeros(channels, waves.parts[0].stop, dtype=torch.float64)
    return Climate(space, degree, waves, blocks, mean, 1e-2 * one, 0.0 * one, one)


def _diagonal(waves: Grouped, spectrum: Tensor) -> tuple[Tensor, ...]:
    """Blocks of variances [c, P], without any covariance."""
    return tuple(
        torch.diag(spectrum[:, part].flatten()).to(torch.complex128).unflatten(0, spectrum[:, part].shape)
        .unflatten(2, spectrum[:, part].shape) for part in waves.parts
    )  # fmt: skip


def _isotropic(waves: Grouped, blocks: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Blocks whose variances are the mean over waves of a size, of two parts each but for the first group's."""
    variances = torch.cat([_variances(block) for block in blocks], 1)
    weights = torch.full_like(variances[0], 2.0)
    weights[waves.parts[0]] = 1.0
    total = torch.zeros(len(variances), int(waves.size.max()) + 1, dtype=torch.float64)
    share = total[:1].clone().index_add_(1, waves.size, weights.unsqueeze(0))
    total.index_add_(1, waves.size, variances * weights)
    return _diagonal(waves, (total / share)[:, waves.size])


def _variances(block: Tensor) -> Tensor:
    """[c, L] of a block."""
    c, count = block.shape[:2]
    return block.reshape(c * count, -1).diagonal().real.reshape(c, count)


def _moved(climate: Climate, h: Tensor, readings: Tensor) -> Climate:
    """One step of expectation-maximisation for standardised readings [F, N, c]: likelihood never falls."""
    frames, count, c = readings.shape
    y = (readings.permute(2, 1, 0) - _zonal(climate, h).unsqueeze(2)).flatten(0, 1)
    root = _root(climate, h)
    solved = torch.cholesky_solve(y, root)
    likelihood = -0.5 * float(
        2.0 * root.diagonal().log().sum() + (y * solved).sum() / frames + len(y) * math.log(2.0 * math.pi)
    )
    # What readings say against the covariance: its posterior is block - share block h' excess h block.
    excess = torch.cholesky_inverse(root)
    excess.addmm_(solved, solved.T, alpha=-1.0 / frames)
    first = climate.waves.parts[0]
    drift = h.real[:, first].T @ solved.mean(1).reshape(c, count, 1)  # [c, L, 1]
    blocks = []
    for number, (seen, block) in enumerate(zip(_seen(climate, h, excess), climate.blocks, strict=True)):
        flat = block.reshape(seen.shape)
        if number == 0:
            seen = (seen + drift.reshape(-1, 1) * drift.reshape(1, -1)).real.to(flat.dtype)
        new = flat - (0.5 if number else 1.0) * flat @ seen @ flat
        blocks.append((0.5 * (new + new.mH)).reshape(block.shape))
    mean = climate.mean + torch.einsum("iajb,jbt->ia", climate.blocks[0].real, drift)
    loss = excess.diagonal().reshape(c, count).mean(1)
    noise = (climate.noise - climate.noise.square() * loss).clamp(min=_FLOOR)
    return climate._replace(
        blocks=tuple(blocks), mean=mean, noise=noise, likelihood=(*climate.likelihood, likelihood)
    )  # fmt: skip


def _seen(climate: Climate, h: Tensor, excess: Tensor) -> list[Tensor]:
    """h' excess conj(h) of each group, [c L, c L]."""
    c, count = len(climate.noise), len(h)
    parts = climate.waves.parts
    found = [torch.zeros(c, p.stop - p.start, c, p.stop - p.start, dtype=h.dtype) for p in parts]
    beside = torch.cat((h.real, -h.imag), 1)
    for i in range(c):
        for j in range(i + 1):
            real, imaginary = (excess[i * count : (i + 1) * count, j * count : (j + 1) * count] @ beside).chunk(2, 1)
            right = torch.complex(real, imaginary)
            for part, block in zip(parts, found, strict=True):
                block[:, :, j][i] = h[:, part].T @ right[:, part]
                if i != j:
                    block[:, :, i][j] = block[:, :, j][i].mH
    return [block.flatten(2).flatten(0, 1) for block in found]


def fitted_climate(
    points: Tensor, values: Tensor, space: Space, degree: int, *, steps: int = 12, start: int = 4, shrink: float = 0.2
) -> Climate:
    """The climate that makes readings [F, N, c] at points [N, d] likely, by expectation-maximisation.

    Frames with a missing reading are left out; ValueError where none is left. degree: see `suited_degree`. start: steps
    of an isotropic climate, which are followed by steps of a free one. shrink: the share that the isotropic one
    keeps in each of those, a prior of as many frames: frames of few flows are fewer than blocks have entries.
    """
    whole = values[values.isfinite().flatten(1).all(1)].double()
    if not len(whole):
        raise ValueError("no frame is whole: leave out the sensors that are silent")
    if not 0.0 <= shrink < 1.0:
        raise ValueError(f"shrink is a share from 0 to below 1, got {shrink}")
    offset = whole.mean((0, 1))
    scale = (whole - offset).square().mean((0, 1)).sqrt()
    scale = torch.where(scale > 1e-12 * offset.abs(), scale, 1.0)
    climate = climate_of(space, values.shape[2], degree)._replace(offset=offset, scale=scale)
    h, readings = climate.basis(points), (whole - offset) / scale
    for _ in range(start):
        climate = _moved(climate, h, readings)
        climate = climate._replace(blocks=_isotropic(climate.waves, climate.blocks))
    prior = climate.blocks
    for _ in range(steps):
        climate = _moved(climate, h, readings)
        blocks = tuple((1.0 - shrink) * a + shrink * b for a, b in zip(climate.blocks, prior, strict=True))
        climate = climate._replace(blocks=blocks)
    return climate


def suited_degree(count: int, space: Space, share: float = 2.0, most: int = 63) -> int:
    """The highest degree of no more than `share` waves (of both parts) a sensor, from 1 to `most`."""
    if space.kind == "sphere":
        return max(1, min(most, math.isqrt(int(share * count)) - 1))
    d = space.dimension
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
    return max(1, min(most, int((share * count / ball) ** (1.0 / d))))
