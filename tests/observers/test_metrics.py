"""Metrics on made-up fields, and interpolation where it is exact."""

from __future__ import annotations

import numpy as np
import pytest

from sciode.data.flow import Space
from sciode.observers.interpolation import between_frames, interpolated, persistence
from sciode.observers.metrics import drift, split_errors

PLANE = Space("plane", (0.0, 0.0), (1.0, 1.0))
BOX = Space("periodic", (0.0, 0.0), (1.0, 1.0))
SPHERE = Space("sphere")


def test_errors_are_split_by_place_and_by_time() -> None:
    truth = np.zeros((4, 5, 2))
    sensors, frames = np.array([1, 1, 0, 0, 0], dtype=bool), np.array([1, 0, 1, 0], dtype=bool)
    found = truth.copy()
    for frame in range(4):
        for place in range(5):
            found[frame, place] = 1.0 + 2.0 * (not sensors[place]) + 4.0 * (not frames[frame])
    assert tuple(split_errors(found, truth, sensors, frames)) == (1.0, 9.0, 25.0, 49.0)
    assert split_errors(found, truth, sensors, frames, np.array([2.0, 2.0])).ext_x == 9.0 / 4.0
    everywhere = split_errors(found, truth, np.ones(5, dtype=bool), frames)
    assert np.isnan(everywhere.ext_x_in_t) and not np.isnan(everywhere.in_x_in_t)


def test_truths_that_are_missing_do_not_count() -> None:
    truth = np.zeros((2, 3, 1))
    truth[0, 0] = np.nan
    found = np.ones_like(truth)
    assert split_errors(found, truth, np.ones(3, dtype=bool), np.ones(2, dtype=bool)).in_x_in_t == 1.0
    with pytest.raises(ValueError, match="fields are"):
        split_errors(found, truth, np.ones(2, dtype=bool), np.ones(2, dtype=bool))


def test_drift_is_the_error_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 50, 2))
    noise = rng.normal(size=truth.shape)
    noise -= noise.mean(1, keepdims=True)
    assert np.allclose(drift(truth + noise, truth), 0.0)
    assert np.allclose(drift(truth + np.array([3.0, -4.0]), truth), [3.0, 4.0])
    weights = np.zeros(50)
    weights[7] = 2.0
    assert np.allclose(drift(truth + noise, truth, weights), np.sqrt((noise[:, 7] ** 2).mean(0)))


@pytest.mark.parametrize("space", [PLANE, BOX, SPHERE], ids=["plane", "periodic", "sphere"])
def test_interpolation_is_exact_at_the_sensors(space: Space) -> None:
    rng = np.random.default_rng(0)
    points = rng.random((60, 2)) if space.kind != "sphere" else rng.normal(size=(60, 3))
    if space.kind == "sphere":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    values = rng.normal(size=(3, 60, 2))
    assert np.allclose(interpolated(points, values, points, space), values, atol=1e-7)
    assert np.allclose(persistence(points, values[0], points, 4, space), values[0], atol=1e-7)


def test_interpolation_in_a_plane_reproduces_straight_lines() -> None:
    rng = np.random.default_rng(1)
    points, asked = rng.random((80, 2)), 0.3 + 0.4 * rng.random((50, 2))
    line = lambda x: (1.0 + 2.0 * x[:, 0] - 3.0 * x[:, 1])[None, :, None]  # noqa: E731
    assert np.allclose(interpolated(points, line(points), asked, PLANE), line(asked), atol=1e-5)


def test_interpolation_in_a_periodic_box_has_no_seam() -> None:
    rng = np.random.default_rng(2)
    points, asked = rng.random((80, 2)), rng.random((50, 2))
    values = rng.normal(size=(1, 80, 1))
    shift = np.array([0.4, 0.7])
    moved = interpolated((points + shift) % 1.0, values, asked + shift, BOX)
    # Slopes are estimated from all images at once, so a shift shows in the fifth digit; without images in the first.
    assert np.abs(interpolated(points, values, asked, BOX) - moved).max() < 1e-3
    assert np.abs(interpolated(points, values, asked, PLANE) - moved).max() > 0.1


