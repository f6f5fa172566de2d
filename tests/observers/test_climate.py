"""The climate of flows from sensors' readings: its limits, its likelihood, its symmetry, and the truth it tends to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciode.data.flow import Space
from sciode.observers import Climate, climate_of, fitted_climate, settled, suited_degree
from sciode.observers.climate import _columns, _covariance, _untold, _zonal, learned_climate, unpacked
from sciode.observers.waves import waves_at
from tests.observers.made import BOX, SPHERE, places

SPACES = pytest.mark.parametrize("space", [BOX, SPHERE], ids=["box", "sphere"])


def true_climate(space: Space, noise: float = 1e-6) -> Climate:
    """Two channels whose waves hang together within each group, and a mean."""
    draw = torch.Generator().manual_seed(7)
    climate = climate_of(space, 4, (2.0, 3.0), (noise, noise))
    blocks = []
    for number, block in enumerate(climate.blocks):
        flat = block.reshape(block.shape[0] * block.shape[1], -1)
        mixed = torch.randn(*flat.shape, dtype=flat.dtype, generator=draw) * flat.diagonal().real.sqrt()[:, None]
        mixed = mixed.real.to(flat.dtype) if number == 0 else mixed
        blocks.append((mixed @ mixed.mH / len(flat)).reshape(block.shape))
    mean = torch.randn(climate.mean.shape, dtype=torch.float64, generator=draw)
    return climate._replace(blocks=tuple(blocks), mean=mean)


def drawn(climate: Climate, points: Tensor, frames: int, seed: int = 0) -> Tensor:
    """Readings [F, N, c] of fields of a climate."""
    draw = torch.Generator().manual_seed(seed)
    h = climate.basis(points)
    z = []
    for number, block in enumerate(climate.blocks):
        flat = block.reshape(block.shape[0] * block.shape[1], -1)
        values, vectors = torch.linalg.eigh(flat)
        white = torch.randn(len(flat), frames, dtype=flat.dtype, generator=draw) * math.sqrt(2.0)
        white = white if number else white.real.to(flat.dtype)
        z.append((vectors @ (values.clamp(min=0.0).sqrt()[:, None] * white)).unflatten(0, block.shape[:2]))
    whole = torch.cat(z, 1)
    whole[:, climate.waves.parts[0]] += climate.mean.unsqueeze(2)
    found = (h.conj() @ whole).real.permute(2, 1, 0)
    return found + climate.noise.sqrt() * torch.randn(found.shape, dtype=found.dtype, generator=draw)


@SPACES
def test_where_all_is_read_without_noise_the_readings_are_found(space: Space) -> None:
    points, truth = places(space, 90), true_climate(space, 1e-10)
    values = drawn(truth, points, 3)
    torch.testing.assert_close(truth.through(points, values, points), values, rtol=0.0, atol=1e-4)
    # More readings than waves: then any other place is known too.
    asked = places(space, 20, 1)
    both = drawn(truth, torch.cat((points, asked)), 3)
    found = truth.through(points, both[:, :90], asked)
    torch.testing.assert_close(found, both[:, 90:], rtol=0.0, atol=1e-3)


@SPACES
def test_each_step_makes_the_readings_likelier(space: Space) -> None:
    points = places(space, 25)
    values = drawn(true_climate(space, 1e-2), points, 15)
    found = torch.tensor(fitted_climate(points, values, space, 4, start=3, steps=12).likelihood)
    assert len(found) == 15 and bool((found.diff() > 0.0).all())


@pytest.mark.parametrize("count", [30, 60, 200])
@pytest.mark.parametrize("still", [True, False])
@SPACES
def test_a_channel_that_stands_still_and_fields_of_two_waves_without_noise_have_a_climate(
    space: Space, still: bool, count: int
) -> None:
    """Variances that are nearly gone: rounding may not make them negative."""
    points = places(space, count)
    phase = torch.arange(40).double()[:, None] / 3.0
    turned = points @ torch.tensor([2.0, 1.0, -1.0][: points.shape[1]]).double() * math.pi
    moving = (turned + phase).sin() + 0.3 * (points[:, 0] + phase.cos())
    values = torch.stack((moving, 0.0 * moving + 2.0), -1) if still else moving.unsqueeze(-1)
    learned = learned_climate(points, values[:30], points, values[30:], space)
    found = learned.through(points, values[:3], points)
    assert float((found - values[:3]).square().mean()) < 0.01 * float(moving.var())


def test_frames_are_thinned_after_gaps_are_left_out() -> None:
    points = places(BOX, 12)
    values = drawn(true_climate(BOX, 1e-3), points, 150)
    gaps = torch.full((300, 12, 2), torch.nan, dtype=torch.float64)
    gaps[1::2] = values
    one, other = (learned_climate(points, x, points, x, BOX) for x in (gaps, values))
    assert one.degree == other.degree and torch.equal(one.noise, other.noise)


@SPACES
def test_of_many_frames_the_estimate_is_nearly_that_of_the_true_covariance(space: Space) -> None:
    count = 30 if space.kind == "periodic" else 16  # fewer than waves, so that what is read does not tell all
    truth, points, asked = true_climate(space), places(space, count), places(space, 40, 1)
    readings, values = drawn(truth, points, 2000, 1), drawn(truth, torch.cat((points, asked)), 300, 2)
    free, isotropic = (fitted_climate(points, readings, space, 4, steps=steps) for steps in (60, 0))
    best, near, far = (
        float((climate.through(points, values[:, :count], asked) - values[:, count:]).square().mean())
        for climate in (truth, free, isotropic)
    )
    assert best < near and near - best < 0.1 * (far - best)


@SPACES
def test_what_is_moved_along_the_symmetry_is_found_moved(space: Space) -> None:
    points, asked = places(space, 30), places(space, 10, 1)
    values = drawn(true_climate(space), points, 12)

    def moved(x: Tensor) -> Tensor:
        if space.kind == "periodic":
            return torch.remainder(x + torch.tensor([0.3, 1.1]), torch.tensor([1.0, 2.0]))
        east, north = math.cos(0.7), math.sin(0.7)
        turn = torch.tensor([[east, -north, 0.0], [north, east, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
        return x @ turn.T

    found = fitted_climate(points, values, space, 4).through(points, values, asked)
    again = fitted_climate(moved(points), values, space, 4).through(moved(points), values, moved(asked))
    torch.testing.assert_close(again, found, rtol=1e-5, atol=1e-5)


def test_a_climate_is_of_the_largest_table_without_a_gap_and_misuse_says_the_mend() -> None:
    points = places(BOX, 20)
    values = drawn(true_climate(BOX), points, 8)
    gaps = torch.cat((values, values[:1] * torch.nan))
    silent = torch.cat((values, values[:, :1] * torch.nan), 1)
    silent[1:, 5] = torch.nan  # with it one frame would be left
    spared = [n for n in range(20) if n != 5]
    asked = (
        (points, gaps), (points, values),
        (torch.cat((points, points[:1])), silent), (points[spared], values[:, spared]),
    )  # fmt: skip
    for begun in (fitted_climate, settled):
        found = [
            fitted_climate(at, x, BOX, 3, steps=1) if begun is fitted_climate
            else settled(true_climate(BOX, 1e-3), at, x) for at, x in asked
        ]  # fmt: skip
        assert torch.equal(found[0].noise, found[1].noise) and torch.equal(found[2].noise, found[3].noise)
    scattered = values.masked_fill(
        torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < 0.4, torch.nan
    )
    with pytest.warns(UserWarning, match=r"learnt from \d of 20 sensors"):
        learned_climate(points, scattered, points, values, BOX)
    without = fitted_climate(points, values, BOX, 3, steps=1)
    with pytest.raises(ValueError, match="some channel has no reading"):
        fitted_climate(points, gaps[8:], BOX, 3)
    with pytest.raises(ValueError, match="leave those sensors out"):
        without.through(points, gaps[8:], points)
    with pytest.raises(ValueError, match="take a surface"):
        fitted_climate(points, values, Space("plane", (0.0, 0.0), (1.0, 2.0)), 3)


@SPACES
def test_weights_of_readings_are_the_best_linear_estimate(space: Space) -> None:
    """Of readings with a mean and a spread of their own, whichever waves they have."""
    told = {"offset": torch.tensor([3.0, -1.0]).double(), "scale": torch.tensor([0.5, 20.0]).double()}
    climate, points, asked = true_climate(space, 1e-3)._replace(**told), places(space, 25), places(space, 10, 1)
    values = drawn(climate, points, 4) * told["scale"] + told["offset"]
    weights, usual = climate.weights(points)
    z = torch.einsum("wjn,tnj->tw", weights, values) + usual  # [T, c 2 P]
    rows = waves_at(asked, space, climate.degree).flatten(1)
    found = torch.einsum("qw,tcw->tqc", rows, z.unflatten(1, (2, -1)))
    torch.testing.assert_close(found, climate.through(points, values, asked), rtol=1e-9, atol=1e-9)


@SPACES
def test_the_more_noise_is_reckoned_with_the_less_is_made_of_errors(space: Space) -> None:
    """White errors of variance 1 at the sensors leave s' K^-2 s between them, less than the variance over the noise."""
    points, asked, left = places(space, 25), places(space, 50, 1), []
    for noise in (1e-6, 1e-4, 1e-2):
        climate = true_climate(space, noise)
        weights = climate.weights(points)[0].unflatten(0, (2, -1))  # [c, 2 P, c, N]
        rows = waves_at(asked, space, climate.degree).flatten(1)
        gain = torch.einsum("qw,iwjn->qijn", rows, weights).square().sum((2, 3))
        usual = climate._replace(noise=0.0 * climate.noise)
        variance = _covariance(usual, climate.basis(asked)).diagonal().unflatten(0, (2, -1)).T
        assert bool((gain <= variance / noise).all())
        left.append(float(gain.mean()))
    assert left[0] > left[1] > left[2]


