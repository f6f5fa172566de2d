"""What reaches beyond neighbours: surfaces and waves through scattered sensors, and how a training step uses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciode.data.flow import Space
from sciode.observers import Design, Exchange, Observer, Reading, surface_inverse, surface_rows, time_weights
from sciode.observers.arrays import as_flows
from sciode.observers.model import network
from sciode.observers.objective import Objective
from sciode.observers.surface import chosen_stretch
from sciode.observers.waves import projection_of, wave_numbers, waves_at
from sciode.observers.windows import anchor_times, cut, scale_of
from sciode.observers.wiring import Wiring
from sciode.training import isolated_rng

BOX = Space("periodic", (0.0, 0.0), (1.0, 2.0))
PLANE = Space("plane", (0.0, 0.0), (1.0, 2.0))
SPHERE = Space("sphere")
SPACES = pytest.mark.parametrize("space", [BOX, PLANE, SPHERE], ids=["periodic", "plane", "sphere"])


def places(space: Space, count: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    if space.kind == "sphere":
        found = torch.randn(count, 3, generator=draw, dtype=torch.float64)
        return found / found.norm(dim=1, keepdim=True)
    return torch.rand(count, 2, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 2.0])


def smooth(x: Tensor, space: Space) -> Tensor:
    if space.kind == "sphere":
        return (2.0 * x @ x.new_tensor([1.0, 2.0, 2.0]) / 3.0).sin().unsqueeze(-1)
    return (2 * torch.pi * x[:, :1]).sin() * (torch.pi * x[:, 1:]).cos()


def surface(points: Tensor, values: Tensor, asked: Tensor, space: Space) -> Tensor:
    there = torch.ones(len(points), dtype=torch.bool)
    return surface_rows(asked, points, there, space) @ surface_inverse(points, space) @ values


@SPACES
def test_a_surface_meets_its_values_and_converges(space: Space) -> None:
    asked = places(space, 200, 5)

    def error(count: int) -> float:
        points = places(space, count)
        values = smooth(points, space)
        assert (surface(points, values, points, space) - values).abs().max() < 1e-5
        return float((surface(points, values, asked, space) - smooth(asked, space)).abs().mean())

    # Cubic surfaces: four times the points, half the spacing, an order of two at the least (the plane has a rim).
    assert error(400) < error(100) / 4.0


def test_a_surface_has_no_seam_and_reproduces_straight_lines() -> None:
    points, asked = places(BOX, 60), places(BOX, 20, 1)
    values, shift = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0.4, 1.3])
    moved = surface((points + shift) % torch.tensor([1.0, 2.0]), values, asked + shift, BOX)
    assert torch.allclose(surface(points, values, asked, BOX), moved, atol=1e-6)
    line = lambda x: 1.0 + 2.0 * x[:, :1] - 3.0 * x[:, 1:]  # noqa: E731
    assert torch.allclose(surface(points, line(points), asked, PLANE), line(asked), atol=1e-5)


def test_duplicates_and_collinear_points_leave_a_surface_finite() -> None:
    points = torch.stack((torch.linspace(0, 1, 10), torch.linspace(0, 2, 10)), 1).double()
    points[4] = points[3]
    found = surface(points, points[:, :1], torch.tensor([[0.5, 1.0], [0.5, 0.2]]).double(), PLANE)
    assert found.isfinite().all() and abs(float(found[0]) - 0.5) < 1e-3


def test_time_weights_reproduce_cubics_at_uneven_times() -> None:
    clock = torch.tensor([[0.0, 1.0, 2.5, 3.0, 4.5], [0.0, 0.4, 1.0, 2.0, 3.0]]).double()
    t = torch.tensor([[0.0, 0.7, 2.5, 4.0, 4.5], [0.1, 0.4, 1.7, 2.5, 3.0]]).double()
    cubic = lambda x: x**3 - 2.0 * x**2 + 1.0  # noqa: E731
    index, weight = time_weights(clock, t)
    assert torch.allclose((cubic(clock).unsqueeze(1).expand(-1, 5, -1).gather(2, index) * weight).sum(-1), cubic(t))
    index, weight = time_weights(clock, t, causal=True)
    assert index.squeeze(-1).tolist() == [[0, 0, 2, 3, 4], [0, 1, 2, 3, 4]] and (weight == 1).all()
    index, weight = time_weights(clock[:, :2], t)
    assert torch.allclose((clock[:, :2].unsqueeze(1).expand(-1, 5, -1).gather(2, index) * weight).sum(-1), t)


def test_harmonics_are_orthonormal_and_counted() -> None:
    """Over a rule that is exact for products of their degree: Gauss-Legendre by even longitudes."""
    sines, weights = np.polynomial.legendre.leggauss(8)
    east = 2 * np.pi * np.arange(16) / 16
    z, phi = (x.ravel() for x in np.meshgrid(sines, east, indexing="ij"))
    ring = np.sqrt(1 - z**2)
    points = torch.tensor(np.stack((ring * np.cos(phi), ring * np.sin(phi), z), 1))
    share = torch.tensor(np.repeat(weights, 16) / 32)
    basis = waves_at(points, SPHERE, 5).flatten(1)
    basis = basis[:, basis.abs().amax(0) > 1e-12]  # m = 0 has no sine
    assert basis.shape[1] == 36
    assert torch.allclose(basis.T @ (share[:, None] * basis), torch.eye(36, dtype=torch.float64), atol=1e-12)


@SPACES
def test_waves_of_scattered_values_are_found_again(space: Space) -> None:
    degree = 3
    waves = waves_at(places(space, 300), space, degree)
    assert waves.shape[1] == len(wave_numbers(space, degree))
    true = torch.randn(waves.shape[1], 2, generator=torch.Generator().manual_seed(0)).double()
    true = torch.where(waves.abs().amax(0) > 1e-12, true, 0.0)  # sines of k = 0 are none
    found = projection_of(waves, space, degree) @ (waves.flatten(1) @ true.flatten())
    assert torch.allclose(found, true.flatten(), atol=2e-3)


@pytest.mark.parametrize("mixing", ["full", "each"])
def test_an_exchange_commutes_with_translations(seeded: Any, mixing: Any) -> None:
    with seeded(0):
        layer = Exchange(4, len(wave_numbers(BOX, 3)), mixing).double()
    points, v = places(BOX, 200), torch.randn(1, 200, 4, generator=torch.Generator().manual_seed(1)).double()
    found = []
    for shift in ([0.0, 0.0], [0.3, 0.9]):
        waves = waves_at(points + torch.tensor(shift), BOX, 3)
        found.append(layer(v, waves.flatten(1).unsqueeze(0), projection_of(waves, BOX, 3).unsqueeze(0)))
    assert torch.allclose(found[0], found[1], atol=1e-9)
    assert found[0].std() > 0.01


def test_diagonal_matrices_of_waves_are_a_number_a_channel(seeded: Any) -> None:
    with seeded(0):
        full, each = (Exchange(4, len(wave_numbers(BOX, 3)), mixing).double() for mixing in ("full", "each"))
    assert each.into is not None
    with torch.no_grad():
        each.into.weight.copy_(torch.eye(4))
        each.into.bias.zero_()
        full.weight.copy_(torch.stack((each.real.diag_embed(), each.imaginary.diag_embed()), -1))
    waves = waves_at(places(BOX, 50), BOX, 3)
    told = waves.flatten(1).unsqueeze(0), projection_of(waves, BOX, 3).unsqueeze(0)
    v = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(full(v, *told), each(v, *told))


def waving(flows: int = 3, sensors: int = 20) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    positions, times = rng.random((sensors, 2)), np.arange(6.0)
    angle = 2 * np.pi * (positions[:, 0] - times[:, None] / 8.0) + rng.random((flows, 1, 1))
    return positions, times, np.sin(angle)[..., None]


def test_what_corrects_nothing_is_the_surface_through_the_first_readings() -> None:
    positions, times, values = waving()
    design = Design(width=8, layers=1, heads=2, base="cubic", waves=2)
    observer = Observer(design=design, space=BOX, length=6, epochs=1, batch_size=3, queries=16, device="cpu")
    observer.fit(positions, times, values)
    with torch.no_grad():
        for parameter in observer.network_.continuum.decode[-1].parameters():
            parameter.zero_()
    asked = np.random.default_rng(1).random((9, 2))
    told = Reading(positions, values[0, 0])
    expected = surface(torch.tensor(positions).float().double(), torch.tensor(values[0, 0]), torch.tensor(asked), BOX)
    assert np.allclose(observer.predict(positions, [0.0], told).values[0], values[0, 0], atol=1e-4)
    assert np.allclose(observer.predict(asked, [0.0], told).values[0], expected.numpy(), atol=1e-3)


def objective(masks: int, fixed: bool = False) -> Objective:
    positions, times, values = waving()
    flows = as_flows(positions, times, values, None, BOX)
    windows = cut(flows, 6, None, scale_of(flows, 1))
    design = Design(width=8, layers=1, heads=2, base="cubic", waves=2)
    with isolated_rng(0):
        model = network(1, BOX, design)
    return Objective(
        model, {"train": windows, "validation": windows}, wiring=Wiring(waves=2, surface=True),
        every=2, queries=64, dropout=0.4, dynamics_weight=1.0, masks=masks, fixed=fixed,
    )  # fmt: skip


def test_a_mask_is_joined_once_and_a_new_one_every_step() -> None:
    rows = torch.arange(2)
    few, new = objective(2), objective(0)
    for seed in range(6):
        few.loss(rows, seed).backward()
        new.loss(rows, seed)
    assert len(few._joints) == 2
    kept = {tuple(few._kept(few.windows["train"], rows, seed)[0].tolist()) for seed in range(6)}
    assert len(kept) == 2
    assert len({tuple(new._kept(new.windows["train"], rows, seed)[0].tolist()) for seed in range(6)}) > 2


@pytest.mark.parametrize("masks", [0, 3])
def test_room_for_all_ways_of_hiding_gives_every_step_one_shape_and_the_same_numbers(masks: int) -> None:
    plain, fixed = objective(masks), objective(masks, fixed=True)
    shapes = set()
    for seed in range(5):
        rows = torch.arange(2) + seed % 2
        losses = [one.value(one.inputs(rows, seed)) for one in (plain, fixed)]
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0.0)
        leaves = pytree.tree_flatten(fixed.inputs(rows, seed))[0]
        shapes.add(tuple(x.shape for x in leaves if isinstance(x, torch.Tensor)))
    assert len(shapes) == 1
    for one, other in zip(plain.parameters(), fixed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5)


def test_validation_asks_hidden_sensors_alone() -> None:
    found = objective(0).eval()
    windows, rows = found.windows["validation"], torch.arange(2)
    keep = found._kept(windows, rows, 3)
    drawn = found._drawn(windows.values[rows], rows, keep, torch.Generator().manual_seed(0)) % windows.values.shape[2]
    assert not set(drawn.flatten().tolist()) & set(keep[0].tolist())


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="base: unknown"):
        Design(base="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="state: unknown"):
        Design(state="values of sensors")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mixing: unknown"):
        Design(mixing="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="know where they are"):
        Design(waves=3, places="relative")
    with pytest.raises(ValueError, match="degree must be"):
        wave_numbers(BOX, 0)


def test_a_stretch_is_found_that_tells_hidden_sensors_better() -> None:
    """Four waves along one side of a plane and a quarter along the other: the first axis is that of the rough."""
    draw = np.random.default_rng(0)
    square = Space("plane", (0.0, 0.0), (1.0, 1.0))
    points = torch.tensor(draw.random((300, 2)))
    phases = torch.tensor(draw.random((5, 1)) * 6.28)
    rough, plain = points[:, 0], points[:, 1]
    values = (25.0 * rough + 1.5 * plain + phases).sin().unsqueeze(-1)
    stretch = chosen_stretch(points, values, square)
    assert stretch[0] == 1.0 and stretch[1] <= 0.5
    turned = chosen_stretch(points.flip(1), values, square)
    assert turned[1] >= 2.0
    asked = torch.tensor(draw.random((200, 2)))
    truth = (25.0 * asked[:, 0] + 1.5 * asked[:, 1]).sin().unsqueeze(-1)
    known = (25.0 * rough + 1.5 * plain).sin().unsqueeze(-1)
    there = torch.ones(300, dtype=torch.bool)
    errors = [
        float((surface_rows(asked, points, there, square, s) @ surface_inverse(points, square, s) @ known - truth)
              .square().mean())
        for s in (None, stretch)
    ]  # fmt: skip
    assert errors[1] < 0.5 * errors[0]


def test_nothing_is_stretched_without_readings_or_with_few_sensors() -> None:
    points, values = places(SPHERE, 40), torch.randn(3, 40, 1, generator=torch.Generator().manual_seed(0))
    values[:, :25] = torch.nan
    assert chosen_stretch(points, torch.full_like(values, torch.nan), SPHERE).tolist() == [1.0] * 3
    assert chosen_stretch(points, values, SPHERE).tolist() == [1.0] * 3
    assert chosen_stretch(points[:9], torch.zeros(3, 9, 1), SPHERE).tolist() == [1.0] * 3


def test_a_stretched_observer_is_saved_with_its_stretch(tmp_path: Any) -> None:
    positions, times, values = waving(sensors=30)
    design = Design(width=8, layers=1, heads=2, base="stretched", waves=2)
    observer = Observer(design=design, space=BOX, length=6, epochs=1, batch_size=3, queries=16, device="cpu")
    observer.fit(positions, times, values).save(tmp_path / "observer.safetensors")
    loaded = Observer.load(tmp_path / "observer.safetensors", device="cpu")
    assert len(observer.stretch_) == 4 and loaded.stretch_ == observer.stretch_
    asked = np.random.default_rng(1).random((5, 2))
    assert np.array_equal(loaded.predict(asked, [1.5]).values, observer.predict(asked, [1.5]).values)


def test_anchor_times_reach_past_the_last_frame() -> None:
    times = torch.arange(6, dtype=torch.float64).unsqueeze(0) / 2.0
    assert anchor_times(times, 2).tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert anchor_times(times[:, :5], 2).tolist() == [[0.0, 1.0, 2.0]]
    uneven = torch.tensor([[0.0, 0.25, 0.75, 4.0]]).double()
    assert anchor_times(uneven, 2).tolist() == [[0.0, 0.75, 4.0]]
