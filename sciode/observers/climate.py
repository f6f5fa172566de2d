"""The climate of flows: a Gaussian model of all their fields at once, found from what fixed sensors read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.data.flow import Space

from .tables import largest_table
from .waves import wave_numbers, waves_at

__all__ = ["Climate", "climate_of", "fitted_climate", "learned_climate", "settled", "suited_degree", "unpacked"]

_FLOOR = 1e-10
"""Of noise, in units of the readings' variance: below it rounding is what is met."""
_SLOPES, _NOISES = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0), (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
"""Of what a fit begins with: the variance of a wave falls as a power of 1 + its number."""
_ASKED = 256, 64
"""Sensors and frames, at most, by which that is chosen."""
_SENSORS = 1024
"""By which a climate is fitted, at most: a step takes the cube of them."""
_PLACES = 4096
"""Asked at a time."""
_FRAMES = 256
"""By which a climate is learned, at most."""
_KEPT = ("mean", "noise", "offset", "scale")


class Groups(NamedTuple):
    """Waves of a space, sorted: groups that its symmetry keeps uncorrelated stand together, the first of what it
    leaves unchanged (zonal harmonics, the constant).

    order: [P], their numbers among those of `wave_numbers`. size: [P] int, the degree, or |k| rounded. parts: a slice
    a group.
    """

    order: Tensor
    size: Tensor
    parts: tuple[slice, ...]


def _groups(space: Space, degree: int) -> Groups:
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
    return Groups(order, size[order], tuple(slice(end - n, end) for end, n in zip(ends, counts, strict=True)))


class Climate(NamedTuple):
    """Fields f_i(x) = Re sum over waves p of conj(h_p(x)) z_ip, of channels i: Gaussian, with what a symmetry of the
    space leaves of a covariance.

    blocks: of each group g, [c, L, c, L] complex: cov(f_i(x), f_j(y)) = sum over g of Re(conj(h_g(x)) block h_g(y)).
    mean: [c, L] float64, of z of the first group, which is real. noise: [c], the variance of readings beside it; what
    shorter waves have is in it too. offset, scale: [c], readings are (value - offset) / scale. waves: see `Groups`.
    likelihood: of the readings, the log a frame at each step of the fit, before it.
    """

    space: Space
    degree: int
    waves: Groups
    blocks: tuple[Tensor, ...]
    mean: Tensor
    noise: Tensor
    offset: Tensor
    scale: Tensor
    likelihood: tuple[float, ...] = ()

    def basis(self, places: Tensor) -> Tensor:
        """h [Q, P] complex at places [Q, d]."""
        return torch.view_as_complex(waves_at(places.double(), self.space, self.degree)[:, self.waves.order])

    def root(self, sensors: Tensor) -> Tensor:
        """The Cholesky factor of the covariance of readings at sensors [N, d], channel by channel: [c N, c N]."""
        return _root(_covariance(self, self.basis(sensors)))

    def through(self, sensors: Tensor, values: Tensor, places: Tensor, root: Tensor | None = None) -> Tensor:
        """The best linear estimate at places [Q, d] of values [T, N, c] at sensors [N, d]: [T, Q, c] float64.

        root: of these sensors, where it is at hand; it is what takes time. Raises ValueError for values that are not
        finite.
        """
        if not bool(values.isfinite().all()):
            raise ValueError("values have gaps: leave those sensors out, or those frames")
        h = self.basis(sensors)
        y = (values.double() - self.offset) / self.scale
        y = y.permute(2, 1, 0) - _zonal(self, h).unsqueeze(2)
        solved = torch.cholesky_solve(y.flatten(0, 1), _root(_covariance(self, h)) if root is None else root)
        z = _coefficients(self, h, solved)
        found = []
        for some in places.split(_PLACES):
            asked = self.basis(some)
            found.append(asked.real @ z.real + asked.imag @ z.imag + _zonal(self, asked).unsqueeze(2))
        return torch.cat(found, 1).permute(2, 1, 0) * self.scale + self.offset

    def completed(self, sensors: Tensor, values: Tensor) -> Tensor:
        """Values [T, N, c] at sensors [N, d] in float64, with the best linear estimate by those of their frame that
        are finite in place of those that are not, whichever sensor or channel they are of."""
        h = self.basis(sensors)
        usual = self.offset + self.scale * _zonal(self, h).T  # [N, c]
        found = ((values.double() - usual) / self.scale).transpose(1, 2).flatten(1)  # [T, c N]
        covariance = _covariance(self, h)
        for y in found:
            there = y.isfinite()
            root = _root(covariance[there][:, there])
            told = torch.cholesky_solve(y[there].unsqueeze(1), root).squeeze(1)
            y[~there] = covariance[~there][:, there] @ told
        return found.unflatten(1, (values.shape[2], -1)).transpose(1, 2) * self.scale + usual

    def weights(self, sensors: Tensor) -> tuple[Tensor, Tensor]:
        """W [c 2 P, c, N] and w [c 2 P], float64, of sensors [N, d]: with z = W y + w of all readings y [c, N] at once,
        the estimate of channel i at x is `waves_at` x [2 P] @ z_i, as `through` has it."""
        h, c = self.basis(sensors), len(self.noise)
        told = torch.cholesky_inverse(_root(_covariance(self, h)))
        z = _coefficients(self, h, told).unflatten(2, (c, -1))  # [c, P, c, N]
        z = z * self.scale[:, None, None, None] / self.scale[None, None, :, None]
        usual = self.offset.unsqueeze(1) + self.scale.unsqueeze(1) * _zonal(self, h)  # [c, N]
        rest = -torch.einsum("ipjn,jn->ip", z, usual.to(z.dtype))
        first = self.waves.parts[0]
        rest[:, first] += self.scale.unsqueeze(1) * self.mean
        rest[:, 0] += self.offset
        back = self.waves.order.argsort()
        parts = (torch.view_as_real(x[:, back]) for x in (z, rest))
        turned, fixed = (x.movedim(-1, 2).flatten(0, 2) for x in parts)
        return turned, fixed

    def packed(self) -> dict[str, Tensor]:
        """What a file keeps of it, beside space and degree; see `unpacked`."""
        blocks = {f"block.{number}": torch.view_as_real(block) for number, block in enumerate(self.blocks)}
        return blocks | {name: getattr(self, name) for name in _KEPT}

    def to(self, device: torch.device | str) -> Climate:
        """The same on a device."""
        moved = {name: x.to(device) for name, x in self._asdict().items() if isinstance(x, Tensor)}
        waves = self.waves._replace(order=self.waves.order.to(device), size=self.waves.size.to(device))
        return self._replace(**moved, waves=waves, blocks=tuple(block.to(device) for block in self.blocks))


def _zonal(climate: Climate, h: Tensor) -> Tensor:
    """The mean at the places of h, [c, Q]."""
    return climate.mean @ h.real[:, climate.waves.parts[0]].T


def _coefficients(climate: Climate, h: Tensor, solved: Tensor) -> Tensor:
    """z [c, P, T] less its mean, of K^-1 (readings less their mean), [c N, T]."""
    c = len(climate.noise)
    seen = h.T @ solved.unflatten(0, (c, -1)).to(h.dtype)  # [c, P, T]
    parts = zip(climate.waves.parts, climate.blocks, strict=True)
    return torch.cat([torch.einsum("iajb,jbt->iat", block, seen[:, part]) for part, block in parts], 1)


def _covariance(climate: Climate, h: Tensor) -> Tensor:
    """Of readings, K [c N, c N]."""
    c = len(climate.noise)
    beside = torch.cat((h.real, -h.imag), 1).T.contiguous()
    parts = list(zip(climate.waves.parts, climate.blocks, strict=True))
    found = beside.new_empty(c, len(h), c, len(h))
    for i in range(c):
        for j in range(i + 1):
            left = torch.cat([h[:, part].conj() @ block[i, :, j] for part, block in parts], 1)
            rows = torch.cat((left.real, left.imag), 1) @ beside
            found[i, :, j], found[j, :, i] = rows, rows.T
    found = found.reshape(c * len(h), c * len(h))
    found.diagonal().add_(climate.noise.repeat_interleave(len(h)))
    return found


def _root(covariance: Tensor) -> Tensor:
    """Raises ValueError where rounding leaves no positive matrix."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed):
        raise ValueError("the climate's covariance of these sensors is singular: give it more noise")
    return root


def _apart(covariance: Tensor, there: Tensor) -> Tensor:
    """The same with readings that are not there [n] apart from all others, with variance 1: as 0 they add nothing."""
    if bool(there.all()):
        return covariance
    return torch.where(there & there.unsqueeze(1), covariance, torch.diag((~there).to(covariance)))


def climate_of(space: Space, degree: int, slopes: Sequence[float], noise: Sequence[float]) -> Climate:
    """An isotropic climate of variance 1, on a sphere up to 2: of each channel, the slope of its spectrum in powers of
    the wave's number plus 1, and the noise beside it."""
    waves = _groups(space, degree)
    spectra = (1.0 + waves.size.double()) ** -torch.tensor(list(slopes), dtype=torch.float64).unsqueeze(1)
    spectra = spectra / spectra.sum(1, keepdim=True)
    zero = torch.zeros(len(spectra), dtype=torch.float64)
    return Climate(
        space, degree, waves, _diagonal(waves, spectra), zero.unsqueeze(1).repeat(1, waves.parts[0].stop),
        torch.tensor(list(noise), dtype=torch.float64), zero, zero + 1.0,
    )  # fmt: skip


def _begun(points: Tensor, readings: Tensor, space: Space, degree: int) -> Climate:
    """The likeliest of a few of `climate_of`, channel by channel, by some of the standardised readings [F, N, c]."""
    seed = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(points), generator=seed)[: _ASKED[0]]
    frames = torch.randperm(len(readings), generator=seed)[: _ASKED[1]]
    y = readings[frames][:, chosen]
    best = [(-math.inf, 0.0, 0.0)] * y.shape[2]
    for slope in _SLOPES:
        for noise in _NOISES:
            tried = climate_of(space, degree, [slope], [noise]).to(points.device)
            covariance = _covariance(tried, tried.basis(points[chosen]))
            for i, own in enumerate(y[0].isfinite().unbind(1)):
                root = _root(covariance[own][:, own])
                best[i] = max(best[i], (_likelihood(root, y[:, own, i].T), slope, noise))
    return climate_of(space, degree, [b[1] for b in best], [b[2] for b in best]).to(points.device)


