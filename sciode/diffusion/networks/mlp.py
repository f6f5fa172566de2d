"""A small perceptron: states of any shape as vectors, for points, latents and pictures of a few pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import silu

from sciode.diffusion.networks.embedding import Conditioning

__all__ = ["MLP", "MLPDesign"]


@dataclass(frozen=True)
class MLPDesign:
    """shape of a state; width, depth: of the residual layers; classes (0: none), gamma (see `Conditioning`).

    Good values: width 128 and depth 3 for points, `PRESETS["mlp-digits"]` for 64 pixels. It knows nothing of
    neighbours: pictures of 28 x 28 want a U-Net or a transformer.
    """

    shape: tuple[int, ...] = (2,)
    width: int = 128
    depth: int = 3
    classes: int = 0
    gamma: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.width % 2 or min(self.width, self.depth, len(self.shape), *self.shape) < 1:
            raise ValueError("MLPDesign: width must be even; shape, width and depth positive")


class _Layer(nn.Module):
    """A residual layer within a shift and a scale that the conditioning sets."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.inside = nn.Linear(width, width)
        self.told = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        shift, scale = self.told(told).chunk(2, -1)
        return h + silu(self.inside(self.norm(h) * (1 + scale) + shift))


class MLP(nn.Module):
    """(x [B, *shape], level [B], label, gamma) -> [B, *shape]; zero before it is trained.

    See `MLPDesign`; `Preconditioned` makes a model of it.
    """

    def __init__(self, design: MLPDesign) -> None:
        super().__init__()
        self.design = design
        size = math.prod(design.shape)
        self.conditioning = Conditioning(design.width, design.classes, design.gamma)
        self.first = nn.Linear(size, design.width)
        self.layers = nn.ModuleList(_Layer(design.width) for _ in range(design.depth))
        self.last = nn.Linear(design.width, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None, gamma: Tensor | None = None) -> Tensor:
        """Raises ValueError for states of another shape."""
        if tuple(x.shape[1:]) != self.design.shape:
            raise ValueError(f"x: expected [B, {', '.join(map(str, self.design.shape))}], got {tuple(x.shape)}")
        told = silu(self.conditioning(level, label, gamma))
        h = self.first(x.flatten(1)) + told
        for layer in self.layers:
            h = layer(h, told)
        return self.last(h).reshape(x.shape)