def test_interpolation_converges_on_a_sphere_across_its_poles() -> None:
    rng = np.random.default_rng(3)

    def error(count: int) -> float:
        points, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (
            rng.normal(size=(count, 3)), np.concatenate((rng.normal(size=(200, 3)), [[0.0, 0.0, 1.0]])),
        ))  # fmt: skip
        wave = lambda x: np.sin(3.0 * x @ [1.0, 2.0, 2.0])[None, :, None]  # noqa: E731
        return float(np.abs(interpolated(points, wave(points), asked, SPHERE) - wave(asked)).mean())

    assert error(800) < 0.1 * error(100)


def test_a_silent_sensor_is_left_out_of_its_frame_and_channel() -> None:
    rng = np.random.default_rng(4)
    points, asked = rng.random((40, 2)), rng.random((30, 2))
    values = rng.normal(size=(2, 40, 2))
    gaps = values.copy()
    gaps[1, 3, 0] = np.nan
    found, whole = interpolated(points, gaps, asked, BOX), interpolated(points, values, asked, BOX)
    assert np.allclose(found[0], whole[0]) and np.allclose(found[1, :, 1], whole[1, :, 1])
    kept = np.arange(40) != 3
    assert np.allclose(found[1, :, :1], interpolated(points[kept], values[1:, kept, :1], asked, BOX)[0])
    assert np.isfinite(persistence(points, gaps[1], asked, 2, BOX)).all()
    gaps[1, :, 1] = np.nan
    with pytest.raises(ValueError, match="frame 1: no sensor has a reading of channel 1"):
        interpolated(points, gaps, asked, BOX)


def test_sensors_that_span_nothing_are_answered_by_the_nearest() -> None:
    line = np.stack((np.linspace(0, 1, 9), np.linspace(0, 1, 9)), 1).astype(np.float32)
    around = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
    circle = np.stack((np.cos(around), np.sin(around), 0.0 * around), 1)
    axis = Space("plane", (0.0,), (1.0,))
    for points, space in (
        (line, PLANE),
        (line[:2], PLANE),
        (circle, SPHERE),
        (circle[:3], SPHERE),
        (line[:1, :1], axis),
    ):
        values = np.arange(1.0, len(points) + 1.0)[None, :, None]
        assert np.array_equal(interpolated(points, values, points + 1e-3, space), values)
    assert np.allclose(interpolated(line[3:4], np.full((1, 1, 1), 2.0), line, BOX), 2.0)


@pytest.mark.parametrize("turned", [False, True])
def test_a_pole_among_sensors_of_one_latitude_is_answered(turned: bool) -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] if turned else np.eye(3)
    east = np.linspace(0.0, 2.0 * np.pi, 64, endpoint=False)
    points = np.concatenate([
        np.stack((np.cos(n) * np.cos(east), np.cos(n) * np.sin(east), np.full(64, np.sin(n))), 1)
        for n in np.radians((84.0, 78.0, 60.0))
    ])  # fmt: skip
    found = interpolated(points @ turn.T, points[None, :, 2:] ** 2, turn[None, :, 2], SPHERE)
    assert found.item() == pytest.approx(1.0, abs=1e-3)


def test_times_between_frames_are_cubic() -> None:
    times, asked = np.array([0.0, 1.0, 2.5, 3.0, 4.0]), np.linspace(0, 4, 9)
    cubic = lambda t: (t**3 - 2.0 * t)[:, None, None]  # noqa: E731
    assert np.allclose(between_frames(times, cubic(times), asked), cubic(asked))
    assert np.allclose(between_frames(times[:1], cubic(times[:1]), asked), 0.0)
