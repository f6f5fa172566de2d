"""What a denoising network is told beside the state: the noise level, the class, and where on a sub-path it stands."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Conditioning", "waves"]

_HIGHEST = 4.0
"""log2 of the fastest frequency, in radians a unit: 16. Levels are some five units wide, and samplers differentiate
the network in them, so that nothing faster than the data need be seen."""


def waves(level: Tensor, width: int) -> Tensor:
    """Cosines and sines of a number [B], at `width` / 2 frequencies from 1/2 to 16: [B, width]."""
    powers = torch.linspace(-1.0, _HIGHEST, width // 2, device=level.device, dtype=level.dtype)
    angles = level[:, None] * torch.exp(math.log(2.0) * powers)
    return torch.cat((angles.cos(), angles.sin()), 1)


class Conditioning(nn.Module):
    """(level [B], label [B] or None, gamma [B] or None) -> [B, width], which every block reads.

    classes: 0 for none. One class more, number `classes`, is "no class": what None means, and what a training that
    drops labels teaches, for classifier-free guidance. gamma: whether the place on a sub-path (SLAM) is read; at gamma
    = 1, which is what None means, it changes nothing, so that a network goes on as one that never heard of it.
    """

    def __init__(self, width: int, classes: int = 0, gamma: bool = False) -> None:
        super().__init__()
        self.width, self.classes = width, classes
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.gamma = nn.Linear(width, width, bias=False) if gamma else None

    def forward(self, level: Tensor, label: Tensor | None = None, gamma: Tensor | None = None) -> Tensor:
        """Raises ValueError for a label or a gamma where the network was built to read none, for labels of another
        shape, and, on a CPU, for a class that there is not.
        """
        told = self.level(waves(level, self.width))
        if self.label is not None:
            told = told + self.label(self._labels(label, level))
        elif label is not None:
            raise ValueError("label: this network was built without classes")
        if self.gamma is None:
            if gamma is not None:
                raise ValueError("gamma: this network reads none; build it with gamma=True")
        elif gamma is not None:
            gamma = gamma.to(level)
            told = told + self.gamma(waves(gamma, self.width) - waves(torch.ones_like(gamma), self.width))
        return told

    def _labels(self, label: Tensor | None, level: Tensor) -> Tensor:
        if label is None:
            return torch.full(level.shape, self.classes, dtype=torch.int64, device=level.device)
        if not isinstance(label, Tensor) or label.is_floating_point():
            raise ValueError("label: expected whole numbers [B] as a tensor of int64, or None for no class")
        if label.shape not in ((), (1,), level.shape):
            raise ValueError(
                f"label: expected one of all, or one a sample {tuple(level.shape)}, got {tuple(label.shape)}"
            )
        # A look at numbers on an accelerator would wait for it, in every evaluation.
        if (
            label.device.type == "cpu"
            and label.numel()
            and not 0 <= int(label.min()) <= int(label.max()) <= self.classes
        ):
            raise ValueError(
                f"label: expected 0 to {self.classes - 1}, or {self.classes} for no class, got {int(label.min())} to "
                f"{int(label.max())}"
            )
        return label.expand(level.shape)