def _likelihood(root: Tensor, y: Tensor) -> float:
    """Of columns y [n, F], the mean of their logs."""
    square = torch.linalg.solve_triangular(root, y, upper=False).square().sum() / y.shape[1]
    return -0.5 * float(2.0 * root.diagonal().log().sum() + square + len(y) * math.log(2.0 * math.pi))


def _diagonal(waves: Groups, spectrum: Tensor) -> tuple[Tensor, ...]:
    """Blocks of variances [c, P], without any covariance."""
    return tuple(
        torch.diag(spectrum[:, part].flatten()).to(torch.complex128).unflatten(0, spectrum[:, part].shape)
        .unflatten(2, spectrum[:, part].shape) for part in waves.parts
    )  # fmt: skip


def _isotropic(waves: Groups, blocks: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Blocks whose variances are the mean over waves of a size, of two parts each but for the first group's."""
    variances = torch.cat([_variances(block) for block in blocks], 1)
    weights = torch.full_like(variances[0], 2.0)
    weights[waves.parts[0]] = 1.0
    total = variances.new_zeros(len(variances), int(waves.size.max()) + 1)
    share = total[:1].clone().index_add_(1, waves.size, weights.unsqueeze(0))
    total.index_add_(1, waves.size, variances * weights)
    return _diagonal(waves, (total / share)[:, waves.size])


def _variances(block: Tensor) -> Tensor:
    """[c, L] of a block."""
    c, count = block.shape[:2]
    return block.reshape(c * count, -1).diagonal().real.reshape(c, count)


def _moved(climate: Climate, h: Tensor, readings: Tensor) -> Climate:
    """One step of expectation-maximisation for standardised readings [F, N, c], NaN = never read: likelihood never
    falls."""
    frames, count, c = readings.shape
    y, there = _columns(readings, climate, h)
    root = _root(_apart(_covariance(climate, h), there))
    solved = torch.cholesky_solve(y, root)
    likelihood = (*climate.likelihood, _likelihood(root[there][:, there], y[there]))
    # What readings say against the covariance: its posterior is block - share block h' excess h block.
    excess = torch.cholesky_inverse(root)
    excess.addmm_(solved, solved.T, alpha=-1.0 / frames)
    excess.diagonal().mul_(there)
    first = climate.waves.parts[0]
    drift = h.real[:, first].T @ solved.mean(1).reshape(c, count, 1)  # [c, L, 1]
    blocks = []
    for number, (seen, block) in enumerate(zip(_seen(climate, h, excess), climate.blocks, strict=True)):
        flat = block.reshape(seen.shape)
        if number == 0:
            seen = (seen + drift.reshape(-1, 1) * drift.reshape(1, -1)).real.to(flat.dtype)
        new = flat - (0.5 if number else 1.0) * flat @ seen @ flat
        # Where noise is small, rounding alone makes variances negative that are nearly gone.
        size, ways = torch.linalg.eigh(0.5 * (new + new.mH))
        blocks.append(((ways * size.clamp(min=0.0)) @ ways.mH).reshape(block.shape))
    mean = climate.mean + torch.einsum("iajb,jbt->ia", climate.blocks[0].real, drift)
    loss = excess.diagonal().reshape(c, count).sum(1) / there.reshape(c, count).sum(1)
    noise = (climate.noise - climate.noise.square() * loss).clamp(min=_FLOOR)
    return climate._replace(blocks=tuple(blocks), mean=mean, noise=noise, likelihood=likelihood)


def _columns(readings: Tensor, climate: Climate, h: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised readings [F, N, c] less their mean, [c N, F], 0 where there are none, and where there are, [c N]."""
    y = (readings.permute(2, 1, 0) - _zonal(climate, h).unsqueeze(2)).flatten(0, 1)
    there = y[:, 0].isfinite()
    return torch.where(there.unsqueeze(1), y, 0.0), there


def _seen(climate: Climate, h: Tensor, excess: Tensor) -> list[Tensor]:
    """h' excess conj(h) of each group, [c L, c L]."""
    c, count = len(climate.noise), len(h)
    parts = climate.waves.parts
    found = [h.new_zeros(c, p.stop - p.start, c, p.stop - p.start) for p in parts]
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
    points: Tensor, values: Tensor, space: Space, degree: int, *, start: int = 4, steps: int = 12
) -> Climate:
    """The climate that makes readings [F, N, c] at points [N, d] likely, by expectation-maximisation.

    degree: see `suited_degree`. start: steps of an isotropic climate; steps: of a free one after them. They are few:
    frames of few flows are fewer than blocks have entries, and the stop keeps what they don't tell near what is
    isotropic. Of more than 1,024 sensors that many are taken. Sensors need not read all channels. Where readings are
    missing, what is taken of sensors and frames is the largest table without a gap; ValueError where a channel is not
    in one, and in a plane.
    """
    points, whole = _whole(points, values)
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:_SENSORS]
    points, whole = points[chosen], whole[:, chosen]
    offset = whole.nanmean((0, 1))
    scale = (whole - offset).square().nanmean((0, 1)).sqrt()
    scale = torch.where(scale > 1e-12 * offset.abs(), scale, 1.0)
    readings = (whole - offset) / scale
    climate = _begun(points, readings, space, degree)._replace(offset=offset, scale=scale)
    h = climate.basis(points)
    for _ in range(start):
        climate = _moved(climate, h, readings)
        climate = climate._replace(blocks=_isotropic(climate.waves, climate.blocks))
    for _ in range(steps):
        climate = _moved(climate, h, readings)
    return climate


