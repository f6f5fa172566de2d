"""Shared attention features: recorded at times, put in the place of others, and gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode.diffusion import RectifiedFlow, VPLinear, invert, sample
from sciode.diffusion.editing import FeatureSharing


class Tiny(nn.Module):
    """A block of attention over four tokens, whose condition enters by the values alone."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(3, 8).double() for _ in range(3))
        self.out = nn.Linear(8, 3).double()

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        weights = torch.softmax(self.to_q(x) @ self.to_k(x + t[:, None, None]).mT, -1)
        return 0.7 * x + self.out(weights @ self.to_v(x + c))


class Multi(nn.Module):
    """The same by torch's own attention."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.named, self.attention = named, nn.MultiheadAttention(4, 2, batch_first=True).double()

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        if self.named:
            return 0.7 * x + self.attention(query=x, key=x, value=x + c)[0]
        return 0.7 * x + self.attention(x, x, x + c)[0]


def _start(d: int) -> Tensor:
    return torch.randn(2, 4, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _cond(value: float) -> dict[str, Tensor]:
    return {"c": torch.tensor(value, dtype=torch.float64)}


NETWORKS: list[Any] = [Tiny, lambda: Multi(True), lambda: Multi(False)]


@pytest.mark.parametrize("make", NETWORKS)
def test_features_of_every_evaluation_reproduce_the_run_that_they_come_from(make: Any, seeded) -> None:
    """The condition is in the values alone, so that with them another condition changes nothing."""
    with seeded(0):
        network = make()
    share, x = FeatureSharing(network), _start(3 if make is Tiny else 4)
    options: dict[str, Any] = {"sampler": "dpm++-2m", "steps": 6}
    with torch.no_grad(), share.recording():
        source = sample(share, x, VPLinear(), cond=_cond(0.0), **options)
    plain = sample(network, x, VPLinear(), cond=_cond(1.0), **options).detach()
    assert float((plain - source).abs().max()) > 1e-2
    with torch.no_grad(), share.replacing():
        found = sample(share, x, VPLinear(), cond=_cond(1.0), **options)
    assert share.missed == 0
    torch.testing.assert_close(found, source, rtol=1e-12, atol=1e-12)
    with torch.no_grad(), share.replacing(window=(2.0, 3.0)):
        never = sample(share, x, VPLinear(), cond=_cond(1.0), **options)
    torch.testing.assert_close(never, plain, rtol=1e-12, atol=1e-12)
    # No hook is left.
    torch.testing.assert_close(sample(network, x, VPLinear(), cond=_cond(1.0), **options), plain)


def test_rf_edit_meets_all_times_of_its_inversion_but_the_first(seeded) -> None:
    """The midpoints of steps there and back are the same, their starts are one another's ends."""
    with seeded(0):
        network = Tiny()
    share, flow = FeatureSharing(network, ["to_v"]), RectifiedFlow()
    options: dict[str, Any] = {
        "sampler": "rf-solver", "steps": 8, "prediction": "flow", "grid": "uniform", "t_start": 1.0,
    }  # fmt: skip
    with torch.no_grad():
        with share.recording():
            noise = invert(share, _start(3), flow, cond=_cond(0.0), **options)
        with share.replacing(window=(0.5, 1.0)):
            edited = sample(share, noise, flow, cond=_cond(1.0), **options)
        plain = sample(network, noise, flow, cond=_cond(1.0), **options)
        source = sample(network, noise, flow, cond=_cond(0.0), **options)
    assert share.missed == 1
    # Half of the way with the source's features ends nearer to the source.
    assert float((edited - source).norm()) < 0.8 * float((plain - source).norm())
    assert float((edited - plain).norm()) > 1e-3


def test_misuse_says_the_mend(seeded) -> None:
    with seeded(0):
        network = Tiny()
    with pytest.raises(ValueError, match="There are to_q"):
        FeatureSharing(network, ["to_w"])
    with pytest.raises(ValueError, match="no submodule to_w; "):
        FeatureSharing(network, ["to_q", "to_w"])
    assert list(FeatureSharing(network, "to_q").modules) == ["to_q"]
    share = FeatureSharing(network, lambda name, module: name == "out")
    with pytest.raises(ValueError, match="nothing has been recorded"), share.replacing():
        pass
    with share.recording(), pytest.raises(ValueError, match="inside one another"), share.recording():
        pass
