"""Two-dimensional Navier-Stokes flow on a periodic square as vorticity, many flows at once: pseudo-spectral."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciode.pde.semilinear import march

__all__ = ["diagonal_forcing", "random_vorticity", "simulate_vorticity", "velocity_of"]

Seed = int | Sequence[int]


def simulate_vorticity(
    initial: Tensor,
    ts: Sequence[float],
    *,
    viscosity: float,
    dt: float,
    forcing: Tensor | None = None,
    side: float = 1.0,
    scheme: str = "ifrk4",
    capture: int = 0,
) -> Tensor:
    """Solve w_t + u . grad w = viscosity Lap w + f, u = (psi_y, -psi_x), -Lap psi = w, on a periodic square.

    Derivatives are taken of modes, products of values; modes with a wave number of n/3 or more are dropped, so that
    products alias into none that is kept: without viscosity and forcing the scheme in space keeps energy and enstrophy.
    The mean of w is kept always, and the mean velocity is 0.

    - `initial` [B, n, n]: w at ts[0], first axis x, points side j/n; n even, 8 or more; float32 or float64, on any
      device: all is computed there and in that. A flow does not depend on the others of its batch.
    - `ts` [T]: increasing, the initial time first. `dt`: of a step; the Courant number max |u| dt n / side should stay
      below about 1 ("ifrk4" is stable up to 1.3).
    - `forcing` [n, n] or [B, n, n]: f, constant in time; its mean is dropped.
    - `scheme`: "ifrk4" (diffusion exactly, order 4) or "cn" (Euler with Crank-Nicolson, order 1: dt of 1e-3 or less).
    - `capture`: steps of a CUDA graph, see `sciode.pde.semilinear.march`; 0, or elsewhere than on CUDA: none.

    Returns [T, B, n, n]; flows that blow up (dt too large) hold values that are not finite. Four transforms of n x n
    an evaluation of the rate, of which "ifrk4" takes 4 a step. Raises ValueError for shapes and numbers out of range.
    Source: Basdevant (1983), J. Comput. Phys. 50 (four transforms); Orszag (1971), J. Atmos. Sci. 28 (2/3 rule).
    """
    modes = _modes(initial, side)
    _check(initial, viscosity, forcing)
    push = None if forcing is None else _transformed(forcing.to(initial), modes) * (modes.square > 0.0)
    n = initial.shape[-1]

    def rate(t: Tensor, hat: Tensor) -> Tensor:
        velocity = torch.fft.irfft2(modes.velocity * hat[:, None], s=(n, n))
        u, v = velocity[:, 0], velocity[:, 1]
        # The curl of div(u u): second derivatives of two products instead of four products of derivatives.
        products = torch.fft.rfft2(torch.stack((u * v, (v - u) * (v + u)), 1))
        change = (modes.products * products).sum(1)
        return change if push is None else change + push

    start, decay = _transformed(initial, modes), -viscosity * modes.square
    states = march(decay, rate, start, ts, dt, scheme=scheme, capture=capture)
    return torch.stack([torch.fft.irfft2(hat, s=(n, n)) for hat in states])


def velocity_of(vorticity: Tensor, side: float = 1.0) -> Tensor:
    """The velocity (psi_y, -psi_x), -Lap psi = w, without mean, of w [..., n, n]: [..., n, n, 2]."""
    modes = _modes(vorticity, side)
    hat = torch.fft.rfft2(vorticity).unsqueeze(-3)
    return torch.fft.irfft2(modes.velocity * hat, s=vorticity.shape[-2:]).movedim(-3, -1)


def diagonal_forcing(n: int, amplitude: float = 0.1, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """f = amplitude (sin 2 pi (x + y) + cos 2 pi (x + y)) on the unit square, [n, n]: the forcing of the usual sets."""
    x = torch.arange(n, dtype=torch.float64) / n
    phase = 2.0 * math.pi * (x[:, None] + x[None, :])
    return (amplitude * (phase.sin() + phase.cos())).to(dtype)


def random_vorticity(
    n: int,
    seeds: Sequence[Seed],
    *,
    alpha: float = 2.5,
    tau: float = 7.0,
    side: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Gaussian fields of mean 0 and covariance tau^(2 alpha - 2) (-Lap + tau^2)^(-alpha), one a seed: [B, n, n].

    A field is a function of its seed (an int, or several as numpy's `default_rng` takes them) and n. Waves below n/3
    are drawn, from low to high, so that a finer grid has the same field with more of its small scales.
    Raises ValueError for n below 8 or odd, alpha <= 1 (no continuous field), or tau <= 0.
    Source: the sets of Li et al., Fourier neural operator (2021), whose alpha and tau are the defaults.
    """
    if n < 8 or n % 2 or not alpha > 1.0 or not tau > 0.0 or not side > 0.0:
        raise ValueError(f"need n even and >= 8, alpha > 1, tau > 0, side > 0, got {n}, {alpha}, {tau}, {side}")
    waves = _drawn_waves(n)
    square = (2.0 * math.pi / side) ** 2 * (waves**2).sum(1)
    # Of the orthonormal pair sqrt(2) cos and sin, over the side.
    size = math.sqrt(2.0) / side * tau ** (alpha - 1.0) * (square + tau**2) ** (-alpha / 2.0)
    fields = np.zeros((len(seeds), n, n // 2 + 1), dtype=complex)
    for field, seed in zip(fields, seeds, strict=True):
        draws = np.random.default_rng(seed).standard_normal((len(waves), 2))
        coefficients = 0.5 * n**2 * size * (draws[:, 0] - 1j * draws[:, 1])
        field[waves[:, 0] % n, waves[:, 1]] = coefficients
        # Waves along x alone stand in the half spectrum with both signs.
        alone = waves[:, 1] == 0
        field[-waves[alone, 0] % n, 0] = coefficients[alone].conj()
    return torch.from_numpy(np.fft.irfft2(fields, s=(n, n))).to(dtype)


def _drawn_waves(n: int) -> np.ndarray:
    """Half of the waves k with 0 < max |k_i| < n/3, one of k and -k each, in shells from low to high, [K, 2]."""
    top = math.ceil(n / 3) - 1
    first, second = np.meshgrid(np.arange(-top, top + 1), np.arange(top + 1), indexing="ij")
    waves = np.stack((first.ravel(), second.ravel()), 1)
    waves = waves[(waves[:, 1] > 0) | (waves[:, 0] > 0)]
    return waves[np.lexsort((waves[:, 0], waves[:, 1], np.abs(waves).max(1)))]


class _Modes(NamedTuple):
    """Factors of the half spectrum [n, n/2 + 1].

    square: |k|^2. kept: which modes are. velocity [2, ...]: of w to u and v. products [2, ...]: of u v and v^2 - u^2 to
    minus the curl of div(u u), dropped modes included.
    """

    square: Tensor
    kept: Tensor
    velocity: Tensor
    products: Tensor


def _modes(like: Tensor, side: float) -> _Modes:
    n = like.shape[-1]
    if like.ndim < 2 or like.shape[-2] != n or n < 8 or n % 2 or not like.is_floating_point():
        raise ValueError(f"vorticity is real [..., n, n] with n even and >= 8, got {like.dtype} {tuple(like.shape)}")
    if not 0.0 < side < math.inf:
        raise ValueError(f"side is {side}; it must be positive")
    whole = torch.stack(
        torch.meshgrid(
            torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64), torch.fft.rfftfreq(n, 1.0 / n, dtype=torch.float64),
            indexing="ij",
        )
    )  # fmt: skip
    first, second = 2.0 * math.pi / side * whole
    square = first**2 + second**2
    inverse = torch.where(square > 0.0, 1.0 / square.clamp(min=1e-300), 0.0)
    # The highest wave has no odd derivative on this grid.
    odd = (whole.abs() < n / 2).all(0)
    kept = (whole.abs() < n / 3).all(0)
    velocity = 1j * odd * torch.stack((second * inverse, -first * inverse))
    products = kept * torch.stack((first**2 - second**2, first * second))
    real, device = like.dtype, like.device
    return _Modes(
        square.to(device, real),
        kept.to(device, real),
        velocity.to(device, real.to_complex()),
        products.to(device, real),
    )


def _transformed(field: Tensor, modes: _Modes) -> Tensor:
    return torch.fft.rfft2(field) * modes.kept


def _check(initial: Tensor, viscosity: float, forcing: Tensor | None) -> None:
    if initial.ndim != 3:
        raise ValueError(f"initial is [B, n, n], a batch of flows, got {tuple(initial.shape)}")
    if not 0.0 <= viscosity < math.inf:
        raise ValueError(f"viscosity is {viscosity}; below 0 the problem is not well posed")
    if forcing is not None and forcing.shape not in (initial.shape, initial.shape[1:]):
        raise ValueError(f"forcing is [n, n] or [B, n, n] of the same grid, got {tuple(forcing.shape)}")
