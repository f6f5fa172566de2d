"""Keep predicted data within the range that data have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Threshold"]


@dataclass(frozen=True)
class Threshold:
    """D <- clip(D, -s, s) / s * limit, per sample, with s = max(limit, the quantile of |D| over the sample).

    quantile: 0.995 in Imagen; 1.0 scales without clipping; None clips at the limit (static). limit: the largest
    magnitude of data, 1 for pixels; most: the largest s. Quantiles are taken in float32 at least, whatever the state's
    dtype. For pixels: latents have no range. Source: Saharia et al. (2022), Imagen, section 2.3.
    """

    quantile: float | None = 0.995
    limit: float = 1.0
    most: float = math.inf

    def __post_init__(self) -> None:
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise ValueError(f"quantile: expected a number in (0, 1], or None for static clipping, got {self.quantile}")
        if not 0 < self.limit <= self.most:
            raise ValueError(f"Threshold: expected 0 < limit <= most, got {self.limit} and {self.most}")

    def __call__(self, x0: Tensor) -> Tensor:
        if self.quantile is None:
            return x0.clamp(-self.limit, self.limit)
        size = x0.detach().abs().flatten(1)
        size = size.to(torch.promote_types(size.dtype, torch.float32)).sort(1).values
        place = self.quantile * (size.shape[1] - 1)
        low = math.floor(place)
        high = min(low + 1, size.shape[1] - 1)
        s = torch.lerp(size[:, low], size[:, high], place - low).clamp(self.limit, self.most)
        s = s.to(x0.dtype).reshape(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -s), s) * (self.limit / s)
