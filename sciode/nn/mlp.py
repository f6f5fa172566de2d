"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return x -> W_k a(... a(W_1 x + b_1) ...) + b_k: affine maps with an activation between, none after the last.

    Parameters
    ----------
    sizes: widths from input to output, at least two; `[3, 32, 32, 1]` has two hidden layers. Maps [..., 3] to [..., 1].
    activation: makes one activation module, e.g. `nn.ReLU` (default), `nn.Tanh`, `nn.SiLU`.

    The weights are torch's default draw; make the network inside `sciode.training.isolated_rng(seed)` to fix it.

    Raises ValueError for fewer than two sizes or a size below one.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must hold at least two positive widths, got {list(sizes)}")
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes):
        layers += [nn.Linear(width_in, width_out), activation()]
    return nn.Sequential(*layers[:-1])
