"""Flows on points: any user's arrays fit or are refused in a sentence, cuts keep what belongs together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sciode.data import Flow, FlowSet, Space

PLANE = Space("plane", (0.0, 0.0), (1.0, 1.0))


def flow(points: int = 5, frames: int = 7, channels: int = 2, seed: int = 0, **more: Any) -> Flow:
    rng = np.random.default_rng(seed)
    values = rng.random((frames, points, channels))
    return Flow.from_arrays(rng.random((points, 2)), np.arange(frames) * 0.5, values, **more)


def moving(frames: int = 6) -> Flow:
    rng = np.random.default_rng(1)
    cells = np.tile([[[0, 1, 2], [1, 2, 3]]], (frames, 1, 1))
    points, values, walls = rng.random((frames, 4, 2)), rng.random((frames, 4, 2)), np.eye(frames, 4) > 0
    return Flow.from_arrays(points, range(frames), values, walls, cells)


def flow_set(*flows: Flow, **more: Any) -> FlowSet:
    return FlowSet("mine", flows, ("a", "b"), ("m", "s"), PLANE, **more)


def test_arrays_of_any_library_become_tensors_of_their_precision() -> None:
    points, values = np.zeros((3, 2), np.float32), np.zeros((2, 3, 1))
    found = Flow.from_arrays(points, [0, 1], values, [True, False, False], [[0, 1, 2]])
    assert found.points.dtype == torch.float32 and found.values.dtype == torch.float64
    assert found.times.dtype == torch.float64 and found.walls is not None and found.walls.dtype == torch.bool
    assert found.cells is not None and found.cells.dtype == torch.int64
    assert Flow.from_arrays(points, [0.1, 0.2], values).times.tolist() == [0.1, 0.2]
    assert Flow.from_arrays([[0, 0], [1, 0]], [0], [[[1], [2]]]).values.dtype == torch.float32


def test_the_way_through_a_periodic_box_is_the_shortest_and_on_a_sphere_the_chord() -> None:
    box = Space("periodic", (0.0, -1.0), (1.0, 3.0))
    start, end = torch.tensor([0.9, 2.5]), torch.tensor([0.1, -0.5])
    torch.testing.assert_close(box.difference(start, end), torch.tensor([0.2, 1.0]))
    torch.testing.assert_close(box.difference(end, start), torch.tensor([-0.2, -1.0]))
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 50, 1, 2, generator=generator), torch.rand(50, 2, generator=generator)
    ways = box.difference(a, b)
    assert ways.shape == (2, 50, 50, 2) and bool((ways[..., 0].abs() <= 0.5).all())
    images = torch.stack([b + torch.tensor([i * 1.0, j * 4.0]) - a for i in (-1, 0, 1) for j in (-1, 0, 1)])
    torch.testing.assert_close(ways.norm(dim=-1), images.norm(dim=-1).amin(0))
    pole, equator = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    assert float(Space("sphere").difference(pole, equator).norm()) == pytest.approx(math.sqrt(2.0))
    torch.testing.assert_close(PLANE.difference(start, end), end - start)
    assert (Space("sphere").dimension, box.dimension) == (3, 2)


def test_frames_are_cut_from_all_that_changes_with_time() -> None:
    whole = moving()
    part = whole.between(1, 6, 2)
    assert whole.moves and part.walls is not None and part.cells is not None and whole.walls is not None
    assert part.times.tolist() == [1.0, 3.0, 5.0] and part.cells.shape == (3, 2, 3)
    assert torch.equal(part.points, whole.points[1::2]) and torch.equal(part.walls, whole.walls[1::2])
    still = flow(walls=np.zeros(5, bool)).between(0, 2)
    assert still.points.shape == (5, 2) and still.walls is not None and still.walls.shape == (5,)
    with pytest.raises(ValueError, match="not among 6"):
        whole.between(0, 7)


def test_a_set_is_cut_into_windows_that_are_views() -> None:
    whole = flow_set(flow(frames=7), flow(points=3, frames=4, seed=1))
    cut = whole.windows(3)
    assert [one.times.tolist() for one in cut] == [[0.0, 0.5, 1.0], [1.5, 2.0, 2.5], [0.0, 0.5, 1.0]]
    assert cut[0].values.data_ptr() == whole[0].values.data_ptr()
    assert len(whole.windows(3, 1)) == 5 + 2
    with pytest.raises(ValueError, match="the longest has 7"):
        whole.windows(8)
    with pytest.raises(ValueError, match=">= 1"):
        whole.windows(0)


def test_a_set_is_a_sequence_of_flows_and_stacks_where_shapes_agree() -> None:
    one, two, other = flow(), flow(seed=1), flow(points=3)
    whole = flow_set(one, two, other)
    assert whole[0] is one and list(whole) == [one, two, other] and whole[1:][0] is two
    assert whole[[2, 0]].flows == (other, one) and whole[-1] is other
    assert torch.equal(whole[:2].stacked(), torch.stack([one.values, two.values]))
    with pytest.raises(ValueError, match="2 shapes do not stack"):
        whole.stacked()
    gridded = flow_set(flow(points=6), grid=(2, 3))
    assert gridded.images().shape == (1, 7, 2, 3, 2)
    assert torch.equal(gridded.images()[0, :, 1, 2], gridded[0].values[:, 5])
    with pytest.raises(ValueError, match="on no grid"):
        whole[:1].images()


def test_moments_are_those_of_all_values_together() -> None:
    whole = flow_set(flow(), flow(points=3, frames=2, seed=4))
    everything = torch.cat([one.values.reshape(-1, 2) for one in whole])
    mean, deviation = whole.moments()
    torch.testing.assert_close(mean, everything.mean(0))
    torch.testing.assert_close(deviation, everything.std(0, correction=0))
    constant = flow_set(Flow.from_arrays(np.zeros((3, 2)), [0.0], np.full((1, 3, 2), 4.0)))
    assert constant.moments()[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"points": np.zeros(3)}, "a flow has points"),
        ({"times": [0.0, 1.0, 2.0]}, "for 3 times"),
        ({"times": [1.0, 0.0]}, "times must increase"),
        ({"points": np.zeros((2, 2))}, "points"),
        ({"points": np.zeros((5, 3, 2))}, "points"),
        ({"walls": [True]}, "walls are"),
        ({"cells": [[0, 1]]}, "cells are"),
        ({"cells": [[0, 1, 3]]}, "outside 0..2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str) -> None:
    sensible = {"points": np.zeros((3, 2)), "times": [0.0, 1.0], "values": np.zeros((2, 3, 1))}
    with pytest.raises(ValueError, match=message):
        Flow.from_arrays(**{**sensible, **wrong})


def test_tensors_of_other_types_are_refused_with_the_way_to_convert_them() -> None:
    with pytest.raises(ValueError, match=r"times is a tensor of torch.float64, got torch.float32: Flow.from_arrays"):
        Flow(torch.zeros(3, 2), torch.zeros(1), torch.zeros(1, 3, 1))
    with pytest.raises(ValueError, match=r"values is a tensor of torch.float32 or torch.float64, got ndarray"):
        Flow(torch.zeros(3, 2), torch.zeros(1).double(), np.zeros((1, 3, 1)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"units": ("m",)}, "a unit a channel"),
        ({"channels": ("a",), "units": ("m",)}, "has 2 channels"),
        ({"space": Space("sphere")}, "2 coordinates"),
        ({"grid": (2, 2)}, "not a grid"),
    ],
)
def test_flows_that_do_not_fit_their_set_are_refused(wrong: dict[str, Any], message: str) -> None:
    sensible = {"name": "x", "flows": (flow(),), "channels": ("a", "b"), "units": ("m", "s"), "space": PLANE}
    with pytest.raises(ValueError, match=message):
        FlowSet(**{**sensible, **wrong})


@pytest.mark.parametrize("wrong", [("cube",), ("plane",), ("periodic", (1.0,), (0.0,)), ("sphere", (0.0,), (1.0,))])
def test_a_space_that_is_none_is_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"kind is|below upper|no corners"):
        Space(*wrong)
