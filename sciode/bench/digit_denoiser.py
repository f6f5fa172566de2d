"""A denoiser of scikit-learn's digits that trains in seconds, for what is shown and measured on real data."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sciode.diffusion import VPLinear

__all__ = ["DigitDenoiser", "Digits", "digits", "trained"]

SCHEDULE = VPLinear()


class DigitDenoiser(nn.Module):
    """eps(x [B, 1, 8, 8], t [B]) = sigma x + alpha v of a residual network of fully connected layers."""

    def __init__(self, width: int = 256, blocks: int = 3) -> None:
        super().__init__()
        self.enter, self.time = nn.Linear(64, width), nn.Linear(32, width)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(blocks)]
        )
        self.leave = nn.Linear(width, 64)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = 6.0 * t[:, None] * torch.arange(1, 17, device=t.device, dtype=t.dtype) / 4
        h = self.enter(x.flatten(1)) + self.time(torch.cat((angles.sin(), angles.cos()), 1).to(x.dtype))
        for block in self.blocks:
            h = h + nn.functional.silu(block(h))
        alpha, sigma = (f(t).to(x.dtype).reshape(-1, 1, 1, 1) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
        return sigma * x + alpha * self.leave(h).reshape(x.shape)


class Digits(NamedTuple):
    """Images [n, 1, 8, 8] within +- 1 and labels [n]: 1,297 to learn from, 500 to judge by."""

    train: Tensor
    train_labels: Any
    test: Tensor
    test_labels: Any


def digits() -> Digits:
    """scikit-learn's digits, split at random once and for all."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as fault:
        raise ImportError('scikit-learn is missing: pip install "sciode[lab]"') from fault
    found: Any = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:1297], order[1297:]
    return Digits(images[train], found.target[train.numpy()], images[test], found.target[test.numpy()])


def trained(images: Tensor, steps: int = 1500, seed: int = 0, batch: int = 256, width: int = 256) -> DigitDenoiser:
    """Mean square of eps at uniform times; an average of the weights over the last part of training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DigitDenoiser(width)
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x0 = images[torch.randint(len(images), (batch,), generator=generator)]
        t = 1e-3 + (1 - 1e-3) * torch.rand(batch, generator=generator)
        z = torch.randn(x0.shape, generator=generator)
        alpha, sigma = (f(t.double()).float()[:, None, None, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma))
        loss = (net(alpha * x0 + sigma * z, t) - z).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        plan.step()
        average.update_parameters(net)
    found: Any = average.module
    return found.requires_grad_(False).eval()
