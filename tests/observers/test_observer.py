"""The estimator: what it learns, what it takes and flags, interruption, saving; and how queries are drawn."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciode.data.flow import Flow, FlowSet, Space
from sciode.observers import Design, Importance, Observer, Reading
from sciode.observers.arrays import as_flows, asked, held_out
from sciode.observers.bounds import Bounds, bounds_of
from sciode.observers.dynamics import LatentDynamics, Latents
from sciode.observers.model import PLAIN, PUBLISHED
from sciode.observers.scene import Scene
from sciode.observers.windows import cut, scale_of
from sciode.training import append_json, load_checkpoint, save_checkpoint

BOX = Space("periodic", (0.0, 0.0), (1.0, 1.0))
TINY = Design(width=16, layers=1, heads=2, modes=2, **PLAIN)


def waves(flows: int = 6, sensors: int = 24, frames: int = 9, seed: int = 0) -> tuple[NDArray[Any], ...]:
    """Positions, times, and values [F, T, N, 1] of sin(2 pi (x - t / 8) + phase)."""
    rng = np.random.default_rng(seed)
    positions, times = rng.random((sensors, 2)), np.arange(frames) / 2.0
    phases = rng.random((flows, 1, 1)) * 2 * np.pi
    return positions, times, wave(positions, times, phases)


def wave(positions: NDArray[Any], times: NDArray[Any], phases: Any) -> NDArray[Any]:
    angle = 2 * np.pi * (positions[:, 0] - times[:, None] / 8.0) + phases
    return np.sin(angle)[..., None]


def tiny(**how: Any) -> Observer:
    plain = {"design": TINY, "space": BOX, "length": 9, "epochs": 2, "batch_size": 3, "queries": 64, "device": "cpu"}
    return Observer(**{**plain, **how})


@pytest.fixture(scope="module")
def fitted() -> Observer:
    return tiny().fit(*waves())


@pytest.mark.parametrize("base", ["none", "cubic"])
def test_a_decaying_wave_is_learnt_between_its_sensors(base: Any) -> None:
    """a cos(2 pi x) exp(-t / 2), any a: below a tenth of its variance where no sensor is, from one reading."""
    positions, times, _ = waves()
    decaying = lambda x, a: a * (np.cos(2 * np.pi * x[:, 0]) * np.exp(-times[:, None] / 2.0))[..., None]  # noqa: E731
    flows = np.stack([decaying(positions, a) for a in np.linspace(-2, 2, 20)])[np.random.default_rng(0).permutation(20)]
    design = replace(TINY, base=base, waves=2 if base == "cubic" else 0)
    observer = tiny(design=design, epochs=30, batch_size=4, lr=1e-2).fit(positions, times, flows)
    asked = np.random.default_rng(9).random((200, 2))
    truth = decaying(asked, 1.3)
    found = observer.predict(asked, times, Reading(positions, decaying(positions, 1.3)[0])).values
    assert np.mean((found - truth) ** 2) < 0.1 * truth.var()


def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    positions, times, values = waves()
    whole = tiny(epochs=4).fit(positions, times, values)

    class Stop(Exception):
        pass

    loop = sys.modules["sciode.training.fit"]
    append = append_json

    def after_two(file: Path, record: Any) -> None:
        append(file, record)
        if record["number"] == 1:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "append_json", after_two)
        with pytest.raises(Stop):
            tiny(epochs=4).fit(positions, times, values, folder=tmp_path)
    resumed = tiny(epochs=4).fit(positions, times, values, folder=tmp_path)
    for one, other in zip(whole.network_.parameters(), resumed.network_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_saved_and_loaded_is_the_same(fitted: Observer, tmp_path: Path) -> None:
    fitted.save(tmp_path / "observer.safetensors")
    loaded = Observer.load(tmp_path / "observer.safetensors", device="cpu")
    asked = np.random.default_rng(1).random((7, 2))
    one, other = (x.predict(asked, [0.0, 1.3]).values for x in (fitted, loaded))
    assert np.array_equal(one, other)
    assert loaded.design == fitted.design and loaded.space == fitted.space
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        (tmp_path / "no.safetensors").write_bytes(b"no")
        Observer.load(tmp_path / "no.safetensors")


def test_an_observer_saved_before_states_were_named_is_loaded_with_the_dynamics_it_had(tmp_path: Path) -> None:
    path = tmp_path / "observer.safetensors"
    earlier = tiny(design=replace(TINY, **{**PUBLISHED, "base": "cubic", "waves": 2}), epochs=1).fit(*waves())
    earlier.save(path)
    tensors, record = load_checkpoint(path)
    for name in ("state", "mixing"):
        del record["parameters"]["design"][name]
    for name in ("clock", "origin"):
        del record[name]
    save_checkpoint(path, {k: v for k, v in tensors.items() if not k.startswith("bounds.")}, record)
    loaded, asked = Observer.load(path, device="cpu"), np.random.default_rng(1).random((7, 2))
    one, other = (x.predict(asked, [0.0, 1.3]).values for x in (earlier, loaded))
    assert np.array_equal(one, other) and loaded.design.state == "latent" and Design().state == "values"
    # Nor did they know the range of readings: no number is too large.
    far = Reading(earlier.given_.positions, 1e3 * np.asarray(earlier.given_.values))
    assert not loaded.predict(asked, [0.0, 1.3], far).away.any() and earlier.predict(asked, [0.0], far).away.all()


def test_the_seed_decides(fitted: Observer) -> None:
    again, other = tiny().fit(*waves()), tiny(random_state=1).fit(*waves())
    asked = np.full((1, 2), 0.3)
    values = [x.predict(asked, [2.0]).values.item() for x in (fitted, again, other)]
    assert values[0] == values[1] != values[2]


def test_predictions_do_not_hang_on_chunks_or_units(fitted: Observer) -> None:
    asked, times = np.random.default_rng(1).random((7, 2)), [0.0, 0.5, 1.7]
    found = fitted.predict(asked, times)
    assert found.values.shape == (3, 7, 1) and not found.outside.any()
    np.testing.assert_allclose(fitted.predict(asked, times, chunk=4).values, found.values, atol=1e-5)
    positions, clock, values = waves()
    scaled = tiny().fit(positions, 60.0 * clock + 5.0, 273.0 + 10.0 * values)
    other = scaled.predict(asked, 60.0 * np.array(times) + 5.0).values
    np.testing.assert_allclose((other - 273.0) / 10.0, found.values, atol=1e-3)


def test_a_rollout_is_a_prediction_that_begins_again_at_each_horizon(fitted: Observer) -> None:
    asked, reach = np.random.default_rng(1).random((5, 2)), fitted.horizon_
    assert reach == 4.0
    early = fitted.rollout(asked, [0.5, 3.9])
    assert np.array_equal(early.values, fitted.predict(asked, [0.5, 3.9]).values)
    late = fitted.rollout(asked, [1.0, 5.0])
    ends = fitted.predict(fitted.given_.positions, [reach]).values[0]
    again = fitted.predict(asked, [1.0], Reading(fitted.given_.positions, ends))
    np.testing.assert_allclose(late.values[1], again.values[0], atol=1e-6)
    assert late.beyond.tolist() == [False, True]


def test_answers_within_the_horizon_do_not_hang_on_later_times_asked_beside(fitted: Observer) -> None:
    asked = np.random.default_rng(1).random((5, 2))
    alone, beside = fitted.predict(asked, [0.5, 4.0]), fitted.predict(asked, [0.5, 7.3, 4.0, 30.0])
    assert np.array_equal(beside.values[[0, 2]], alone.values)
    assert beside.beyond.tolist() == [False, True, False, True]
    np.testing.assert_allclose(fitted.predict(asked, [7.3]).values[0], beside.values[1], atol=1e-6)


class Runaway(LatentDynamics):
    """Sensors that gain `speed` deviations a step."""

    speed = 0.0

    def forward(self, scene: Scene) -> Latents:
        found = super().forward(scene)
        told = scene.start.unsqueeze(1) + self.speed * scene.clock[:, :, None, None].float()
        return found._replace(told=told)


def test_a_forecast_that_runs_away_is_flagged_from_then_on_and_kept(tmp_path: Path) -> None:
    """Half the range's width above the highest reading is where it is lost; a forecast that goes on there is later."""
    positions, times, values = waves()
    observer = tiny(design=replace(TINY, base="cubic"), epochs=1).fit(positions, times, values)
    assert isinstance(observer.network_.dynamics, LatentDynamics)
    assert not observer.predict(positions[:3], times).away.any()
    observer.network_.dynamics.__class__ = Runaway
    low, high = observer.bounds_.lowest.item(), observer.bounds_.highest.item()
    assert (low, high) == (pytest.approx(values[:4].min()), pytest.approx(values[:4].max()))
    deviation, start = observer.scale_.deviation.item(), np.asarray(observer.given_.values).max()
    Runaway.speed = 0.7
    steps = np.ceil((high + 0.5 * (high - low) - start) / (0.7 * deviation))
    assert 1 < steps < 4
    for ask in (observer.predict, observer.rollout):
        found = ask(positions[:3], times)
        assert found.away.tolist() == (times >= steps * observer.scale_.unit).tolist() and found.away.any()
        assert np.isfinite(found.values).all() and found.values[-1].max() > high + 0.5 * (high - low)
    observer.save(tmp_path / "observer.safetensors")
    again = Observer.load(tmp_path / "observer.safetensors", device="cpu")
    assert again.bounds_ == observer.bounds_
    Runaway.speed = float("nan")
    assert observer.predict(positions[:3], times).away.tolist() == [True] * len(times)
    Runaway.speed = 0.0


