"""A small diffusion transformer: patches as tokens, blocks modulated by the noise level and the class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, silu, unfold

from sciode.diffusion.networks.attention import Attention
from sciode.diffusion.networks.embedding import Conditioning

__all__ = ["DiT", "DiTDesign"]


@dataclass(frozen=True)
class DiTDesign:
    """channels of a picture; patch: pixels a side of a token; width, depth, heads; classes (0: none), gamma (see
    `Conditioning`).

    Good values: `PRESETS`. Source: Peebles, Xie (2023), scalable diffusion models with transformers.
    """

    channels: int = 1
    patch: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4
    classes: int = 10
    gamma: bool = False

    def __post_init__(self) -> None:
        if self.width % 4 or min(self.patch, self.depth, self.heads) < 1:
            raise ValueError("DiTDesign: width must be a multiple of 4; patch, depth and heads positive")


class _Block(nn.Module):
    """Attention and a perceptron, each within a shift, a scale and a gate that the conditioning sets; gates start at
    zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.told = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.told(told)[:, None].chunk(6, -1)
        x = x + gate * self.attention(self.norm(x) * (1 + scale) + shift)
        return x + gate2 * self.perceptron(self.norm(x) * (1 + scale2) + shift2)


def _places(rows: int, columns: int, width: int, like: Tensor) -> Tensor:
    """Cosines and sines of row and column: [rows * columns, width]."""
    rates = torch.exp(
        -math.log(10_000.0) * torch.arange(width // 4, device=like.device, dtype=like.dtype) / (width // 4)
    )
    parts = []
    for count in (rows, columns):
        angles = torch.arange(count, device=like.device, dtype=like.dtype)[:, None] * rates
        parts.append(torch.cat((angles.cos(), angles.sin()), 1))
    down, across = parts
    both = torch.cat((down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)), -1)
    return both.reshape(rows * columns, width)


class DiT(nn.Module):
    """(x [B, channels, H, W], level [B], label, gamma) -> [B, channels, H, W]; zero before it is trained.

    H and W must be divisible by the patch. See `DiTDesign`; `Preconditioned` makes a model of it.
    """

    def __init__(self, design: DiTDesign) -> None:
        super().__init__()
        self.design = design
        pixels = design.channels * design.patch**2
        self.conditioning = Conditioning(design.width, design.classes, design.gamma)
        self.first = nn.Linear(pixels, design.width)
        self.blocks = nn.ModuleList(_Block(design.width, design.heads) for _ in range(design.depth))
        self.norm = nn.LayerNorm(design.width, elementwise_affine=False)
        self.told = nn.Linear(design.width, 2 * design.width)
        self.last = nn.Linear(design.width, pixels)
        for layer in (self.told, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None, gamma: Tensor | None = None) -> Tensor:
        """Raises ValueError for a picture that patches do not tile."""
        side = self.design.patch
        if x.ndim != 4 or x.shape[1] != self.design.channels or x.shape[2] % side or x.shape[3] % side:
            raise ValueError(
                f"x: expected [B, {self.design.channels}, H, W] with H and W divisible by {side}, got {tuple(x.shape)}"
            )
        rows, columns = x.shape[2] // side, x.shape[3] // side
        told = silu(self.conditioning(level, label, gamma))
        tokens = self.first(unfold(x, side, stride=side).transpose(1, 2))
        tokens = tokens + _places(rows, columns, self.design.width, tokens)
        for block in self.blocks:
            tokens = block(tokens, told)
        shift, scale = self.told(told)[:, None].chunk(2, -1)
        pixels = self.last(self.norm(tokens) * (1 + scale) + shift)
        return fold(pixels.transpose(1, 2), x.shape[2:], side, stride=side)
