"""Long waves through all sensors at once: what edges would need many steps to carry crosses the domain in one."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sciode.data.flow import Space
from sciode.solvers.suggest import choose

from .scene import embedded

__all__ = ["MIXINGS", "Exchange", "projection_of", "wave_numbers", "waves_at"]

MIXINGS = ("full", "each")

_ROUGHNESS = 1e-6
"""Of the penalty N (1 + k^2)^2 |c_k|^2 by which few sensors settle many waves."""


def wave_numbers(space: Space, degree: int) -> Tensor:
    """The waves of a space up to `degree`, a row each, int64 on the CPU.

    "periodic": integer vectors, one of k and -k, |k| <= degree. "plane": vectors >= 0, of products of cosines.
    "sphere": (l, m), 0 <= m <= l <= degree, of spherical harmonics. Raises ValueError for degree < 1.
    """
    if degree < 1:
        raise ValueError(f"degree must be >= 1, got {degree}")
    if space.kind == "sphere":
        return torch.tensor([(n, m) for n in range(degree + 1) for m in range(n + 1)])
    low = 0 if space.kind == "plane" else -degree
    every = itertools.product(range(low, degree + 1), repeat=space.dimension)
    kept = [k for k in every if sum(x * x for x in k) <= degree * degree]
    return torch.tensor([k for k in kept if space.kind == "plane" or k >= tuple(-x for x in k)])


def waves_at(points: Tensor, space: Space, degree: int, numbers: Tensor | None = None) -> Tensor:
    """Waves [N, P, 2] at points [N, d], float64: cosine and sine parts; in a plane the sine parts are 0.

    numbers: `wave_numbers` on the points' device, where a recording may not send them there.
    """
    if space.kind == "sphere":
        return _harmonics(points, space, degree)
    numbers = wave_numbers(space, degree).to(points.device) if numbers is None else numbers
    sides = zip(points.double().unbind(-1), space.lower, space.upper, strict=True)
    share = torch.stack([(x - low) / (high - low) for x, low, high in sides], -1)
    if space.kind == "plane":
        cosines = (torch.pi * share.unsqueeze(1) * numbers).cos().prod(-1)
        return torch.stack((cosines, torch.zeros_like(cosines)), -1)
    angle = 2.0 * torch.pi * share @ numbers.double().T
    return torch.stack((angle.cos(), angle.sin()), -1)


def projection_of(waves: Tensor, space: Space, degree: int) -> Tensor:
    """[2 P, N] float64: values at N points -> the waves' coefficients (waves [N, P, 2] flattened), least squares with
    a penalty on short waves, so that points may be fewer than waves, and anywhere."""
    numbers = wave_numbers(space, degree).to(waves)
    size = numbers[:, 0].square() + numbers[:, 0] if space.kind == "sphere" else numbers.square().sum(-1)
    basis = waves.flatten(1)
    penalty = _ROUGHNESS * len(basis) * (1.0 + size).square().repeat_interleave(2)
    return torch.linalg.solve(basis.T @ basis + torch.diag(penalty), basis.T)


def _harmonics(points: Tensor, space: Space, degree: int) -> Tensor:
    """Real spherical harmonics of mean square 1 on the sphere, by the recurrence over l for all m at once."""
    x, y, z = embedded(points.double(), space).unsqueeze(-1).unbind(-2)  # [N, 1]
    ring = (1.0 - z.square()).clamp(min=0.0).sqrt()
    before, last = z[:, :0], torch.ones_like(z)
    rows = [last]
    every = torch.arange(degree + 1, dtype=torch.float64, device=z.device)
    for n in range(1, degree + 1):
        m = every[:n]
        a = ((4 * n * n - 1) / (n * n - m * m)).sqrt()
        b = (((n - 1) ** 2 - m * m) / (4 * (n - 1) ** 2 - 1)).clamp(min=0.0).sqrt()
        older = torch.cat((before, torch.zeros_like(z)), -1)
        corner = last[:, -1:] * (ring * float(np.sqrt((2 * n + 1) / (2 * n))))
        before, last = last, torch.cat((a * (z * last - b * older), corner), -1)
        rows.append(last)
    east = torch.atan2(y, x) * every
    scale = 1.0 + (2.0**0.5 - 1.0) * every.clamp(max=1.0)
    ways = [scale * turned for turned in (east.cos(), east.sin())]
    return torch.stack([torch.cat([row * way[:, : row.shape[1]] for row in rows], -1) for way in ways], -1)


class Exchange(nn.Module):
    """v -> sum over waves k of W_k c_k e^{i k x}: a convolution. v [B, N, width], waves [B, N, 2 P], projection
    [B, 2 P, N] -> [B, N, width].

    mixing: "full": W_k is a complex matrix of the channels, c the coefficients of v, as in a Fourier neural operator.
    "each": W_k is a complex number a channel, c the coefficients of A v, A affine: some `width` times fewer weights,
    which learn slower.

    Raises ValueError for an unknown mixing. Source: Li et al.: Fourier neural operator (ICLR 2021), here on scattered
    points, and on a sphere with its harmonics.
    """

    def __init__(self, width: int, waves: int, mixing: Literal["full", "each"] = "full") -> None:
        super().__init__()
        choose("mixing", mixing, MIXINGS)
        if mixing == "full":
            self.into, self.weight = None, nn.Parameter(torch.randn(waves, width, width, 2) / width)
        else:
            self.into = nn.Linear(width, width)
            self.real = nn.Parameter(torch.randn(waves, width) * 0.3)
            self.imaginary = nn.Parameter(torch.randn(waves, width) * 0.3)

    def forward(self, v: Tensor, waves: Tensor, projection: Tensor) -> Tensor:
        """The convolution at the same points."""
        sent = v if self.into is None else self.into(v)
        a, b = (projection @ sent).unflatten(1, (-1, 2)).unbind(2)  # [B, P, width]
        if self.into is None:
            mixed = torch.complex(a, b).transpose(0, 1) @ torch.view_as_complex(self.weight)
            turned = torch.view_as_real(mixed.transpose(0, 1)).unbind(-1)
        else:
            turned = (self.real * a - self.imaginary * b, self.real * b + self.imaginary * a)
        return waves @ torch.stack(tuple(turned), 2).flatten(1, 2)