class Sudden(LatentDynamics):
    """One sensor that from the call number `begins` on gains four deviations a step."""

    begins = calls = 0

    def forward(self, scene: Scene) -> Latents:
        found = super().forward(scene)
        self.calls += 1
        told = 0.0 * found.told
        told[:, :, 0] = 4.0 * (self.calls > self.begins) * scene.clock[:, :, None].float()
        return found._replace(told=told)


def test_one_sensor_that_runs_away_flags_places_that_do_not_hear_of_it() -> None:
    """Without a surface no place does. A rollout's stretches, 4 long, are called once, and between them once more."""
    observer = tiny(design=replace(TINY, base="none"), epochs=1).fit(*waves())
    dynamics = observer.network_.dynamics
    assert isinstance(dynamics, LatentDynamics) and observer.scale_.unit == 1.0
    dynamics.__class__ = Sudden
    place = observer.given_.positions[:1]
    for ask in (observer.predict, observer.rollout):
        assert ask(place, [0.5, 1.0, 3.0]).away.tolist() == [False, True, True]
    # Asked of the second stretch alone, the first still was gone through.
    assert observer.rollout(place, [4.5]).away.all()
    for begins, away in ((2, [False, False, True]), (3, [False, False, False])):
        dynamics.begins, dynamics.calls = begins, 0  # type: ignore[assignment]
        assert observer.rollout(place, [3.0, 4.5, 5.0]).away.tolist() == away