def settled(climate: Climate, points: Tensor, values: Tensor) -> Climate:
    """The same with the noise of each channel that tells each sensor best by all others (Rippa, 1999), of readings
    [F, N, c] at points [N, d] of flows that the fit did not read; gaps as in `fitted_climate`.

    What a fit says of noise is of its own frames, and too little where waves are more than sensors: what is shorter
    than its waves is then taken for longer ones. Of more than 1,024 sensors those are asked that are nearest to one of
    them.
    """
    points, whole = _whole(points, values)
    start = torch.randint(len(points), (1,), generator=torch.Generator().manual_seed(0))
    near = (points - points[start]).square().sum(1).argsort()[:_SENSORS]
    h, y = climate.basis(points[near]), (whole[:, near] - climate.offset) / climate.scale
    y, there = _columns(y, climate, h)
    silent = _covariance(climate._replace(noise=torch.zeros_like(climate.noise)), h)
    best, noise = math.inf, climate.noise
    for channel in range(len(noise)):
        for level in (float(climate.noise[channel]), *_NOISES):
            tried = noise.clone()
            tried[channel] = level
            error = _untold(silent, tried, y, there)
            best, kept = min((best, noise), (error, tried), key=lambda pair: pair[0])
            noise = kept
    return climate._replace(noise=noise)


