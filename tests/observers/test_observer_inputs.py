"""What users give to the estimators: numbers of any library, gaps, walls, offsets; what is refused, and when."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciode.data.flow import Space
from sciode.observers import Design, Observer, QuadraticLaw, Reading
from sciode.observers.arrays import as_flows
from sciode.observers.forecast import Forecast
from sciode.observers.gridded import FourierOperator
from sciode.observers.implicit import ImplicitField
from sciode.observers.objective import Objective
from sciode.observers.simulator import MeshGraphNet
from sciode.observers.windows import cut, scale_of

BOX = Space("periodic", (0.0, 0.0), (1.0, 1.0))
TINY = Design(width=8, layers=1, heads=2, depth=1)
PLACES = np.random.default_rng(0).random((12, 2))
TIMES = np.arange(8) / 4.0
WALLS = np.arange(12) < 4


def waves(positions: NDArray[Any] = PLACES, flows: int = 4) -> NDArray[np.float64]:
    """Values [F, T, N, 1] of sin(2 pi (x - t / 4) + phase)."""
    angle = 2 * np.pi * (positions[:, 0] - TIMES[:, None] / 4.0)
    return np.sin(angle + np.arange(flows)[:, None, None])[..., None]


def tiny(**how: Any) -> Observer:
    plain = {"design": TINY, "space": BOX, "length": 4, "epochs": 1, "queries": 8, "device": "cpu", "masks": 2}
    return Observer(**{**plain, **how})


@pytest.fixture(scope="module")
def fitted() -> Observer:
    return tiny().fit(PLACES, TIMES, waves())


OPPONENTS = (
    MeshGraphNet(width=8, layers=1, length=4, epochs=1, device="cpu"),
    FourierOperator(width=4, layers=1, modes=2, side=8, length=4, epochs=1, device="cpu"),
    ImplicitField(code=4, width=8, layers=1, descent=3, length=4, epochs=1, device="cpu"),
)


@pytest.mark.parametrize(
    ("places", "values", "space"),
    [
        (PLACES[:, ::-1], waves(), BOX),
        (PLACES, waves()[:, :, ::-1], BOX),
        (PLACES, waves(), Space("periodic", (0.0, 0.0), (1.0, 1.5))),
    ],
    ids=["other places", "other readings", "another box"],
)
@pytest.mark.parametrize("who", [tiny(space=None), *OPPONENTS], ids=lambda who: type(who).__name__)
def test_a_checkpoint_of_other_data_is_refused(
    who: Any, places: Any, values: Any, space: Space, tmp_path: Path
) -> None:
    """Readings in another order have the same sums."""
    own = as_flows(PLACES, TIMES, waves(), None, BOX)
    who.fit_flows(own, folder=tmp_path)
    who.fit_flows(own, folder=tmp_path)
    with pytest.raises(ValueError, match="checkpoint"):
        who.fit_flows(as_flows(places, TIMES, values, None, space), folder=tmp_path)


def test_a_checkpoint_of_other_walls_is_refused(tmp_path: Path) -> None:
    tiny().fit(PLACES, TIMES, waves(), WALLS, folder=tmp_path)
    with pytest.raises(ValueError, match="checkpoint"):
        tiny().fit(PLACES, TIMES, waves(), ~WALLS, folder=tmp_path)


def test_what_changes_beside_a_large_offset_is_kept() -> None:
    """1e5 + 1e-3 s is all one number in float32, and is the same flow as s."""
    design, asked = replace(TINY, base="cubic"), PLACES[:3] + 0.01
    plain, offset = (tiny(design=design).fit(PLACES, TIMES, values) for values in (waves(), 1e5 + 1e-3 * waves()))
    one, other = (who.predict(asked, TIMES[:3]).values for who in (plain, offset))
    np.testing.assert_allclose((other - 1e5) * 1e3, one, atol=1e-4)
    assert np.abs(offset.predict(PLACES, [0.0]).values[0] - 1e5 - 1e-3 * waves()[0, 0]).max() < 1e-3


def test_positions_far_from_0_are_told_apart_and_answers_move_with_them(tmp_path: Path) -> None:
    """Half a metre is the least that float32 knows of a northing on a map of the earth."""
    far, design = np.array([5e5, 5.4e6]), replace(TINY, base="cubic")
    plain, there = (tiny(design=design, space=None).fit(PLACES + at, TIMES, waves()) for at in (0.0, far))
    there.save(tmp_path / "observer")
    again = Observer.load(tmp_path / "observer", device="cpu")
    assert again.origin_ == there.origin_ == pytest.approx(far, abs=1.0) and plain.origin_ == (0.0, 0.0)
    np.testing.assert_array_equal(again.given_.positions, PLACES + far)
    asked = np.array([PLACES.mean(0), [3.0, 3.0]])
    for who in (there, again):
        for one, other in ((plain.predict, who.predict), (plain.rollout, who.rollout)):
            near, moved = one(asked, [0.0, 1.7]), other(asked + far, [0.0, 1.7])
            np.testing.assert_allclose(moved.values, near.values, atol=1e-4)
            assert moved.outside.tolist() == near.outside.tolist() == [False, True]
    wide = Space("plane", (0.0, 0.0), (1e7, 1e7))
    with pytest.raises(ValueError, match="subtract a place near them"):
        tiny(space=wide).fit(PLACES + far, TIMES, waves())
    with pytest.raises(ValueError, match="subtract a place near them"):
        OPPONENTS[0].fit_flows(as_flows(PLACES + far, TIMES, waves(), None, None))


def test_windows_without_any_reading_are_left_out() -> None:
    """Outages of all sensors: a whole flow, a window of one that trains and one of one that validates."""
    values = np.concatenate((waves(), waves()))
    values[0] = values[1, 4:] = values[7, :4] = np.nan
    values[1, 0] = np.nan
    places = [PLACES + 0.001 * n for n in range(8)]
    flows = as_flows(places, TIMES, list(values), None, BOX)
    windows = cut(flows, 4, None, scale_of(flows, 2))
    assert windows.which == (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6) and len(windows.layouts) == 7
    observer = tiny().fit(places, TIMES, list(values))
    np.testing.assert_array_equal(observer.given_.positions, places[1])
    np.testing.assert_array_equal(observer.given_.values, values[1, 1])
    assert observer.given_.time == TIMES[1] and np.isfinite(observer.predict(PLACES, [TIMES[1]]).values).all()
    MeshGraphNet(width=8, layers=1, length=4, epochs=1, device="cpu").fit_flows(flows)
    with pytest.raises(ValueError, match="validation: none of its windows"):
        tiny().fit(PLACES, TIMES, waves(), validation=(PLACES, TIMES, np.nan * waves()))
    silent = waves()[0]
    silent[6:] = np.nan
    with pytest.raises(ValueError, match="validation: none of its windows"):
        tiny(length=4).fit(PLACES, TIMES, silent)


def test_walls_are_kept_where_the_readings_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = tiny().fit(PLACES, TIMES, waves(), WALLS)
    told = observer.predict(PLACES, [0.3], Reading(PLACES, waves()[0, 0], 0.0, WALLS)).values
    untold = observer.predict(PLACES, [0.3], Reading(PLACES, waves()[0, 0])).values
    observer.save(tmp_path / "observer")
    for who in (observer, Observer.load(tmp_path / "observer", device="cpu")):
        assert who.given_.walls is not None and who.given_.walls.tolist() == WALLS.tolist()
        assert np.array_equal(who.predict(PLACES, [0.3]).values, told) and not np.array_equal(told, untold)
    flows = as_flows([PLACES] * 3, TIMES, waves(flows=3), [WALLS, ~WALLS, WALLS], BOX)
    windows = cut(flows, 8, None, scale_of(flows, 2))
    assert windows.which == (0, 1, 0) and [x.walls.tolist() for x in windows.layouts] == [
        WALLS.tolist(), (~WALLS).tolist()
    ]  # fmt: skip
    seen: list[Any] = []
    told_of = Objective.__init__

    def noted(self: Objective, model: Any, windows: Any, **how: Any) -> None:
        seen.append(windows["validation"].layouts[0].walls.tolist())
        told_of(self, model, windows, **how)

    monkeypatch.setattr(Objective, "__init__", noted)
    tiny().fit(PLACES, TIMES, waves(), WALLS, validation=(PLACES, TIMES, waves(), WALLS))
    tiny().fit(PLACES, TIMES, waves(), WALLS, validation=(PLACES, TIMES, waves()))
    assert seen == [WALLS.tolist(), [False] * 12]
    with pytest.raises(ValueError, match="with walls as a fourth"):
        tiny().fit(PLACES, TIMES, waves(), validation=(PLACES, TIMES))  # type: ignore[arg-type]


@pytest.fixture
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "who",
    [tiny(design=replace(TINY, base=base, waves=2)) for base in ("none", "fitted", "climate")]
    + [tiny(design=replace(TINY, dynamics="ode")), *OPPONENTS, QuadraticLaw(side=8, rounds=(1, 1), length=4)],
    ids=["observer", "fitted", "climate", "ode", "MeshGraphNet", "FourierOperator", "ImplicitField", "law"],
)
def test_networks_are_float32_whatever_the_default(double: None, who: Any) -> None:
    who.fit_flows(as_flows(PLACES, TIMES, waves(), None, BOX))
    assert {parameter.dtype for parameter in who.network_.parameters()} == {torch.float32}
    found = who.predict(PLACES, [0.0, 0.3], Reading(PLACES, waves()[0, 0]))
    assert np.isfinite(found if isinstance(found, np.ndarray) else found.values).all()


def test_numbers_of_numpy_are_parameters_that_can_be_saved(tmp_path: Path) -> None:
    ball = Space("periodic", (0, 0), (1, 1), np.float32(2.0))  # type: ignore[arg-type]
    design = Design(width=np.int64(8), layers=1, heads=2, nugget=np.float32(0.03), solver={"rtol": np.float32(0.1)})  # type: ignore[arg-type]
    how = {"length": np.int64(4), "graph": "radius", "radius": np.float32(0.3), "random_state": np.int64(2)}
    observer = tiny(design=design, space=ball, device=torch.device("cpu"), **how).fit(PLACES, TIMES, waves())
    observer.save(tmp_path / "observer")
    loaded = Observer.load(tmp_path / "observer", device="cpu")
    assert type(loaded.length) is int and loaded.radius == pytest.approx(0.3) and loaded.design == design
    law = QuadraticLaw(space=BOX, side=np.int64(8), ahead=(np.int64(1),), rounds=(1,), length=4)  # type: ignore[arg-type]
    law.fit(PLACES, TIMES, waves()).save(tmp_path / "law")
    assert QuadraticLaw.load(tmp_path / "law").ahead == (1,)


def test_masked_readings_are_missing(fitted: Observer) -> None:
    gaps = np.random.default_rng(1).random(waves().shape) < 0.2
    masked = np.ma.masked_array(np.where(gaps, -9999.0, waves()), mask=gaps)
    missing = np.where(gaps, np.nan, waves())
    for given in (masked, list(masked), list(masked.astype(int))):
        flows = as_flows(PLACES, TIMES, given, None, BOX)
        assert all(np.array_equal(flow.values.isnan().numpy(), own) for flow, own in zip(flows, gaps, strict=True))
    one, other = (fitted.predict(PLACES, [0.3], Reading(PLACES, x[0, 0])).values for x in (masked, missing))
    assert np.array_equal(one, other) and not np.array_equal(one, fitted.predict(PLACES, [0.3]).values)


def test_tensors_are_taken_with_gradients_and_without_a_warning(fitted: Observer) -> None:
    places, times, values = (torch.from_numpy(x).requires_grad_() for x in (PLACES, TIMES, waves()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        observer = tiny().fit(places, times, values)
        lists = tiny().fit([places] * 4, [times] * 4, list(values), [torch.from_numpy(WALLS)] * 4)
        given = Reading(places, values[0, 0], times[1], torch.from_numpy(WALLS))  # type: ignore[arg-type]
        found = observer.predict(places, list(times[2:4]), given).values
    assert np.array_equal(found, fitted.predict(PLACES, TIMES[2:4], Reading(PLACES, waves()[0, 0], 0.25, WALLS)).values)
    assert lists.given_.walls is not None
    half = as_flows(PLACES, TIMES, values.to(torch.bfloat16), None, BOX)
    assert half[0].values.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((PLACES[:0], TIMES, waves()[:, :, :0]), "one time, sensor and channel at least"),
        ((np.stack([PLACES] * 8), TIMES, waves()[0]), "do not move in time"),
        ((PLACES, TIMES, waves()[0].tolist()), r"got \(12, 1\) of flow 0.*np.array\(values\)$"),
        ((PLACES, np.datetime64("2020-01-01") + np.arange(8), waves()), "subtract the first and divide by a unit"),
        ((PLACES, TIMES, waves() + 0j), "real and imaginary parts as channels"),
        ((PLACES, TIMES, np.full(waves().shape, "a")), "values must be numbers"),
        ((PLACES, TIMES, []), "there is no flow"),
    ],
    ids=["no sensor", "moving", "nested", "dates", "complex", "letters", "nothing"],
)
def test_arrays_that_cannot_be_flows_are_named(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny().fit(*given)


def test_a_validation_of_other_channels_or_dimensions_is_named() -> None:
    twice, line = np.concatenate((waves(), waves()), -1), Space("plane", (0.0,), (1.0,))
    own, other = as_flows(PLACES, TIMES, waves(), None, BOX), as_flows(PLACES[:, :1], TIMES, waves(), None, line)
    with pytest.raises(ValueError, match="1 channels in 2 dimensions and validation 2 in 2"):
        tiny().fit(PLACES, TIMES, waves(), validation=(PLACES, TIMES, twice))
    for who in (tiny(), OPPONENTS[0]):
        with pytest.raises(ValueError, match="and validation 1 in 1"):
            who.fit_flows(own, other)


def test_questions_that_cannot_be_answered_are_named(fitted: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    for ask in (fitted.predict, fitted.rollout):
        with pytest.raises(ValueError, match=r"a whole number: got 2\.5"):
            ask(PLACES, [0.3], chunk=2.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="subtract the first"):
            ask(PLACES, np.array(["2020-01-01"], dtype="datetime64[s]"))
        with pytest.raises(ValueError, match="foreseen: ask for earlier"):
            ask(PLACES, [1e9])
    late = np.array([2e5 * fitted.scale_.unit])
    with pytest.raises(ValueError, match="rollout, which goes further"):
        fitted.predict(PLACES, late)
    monkeypatch.setattr(fitted, "horizon_", float(late[0]))
    monkeypatch.setattr(Forecast, "answer", lambda self, a, b, x, t, *_: (np.zeros((len(t), len(x), 1)), np.inf))
    assert fitted.rollout(PLACES, late).values.shape == (1, 12, 1)
    with pytest.raises(ValueError, match="subtract the first"):
        Reading(PLACES, waves()[0, 0], np.datetime64("2020-01-01"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"graph": "delauney"}, "graph: unknown 'delauney'. Did you mean 'delaunay'"),
        ({"graph": "radius"}, "needs radius > 0"),
        ({"graph": "map"}, "only a sphere"),
        ({"graph": "map", "flat": True}, "leave it out"),
        ({"lr": -1.0}, "lr must be > 0"),
        ({"epochs": 0}, "epochs, batch_size and threads must be >= 1"),
        ({"epochs": 2.5}, "epochs counts"),
        ({"batch_size": 0}, "epochs, batch_size and threads must be >= 1"),
        ({"schedule": "cos"}, "schedule must be"),
        ({"random_state": 0.5}, "random_state counts"),
    ],
)
def test_misuse_of_an_observer_is_named_before_anything_is_worked_out(
    how: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciode.observers.observer.scale_of", None)
    with pytest.raises(ValueError, match=said):
        tiny(**how).fit(PLACES, TIMES, waves())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"dynamics": "x"}, "^dynamics: unknown"),
        ({"attention": "sparse"}, "^attention: unknown"),
        ({"reader": "lstm"}, "^reader: unknown"),
        ({"places": "far"}, "^places: unknown"),
        ({"width": 9}, "heads must divide the width 9"),
        ({"width": 8.0}, "width counts"),
        ({"layers": 0}, "must be >= 1"),
        ({"horizon": 0.0}, "horizon must be > 0"),
        ({"solver": {"metod": "rk4"}}, "Did you mean 'method'"),
    ],
)
def test_misuse_of_a_design_is_named_when_it_is_written(how: dict[str, Any], said: str) -> None:
    before = torch.random.get_rng_state()
    Design(waves=3)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ValueError, match=said):
        Design(**how)