def test_one_place_that_runs_away_is_flagged_within_the_hull_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    positions, times, values = waves()
    observer = tiny(space=None, epochs=1).fit(positions, times, values)
    asked, plain = observer.network_.asked, np.concatenate((positions[:2].mean(0, keepdims=True), [[3.0, 3.0]]))
    assert observer.predict(plain, [1.0]).outside.tolist() == [False, True]
    for wild, away in ((0, [False, True, True]), (1, [False, False, False])):

        def one_wild(known: Any, scene: Any, x: Any, t: Any, based: Any, wild: int = wild) -> Any:
            here = (x == torch.from_numpy(plain[wild]).float()).all(-1) & (t >= 2.0)
            return torch.where(here.unsqueeze(-1), 1e3, asked(known, scene, x, t, based))

        monkeypatch.setattr(observer.network_, "asked", one_wild)
        for ask in (observer.predict, observer.rollout):
            assert ask(plain, [1.0, 2.0, 3.0]).away.tolist() == away


def test_a_reading_out_of_the_range_is_flagged_and_one_that_is_missing_is_not() -> None:
    """Where readings are decoded, nothing that the networks say need be as far out as what they were told."""
    observer = tiny(design=replace(TINY, state="latent", base="none"), epochs=1).fit(*waves())
    values = np.array(observer.given_.values)
    for value, away in ((0.0, False), (9.0, True), (np.nan, False), (np.inf, False)):
        values[0] = value
        found = observer.predict(observer.given_.positions[:3], [0.0, 1.0], Reading(observer.given_.positions, values))
        assert np.abs(found.values).max() < 2.0 and found.away.tolist() == [away] * 2


