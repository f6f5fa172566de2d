"""Pictures of flow sets: what is drawn is what was asked for, in a box, on a sphere and on a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sciode.data import Flow, FlowSet, Space
from sciode.data.flow_recipes import make_flows
from sciode.lab.flows import flow_frame, flow_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

matplotlib_figure = pytest.importorskip("matplotlib.figure")
SETTINGS: dict[str, dict[str, Any]] = {
    "vorticity": {"n": 16, "burn_in": 0.0, "frames": 3, "dt": 0.1},
    "shallow_water": {"degree": 10, "latitudes": 16, "stride": 1, "burn_in": 0.0, "frames": 3, "dt": 1800.0},
    "steps": {
        "ny": 16, "viscosity": 0.01, "porosity": 0.02, "finest": 0.04, "coarsest": 0.08, "burn_in": 0.0, "frames": 3,
        "dt": 0.02,
    },
}  # fmt: skip


@pytest.fixture
def figure() -> Figure:
    return matplotlib_figure.Figure()


@pytest.mark.parametrize("solver", SETTINGS)
def test_frames_of_every_kind_of_set_are_drawn_in_one_scale(solver: str, figure: Figure) -> None:
    flows = make_flows(solver, 1, **SETTINGS[solver])
    axes = figure.subplots(1, 3)
    channel = flows.channels[-1]
    assert flow_row(axes, flows, 0, channel, mesh=solver == "steps") is axes
    figure.draw_without_rendering()
    values = flows[0].values[..., -1].double().numpy()
    for ax, time in zip(axes, flows[0].times, strict=True):
        low, high = ax.collections[0].get_clim()
        assert low <= values.min() and values.max() <= high
        assert ax.get_title().startswith(f"t = {float(time):.4g}") and ax.get_xlabel() and ax.get_ylabel()
    assert len({ax.collections[0].get_clim() for ax in axes}) == 1
    assert figure.axes[-1].get_ylabel().startswith(channel)


def test_a_map_of_the_sphere_has_no_gap_at_its_seam(figure: Figure) -> None:
    flows = make_flows("shallow_water", 1, **SETTINGS["shallow_water"])
    ax = flow_frame(figure.subplots(), flows, channel="height")
    longitudes = ax.collections[0]._triangulation.x  # type: ignore[attr-defined]
    assert longitudes.min() < 0.0 and longitudes.max() > 360.0
    assert ax.get_xlim() == (0, 360)


def test_what_cannot_be_drawn_says_why(figure: Figure) -> None:
    flow = Flow.from_arrays(np.random.default_rng(0).random((5, 3)), [0.0], np.ones((1, 5, 1)))
    flows = FlowSet("x", (flow,), ("a",), ("",), Space("plane", (0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match="have no picture"):
        flow_frame(figure.subplots(), flows)
    with pytest.raises(ValueError, match="channel"):
        flow_frame(figure.subplots(), flows, channel="b")
