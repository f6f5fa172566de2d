"""Self-attention by torch's fused kernel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["Attention"]


class Attention(nn.Module):
    """Tokens [B, N, width] -> [B, N, width], every token looking at all of them, with `heads` heads.

    The fused kernels have no forward-mode derivative: under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` it has
    one, which is what `estimate_ems` wants.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {heads} do not divide the width {width}")
        self.heads = heads
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """All to all."""
        batch, tokens, width = x.shape
        q, k, v = self.read(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(q, k, v)
        return self.write(seen.transpose(1, 2).reshape(batch, tokens, width))
