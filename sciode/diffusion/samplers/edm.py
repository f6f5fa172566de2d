"""EDM's sampler: churn, then Heun's step in y = x / alpha over rho = sigma / alpha."""

from __future__ import annotations

import math
from itertools import pairwise

from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler

__all__ = ["EDM_SAMPLERS"]


def _plan(path: Path, churn: float, low: float, high: float, inflate: float) -> Plan:
    """churn: S_churn, in units of all steps together, applied where low <= rho <= high; inflate: S_noise.

    EDM's last step, Euler's to sigma = 0, is `denoise_last=True`.
    """
    plan, x = Plan(), 0
    for s, t in pairwise(path.nodes):
        here = s
        gamma = min(churn / path.steps, math.sqrt(2) - 1) if low <= s.rho <= high else 0.0
        if gamma:
            here = path.at_rho(s.rho * (1 + gamma))
            up = math.sqrt(here.rho**2 - s.rho**2) * inflate
            x = plan.mix((x, here.alpha / s.alpha), (plan.draw(), here.alpha * up))
        h = t.rho - here.rho
        first = plan.call(x, here, "noise")
        euler = plan.mix((x, t.alpha / here.alpha), (first, t.alpha * h))
        second = plan.call(euler, t, "noise")
        x = plan.mix((x, t.alpha / here.alpha), (first, t.alpha * h / 2), (second, t.alpha * h / 2))
    plan.result = x
    return plan


_SOURCE = "Karras et al. (2022), elucidating the design space of diffusion-based generative models"
_QUIET = {"churn": 0.0, "low": 0.0, "high": math.inf, "inflate": 1.0}
_CHURNED = {"churn": 40.0, "low": 0.05, "high": 50.0, "inflate": 1.003}


def _calls(steps: int) -> int:
    return 2 * steps


EDM_SAMPLERS: tuple[Sampler, ...] = (
    Sampler("edm-heun", 2, _plan, evaluations=_calls, options=_QUIET, source=_SOURCE),
    Sampler("edm-churn", 2, _plan, "sde", None, _calls, options=_CHURNED, source=_SOURCE),
)
"""edm-heun is the ODE; edm-churn has the settings of ImageNet-64. Churn of a fixed sum over ever more steps tends to
an SDE whose solution is the right law; `inflate` other than 1 does not keep it, so that no weak order is claimed."""