def test_causal_observers_do_not_hear_of_later_times() -> None:
    """What is asked beside a query, and so how far the clock goes, changes nothing."""
    observer = tiny(design=replace(TINY, causal=True)).fit(*waves())
    asked = np.full((1, 2), 0.3)
    alone, beside = observer.predict(asked, [1.0]).values[0], observer.predict(asked, [1.0, 30.0]).values[0]
    np.testing.assert_allclose(alone, beside, atol=1e-6)


def test_ragged_sensors_missing_readings_and_unequal_times_are_taken() -> None:
    positions, _, _ = waves()
    rng = np.random.default_rng(3)
    places, clocks, values = [], [], []
    for count in (24, 17, 12, 20):
        place, clock = positions[:count], np.sort(rng.random(10)) * 4.0
        value = wave(place, clock, 0.0)
        value[rng.random(value.shape) < 0.2] = np.nan
        value[4:, 3] = np.nan  # falls silent
        value[0, 5] = np.nan  # is silent at the start
        places.append(place)
        clocks.append(clock)
        values.append(value)
    for how in ({}, {"dynamics": "ode"}, {"base": "cubic", "waves": 2}, {"attention": "nearest", "k": 16}):
        design = replace(TINY, **how)  # type: ignore[arg-type]
        with nullcontext() if design.dynamics == "ode" else pytest.warns(UserWarning, match="Euler"):
            observer = tiny(design=design).fit(places, clocks, values)
        assert observer.history_.stopped == "all epochs done"
        assert np.isfinite(observer.predict(positions, [float(clocks[0][0]) + 1.0]).values).all()


def test_what_silent_sensors_would_have_read_changes_nothing() -> None:
    """A missing reading is missing: what stands in its place, NaN or infinity, is not read."""
    positions, times, values = waves()
    gaps = np.random.default_rng(0).random(values.shape) < 0.3
    one, other = (tiny(epochs=1).fit(positions, times, np.where(gaps, x, values)) for x in (np.nan, np.inf))
    asked = np.full((1, 2), 0.3)
    assert one.predict(asked, [1.0]).values == other.predict(asked, [1.0]).values


def test_duplicate_and_collinear_sensors_and_a_plane_without_a_space() -> None:
    line = np.stack((np.linspace(0, 1, 12), np.linspace(0, 1, 12)), 1)
    line[5] = line[4]
    _, times, _ = waves()
    values = np.stack([wave(line, times, phase) for phase in (0.0, 1.0, 2.0)])
    for design in (TINY, replace(TINY, base="cubic", waves=2)):
        observer = tiny(design=design, space=None).fit(line, times, values)
        found = observer.predict([[0.5, 0.5], [0.5, 0.6]], [1.0])
        assert np.isfinite(found.values).all() and found.outside[1]


