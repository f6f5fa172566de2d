"""Measures of strain of a deformation gradient, smooth where singular values coincide."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["arap", "determinant", "rotation", "stretch_sum"]

LAGUERRE = 12
"""Steps from above to the largest root of the quartic: cubic to a simple one, by 0.27 each to a double one (a kink)."""


def stretch_sum(gradient: Tensor) -> Tensor:
    """Return s = sigma_1 + ... + sigma_d of F [..., d, d] -> [...], the smallest counted negative where det F < 0.

    d = 2: s^2 = |F|^2 + 2 det F = (F_11 + F_22)^2 + (F_21 - F_12)^2.
    d = 3: the largest root of (s^2 - |F|^2)^2 - 8 det F s - 4 |cof F|^2 = 0, all of whose roots are real (they are
    the sums of the singular values with an even number of signs turned).

    So s = max over rotations R of tr(R^T F), the quantity that a polar decomposition needs, and its gradient is that
    rotation. It is smooth wherever the two smallest singular values (signed) do not add up to 0: at F = 1 and wherever
    singular values coincide too, which derivatives of a singular value decomposition are not. Where they add up to
    0 (F = 0, of rank 1 in space, or a scaled reflection) s has a kink, where its slope is finite and no more.
    Raises ValueError unless d is 2 or 3. Three derivatives are exact.
    """
    if _dimension(gradient) == 2:
        return _safe_sqrt(_cosine(gradient) ** 2 + _sine(gradient) ** 2)
    return _largest_root(*_invariants(gradient))


def rotation(gradient: Tensor) -> Tensor:
    """Return the rotation R nearest to F, [..., d, d] -> [..., d, d]; det R = +1 also where det F < 0.

    R = ds/dF of `stretch_sum`: d = 2: (F + cof F) / s; d = 3: with a = |F|^2,
    R = ((s^2 + a) F + 2 s cof F - 2 F F^T F) / (s (s^2 - a) - 2 det F). At a kink of s it is no rotation.
    """
    s = stretch_sum(gradient)[..., None, None]
    if gradient.shape[-1] == 2:
        return _safe_ratio(gradient + _cofactor(gradient), s)
    a = gradient.square().sum((-2, -1), keepdim=True)
    upper = (s**2 + a) * gradient + 2 * s * _cofactor(gradient) - 2 * gradient @ gradient.mT @ gradient
    return _safe_ratio(upper, s * (s**2 - a) - 2 * determinant(gradient)[..., None, None])


def determinant(gradient: Tensor) -> Tensor:
    """Return det F, [..., d, d] -> [...], as the polynomial that it is.

    torch.linalg.det divides by pivots on the way back: its second derivatives at F = 1 are NaN (torch 2.13).
    """
    _dimension(gradient)
    return (gradient[..., 0, :] * _cofactor(gradient)[..., 0, :]).sum(-1)


def arap(gradient: Tensor) -> Tensor:
    """Return the as-rigid-as-possible energy min over rotations R of |F - R|^2, [..., d, d] -> [...].

    |F|^2 - 2 s + d with s = `stretch_sum`. For det F >= 0 it is sum (sigma_i - 1)^2. For det F < 0 the smallest
    singular value counts as negative, so that a reflection costs 4 and is driven back; plain singular values would
    call it free. In float32 it carries a rounding error of about 1e-6.
    Sources: Sorkine, Alexa: As-rigid-as-possible surface modeling (2007); Smith, de Goes, Kim: Analytic eigensystems
    for isotropic distortion energies (2019) for the invariant s.
    """
    d = _dimension(gradient)
    return gradient.square().sum((-2, -1)) - 2 * stretch_sum(gradient) + d


def _dimension(gradient: Tensor) -> int:
    if gradient.ndim < 2 or gradient.shape[-2:] not in ((2, 2), (3, 3)):
        raise ValueError(f"a deformation gradient is [..., 2, 2] or [..., 3, 3], got {list(gradient.shape)}")
    return gradient.shape[-1]


def _cosine(gradient: Tensor) -> Tensor:
    return gradient[..., 0, 0] + gradient[..., 1, 1]


def _sine(gradient: Tensor) -> Tensor:
    return gradient[..., 1, 0] - gradient[..., 0, 1]


def _cofactor(gradient: Tensor) -> Tensor:
    """The derivative of det F."""
    if gradient.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in gradient.unbind(-2))
        return torch.stack((torch.stack((d, -c), -1), torch.stack((-b, a), -1)), -2)
    first, second, third = gradient.unbind(-2)
    cross = torch.linalg.cross
    return torch.stack((cross(second, third), cross(third, first), cross(first, second)), -2)


def _invariants(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(|F|^2, |cof F|^2, det F)."""
    return gradient.square().sum((-2, -1)), _cofactor(gradient).square().sum((-2, -1)), determinant(gradient)


def _largest_root(a: Tensor, b: Tensor, det: Tensor) -> Tensor:
    """The largest root s of p(s) = (s^2 - a)^2 - 8 det s - 4 b.

    Laguerre's steps for the value, apart from the graph: for a polynomial with real roots alone they go down to the
    largest from the bound sqrt(3 a) and converge cubically. Then two of Newton's steps inside the graph: each doubles
    the number of right derivatives plus one, so that three are exact.
    """
    fixed_a, fixed_b, fixed_det = a.detach(), b.detach(), det.detach()
    s = (3 * fixed_a).sqrt()
    for _ in range(LAGUERRE):
        value, slope = _quartic(s, fixed_a, fixed_b, fixed_det)
        curvature = 12 * s**2 - 4 * fixed_a
        # n p / (p' + sqrt((n - 1)^2 p'^2 - n (n - 1) p p'')) with n = 4.
        below = slope + (9 * slope**2 - 12 * value * curvature).clamp(min=0).sqrt()
        s = s - 4 * _safe_ratio(value.clamp(min=0), below)
    for _ in range(2):
        value, slope = _quartic(s, a, b, det)
        s = s - _safe_ratio(value, slope)
    return s


def _quartic(s: Tensor, a: Tensor, b: Tensor, det: Tensor) -> tuple[Tensor, Tensor]:
    """p and dp/ds = 8 (sigma_1 + sigma_2) (sigma_2 + sigma_3) (sigma_3 + sigma_1) at the root."""
    excess = s**2 - a
    return excess**2 - 8 * det * s - 4 * b, 4 * s * excess - 8 * det


def _safe_ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 with no slope where `below` is not positive."""
    usable = below > torch.finfo(below.dtype).tiny ** 0.5
    return torch.where(usable, above / torch.where(usable, below, 1), 0)


def _safe_sqrt(square: Tensor) -> Tensor:
    usable = square > torch.finfo(square.dtype).tiny
    return torch.where(usable, torch.where(usable, square, 1).sqrt(), 0)
