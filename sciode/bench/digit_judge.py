"""A small classifier of digits, trained here: its features and its verdicts stand where others have Inception's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sciode.training import derive_seed, isolated_rng

__all__ = ["DigitJudge", "trained_judge"]


class DigitJudge(nn.Module):
    """Pictures [B, 1, 28, 28] in [-1, 1] -> logits [B, 10]; `features`: [B, 64], before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 7 * 7, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.body(x))


def trained_judge(images: Tensor, labels: Tensor, *, steps: int = 800, batch: int = 256, seed: int = 0) -> DigitJudge:
    """A judge trained on images [n, 1, 28, 28] and labels [n], on their device: some 98.5 % right after 800 steps."""
    with isolated_rng(seed, 2):
        judge = DigitJudge()
    judge = judge.to(images.device)
    optimizer = torch.optim.Adam(judge.parameters(), lr=2e-3)
    for step in range(steps):
        generator = torch.Generator().manual_seed(derive_seed(seed, 3, step))
        rows = torch.randint(len(labels), (batch,), generator=generator).to(images.device)
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        optimizer.zero_grad()
        cross_entropy(judge(images[rows]), labels[rows]).backward()
        optimizer.step()
    return judge.eval().requires_grad_(False)
