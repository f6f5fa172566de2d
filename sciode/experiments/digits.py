"""MNIST as experiments take it: on the device, in parts, batches drawn by each seed for itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sciode import data
from sciode.training import derive_seed

__all__ = ["Digits", "surprise"]

_VALIDATION = 10_000
"""Images at the end of the training set that choose weights and are never trained on."""


def surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [S, B, 10], summed over the seeds: each has the gradient it would have alone."""
    return cross_entropy(logits.flatten(0, 1), labels.flatten()) * len(logits)


class Digits:
    """Images as vectors [n, 784] in [0, 1] and labels [n]; parts: "train", "validation", "test".

    images: how many of the training set, from its start, of 50,000 at most; tested: how many of each other part; dtype:
    of the images. Raises ValueError for more.
    """

    def __init__(self, images: int, tested: int, device: str, dtype: torch.dtype = torch.float32) -> None:
        with np.load(data.get("mnist")) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
        pictures, labels = arrays["x_train"], arrays["y_train"]
        if images > len(labels) - _VALIDATION:
            raise ValueError(f"images: at most {len(labels) - _VALIDATION}, the last {_VALIDATION} choose weights")
        held = min(_VALIDATION, tested)
        parts = {
            "train": (pictures[:images], labels[:images]),
            "validation": (pictures[-_VALIDATION:][:held], labels[-_VALIDATION:][:held]),
            "test": (arrays["x_test"][:tested], arrays["y_test"][:tested]),
        }
        self.parts = {
            name: (x.flatten(1).to(device, dtype) / 255, y.to(device).long()) for name, (x, y) in parts.items()
        }

    def batch(self, seeds: Sequence[int], size: int, step: int) -> tuple[Tensor, Tensor]:
        """Images [S, size, 784] and labels [S, size] of a training step, each seed's own draw."""
        images, labels = self.parts["train"]
        rows = []
        for seed in seeds:
            draw = torch.Generator().manual_seed(derive_seed(seed, step))
            rows.append(torch.randint(len(labels), (size,), generator=draw))
        at = torch.stack(rows).to(images.device)
        return images[at], labels[at]
