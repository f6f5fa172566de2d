"""scikit-learn's digits, 8 x 8, and denoisers of them that train in seconds: real data where nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.diffusion import VPLinear
from sciode.diffusion.networks import Preconditioned, build
from sciode.diffusion.training import Trained, TrainOptions, denoise, log_normal, train

__all__ = ["DEVIATION", "SCHEDULE", "Scans", "denoiser", "scans"]

SCHEDULE = VPLinear()
DEVIATION = 0.75
"""Of pixels in [-1, 1]."""
_CLASSES = 10


class Scans(NamedTuple):
    """Images [n, 1, 8, 8] within +- 1 and labels [n]: of 1,797 digits some to learn from, and others to judge by."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def rows(self) -> dict[str, Tensor]:
        """What `sciode.diffusion.training.train` learns from."""
        return {"x": self.train, "label": self.train_labels}


def scans(held: int = 500) -> Scans:
    """The digits, split at random once and for all; held: how many to judge by, from 0 to 1,796.

    Raises ImportError without scikit-learn, ValueError for another count.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as fault:
        raise ImportError('scikit-learn is missing: pip install "sciode[lab]"') from fault
    found: Any = load_digits()
    if not 0 <= held < len(found.target):
        raise ValueError(f"held: expected 0 to {len(found.target) - 1} digits, got {held}")
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1)[order]
    labels = torch.tensor(found.target)[order]
    return Scans(images[held:], labels[held:], images[:held], labels[:held])


def denoiser(
    rows: Mapping[str, Tensor], design: str = "mlp-digits", *, steps: int = 1500, seed: int = 0, batch: int = 64,
    **changes: Any,
) -> Trained:  # fmt: skip
    """`Trained`, whose network predicts the noise of digits in the time of VP-linear.

    rows: {"x": images [n, 1, 8, 8]}, with "label" for a network that is told the digit. design, changes: as in `build`;
    "mlp-digits" takes some ten seconds on a CPU core, "dit-digits" a minute and is better.
    """
    classes = _CLASSES if "label" in rows else 0
    network = build(design, seed=seed, classes=classes, **changes)
    model = Preconditioned(network, SCHEDULE, deviation=DEVIATION).to(rows["x"].device)
    options = TrainOptions(steps=steps, batch_size=batch, lr=2e-3, seed=seed)
    return train(model, denoise(log_normal(SCHEDULE, -0.4, 1.5), classes=classes), rows, options)
