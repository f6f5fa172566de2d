"""Silent sensors are told by the others, uneven times keep their clock, and what was joined is joined once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.data.flow import Space
from sciode.observers import (
    Design,
    Observer,
    Reading,
    edges_between,
    network,
    objective,
    scene,
    spacing,
    surface_inverse,
)
from sciode.observers import wiring as joining
from sciode.observers.arrays import as_flows
from sciode.observers.climate import climate_of
from sciode.observers.gaps import filled
from sciode.observers.objective import Objective
from sciode.observers.surface import surface_rows
from sciode.observers.windows import cut, layout_of, scale_of
from sciode.observers.wiring import Joints, Wiring, joints_of
from tests.observers.made import BOX, SPHERE, places

UNIT = Space("periodic", (0.0, 0.0), (1.0, 1.0))
PLANE = Space("plane", (-1.0, -1.0), (1.0, 1.0))
CPU = torch.device("cpu")


def told(space: Space, wiring: Wiring, readings: Tensor, points: Tensor, room: int = 0) -> Tensor:
    part = wiring.joined(layout_of(points), torch.arange(len(points)), space, CPU, room)
    nothing = readings.new_full((len(part.points) - len(points), readings.shape[1]), torch.nan)
    return filled(torch.cat((readings, nothing)).unsqueeze(0), part, wiring, space)[0]


def waves(points: Tensor) -> Tensor:
    return torch.stack([(2.0 * points[:, 0]).sin() + points[:, 1], (points[:, 1] * 3.0).cos()], 1)


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("space", [BOX, PLANE, SPHERE], ids=["periodic", "plane", "sphere"])
def test_a_surface_through_what_is_told_is_the_surface_through_the_others(space: Space, order: int) -> None:
    points, asked = places(space, 40).float().double(), places(space, 9, 5)
    readings, silent = waves(points), torch.tensor([3, 17, 30])
    gappy = readings.clone()
    gappy[silent] = torch.nan
    gappy[5, 1] = torch.nan  # one channel of it
    found = told(space, Wiring(surface=True, order=order), gappy, points, room=43)
    assert found[40:].isnan().all() and torch.equal(found[:40][gappy.isfinite()], gappy[gappy.isfinite()])
    there = torch.ones(40, dtype=torch.bool)
    for channel in range(2):
        heard = gappy[:, channel].isfinite()
        surfaces = [
            surface_rows(asked, points[who], there[who], space, None, order)
            @ surface_inverse(points[who], space, None, order) @ values[who, channel]
            for who, values in ((there, found[:40]), (heard, gappy))
        ]  # fmt: skip
        assert torch.allclose(*surfaces, rtol=1e-4, atol=1e-4)  # the nugget is the median spacing's


def test_without_a_base_a_cubic_surface_tells_what_is_missing() -> None:
    points = places(BOX, 40).float().double()
    gappy = waves(points)
    gappy[[2, 9]] = torch.nan
    plain, based = (told(BOX, Wiring(surface=surface), gappy, points) for surface in (False, True))
    assert torch.allclose(plain, based) and plain.isfinite().all()


@pytest.mark.parametrize("space", [BOX, SPHERE], ids=["periodic", "sphere"])
def test_a_climate_through_what_is_told_is_the_climate_through_the_others(space: Space) -> None:
    climate = climate_of(space, 6, [3.0, 4.0], [1e-3, 1e-2])
    points, asked, readings = (
        places(space, 40).float().double(),
        places(space, 9, 5),
        torch.randn(40, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
    )
    gappy = readings.clone()
    gappy[[3, 17, 30]] = torch.nan
    other = gappy.clone()
    other[:9] = torch.nan
    again, found = climate.completed(points, torch.stack((other, gappy)))
    assert torch.allclose(climate.completed(points, other[None])[0], again, atol=1e-12)
    heard = gappy.isfinite().all(1)
    others = climate.through(points[heard], gappy[heard][None], asked)
    assert torch.allclose(climate.through(points, found[None], asked), others, atol=1e-9)
    assert torch.equal(found[heard], gappy[heard])


def test_a_climate_tells_a_channel_by_another_and_a_surface_leaves_it_missing() -> None:
    """Two channels that are the same but for noise: their covariance says so."""
    climate = climate_of(BOX, 4, [3.0, 3.0], [1e-6, 1e-6])
    blocks = tuple(block[:1].repeat(2, 1, 1, 1)[:, :, :1].repeat(1, 1, 2, 1) for block in climate.blocks)
    climate = climate._replace(blocks=blocks)
    points = places(BOX, 40).float().double()
    gappy = torch.stack([(2.0 * torch.pi * points[:, 0]).sin(), torch.full((40,), torch.nan, dtype=torch.float64)], 1)
    found = told(BOX, Wiring(climate=climate), gappy, points)
    assert torch.allclose(found[:, 1], gappy[:, 0], atol=1e-2)
    assert told(BOX, Wiring(surface=True), gappy, points)[:, 1].isnan().all()


@pytest.mark.parametrize(("heard", "whose"), [(5, "surface"), (4, "nearest"), (3, "nearest"), (2, "nobody")])
def test_by_fewer_than_a_surface_has_polynomials_the_nearest_tells(heard: int, whose: str) -> None:
    """Five in a periodic box: 1, and cosine and sine of both coordinates."""
    points = places(BOX, 40).float().double()
    readings = waves(points)
    gappy = torch.where(torch.arange(40).unsqueeze(1) < heard, readings, torch.nan)
    found = told(BOX, Wiring(surface=True), gappy, points)
    apart = BOX.difference(points[:, None], points[None, :heard]).norm(dim=-1)
    nearest = readings[apart.argmin(1)]
    if whose == "nobody":
        assert found[heard:].isnan().all()
    else:
        assert found.isfinite().all()
        assert torch.equal(found, nearest) == (whose == "nearest")


def test_nothing_is_told_that_is_far_out_of_what_is_read() -> None:
    """A steep slope up to a silent corner."""
    points = torch.cat((0.2 * places(PLANE, 30), torch.tensor([[2.5, 2.5]], dtype=torch.float64)))
    gappy = points[:, :1].clone()
    gappy[-1] = torch.nan
    found = told(PLANE, Wiring(surface=True), gappy, points)[-1]
    low, high = gappy[:-1].aminmax()
    assert torch.allclose(found, high + 0.5 * (high - low), atol=1e-6)


def wave(positions: np.ndarray, times: np.ndarray, shift: float) -> np.ndarray:
    phase = 2 * np.pi * (positions[:, 0] - 0.3 * np.asarray(times)[:, None] - shift)
    return np.sin(phase)[..., None]


def fitted(times: np.ndarray, **how: Any) -> tuple[Observer, np.ndarray]:
    positions = np.random.default_rng(0).random((40, 2))
    values = np.stack([wave(positions, times, shift) for shift in (0.0, 0.2, 0.45, 0.7, 0.9)])
    design = Design(**{"width": 8, "layers": 1, "heads": 2, "depth": 1, "base": "cubic", "waves": 2, **how})
    observer = Observer(
        design=design, space=UNIT, length=9, every=2, epochs=2, queries=16, masks=2, batch_size=4, device="cpu"
    )
    return observer.fit(positions, times, values), positions


@pytest.mark.parametrize("base", ["cubic", "climate"])
def test_a_silent_sensors_place_is_told_by_the_others(base: str) -> None:
    observer, positions = fitted(np.arange(18) * 0.1, base=base)
    values, silent = wave(positions, np.zeros(1), 0.33)[0], [1, 8, 20]
    gappy = values.copy()
    gappy[silent] = np.nan
    left = np.delete(np.arange(40), silent)
    error, other = (
        np.square(observer.predict(positions[silent], [0.0], given).values[0] - values[silent]).mean()
        for given in (Reading(positions, gappy), Reading(positions[left], values[left]))
    )
    assert error < 1.5 * other and other < 0.05


def test_places_beside_a_silent_sensor_are_outside_as_if_it_were_not_there() -> None:
    positions = np.concatenate((np.random.default_rng(0).random((30, 2)), [[3.0, 3.0]]))
    values = np.stack([wave(positions, np.arange(18) * 0.1, shift) for shift in (0.0, 0.3, 0.6, 0.9)])
    observer = Observer(design=Design(width=8, layers=1, heads=2), length=9, epochs=1, masks=2, device="cpu")
    observer.fit(positions, np.arange(18) * 0.1, values)
    silent = np.where(np.arange(31)[:, None] == 30, np.nan, values[0, 0])
    assert observer.predict([[2.9, 2.9]], [0.1], Reading(positions, silent)).outside.all()
    assert not observer.predict([[2.9, 2.9]], [0.1], Reading(positions, values[0, 0])).outside.any()


def test_a_forecast_has_the_anchor_times_of_training() -> None:
    """Bursts and pauses: every flow is read at the same uneven times."""
    times = np.cumsum(np.where(np.arange(18) % 3 == 0, 1.0, 0.1))
    with pytest.warns(UserWarning, match="Euler"):
        observer, positions = fitted(times)
    clock = (times[:9:2] - times[0]) / observer.scale_.unit
    assert np.allclose(observer.clock_, clock)
    readings = observer.scale_.standardised(torch.as_tensor(wave(positions, times[:1], 0.33)[0]))
    points = torch.as_tensor(positions, dtype=torch.float32)
    part = observer._forecast().joined(layout_of(points))
    own = {name: getattr(part.span, name).unsqueeze(0) for name in ("waves", "projection", "surface")}
    edges, near = edges_between(points, UNIT), spacing(points, UNIT)
    seen = scene([points], [readings], observer.clock_, [edges], UNIT, [near], span=part.span._replace(**own))
    asked, at = points[:5] + 0.01, np.array([0.05, 0.7, 1.9])
    with torch.no_grad():
        t = torch.as_tensor(at / observer.scale_.unit).repeat_interleave(5)[None]
        direct = observer.network_(seen, asked.repeat(3, 1)[None], t).values[0].unflatten(0, (3, 5))
    found = observer.predict(asked.numpy(), at, Reading(positions, wave(positions, times[:1], 0.33)[0])).values
    assert np.allclose(found, observer.scale_.restored(direct), atol=1e-6)
    # Later anchor times are evenly apart.
    later = observer._forecast().scene(part, torch.as_tensor(wave(positions, times[:1], 0.33)[0]), 9).clock[0]
    assert torch.allclose(later[4:].diff(), torch.full((4,), float(observer.clock_[-1]) / 4, dtype=torch.float64))


def test_first_readings_are_told_once_a_window_and_way_of_hiding(monkeypatch: Any) -> None:
    asked: list[int] = []
    monkeypatch.setattr(objective, "filled", lambda given, *how: asked.append(len(given)) or filled(given, *how))
    times = np.arange(9) * 0.1
    positions = np.random.default_rng(0).random((30, 2))
    values = np.stack([wave(positions, times, shift) for shift in (0.0, 0.2, 0.45, 0.7, 0.9)])
    values[:, :, 3] = np.nan
    how: dict[str, Any] = {"space": UNIT, "length": 9, "queries": 16, "batch_size": 4, "device": "cpu", "epochs": 8}
    design = Design(width=8, layers=1, heads=2, depth=1, waves=2)
    Observer(design=design, masks=2, **how).fit(positions, times, values)
    assert sum(asked) <= 4 * 2 + 1  # four windows train, one chooses
    asked.clear()
    Observer(design=design, masks=0, **how).fit(positions, times, values)
    assert sum(asked) == 4 * 8 + 1


def test_without_ways_of_hiding_that_come_again_no_joints_are_kept_but_those_that_choose() -> None:
    flows = as_flows(*_few(), None, UNIT)
    scale = scale_of(flows, 2)
    parts = {name: cut(flows, 9, None, scale) for name in ("train", "validation")}
    with torch.random.fork_rng():
        model = network(1, UNIT, Design(width=8, layers=1, heads=2, depth=1, base="none", waves=0))
    asks = Objective(model, parts, wiring=Wiring(), every=2, queries=8, dropout=0.3, dynamics_weight=1.0, masks=0)
    for epoch in range(5):
        asks.train()
        asks.loss(torch.arange(2), epoch)
        asks.eval()
        asks.loss(torch.arange(2), 77)
    assert len(asks._joints) == 1


def _few() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positions, times = np.random.default_rng(0).random((30, 2)), np.arange(9) * 0.1
    return positions, times, np.stack([wave(positions, times, shift) for shift in (0.0, 0.2)])


def test_even_times_are_no_cause_for_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    observer, _ = fitted(np.arange(18) * 0.1)
    assert not [w for w in recwarn if "Euler" in str(w.message)]
    assert torch.allclose(observer.clock_, torch.arange(5, dtype=torch.float64))


def test_a_layout_is_joined_once_and_what_was_asked_for_longest_ago_goes_first(monkeypatch: Any) -> None:
    layouts = [layout_of(places(BOX, 20, seed)) for seed in range(4)]
    keep, known, made = [torch.arange(20) for _ in layouts], Joints(), []
    joined = Wiring.joined
    monkeypatch.setattr(
        Wiring, "joined", lambda self, layout, *how: made.append(id(layout)) or joined(self, layout, *how)
    )
    ask = lambda *which: joints_of(  # noqa: E731
        [layouts[n] for n in which], [keep[n] for n in which], Wiring(waves=2), BOX, CPU, known
    )
    parts = ask(0, 1, 2, 0, 1)
    assert parts[0] is parts[3] and made == [id(layouts[n]) for n in (0, 1, 2)]
    monkeypatch.setattr(joining, "_KEPT", int(1.2 * sum(part.bytes for part in parts[:3])))
    ask(3)  # 2 goes: it was asked for before 0 and 1
    ask(0, 1, 3)
    assert len(made) == 4
    ask(2)
    assert len(made) == 5 and len(known) == 3


def test_a_rollout_joins_its_sensors_once(monkeypatch: Any) -> None:
    observer, positions = fitted(np.arange(18) * 0.1)
    made, joined = [], Wiring.joined
    monkeypatch.setattr(Wiring, "joined", lambda self, *how: made.append(1) or joined(self, *how))
    found = observer.rollout(positions[:3], np.arange(1, 30) * 0.1)
    assert len(made) == 1 and found.values.shape == (29, 3, 1)
    assert all(a <= b for a, b in pairwise(found.beyond))
