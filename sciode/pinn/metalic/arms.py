"""Arms: sets of interface conditions, each condition on or off."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from sciode.pinn.interfaces import CONDITIONS, weights_of

__all__ = ["arms_of", "place_of", "said", "varied"]

_TWINS = ("value", "average")
"""Of one another half: |u1 - u2|^2 and its half; what they want is the same."""


def arms_of(conditions: Sequence[str] = tuple(CONDITIONS), redundant: bool = False) -> Tensor:
    """Return all sets of some conditions, float64 [arms, 9], 0 or 1 in the order of `CONDITIONS`; the empty one first.

    redundant: keep sets with both "value" and "average", which differ by a factor from those with one of them: of all
    nine conditions there are 512 sets, 384 of which differ in more than that. Raises ValueError for unknown conditions,
    or none.
    """
    if not conditions:
        raise ValueError(f"conditions: give some of {', '.join(CONDITIONS)}")
    own = weights_of([conditions])[0].bool()
    names = [name for name, used in zip(CONDITIONS, own.tolist(), strict=True) if used]
    sets = [[name for name, on in zip(names, bits, strict=True) if on] for bits in product((0, 1), repeat=len(names))]
    return weights_of([one for one in sets if redundant or not set(_TWINS) <= set(one)])


def varied(arms: Tensor) -> tuple[str, ...]:
    """Return the conditions in which arms [arms, 9] differ, in the order of `CONDITIONS`."""
    return tuple(name for name, own in zip(CONDITIONS, arms.T, strict=True) if bool((own != own[0]).any()))


def said(arm: Tensor) -> str:
    """Return the conditions of an arm [9] in words, "none" for none."""
    return ", ".join(name for name, weight in zip(CONDITIONS, arm.tolist(), strict=True) if weight) or "none"


def place_of(arms: Tensor, conditions: Sequence[str]) -> int:
    """Return which of the arms [arms, 9] is this set of conditions. Raises ValueError if none is."""
    found = torch.nonzero((arms == weights_of([list(conditions)])).all(1))[:, 0]
    if not len(found):
        raise ValueError(f"no arm is {', '.join(conditions) or 'none'}: the arms vary {', '.join(varied(arms))}")
    return int(found[0])
