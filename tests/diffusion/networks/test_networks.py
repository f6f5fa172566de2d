"""Networks: shapes, symmetries, what they are told, and their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciode.diffusion import ModelStatistics, VPCosine, VPLinear, estimate_ems, initial_noise, sample
from sciode.diffusion.guidance import ClassifierFree
from sciode.diffusion.networks import (
    PRESETS,
    Preconditioned,
    build,
    load_model,
    load_statistics,
    save_model,
    save_statistics,
)
from sciode.training import save_checkpoint

SMALL = {
    "unet": ("unet-digits", {"width": 8, "heads": 2}),
    "dit": ("dit-digits", {"width": 16, "depth": 1, "heads": 2}),
    "mlp": ("mlp-digits", {"width": 16, "depth": 1}),
}
kinds = pytest.mark.parametrize("kind", SMALL)


def _grown(kind: str, seed: int = 0, **changes) -> nn.Module:
    """A network that puts out something: fresh ones are zero."""
    name, small = SMALL[kind]
    network = build(name, seed=seed, **{**small, **changes})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return network.eval()


def _x(n: int = 5, size: int = 8) -> Tensor:
    return torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_zero_before_training_and_same_seeds_give_same_weights(name: str) -> None:
    first, again, other = build(name, seed=3), build(name, seed=3), build(name, seed=4)
    x = _x(2, 28 if "mnist" in name else 8)
    x, label = (x[:, 0, 0, :2], None) if "points" in name else (x, torch.tensor([3, 4]))
    assert not first(x, torch.tensor([-1.0, 1.0]), label).any()
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("name", [name for name in PRESETS if "mnist" in name])
def test_what_is_to_be_shipped_has_two_to_four_million_weights(name: str) -> None:
    assert 2e6 < sum(p.numel() for p in build(name).parameters()) < 4e6


@kinds
def test_a_sample_does_not_depend_on_its_batch(kind: str) -> None:
    network, x, level, label = _grown(kind), _x(), torch.linspace(-1, 1, 5), torch.arange(5)
    whole = network(x, level, label)
    for i in range(5):
        torch.testing.assert_close(network(x[i : i + 1], level[i : i + 1], label[i : i + 1]), whole[i : i + 1])


@kinds
def test_level_and_label_are_read_and_none_is_the_class_of_its_own(kind: str) -> None:
    network, x, level = _grown(kind), _x(), torch.zeros(5)
    plain = network(x, level)
    assert torch.equal(plain, network(x, level, torch.full((5,), 10)))
    assert torch.equal(plain, network(x, level, torch.tensor([10])))
    assert not torch.allclose(plain, network(x, level, torch.full((5,), 3)), atol=1e-3)
    assert not torch.allclose(plain, network(x, level + 0.5), atol=1e-3)


@kinds
def test_gamma_one_changes_nothing_and_another_does(kind: str) -> None:
    network, x, level = _grown(kind, gamma=True), _x(), torch.zeros(5)
    torch.testing.assert_close(network(x, level, None, torch.ones(5)), network(x, level), rtol=0, atol=0)
    assert not torch.allclose(network(x, level, None, torch.zeros(5)), network(x, level), atol=1e-3)
    with pytest.raises(ValueError, match="gamma"):
        _grown(kind)(x, level, None, torch.ones(5))


@kinds
def test_pictures_that_do_not_fit_and_labels_of_no_class_are_refused(kind: str) -> None:
    for size, channels in ((7, 1), (8, 3)):
        with pytest.raises(ValueError, match=r"x: expected \[B, 1, "):
            _grown(kind)(_x(2, size).expand(-1, channels, -1, -1), torch.zeros(2))
    with pytest.raises(ValueError, match="without classes"):
        _grown(kind, classes=0)(_x(2), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    for label in (3, torch.ones(2)):
        with pytest.raises(ValueError, match="whole numbers"):
            _grown(kind)(_x(2), torch.zeros(2), label)
    for label, said in ((torch.tensor([3, 11]), "0 to 9, or 10 for no class"), (torch.arange(3), "one a sample")):
        with pytest.raises(ValueError, match=said):
            _grown(kind)(_x(2), torch.zeros(2), label)


@kinds
def test_guidance_of_scale_zero_is_the_model_without_a_label(kind: str) -> None:
    model, schedule = Preconditioned(_grown(kind), VPLinear()), VPLinear()
    x, label = initial_noise(schedule, (3, 1, 8, 8), seed=0), torch.tensor([1, 2, 3])
    options = {"sampler": "dpm++-2m", "steps": 4}
    none = {"label": torch.tensor([10])}
    free = sample(model, x, schedule, cond={"label": label}, guidance=ClassifierFree(0.0, none), **options)
    torch.testing.assert_close(free, sample(model, x, schedule, **options), rtol=1e-4, atol=1e-5)


@kinds
def test_statistics_of_a_network_exact_and_by_differences_agree(kind: str) -> None:
    model = Preconditioned(_grown(kind).double(), VPLinear())
    data = _x(4).double()
    with sdpa_kernel(SDPBackend.MATH):
        ways = ("forward", "difference")
        found = [estimate_ems(model, data, VPLinear(), points=8, degree=4, derivative=way) for way in ways]
    torch.testing.assert_close(torch.tensor(found[0].l), torch.tensor(found[1].l), rtol=1e-4, atol=1e-6)


@kinds
def test_a_file_gives_the_model_again(kind: str, tmp_path: Path) -> None:
    model = Preconditioned(_grown(kind), VPCosine(), deviation=0.7, prediction="v").eval()
    save_model(tmp_path / "model.safetensors", model, record={"steps": 3})
    again, record = load_model(tmp_path / "model.safetensors")
    x, t, label = _x(), torch.full((5,), 0.3), torch.arange(5)
    assert torch.equal(again(x, t, label=label), model(x, t, label=label)) and record == {"steps": 3}
    assert (again.schedule, again.deviation, again.prediction) == (VPCosine(), 0.7, "v")
    save_model(tmp_path / "half.safetensors", model, dtype=torch.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * (tmp_path / "model.safetensors").stat().st_size
    half, _ = load_model(tmp_path / "half.safetensors")
    assert next(half.parameters()).dtype == torch.float32
    torch.testing.assert_close(half(x, t, label=label), model(x, t, label=label), rtol=0, atol=2e-2)


def test_files_of_others_and_networks_of_others_are_refused(tmp_path: Path, seeded) -> None:
    save_checkpoint(tmp_path / "other.safetensors", {"w": torch.ones(1)}, {})
    with pytest.raises(ValueError, match="not written by save_model"):
        load_model(tmp_path / "other.safetensors")
    with seeded(0):
        network = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="only unet, dit, mlp"):
        save_model(tmp_path / "x.safetensors", Preconditioned(network, VPLinear()))
    with pytest.raises(ValueError, match="unet-digits"):
        build("unet-digit")
    with pytest.raises(ValueError, match="Did you mean 'width'"):
        build("unet-digits", widht=8)


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    found = ModelStatistics.constant(-5.0, 4.5, l=0.25, s=-0.5, b=2.0, shape=(1, 2, 2))
    save_statistics(tmp_path / "s.safetensors", found, record={"images": 3})
    again, record = load_statistics(tmp_path / "s.safetensors")
    assert (again.low, again.high, record) == (-5.0, 4.5, {"images": 3}) and again.shape == (1, 2, 2)
    assert all((again.value(name, [0.3]) == found.value(name, [0.3])).all() for name in "lsb")
    with pytest.raises(ValueError, match="not written by save_model"):
        load_model(tmp_path / "s.safetensors")
