"""DDIM and DDPM: in y = x / alpha and rho = sigma / alpha, y_t = D + rho_down eps + rho_up z."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.weights import adams_weights, keep

__all__ = ["DDIM"]


def _plan(path: Path, eta: float) -> Plan:
    """rho_up = eta rho_t sqrt(1 - rho_t^2 / rho_s^2), rho_down^2 = rho_t^2 - rho_up^2."""
    plan, x = Plan(), 0
    for s, t in pairwise(path.nodes):
        eps = plan.call(x, s, "noise")
        if not eta:
            x = plan.mix((x, keep("noise", s, t)), (eps, adams_weights(path, "noise", s, t, [s])[0]))
            continue
        up = min(t.rho, eta * t.rho * np.sqrt(-np.expm1(-2 * (t.lam - s.lam))))
        down = np.sqrt(t.rho**2 - up**2)
        x = plan.mix((x, t.alpha / s.alpha), (eps, t.alpha * (down - s.rho)), (plan.draw(), t.alpha * up))
    plan.result = x
    return plan


DDIM: tuple[Sampler, ...] = (
    Sampler("ddim", 1, _plan, options={"eta": 0.0}, source="Song, Meng, Ermon (2021), DDIM"),
    Sampler("euler", 1, _plan, options={"eta": 0.0}, source="Karras et al. (2022): Euler in x / alpha, which is DDIM"),
    Sampler("ddpm", 1, _plan, "sde", 1, options={"eta": 1.0}, source="Ho, Jain, Abbeel (2020), DDPM, small variance"),
    Sampler(
        "euler-ancestral", 1, _plan, "sde", 1, options={"eta": 1.0}, source="Katherine Crowson's k-diffusion: DDPM"
    ),
)
"""ddim; ddpm is ddim with eta = 1. Euler's names are the same steps."""
