"""How the weight of a penalty in the loss changes while a model is trained."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["decaying", "growing"]


def decaying(first: float, last: float, steps: int) -> Callable[[int], float]:
    """weight(k) = first exp(-c k), c = ln(first / last) / steps, and `last` from then on.

    first, last: positive; steps: how many it takes. Good values for an error penalty: 100 to 10 over the training.
    Raises ValueError for weights that no exponential joins. Source: Pal et al.: Opening the Blackbox (ICML 2021).
    """
    if not (first > 0 and last > 0 and steps > 0):
        raise ValueError(f"decaying: expected positive weights and steps, got {first!r}, {last!r}, {steps!r}")
    rate = math.log(first / last) / steps
    return lambda step: first * math.exp(-rate * min(max(step, 0), steps))


def growing(rate: float, offset: int = 0) -> Callable[[int], float]:
    """weight(k) = max(0, 1 - rate^(k - offset)): from 0 towards 1, as the KL term of a latent model is let in.

    rate: below 1; the authors of latent ODEs take 0.99 with an offset of 10. Raises ValueError for another rate.
    Source: Rubanova, Chen, Duvenaud: Latent ordinary differential equations for irregularly sampled series (2019).
    """
    if not 0 < rate < 1:
        raise ValueError(f"growing: rate must lie between 0 and 1, got {rate!r}")
    return lambda step: max(0.0, 1.0 - rate ** (step - offset))