def test_a_sphere_trains_round_and_flat() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    times = np.arange(9.0)
    values = np.stack([np.sin(points @ rng.normal(size=3) + times[:, None])[..., None] for _ in range(4)])
    for flat in (False, True):
        observer = tiny(space=Space("sphere"), flat=flat).fit(points, times, values)
        assert np.isfinite(observer.predict(points[:4], [0.0, 3.0]).values).all()


def test_places_off_the_sphere_are_named_with_the_mend() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    times, values, earth = np.arange(4.0), rng.normal(size=(4, 12, 1)), Space("sphere", radius=6371.0)
    with pytest.raises(ValueError, match=r"are 6371 to 6371 from the centre of a sphere of radius 1: give x / \|x\|"):
        as_flows(6371.0 * points, times, values, None, Space("sphere"))
    with pytest.raises(ValueError, match=r"got two: of longitude and latitude in radians .* cos\(lat\) cos\(lon\)"):
        as_flows(points[:, :2], times, values, None, Space("sphere"))
    flows = as_flows((6371.0 * points).astype(np.float32), times, values, None, earth)
    assert flows.space is earth
    right, wrong = Reading(6371.0 * points, values[0]), Reading(points, values[0])
    assert asked(6371.0 * points, [0.0], right, earth, 1, 1.0)[0].shape == (12, 3)
    for positions, given in ((points, right), (6371.0 * points, wrong)):
        with pytest.raises(ValueError, match="positions are 1 to 1 from the centre"):
            asked(positions, [0.0], given, earth, 1, 1.0)


def test_scales_are_those_of_the_readings_that_are_there() -> None:
    values = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1
    values[0, 0, 0] = torch.nan
    values[..., 1] = 7.0
    flow = Flow.from_arrays(
        torch.rand(4, 2, generator=torch.Generator().manual_seed(1)), torch.arange(5) * 0.25, values
    )
    flows = FlowSet("made", (flow,), ("a", "b"), ("", ""), BOX)
    scale = scale_of(flows, 2)
    there = values[..., 0].flatten()[1:].double()
    assert scale.mean[0] == pytest.approx(float(there.mean())) and scale.unit == 0.5
    assert scale.deviation.tolist() == pytest.approx([float(there.std(correction=0)), 1.0])
    windows = cut(flows, 3, 1, scale)
    assert windows.values.shape == (3, 3, 4, 2) and windows.times.tolist() == [[0.0, 0.5, 1.0]] * 3
    assert torch.allclose(scale.restored(windows.values[1, 0]).float(), values[1], atol=1e-5)


