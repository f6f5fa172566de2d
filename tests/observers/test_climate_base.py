"""Observers that correct the climate's estimate instead of a surface: what they begin with, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciode.data.flow import Space
from sciode.observers import Design, Observer, Reading, climate_of
from sciode.observers.arrays import as_flows
from sciode.observers.model import network
from sciode.observers.objective import Objective
from sciode.observers.windows import cut, layout_of, scale_of
from sciode.observers.wiring import Wiring, wired
from sciode.training import isolated_rng
from tests.observers.made import BOX, SPHERE, places

SPACES = pytest.mark.parametrize("space", [BOX, SPHERE], ids=["box", "sphere"])
DESIGN = Design(width=8, layers=1, heads=2, base="climate", waves=2)


def moving(space: Space, flows: int = 4, sensors: int = 30) -> tuple[Any, ...]:
    """Two channels, the second of which is what the first will be."""
    positions, times, draw = places(space, sensors).numpy(), np.arange(6.0), np.random.default_rng(0)
    phases = draw.random((flows, 1, 1)) * 6.28
    turned = positions @ np.array([2.0, 1.0, -1.0][: positions.shape[1]]) * (np.pi if space.kind == "periodic" else 1.0)
    angle = turned - times[:, None] / 3.0 + phases
    return positions, times, np.stack((5.0 + np.sin(angle), 0.1 * np.cos(angle)), -1)


def tiny(space: Space, **how: Any) -> Observer:
    plain = {"design": DESIGN, "space": space, "length": 6, "epochs": 1, "batch_size": 3, "queries": 16}
    return Observer(**{**plain, "device": "cpu", **how})


@SPACES
def test_what_corrects_nothing_is_the_climate_s_estimate_of_the_first_readings(space: Space) -> None:
    positions, times, values = moving(space)
    observer = tiny(space).fit(positions, times, values)
    with torch.no_grad():
        for parameter in observer.network_.continuum.decode[-1].parameters():
            parameter.zero_()
    asked, scale, climate = places(space, 9, 1), observer.scale_, observer.climate_
    assert climate is not None
    points, first = torch.tensor(positions).float(), torch.tensor(values[0, :1])
    climate = climate._replace(noise=climate.noise + DESIGN.nugget)
    expected = climate.through(points.double(), scale.standardised(first), asked.float())
    found = observer.predict(asked.numpy(), [0.0], Reading(positions, values[0, 0])).values
    np.testing.assert_allclose(found, scale.restored(expected), rtol=0.0, atol=1e-4 * float(scale.deviation.max()))


@SPACES
def test_saved_and_loaded_it_answers_to_the_bit(space: Space, tmp_path: Path) -> None:
    observer = tiny(space).fit(*moving(space))
    observer.save(tmp_path / "observer.safetensors")
    loaded = Observer.load(tmp_path / "observer.safetensors", device="cpu")
    asked = places(space, 5, 1).numpy()
    assert np.array_equal(loaded.predict(asked, [1.5]).values, observer.predict(asked, [1.5]).values)


@pytest.mark.parametrize("base", ["none", "cubic", "climate"])
def test_places_and_times_asked_together_are_those_asked_one_by_one(base: Any) -> None:
    observer = tiny(BOX, design=replace(DESIGN, base=base)).fit(*moving(BOX))
    asked, times = places(BOX, 5, 1).numpy(), [0.0, 1.5, 4.0, 5.0]
    whole = observer.predict(asked, times).values
    each = np.stack([[observer.predict(asked[n : n + 1], [t]).values[0, 0] for n in range(5)] for t in times])
    for found in (
        each,
        observer.predict(asked, times, chunk=3).values,
        observer.predict(asked, times, chunk=11).values,
    ):
        np.testing.assert_allclose(found, whole, rtol=0.0, atol=1e-5 * np.abs(whole).max())


def test_room_for_hidden_sensors_changes_no_number_and_all_steps_have_one_shape() -> None:
    positions, times, values = moving(BOX, flows=3)
    flows = as_flows(positions, times, values, None, BOX)
    windows = cut(flows, 6, None, scale_of(flows, 1))
    with isolated_rng(0):
        model = network(2, BOX, DESIGN)
    wiring = Wiring(waves=2, climate=climate_of(BOX, 3, (2.0, 3.0), (1e-3, 1e-3)))
    how: dict[str, Any] = {"every": 2, "queries": 64, "dropout": 0.4, "dynamics_weight": 1.0, "masks": 3}
    parts = {"train": windows, "validation": windows}
    plain, fixed = (Objective(model, parts, wiring=wiring, fixed=fixed, **how) for fixed in (False, True))
    shapes = set()
    for seed in range(5):
        rows = torch.arange(2) + seed % 2
        told = fixed.inputs(rows, seed)
        torch.testing.assert_close(fixed.value(told), plain.value(plain.inputs(rows, seed)), rtol=1e-5, atol=0.0)
        shapes.add(tuple(x.shape for x in pytree.tree_flatten(told)[0] if isinstance(x, torch.Tensor)))
    assert len(shapes) == 1


def test_flows_with_sensors_of_their_own_are_continued_as_if_each_were_alone() -> None:
    climate = climate_of(BOX, 4, (2.0, 3.0), (1e-2, 1e-2))
    wiring, clock = Wiring(waves=2, climate=climate), torch.arange(3.0, dtype=torch.float64).expand(2, -1)
    layouts = [layout_of(places(BOX, n, n)) for n in (12, 20)]
    readings = [torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) for n in (12, 20)]
    asked, t = places(BOX, 7, 1).float().expand(2, -1, -1), torch.linspace(0.0, 2.0, 7).double().expand(2, -1)
    with isolated_rng(0):
        model = network(2, BOX, DESIGN).eval()

    def told(chosen: list[int]) -> Tensor:
        keep = [torch.arange(len(layouts[n].points)) for n in chosen]
        scene = wired([layouts[n] for n in chosen], keep, [readings[n] for n in chosen], clock[chosen], wiring, BOX)
        with torch.no_grad():
            return model(scene, asked[chosen], t[chosen]).values

    torch.testing.assert_close(told([0, 1]), torch.cat((told([0]), told([1]))), rtol=1e-4, atol=1e-5)


def test_sensors_of_their_own_and_silent_ones_are_taken() -> None:
    draw, flows = np.random.default_rng(3), []
    for count in (18, 25, 31):
        positions, times, values = moving(BOX, flows=1, sensors=count)
        value = values[0]
        value[2:, 3] = np.nan
        value[draw.random(value.shape) < 0.1] = np.nan
        flows.append((positions, times, value))
    observer = tiny(BOX).fit(*(list(x) for x in zip(*flows, strict=True)))
    assert np.isfinite(observer.predict(places(BOX, 7, 1).numpy(), [0.0, 4.0]).values).all()


@pytest.mark.parametrize("nugget", [-0.1, float("nan"), float("inf"), "small"])
def test_a_nugget_is_a_variance(nugget: Any) -> None:
    with pytest.raises(ValueError, match="nugget is a variance"):
        Design(base="climate", nugget=nugget)


def test_where_no_motion_keeps_the_space_it_is_refused() -> None:
    positions, times, values = moving(BOX)
    plane = Space("plane", BOX.lower, BOX.upper)
    for observer, told in ((tiny(plane), (positions, times, values)), (tiny(SPHERE, flat=True), moving(SPHERE))):
        with pytest.raises(ValueError, match="needs a sphere or a periodic box"):
            observer.fit(*told)