def _whole(points: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of points [N, d] and values [F, N, c] the `largest_table`, float64, NaN for what a sensor never read; of the
    sensors that read all channels, if else one would be lost. ValueError where one is."""
    count, c = values.shape[1:]
    rows, table = largest_table(torch.arange(count * c).unsqueeze(1), values.reshape(len(values), -1, 1))
    rows = rows.squeeze(1).to(values.device)
    if len(table) and len((rows % c).unique()) == c:
        whole = values.new_full((len(table), count * c), torch.nan, dtype=torch.float64)
        whole[:, rows] = table.squeeze(2).double()
        sensors = (rows // c).unique()
        return points[sensors.to(points.device)], whole.unflatten(1, (count, c))[:, sensors]
    points, whole = largest_table(points, values)
    if not len(whole):
        raise ValueError("some channel has no reading beside the others: take base='fitted', or leave it out")
    return points, whole.double()


def _untold(covariance: Tensor, noise: Tensor, y: Tensor, there: Tensor) -> float:
    """Mean squared error at each sensor of the estimate by all others, of columns y [c N, F], 0 where they are not
    there [c N]; inf where rounding leaves no positive matrix."""
    c = len(noise)
    noisy = covariance + torch.diag(noise.repeat_interleave(len(y) // c))
    root, failed = torch.linalg.cholesky_ex(_apart(noisy, there))
    if int(failed):
        return math.inf
    inverse = torch.cholesky_inverse(root)
    own = inverse.unflatten(1, (c, -1)).unflatten(0, (c, -1)).diagonal(dim1=1, dim2=3).permute(2, 0, 1)  # [N, c, c]
    missed = torch.linalg.solve(own, (inverse @ y).unflatten(0, (c, -1)).transpose(0, 1))
    return float(missed.square().sum() / (there.sum() * y.shape[1]))


def learned_climate(
    points: Tensor, values: Tensor, others: Tensor, theirs: Tensor, space: Space, *, degree: int | None = None
) -> Climate:
    """`fitted_climate` of readings [F, N, c] at points [N, d], `settled` by those of other flows, at most 256 frames of
    each in even steps; degree None: `suited_degree` of the sensors without a gap."""
    every = len(points)
    points, values = _whole(points, values)
    if len(points) < every / 2:
        warnings.warn(
            f"readings have gaps: the climate is learnt from {len(points)} of {every} sensors; base='fitted' may tell "
            "more, or fill short gaps",
            stacklevel=2,
        )
    found = fitted_climate(
        points, _thinned(values), space, suited_degree(len(points), space) if degree is None else degree
    )
    others, theirs = _whole(others, theirs)
    return settled(found, others, _thinned(theirs))


def _thinned(values: Tensor) -> Tensor:
    return values[:: -(-len(values) // _FRAMES)]


def unpacked(tensors: Mapping[str, Tensor], space: Space, degree: int) -> Climate:
    """The climate of what `Climate.packed` gave."""
    count = sum(name.startswith("block.") for name in tensors)
    blocks = tuple(torch.view_as_complex(tensors[f"block.{number}"].contiguous()) for number in range(count))
    mean, noise, offset, scale = (tensors[name] for name in _KEPT)
    return Climate(space, degree, _groups(space, degree), blocks, mean, noise, offset, scale)


def suited_degree(count: int, space: Space, share: float = 5.0, most: int = 63) -> int:
    """The highest degree of no more than `share` waves (of both parts) a sensor, from 1 to `most`."""
    if space.kind == "sphere":
        return max(1, min(most, math.isqrt(int(share * count)) - 1))
    d = space.dimension
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
    return max(1, min(most, int((share * count / ball) ** (1.0 / d))))