def test_bounds_leave_half_a_width_of_room_and_count_what_is_no_number() -> None:
    values = torch.tensor([[[0.0, 5.0], [torch.nan, 5.0]], [[2.0, 5.0], [1.0, torch.nan]]])
    flow = Flow.from_arrays(torch.rand(2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(2.0), values)
    bounds = bounds_of(FlowSet("made", (flow,), ("a", "b"), ("", ""), BOX))
    assert bounds.lowest.tolist() == [0.0, 5.0] and bounds.highest.tolist() == [2.0, 5.0]
    asked = torch.tensor([[3.0, 5.4], [-1.0, 4.6], [3.1, 5.0], [1.0, 5.6], [1.0, torch.nan], [-torch.inf, 5.0]])
    assert bounds.left(asked, torch.ones(2)).tolist() == [False, False, True, True, True, True]
    none = Bounds(torch.full((2,), -torch.inf), torch.full((2,), torch.inf))
    assert none.left(asked, torch.ones(2)).tolist() == [False] * 4 + [True] * 2


def test_importance_is_the_loss_where_drawn_and_grows_where_not() -> None:
    observed = torch.ones(2, 4, dtype=torch.bool)
    observed[0, 3] = False
    importance = Importance(observed)
    rows, drawn = torch.tensor([0]), torch.tensor([[1, 1]])
    importance.update(rows, drawn, torch.tensor(0.5))
    weights = importance.weights
    assert weights[0].tolist() == [1.5, 0.5, 1.5, 0.0]
    assert torch.equal(weights[1], torch.ones(4))
    counts = importance.draw(torch.tensor([0]), 7000, torch.Generator().manual_seed(0))[0].bincount(minlength=4)
    # Four standard deviations of a binomial count.
    assert counts[3] == 0 and abs(int(counts[0]) - 3000) < 4 * (7000 * 3 / 7 * 4 / 7) ** 0.5
    importance.update(rows, torch.tensor([[0]]), torch.tensor(0.0))
    assert weights[0, 0] > 0 and weights[0, 1] == 0.5 and weights[0, 3] == 0


def test_the_last_flows_or_the_last_frames_choose_the_weights() -> None:
    positions, times, values = waves(flows=10)
    train, chooses = held_out(as_flows(positions, times, values, None, BOX), 0.2)
    assert (len(train), len(chooses)) == (8, 2)
    train, chooses = held_out(as_flows(positions, times, values[0], None, BOX), 0.2)
    assert float(train[0].times[-1]) < float(chooses[0].times[0])


def test_misuse_is_named(fitted: Observer) -> None:
    positions, times, values = waves()
    for wrong, said in (
        ((positions, times[::-1], values), "times must increase"),
        ((positions, times[:4], values), "4 times"),
        ((positions, times, values[0, 0]), "values are"),
        (([positions] * 2, times, values), "2 positions for 6 flows"),
        ((np.full_like(positions, np.nan), times, values), "finite"),
        ((positions, times, np.full_like(values, np.nan)), "no reading at all"),
    ):
        with pytest.raises(ValueError, match=said):
            tiny().fit(*wrong)
    with pytest.raises(ValueError, match="lower it"):
        tiny(every=9).fit(positions, times, values)
    for how, said in (
        ({"design": "small"}, "give Design"),
        ({"space": "periodic"}, "give Space"),
        ({"length": 2.5}, "length counts"),
        ({"every": 2.0}, "every counts"),
        ({"neighbours": 0}, "neighbours >= 1"),
        ({"masks": -1}, "must be >= 0"),
        ({"penalty": -0.1}, "must be >= 0"),
        ({"engine": "recorded"}, "engine: unknown"),
    ):
        with pytest.raises(ValueError, match=said):
            tiny(**how).fit(positions, times, values)
    with pytest.raises(ValueError, match="waves counts"):
        Design(waves=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a tuple of names"):
        Design(dynamics="ode", regularize="error")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not before the readings"):
        fitted.predict(positions, [-1.0])
    with pytest.raises(ValueError, match="positions are"):
        fitted.predict(np.zeros((3, 3)), [1.0])
    with pytest.raises(ValueError, match="a reading has"):
        fitted.predict(positions, [1.0], Reading(positions, np.zeros((3, 1))))
    for place, reads, said in (
        (positions, values[0, 0], "is no Reading"),
        (np.full_like(positions, np.nan), None, "finite numbers"),
        (np.zeros((0, 2)), None, "one place at least"),
        (positions, Reading(positions, np.full_like(values[0, 0], np.nan)), "says nothing"),
        (positions, Reading(np.full_like(positions, np.inf), values[0, 0]), "finite numbers"),
        (positions, Reading(positions, values[0, 0], walls=np.zeros(2, bool)), "one a sensor"),
    ):
        with pytest.raises(ValueError, match=said):
            fitted.predict(place, [1.0], reads)
    for ask in (fitted.predict, fitted.rollout):
        with pytest.raises(ValueError, match="one at least"):
            ask(positions, [])
        with pytest.raises(ValueError, match="chunk must be"):
            ask(positions, [1.0], chunk=0)
    with pytest.raises(RuntimeError, match="call fit first"):
        tiny().predict(positions, [1.0])
