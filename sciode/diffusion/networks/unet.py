"""A small U-Net: residual blocks on three sizes of the picture, attention where it is small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from sciode.diffusion.networks.attention import Attention
from sciode.diffusion.networks.embedding import Conditioning

__all__ = ["UNet", "UNetDesign"]

_GROUP = 8
"""Channels a group of the normalisation."""


@dataclass(frozen=True)
class UNetDesign:
    """channels of a picture; width: channels at full size; multiples: of it, one a size, each half the one before;
    blocks: residual blocks a size on the way down (one more on the way up); attention: at how many of the smallest
    sizes; heads, classes (0: none), gamma (see `Conditioning`), dropout: of the residual blocks.

    Good values: some 0.1 million parameters for 8 x 8 pictures, 2 to 4 million for 28 x 28 (`PRESETS`). Source:
    Ronneberger et al. (2015); residual blocks, attention and the modulated norm as in Dhariwal, Nichol (2021).
    """

    channels: int = 1
    width: int = 32
    multiples: tuple[int, ...] = (1, 2, 4)
    blocks: int = 2
    attention: int = 1
    heads: int = 4
    classes: int = 10
    gamma: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiples", tuple(self.multiples))
        if self.width % _GROUP or self.blocks < 1 or not self.multiples or min(self.multiples) < 1:
            raise ValueError(f"UNetDesign: width must be a multiple of {_GROUP}, blocks and multiples positive")
        if not 0 <= self.attention <= len(self.multiples):
            raise ValueError(f"attention: at 0 to {len(self.multiples)} sizes, got {self.attention}")


class _Block(nn.Module):
    """x + convolution(modulated norm(convolution(norm(x)))); the second convolution starts at zero."""

    def __init__(self, before: int, after: int, told: int, dropout: float) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.GroupNorm(before // _GROUP, before), nn.GroupNorm(after // _GROUP, after)
        self.first, self.second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.told = nn.Linear(told, 2 * after)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        h = self.first(silu(self.first_norm(x)))
        h = self.second_norm(h) * (scale + 1) + shift
        return self.skip(x) + self.second(self.dropout(silu(h)))


class _Look(nn.Module):
    """Attention over the pixels, added; starts at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.GroupNorm(width // _GROUP, width), Attention(width, heads)
        nn.init.zeros_(self.attention.write.weight)
        nn.init.zeros_(self.attention.write.bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.attention(self.norm(x).flatten(2).transpose(1, 2))
        return x + seen.transpose(1, 2).reshape(x.shape)


class _Stage(nn.Module):
    """A block, and attention where there is any."""

    def __init__(self, before: int, after: int, told: int, design: UNetDesign, looks: bool) -> None:
        super().__init__()
        self.block = _Block(before, after, told, design.dropout)
        self.look = _Look(after, design.heads) if looks else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        return self.look(self.block(x, told))


class UNet(nn.Module):
    """(x [B, channels, H, W], level [B], label, gamma) -> [B, channels, H, W]; zero before it is trained.

    H and W must be divisible by 2^(sizes - 1). See `UNetDesign`; `Preconditioned` makes a model of it.
    """

    def __init__(self, design: UNetDesign) -> None:
        super().__init__()
        self.design = design
        widths = [design.width * m for m in design.multiples]
        told, last = 4 * design.width, len(widths) - 1
        looks = [i > last - design.attention for i in range(len(widths))]
        self.conditioning = Conditioning(told, design.classes, design.gamma)
        self.first = nn.Conv2d(design.channels, design.width, 3, padding=1)
        self.down, self.halve, self.up, self.enlarge = (nn.ModuleList() for _ in range(4))
        here, kept = design.width, [design.width]
        for i, width in enumerate(widths):
            stages = nn.ModuleList()
            for _ in range(design.blocks):
                stages.append(_Stage(here, width, told, design, looks[i]))
                here = width
                kept.append(here)
            self.down.append(stages)
            if i < last:
                self.halve.append(nn.Conv2d(here, here, 3, stride=2, padding=1))
                kept.append(here)
        self.middle = nn.ModuleList(
            [_Stage(here, here, told, design, looks[-1]), _Stage(here, here, told, design, False)]
        )
        for i, width in reversed(list(enumerate(widths))):
            stages = nn.ModuleList()
            for _ in range(design.blocks + 1):
                stages.append(_Stage(here + kept.pop(), width, told, design, looks[i]))
                here = width
            self.up.append(stages)
            if i:
                self.enlarge.append(nn.Conv2d(here, here, 3, padding=1))
        self.last_norm, self.last = nn.GroupNorm(here // _GROUP, here), nn.Conv2d(here, design.channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None, gamma: Tensor | None = None) -> Tensor:
        """Raises ValueError for a picture that cannot be halved often enough."""
        halvings = len(self.halve)
        if x.ndim != 4 or x.shape[1] != self.design.channels or x.shape[2] % 2**halvings or x.shape[3] % 2**halvings:
            raise ValueError(
                f"x: expected [B, {self.design.channels}, H, W] with H and W divisible by {2**halvings}, got "
                f"{tuple(x.shape)}: pad it, or take fewer multiples"
            )
        told = silu(self.conditioning(level, label, gamma))
        x = self.first(x)
        kept = [x]
        for i, stages in enumerate(self.down):
            for stage in stages:  # type: ignore[attr-defined]
                x = stage(x, told)
                kept.append(x)
            if i < halvings:
                x = self.halve[i](x)
                kept.append(x)
        for stage in self.middle:
            x = stage(x, told)
        for i, stages in enumerate(self.up):
            for stage in stages:  # type: ignore[attr-defined]
                x = stage(torch.cat((x, kept.pop()), 1), told)
            if i < halvings:
                x = self.enlarge[i](interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(silu(self.last_norm(x)))
