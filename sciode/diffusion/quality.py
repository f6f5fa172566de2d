"""How far samples are from data: distances of two sets of points, without any network of others."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frechet_distance", "mmd", "sliced_wasserstein"]


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 512, seed: int = 0) -> float:
    """The root of the mean square Wasserstein-2 distance of projections of two sets [n, ...] onto random directions.

    projections: 512 or more; the same directions for one seed. Never 0 for two draws of one law: compare with the value
    of training data against test data. Raises ValueError for sets of unequal size.
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    if a.shape != b.shape:
        raise ValueError(
            f"sliced_wasserstein: expected two sets of one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    ways = torch.randn(a.shape[1], projections, generator=generator, dtype=torch.float64)
    ways = (ways / ways.norm(dim=0)).to(a.device)
    return float(((a @ ways).sort(0).values - (b @ ways).sort(0).values).square().mean().sqrt())


def mmd(a: Tensor, b: Tensor, *, scales: tuple[float, ...] = (0.5, 1.0, 2.0)) -> float:
    """The unbiased squared maximum mean discrepancy of sets [n, ...] and [m, ...], for a mean of Gaussian kernels.

    Their widths are `scales` times the median distance within b, the data; it may come out below 0. Source: Gretton et
    al. (2012). Raises ValueError for sets of other numbers of components, or of less than two points.
    """
    a, b = _sets("mmd", a, b)
    within = torch.cdist(b, b)
    width = within[~torch.eye(len(b), dtype=torch.bool, device=b.device)].median()

    def kernel(distance: Tensor) -> Tensor:
        return torch.stack([torch.exp(-0.5 * (distance / (s * width)).square()) for s in scales]).mean(0)

    def inside(distance: Tensor) -> Tensor:
        n = len(distance)
        return (kernel(distance).sum() - n) / (n * (n - 1))

    return float(inside(torch.cdist(a, a)) + inside(within) - 2 * kernel(torch.cdist(a, b)).mean())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features [n, d] and [m, d], as of two Gaussians.

    With features of a network of one's own it must be called after them: FID is the one with Inception's alone. Grows
    as sets get smaller: compare equal sizes only. Raises ValueError as `mmd` does.
    """
    a, b = _sets("frechet_distance", a, b)
    # cov makes a number of one component.
    first, second = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * shared)


def _sets(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if min(a.ndim, b.ndim) < 2 or a[:1].numel() != b[:1].numel() or min(len(a), len(b)) < 2:
        raise ValueError(
            f"{name}: expected two sets of at least two points, with as many components each, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    return a.flatten(1).double(), b.flatten(1).double()