@SPACES
def test_what_is_unpacked_is_what_was_packed(space: Space) -> None:
    climate, points = true_climate(space), places(space, 12)
    again = unpacked(climate.packed(), space, climate.degree)
    values = drawn(climate, points, 3)
    assert torch.equal(again.through(points, values, points), climate.through(points, values, points))


def test_a_covariance_without_noise_that_is_singular_is_named() -> None:
    twice = climate_of(BOX, 3, (2.0, 2.0), (0.0, 0.0))
    blocks = [block + block.flip(2) for block in twice.blocks]
    with pytest.raises(ValueError, match="give it more noise"):
        twice._replace(blocks=tuple(blocks)).weights(places(BOX, 5))


def test_the_degree_hangs_on_how_many_sensors_there_are() -> None:
    assert suited_degree(410, SPHERE) == 44 and suited_degree(10**6, SPHERE) == 63 and suited_degree(1, SPHERE) == 1
    assert suited_degree(205, BOX) == 18


def test_noise_is_settled_by_sensors_that_are_told_by_all_others() -> None:
    truth, points = true_climate(SPHERE, 1e-2), places(SPHERE, 40)
    values, (first, second) = drawn(truth, points, 30), (torch.tensor(x) for x in ((1e-8, 1e-8), (1e-2, 1e-8)))
    found = settled(truth._replace(noise=first.double()), points, values)
    assert bool((found.noise > 1e-4).all())
    # The error by which it is chosen is that of the estimate by all sensors but one.
    h = truth.basis(points)
    y = (values.permute(2, 1, 0) - _zonal(truth, h).unsqueeze(2)).flatten(0, 1)
    silent = _covariance(truth._replace(noise=0.0 * truth.noise), h)
    told, missed = truth._replace(noise=second.double()), 0.0
    for one in range(40):
        kept = torch.arange(40) != one
        missed += float((told.through(points[kept], values[:, kept], points[one : one + 1]) - values[:, [one]])
                        .square().mean()) / 40  # fmt: skip
    assert _untold(silent, told.noise, y, torch.ones(80, dtype=torch.bool)) == pytest.approx(missed, rel=1e-4)


