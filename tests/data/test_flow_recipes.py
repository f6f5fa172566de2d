"""Flow sets made here: a flow is a function of its seed, a set is made once, and anew where its recipe changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.data import flows, get, manifest, manifests
from sciode.data.flow_recipes import PARTS, RECIPES, make_flows
from sciode.data.registry import Manifest
from sciode.data.store import fetch, locate
from sciode.pde.spherical import SphereGrid
from sciode.pde.step_flow import random_scene
from sciode.pde.vorticity import diagonal_forcing, random_vorticity, simulate_vorticity

SMALL: dict[str, dict[str, Any]] = {
    "vorticity": {"n": 16, "stride": 2, "burn_in": 0.5, "frames": 3, "interval": 0.25, "dt": 0.05, "batch": 2},
    "shallow_water": {
        "degree": 10, "latitudes": 16, "stride": 2, "burn_in": 1.0, "frames": 2, "dt": 1800.0, "batch": 2,
    },
    "steps": {
        "ny": 16, "viscosity": 0.01, "porosity": 0.02, "finest": 0.03, "coarsest": 0.06, "burn_in": 0.08, "frames": 3,
        "dt": 0.02, "batch": 2,
    },
}  # fmt: skip
MADE = [found for found in manifests().values() if found.recipe]


@pytest.mark.parametrize("solver", RECIPES)
def test_a_flow_is_a_function_of_seed_part_and_number(solver: str) -> None:
    many, few = make_flows(solver, 3, **SMALL[solver]), make_flows(solver, 1, **SMALL[solver])
    torch.testing.assert_close(few[0].values, many[0].values, rtol=1e-5, atol=1e-6)
    different = [
        make_flows(solver, 1, seed=1, **SMALL[solver]),
        make_flows(solver, 1, part="test", **SMALL[solver]),
        many[1:],
    ]
    for other in different:
        one, two = other[0].values, many[0].values
        assert one.shape != two.shape or not torch.allclose(one, two, rtol=1e-3, atol=0.0)


def test_vorticity_flows_are_the_solvers_on_the_kept_points() -> None:
    settings = SMALL["vorticity"]
    found = make_flows("vorticity", 2, seed=7, part="validation", **settings)
    start = random_vorticity(16, [(7, 1, 0), (7, 1, 1)])
    times = [0.0, 0.5, 0.75, 1.0]
    run = simulate_vorticity(start, times, viscosity=1e-3, dt=0.05, forcing=diagonal_forcing(16))[1:]
    torch.testing.assert_close(found.images()[..., 0], run.transpose(0, 1)[..., ::2, ::2].float())
    assert found.grid == (8, 8) and found[0].times.tolist() == times[1:]
    torch.testing.assert_close(found[0].points.reshape(8, 8, 2)[3, 5], torch.tensor([3 / 8, 5 / 8]))


def test_shallow_water_flows_lie_on_the_unit_sphere_in_metres_and_hours() -> None:
    found = make_flows("shallow_water", 1, **SMALL["shallow_water"])
    torch.testing.assert_close(found[0].points.norm(dim=1), torch.ones(8 * 16))
    assert found.grid == (8, 16) and found[0].times.tolist() == [1.0, 2.0] and found.space.kind == "sphere"
    height, vorticity = found.images()[0].unbind(-1)
    assert 7000.0 < float(height.min()) < 9500.0 < float(height.max()) < 12000.0
    # North comes first, where a jet to the east leaves positive vorticity towards the pole.
    sines = SphereGrid(10, 16, 32).sines[::2]
    torch.testing.assert_close(found[0].points.reshape(8, 16, 3)[:, 0, 2], sines.float())
    assert 1e-5 < float(vorticity.abs().max()) < 1e-3


def test_flows_over_steps_have_meshes_of_their_own_that_know_the_ground() -> None:
    found = make_flows("steps", 3, **SMALL["steps"])
    assert found.space.kind == "plane" and found.grid is None and found.channels == ("vx", "vy", "pressure")
    assert len({len(flow.points) for flow in found}) > 1
    for number, flow in enumerate(found):
        assert flow.walls is not None and flow.cells is not None and flow.times.tolist() == [0.08, 0.12, 0.16]
        away = random_scene((0, 0, number)).distance(flow.points.double().numpy())
        assert abs(away[flow.walls.numpy()]).max() < 1e-6 < 1e-3 < away[~flow.walls.numpy()].min()
        lower, upper = torch.tensor(found.space.lower), torch.tensor(found.space.upper)
        assert bool(((flow.points >= lower - 1e-6) & (flow.points <= upper + 1e-6)).all())


def test_what_is_asked_wrongly_is_said_before_work_starts() -> None:
    with pytest.raises(ValueError, match="vorticity"):
        make_flows("vortcity", 1)
    with pytest.raises(ValueError, match="viscosity"):
        make_flows("vorticity", 1, viscosty=0.1)
    with pytest.raises(ValueError, match="validation"):
        make_flows("vorticity", 1, part="valdation")
    with pytest.raises(ValueError, match="count must be"):
        make_flows("vorticity", 0)
    with pytest.raises(ValueError, match="frames >= 1"):
        make_flows("vorticity", 1, **{**SMALL["vorticity"], "frames": 0})


def test_a_flow_that_blows_up_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"flow 0 of 'shallow_water' \(seed 0, train\) blew up: .* smaller dt"):
        make_flows("shallow_water", 1, **{**SMALL["shallow_water"], "dt": 36000.0, "interval": 360.0})


@pytest.mark.parametrize("found", MADE, ids=lambda found: found.name)
def test_a_manifest_counts_what_its_recipe_makes(found: Manifest) -> None:
    recipe, shape = found.recipe, found.shape
    assert recipe["name"] == found.name and list(recipe["flows"]) == list(PARTS)
    assert tuple(recipe["flows"].values()) == (shape.train, shape.validation, shape.test)
    assert shape.length == (recipe["settings"]["frames"],) * 2
    assert RECIPES[recipe["solver"]](**recipe["settings"])


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """navier_stokes_reduced with small settings, in an empty cache; offline, for nothing is downloaded."""
    monkeypatch.setenv("SCIODE_CACHE", str(tmp_path))
    monkeypatch.setenv("SCIODE_OFFLINE", "1")
    monkeypatch.delenv("SCIODE_DATA", raising=False)
    real = manifest("navier_stokes_reduced")
    recipe = {**real.recipe, "flows": dict.fromkeys(PARTS, 2), "settings": SMALL["vorticity"]}
    return replace(real, recipe=recipe)


def test_a_set_is_made_once_and_anew_where_its_recipe_changed(small: Manifest, tmp_path: Path) -> None:
    assert locate(small) is None
    fetch(small, tmp_path)
    file = tmp_path / small.files[0].path
    made = file.stat().st_mtime_ns
    fetch(small, tmp_path)
    assert file.stat().st_mtime_ns == made and locate(small) is not None
    other = replace(small, recipe={**small.recipe, "seed": 5})
    assert locate(other) is None
    fetch(other, tmp_path)
    assert file.stat().st_mtime_ns != made and locate(other) is not None and locate(small) is None


def test_a_set_is_read_by_its_name_and_part(small: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("store", "flow_sets"):
        monkeypatch.setattr(f"sciode.data.{module}.manifest", lambda name: small)
    train, test = flows("navier_stokes_reduced"), flows("navier_stokes_reduced", "test")
    assert train.name == "navier_stokes_reduced" and len(train) == len(test) == 2
    torch.testing.assert_close(train.stacked(), make_flows("vorticity", 2, **SMALL["vorticity"]).stacked())
    assert get("navier_stokes_reduced").name == "navier_stokes_reduced.safetensors"


def test_a_set_of_another_kind_says_which_ones_are_flows() -> None:
    with pytest.raises(ValueError, match=r"kind 'images', not of flows: those are .*navier_stokes"):
        flows("mnist")
