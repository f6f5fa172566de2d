"""The MeshGraphNet: a step at a time, a true simulator where the rule is simple, even frames only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciode.data.flow import Space
from sciode.observers import Reading
from sciode.observers.arrays import as_flows
from sciode.observers.interpolation import interpolated
from sciode.observers.rivals import windows_of
from sciode.observers.simulator import MeshGraphNet, StateDynamics, _OneStep
from sciode.observers.wiring import Wiring
from sciode.training import isolated_rng

BOX = Space("periodic", (0.0, 0.0), (1.0, 1.0))


def test_decay_is_simulated_and_interpolated() -> None:
    """s' = -s / 4, frame by frame: far better than persistence."""
    rng = np.random.default_rng(0)
    positions, times = rng.random((20, 2)), np.arange(9.0)
    values = np.stack([rng.normal(size=(20, 1)) * np.exp(-times / 4.0)[:, None, None] for _ in range(20)])
    flows = as_flows(positions, times, values, None, BOX)
    net = MeshGraphNet(width=16, layers=1, length=9, epochs=30, batch_size=4, lr=1e-2, device="cpu").fit_flows(flows)
    start = rng.normal(size=(20, 1))
    truth = start * np.exp(-times / 4.0)[:, None, None]
    found = net.predict(positions, times, Reading(positions, start))
    assert np.allclose(found[0], start, atol=1e-5)
    assert np.mean((found - truth) ** 2) < 0.1 * np.mean((start - truth) ** 2)
    asked = rng.random((7, 2))
    between = net.predict(asked, times, Reading(positions, start))
    assert np.allclose(between, interpolated(positions, found, asked, BOX), atol=1e-5)


def test_uneven_frames_are_refused() -> None:
    rng = np.random.default_rng(0)
    flows = as_flows(rng.random((9, 2)), [0.0, 1.0, 2.5, 3.0], rng.normal(size=(4, 4, 9, 1)), None, BOX)
    with pytest.raises(ValueError, match="evenly apart"):
        MeshGraphNet(width=8, layers=1, length=4, epochs=1, device="cpu").fit_flows(flows)


def test_room_for_a_sensor_more_changes_nothing() -> None:
    """What recorded steps are made of: of flows with as many sensors and with fewer."""
    rng = np.random.default_rng(0)
    places = [rng.random((count, 2)) for count in (20, 14, 20)]
    values = [rng.normal(size=(5, len(place), 1)) for place in places]
    flows = as_flows(places, [np.arange(5.0)] * 3, values, None, BOX)
    parts = windows_of(flows, flows, 5)[1]
    with isolated_rng(0):
        net = StateDynamics(1, parts["train"], 8, 1)
    plain, fixed = (_OneStep(net, parts, Wiring(), 0.1, 2, fixed) for fixed in (False, True))
    for rows in (torch.tensor([0, 2]), torch.tensor([0, 1, 2])):
        torch.testing.assert_close(fixed.loss(rows, 7), plain.loss(rows, 7), rtol=1e-5, atol=0.0)