@pytest.mark.parametrize("space", [BOX, SPHERE], ids=["box", "sphere"])
def test_sensors_of_one_channel_each_are_fitted_as_sensors_of_both(space: Space) -> None:
    """Two in each place, one a channel: the same readings, the same climate."""
    points = places(space, 30)
    values = drawn(true_climate(space), points, 20)
    apart = torch.full((20, 60, 2), torch.nan, dtype=torch.float64)
    apart[:, :30, 0], apart[:, 30:, 1] = values[..., 0], values[..., 1]
    twice = torch.cat((points, points))
    one, other = fitted_climate(points, values, space, 3), fitted_climate(twice, apart, space, 3)
    torch.testing.assert_close(one.likelihood, other.likelihood, rtol=1e-6, atol=1e-6)
    asked = places(space, 7, 3)
    torch.testing.assert_close(
        one.through(points, values, asked), other.through(points, values, asked), rtol=1e-5, atol=1e-5
    )
    # A sensor is told by all others: of one channel each, the other channel of its place is among them.
    assert float(settled(other, twice, apart).noise.min()) > 0.0
    with pytest.raises(ValueError, match="some channel has no reading"):
        fitted_climate(points, values * torch.tensor([1.0, torch.nan]), space, 3)


def test_what_is_told_of_a_sensor_is_the_estimate_by_the_readings_that_are_there() -> None:
    truth, points = true_climate(BOX, 1e-3), places(BOX, 24)
    values = drawn(truth, points, 5)
    values[:, :8, 0] = torch.nan
    h = truth.basis(points)
    y, there = _columns(values, truth, h)
    silent, missed = _covariance(truth._replace(noise=0.0 * truth.noise), h), 0.0
    for one in range(24):
        for frame in values:
            hidden = frame.clone()
            hidden[one] = torch.nan
            missed += float((truth.completed(points, hidden[None])[0, one] - frame[one]).square().nansum())
    assert _untold(silent, truth.noise, y, there) == pytest.approx(missed / (5 * 40), rel=1e-6)
