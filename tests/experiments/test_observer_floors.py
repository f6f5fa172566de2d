"""The floors of the observers' table: the equation that made a set, from what the sensors read first."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sciode.data.flow import FlowSet
from sciode.data.flow_recipes import make_flows
from sciode.experiments import observer_flows
from sciode.experiments.observer_floors import fitted_surface, solved

SETTINGS: dict[str, dict[str, Any]] = {
    "shallow_water": {"degree": 10, "latitudes": 16, "stride": 1, "hyperdiffusion": 3e18, "dt": 1800.0, "burn_in": 72.0,
                      "frames": 13},
    "vorticity": {"n": 16, "forcing": 0.1, "burn_in": 30.0, "frames": 13},
}  # fmt: skip


@cache
def small(solver: str) -> FlowSet:
    return make_flows(solver, 1, device="cpu", **SETTINGS[solver])


def forecast_error(solver: str, rate: float) -> float:
    """Of the true solver, told what a share of the points read: mean square over all points, in variances."""
    whole, made_by = small(solver), {"solver": solver, "settings": SETTINGS[solver]}
    flow = whole[0]
    sensors = observer_flows.sensors_of(flow, rate, 11)
    places, truth = flow.points.numpy(), flow.values.double().numpy()
    read = FlowSet(**{**vars(whole), "flows": (observer_flows.at(flow, sensors),), "grid": None})
    surface = fitted_surface(read, (3, 5, 7))
    found = solved(surface, made_by, places[sensors], truth[0, sensors], places, flow.times.numpy())
    return float(np.square((found - truth) / truth.std((0, 1))).mean())


def test_told_all_points_the_true_solver_says_how_the_flow_goes_on() -> None:
    # To what float32 keeps of points and values; on the sphere the divergence, which is not read, has a part too.
    assert forecast_error("vorticity", 1.0) < 1e-9
    assert forecast_error("shallow_water", 1.0) < 1e-4


@pytest.mark.parametrize("solver", SETTINGS)
def test_the_true_solver_is_the_better_the_more_sensors_tell_it_how_to_begin(solver: str) -> None:
    errors = [forecast_error(solver, rate) for rate in (0.1, 0.3, 0.9)]
    assert errors[0] > errors[1] > errors[2]


def test_the_table_has_the_true_solver_on_the_sphere_and_no_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by = SimpleNamespace(recipe={"solver": "shallow_water", "settings": SETTINGS["shallow_water"]})
    monkeypatch.setattr(observer_flows, "manifest", lambda name: made_by)
    monkeypatch.setattr(observer_flows, "flows", lambda name, part: small("shallow_water"))
    lines = (
        "quadratic law", "true solver, first readings", "true solver, climate of first readings", "persistence"
    )  # fmt: skip
    how: dict[str, Any] = {"sets": ("shallow_water_small",), "rates": (0.4,), "lines": lines, "horizon": 12}
    assert observer_flows.main(tmp_path, "cpu", **how) == 0
    solver, climate, still = (json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines())
    assert (solver["line"], climate["line"], still["line"]) == lines[1:]
    assert max(row["seen"]["ext_x_in_t"] for row in (solver, climate)) < still["seen"]["ext_x_in_t"]
