"""DiffEditor's tools in general form: energies by region, noise by region, and time travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.checks import check_kinds, check_mask, check_states
from sciode.diffusion.editing.repaint import noised
from sciode.diffusion.editing.stage import Draws, Stage, stage_of
from sciode.diffusion.guidance import followed, one_each
from sciode.diffusion.job import carried
from sciode.diffusion.noise import Seed
from sciode.diffusion.path import Node
from sciode.diffusion.schedules.base import Schedule
from sciode.solvers.suggest import choose

__all__ = ["Region", "RegionalNoise", "TimeTravel", "edit_regions"]

Window = tuple[float, float]
"""From and to, as shares of the steps: (0, 0.5) is the first half."""


def _inside(window: Window, i: int, steps: int) -> bool:
    return window[0] * steps <= i < window[1] * steps


@dataclass(frozen=True, eq=False)
class Region:
    """energy(x0 [B, ...], t [B]) -> [B] is lowered within `mask` [B, ...] or [...], by weight x its gradient in x.

    weight: in units of sigma; 0.05 to 1 for energies of order 1.
    """

    mask: Tensor
    energy: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_kinds(energy=self.energy)


@dataclass(frozen=True, eq=False)
class RegionalNoise:
    """Noise of DDPM times `inside` within the mask and times `outside` elsewhere, in a window of the steps.

    Raises ValueError for factors outside [0, 1]: more noise than DDPM's is more than a level holds.
    """

    mask: Tensor
    inside: float = 0.4
    outside: float = 0.0
    window: Window = (0.2, 0.4)

    def __post_init__(self) -> None:
        for name, value in (("inside", self.inside), ("outside", self.outside)):
            if not (isinstance(value, Real) and 0 <= value <= 1):
                raise ValueError(f"{name}: got {value!r}; expected a factor of DDPM's noise, 0 (DDIM) to 1 (DDPM)")


@dataclass(frozen=True)
class TimeTravel:
    """Every `every`-th step of a window is taken `repeats` times; in between it goes one level back.

    mode: "invert", by a step of the ODE, which keeps what was there; or "renoise", by the noising process.
    """

    window: Window = (0.4, 0.6)
    every: int = 2
    repeats: int = 3
    mode: str = "invert"

    def __post_init__(self) -> None:
        check_kinds(every=self.every, repeats=self.repeats)
        choose("mode", self.mode, ("invert", "renoise"))
        if self.every < 1 or self.repeats < 1:
            raise ValueError(f"expected every >= 1 and repeats >= 1, got {self.every} and {self.repeats}")


def edit_regions(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, regions: Sequence[Region] = (), *,
    noise: RegionalNoise | None = None, travel: TimeTravel | None = None, window: Window = (0.0, 0.6),
    steps: int = 50, t_start: float | None = None, t_end: float = 1e-3, seed: Seed = 0, **options: Any,
) -> Tensor:  # fmt: skip
    """Sample from x [B, ...] at t_start (mostly the noise that `invert` found for given data) under regional energies.

        eps_g = eps + sigma sum_k weight_k mask_k grad_x E_k(D(x)),
        x' = alpha' D(x; eps_g) + sqrt(sigma'^2 - s^2) eps + s z,   s by region,

    so that the data prediction is guided and the direction of noise is not. window: where energies act; from its first
    third on in every other step. Without regions, noise and travel it is DDIM, with noise 1 everywhere DDPM.
    options: prediction, grid, cond, guidance, threshold as in `sample`; half precision, too. Times given as grid
    must agree with steps, t_start and t_end.
    Source: Mou et al. (2024), DiffEditor.
    """
    check_states(x)
    check_kinds(schedule=schedule, t_start=t_start)
    _check_tools(regions, noise, travel, window)
    for masked in (*regions, *([] if noise is None else [noise])):
        check_mask(masked.mask, x)
    start = float(schedule.t_max if t_start is None else t_start)
    stage = stage_of(model, x, schedule, steps=steps, t_start=start, t_end=t_end, **options)
    draws, dtype, x = Draws(seed, x), x.dtype, carried(x)
    for i, (s, t) in enumerate(pairwise(stage.path.nodes)):
        early = i < (window[0] + (window[1] - window[0]) / 3) * steps
        acting = regions if _inside(window, i, steps) and (early or i % 2 == 0) else ()
        eta = _eta(noise, x, i, steps)
        travels = travel is not None and _inside(travel.window, i, steps) and i % travel.every == 0
        for turn in range(travel.repeats if travel is not None and travels else 1):
            if turn:
                assert travel is not None
                # On the way back nothing is edited.
                x = stage.step(x, t, s) if travel.mode == "invert" else noised(x, t, s, draws())
            x = _stepped(stage, x, s, t, acting, eta, draws)
    return x.to(dtype)


def _check_tools(regions: Any, noise: Any, travel: Any, window: Any) -> None:
    """Raise ValueError for tools that are none, and for windows that are no shares of the steps."""
    if not isinstance(regions, Sequence) or not all(isinstance(region, Region) for region in regions):
        raise ValueError("regions: expected a list of Region(mask, energy, weight)")
    windows = [window]
    for name, value, kind in (("noise", noise, RegionalNoise), ("travel", travel, TimeTravel)):
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{name}: got a {type(value).__name__}; pass {kind.__name__}(...)")
        windows += [] if value is None else [value.window]
    for one in windows:
        pair = isinstance(one, Sequence) and len(one) == 2 and all(isinstance(share, Real) for share in one)
        if not (pair and 0 <= one[0] <= one[1] <= 1):
            raise ValueError(f"window: expected shares of the steps, 0 <= from <= to <= 1, got {one!r}")


def _eta(noise: RegionalNoise | None, x: Tensor, i: int, steps: int) -> Tensor | None:
    if noise is None or not _inside(noise.window, i, steps):
        return None
    mask = noise.mask.to(x)
    return noise.inside * mask + noise.outside * (1 - mask)


def _stepped(
    stage: Stage, x: Tensor, s: Node, t: Node, regions: Sequence[Region], eta: Tensor | None, draws: Draws
) -> Tensor:
    eps, pull = _pulled(stage, x, s, regions)
    guided = eps if pull is None else eps + s.sigma * pull
    data = (x - s.sigma * guided) / s.alpha
    if eta is None:
        return t.alpha * data + t.sigma * eps
    # DDPM's noise for this step, times eta.
    up = eta * t.sigma * float(np.sqrt(-np.expm1(-2 * (t.lam - s.lam))))
    return t.alpha * data + (t.sigma**2 - up**2).clamp(min=0).sqrt() * eps + up * draws()


def _pulled(stage: Stage, x: Tensor, s: Node, regions: Sequence[Region]) -> tuple[Tensor, Tensor | None]:
    """eps, and the weighted and masked gradients of the energies through the model."""
    if not regions:
        return stage.value(x, s, "noise"), None
    kept = torch.is_grad_enabled() and x.requires_grad
    with torch.enable_grad():
        inner = x if kept else x.detach().requires_grad_()
        eps = stage.value(inner, s, "noise")
        data = (inner - s.sigma * eps) / s.alpha
        t = torch.full((x.shape[0],), float(s.t), dtype=torch.float64, device=x.device).to(x)
        total: Any = 0.0
        for region in regions:
            energy = followed("energy", one_each("energy", region.energy(data, t), x)).sum()
            (slope,) = torch.autograd.grad(energy, inner, create_graph=kept, retain_graph=True)
            total = total + region.weight * region.mask.to(x) * slope
    return (eps, total) if kept else (eps.detach(), total)
