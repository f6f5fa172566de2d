"""How to train: the options of `fit` and the learning rate they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["step", "cosine", "constant"]


@dataclass(frozen=True)
class FitOptions:
    """How `fit` trains.

    Attributes
    ----------
    epochs: the most passes over the training set.
    batch_size: samples a minibatch; the set is cut into equal parts of at most this size (no tiny last one).
    lr, weight_decay: of AdamW. schedule: "step" halves lr every 10 epochs, "cosine" takes it to 0, "constant".
    clip: largest gradient norm, applied after backward; None = no clipping.
    warmup, settle: no weights are kept as best and nothing is stopped in the first epochs: `warmup` of them, or as many
        as make `settle` minibatches, whichever are fewer (at least the last epoch counts). BatchNorm's running averages
        make validation lag some 20 minibatches behind training at the start; a large set has fitted too closely long
        before its epoch 20.
    patience: stop when the validation loss has not improved for more epochs than this.
    seed: of the minibatches, of the noise and of dropout.
    threads: torch threads while fitting; 1 is best for small networks (see `threads`).
    """

    epochs: int = 100
    batch_size: int = 32
    lr: float = 5e-3
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    clip: float | None = 1.0
    warmup: int = 20
    settle: int = 80
    patience: int = 10
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.threads < 1:
            raise ValueError("epochs, batch_size and threads must be >= 1")
        if not self.lr > 0 or min(self.weight_decay, self.patience, self.warmup, self.settle, self.seed) < 0:
            raise ValueError("lr must be > 0; weight_decay, warmup, settle, patience and seed >= 0")
        if self.clip is not None and not self.clip > 0:
            raise ValueError("clip must be > 0, or None for no clipping")
        if self.schedule not in ("step", "cosine", "constant"):
            raise ValueError(f'schedule must be "step", "cosine" or "constant", got {self.schedule!r}')


def unjudged(options: FitOptions, size: int) -> int:
    """Return how many epochs over a set of `size` samples pass before validation chooses: see `FitOptions.warmup`."""
    minibatches = math.ceil(size / options.batch_size)
    return min(options.warmup, math.ceil(options.settle / minibatches), options.epochs - 1)


def learning_rate(options: FitOptions, epoch: int) -> float:
    """Return the learning rate of an epoch (from 0), a pure function: a resumed run needs no scheduler state."""
    if options.schedule == "step":
        return options.lr * 0.5 ** (epoch // 10)
    if options.schedule == "cosine":
        return options.lr * 0.5 * (1 + math.cos(math.pi * epoch / options.epochs))
    return options.lr
