"""The training loop: a known minimum, resumption to the bit, and what ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sciode.diffusion import VPLinear, initial_noise, sample
from sciode.diffusion.networks import Preconditioned, build
from sciode.diffusion.training import TrainOptions, denoise, log_normal, train


class _Linear(nn.Module):
    """F = a(level) u + b(level), with a and b quadratic in the level: enough for Gaussian data."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, 6, dtype=torch.float64))

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        powers = torch.stack([torch.tanh(level * k) ** p for k in (1, 3) for p in (0, 1, 2)])
        a, b = self.weights @ powers
        return a[:, None] * x + b[:, None]


def _data() -> dict[str, Tensor]:
    return {"x": 0.3 + 0.5 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}


def _run(steps: int, folder: Path | None = None, seed: int = 0, **more) -> nn.Module:
    model = Preconditioned(_Linear(), VPLinear(), deviation=0.5)
    options = TrainOptions(steps=steps, batch_size=256, lr=0.02, seed=seed, look=10, save=0.0, **more)
    return train(model, denoise(log_normal(VPLinear(), -0.5, 1.5)), _data(), options, folder=folder).network


def test_trained_on_a_gaussian_the_model_samples_that_gaussian() -> None:
    model = _run(600)
    data = _data()["x"]
    noise = initial_noise(VPLinear(), (4000, 1), seed=1, dtype=torch.float64)
    with torch.no_grad():
        made = sample(model, noise, VPLinear(), steps=30)
    # Four standard errors of 4,000 points, and what a model of twelve numbers leaves.
    assert float(made.mean()) == pytest.approx(float(data.mean()), abs=0.05)
    assert float(made.std()) == pytest.approx(float(data.std()), abs=0.05)


def test_a_run_taken_up_again_gives_the_same_bits(tmp_path: Path) -> None:
    whole = _run(40)
    _run(20, tmp_path)
    resumed = _run(40, tmp_path)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_seed_is_another_run_and_no_checkpoint_of_this_one(tmp_path: Path) -> None:
    first = _run(10, tmp_path)
    with pytest.raises(ValueError, match="another network, data or options"):
        _run(10, tmp_path, seed=1)
    assert not torch.equal(next(first.parameters()), next(_run(10, seed=1).parameters()))


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_average() -> None:
    model = Preconditioned(_Linear(), VPLinear())
    calls = 0

    def loss(network, average, batch, generator) -> Tensor:
        nonlocal calls
        calls += 1
        value = network.network.weights.square().sum() - network.network.weights.sum()
        return value * (float("nan") if calls > 25 else 1.0)

    found = train(model, loss, _data(), TrainOptions(steps=100, look=10, lr=0.01))
    assert "non-finite" in found.stopped and found.steps == 30 and len(found.losses) == 2
    assert all(p.isfinite().all() for p in found.network.parameters())


def test_out_of_time_is_said_and_checkpoints_are_handed_on() -> None:
    kept = []
    model = Preconditioned(_Linear(), VPLinear())
    options = TrainOptions(steps=10_000, seconds=0.0, look=5)
    found = train(model, denoise(log_normal(VPLinear())), _data(), options, keep=lambda net, step: kept.append(step))
    assert found.stopped == "out of time" and found.steps == 5 and kept == [5]


def test_half_precision_training_still_learns() -> None:
    model = Preconditioned(_Linear().float(), VPLinear(), deviation=0.5)
    data = {"x": _data()["x"].float()}
    options = TrainOptions(steps=60, batch_size=256, lr=0.02, autocast="bfloat16", look=20, warmup=1)
    found = train(model, denoise(log_normal(VPLinear(), -0.5, 1.5)), data, options)
    assert found.losses[-1][1] < found.losses[0][1]


def test_bytes_are_pictures_between_minus_one_and_one_and_labels_reach_the_network() -> None:
    seen = {}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
            seen["label"], seen["u"] = label, x
            return self.w * x

    data = {"x": torch.full((8, 1, 2, 2), 255, dtype=torch.uint8), "label": torch.arange(8)}
    model = Preconditioned(Net(), VPLinear(), deviation=1.0)
    train(model, denoise(lambda u: 0.001 + 0 * u, classes=10, dropped=0.5), data, TrainOptions(steps=1, batch_size=400))
    assert set(seen["label"].tolist()) == {*range(8), 10}
    # Almost no noise: u is x0 / s, with x0 = 1.
    assert float((seen["u"] - 1).abs().mean()) < 0.02


def test_dropout_is_a_function_of_seed_and_step_and_leaves_torchs_generator_alone(tmp_path: Path) -> None:
    def run(steps: int, folder: Path | None = None) -> nn.Module:
        model = Preconditioned(build("unet-digits", width=8, dropout=0.5, classes=0), VPLinear())
        data = {"x": torch.linspace(-1, 1, 8 * 64).reshape(8, 1, 8, 8)}
        options = TrainOptions(steps=steps, batch_size=4, look=1, save=0.0, warmup=0)
        return train(model, denoise(log_normal(VPLinear())), data, options, folder=folder).network

    before = torch.get_rng_state()
    whole = run(4)
    assert torch.equal(before, torch.get_rng_state())
    run(2, tmp_path)
    for a, b in zip(whole.parameters(), run(4, tmp_path).parameters(), strict=True):
        assert torch.equal(a, b)


def test_misuse_is_refused() -> None:
    model = Preconditioned(_Linear(), VPLinear())
    x, loss = torch.ones(4, 1, dtype=torch.float64), denoise(log_normal(VPLinear()))
    with pytest.raises(ValueError, match="label missing"):
        train(model, denoise(log_normal(VPLinear()), classes=10), {"x": x}, TrainOptions())
    with pytest.raises(ValueError, match="named tensors"):
        train(model, loss, x, TrainOptions())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="train Preconditioned"):
        train(_Linear(), loss, {"x": x}, TrainOptions())
    with pytest.raises(ValueError, match="first axis"):
        train(model, denoise(log_normal(VPLinear())), {"x": torch.ones(2), "y": torch.ones(3)}, TrainOptions())
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"autocast": "float8"}):
        with pytest.raises(ValueError, match="must be"):
            TrainOptions(**wrong)  # type: ignore[arg-type]
