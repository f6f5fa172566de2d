"""Pictures of solved problems show the fields, derivatives and residuals that the solution has, where it has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sciode.lab import domain_plots
from sciode.pde import Box, Polygon, Slab
from sciode.pinn import Face, Names, Network, Numbers, Problem, Solution, dirichlet, single, solve, strips, windows
from sciode.training import Adam

BEND = Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)))


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def waves(domain: Slab | Box, coordinates: str) -> Problem:
    names = Names(tuple(coordinates), ("u",))
    return Problem(
        "waves", names, domain, lambda d, p: d.u_t - d.u_xx + d.x * d.u,
        (dirichlet(Face("t", -1), lambda x: torch.sin(x[..., :1]), name="start"),),
        exact=lambda x: torch.sin(x[..., :1]) * torch.exp(-x[..., -1:]), time="t",
    )  # fmt: skip


@pytest.fixture(scope="module")
def solved() -> dict[str, Solution]:
    box = Box((0, 0), (1, 1))
    pairs = {
        "strips": (waves(box, "xt"), strips(box, 1, [0.4])),
        "windows": (waves(box, "xt"), windows(strips(box, 1, [0.4]))),
        "bend": (waves(Slab(BEND, 0, 1), "xyt"), single(Slab(BEND, 0, 1))),
    }
    return {
        name: solve(problem, cut, network=Network(6, 1), numbers=Numbers(20, 8, 8), stages=[Adam(5)])
        for name, (problem, cut) in pairs.items()
    }


@pytest.mark.parametrize("kind", ["strips", "windows"])
def test_a_solution_reads_its_derivatives_and_residual_by_name(solved: dict[str, Solution], kind: str) -> None:
    """Against central differences of its fields, away from the interface."""
    solution, step = solved[kind], 1e-4
    points = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3 + 0.02
    right, ahead = torch.tensor([step, 0.0]).double(), torch.tensor([0.0, step]).double()
    along, after, here = (
        lambda s: solution(points + s * right),
        lambda s: solution(points + s * ahead),
        solution(points),
    )
    slope = ((after(1) - after(-1)) / (2 * step))[..., 0]
    bend = ((along(1) - 2 * here + along(-1)) / step**2)[..., 0]
    torch.testing.assert_close(solution.read("u_t", points), slope, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(solution.read("u_xx", points), bend, rtol=1e-5, atol=1e-6)
    rest = slope - bend + points[:, 0] * here[..., 0]
    torch.testing.assert_close(solution.residual(points)[..., 0], rest, rtol=1e-5, atol=1e-6)
    for name, says in (("u_y", "no field or derivative"), ("x", "coordinate")):
        with pytest.raises(ValueError, match=says):
            solution.read(name, points)
    with pytest.raises(ValueError, match=r"points must be \[N, 2\]"):
        solution.residual(points[:, :1])


def test_an_image_shows_the_field_and_is_blank_outside(solved: dict[str, Solution], ax: Axes) -> None:
    assert domain_plots.field_map(ax, solved["bend"], "u_x", at={"t": 0.25}, side=9) is ax
    shown = np.ma.filled(ax.collections[0].get_array().astype(float), np.nan).reshape(9, 9)  # type: ignore[union-attr]
    line = torch.linspace(0, 2, 9, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    outside = ((x > 1) & (y > 1)).numpy()
    assert np.array_equal(np.isnan(shown), outside)
    points = torch.stack((x, y, torch.full_like(x, 0.25)), -1)[~torch.from_numpy(outside)]
    np.testing.assert_allclose(shown[~outside], solved["bend"].read("u_x", points)[0].numpy())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")


@pytest.mark.parametrize("of", ["residual", "error", ""])
def test_lines_show_residuals_and_errors_in_decades(solved: dict[str, Solution], ax: Axes, of: str) -> None:
    solution = solved["strips"]
    domain_plots.field_map(ax, solution, of, at={"t": 0.2}, side=11)
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    points = torch.stack((x, torch.full_like(x, 0.2)), 1)
    off = solution(points)[0, :, 0] - torch.sin(x) * math.exp(-0.2)
    want = {"residual": solution.residual(points)[0, :, 0].abs().log10(), "error": off.abs().log10()}
    np.testing.assert_allclose(
        np.asarray(ax.lines[0].get_ydata()), want.get(of, solution(points)[0, :, 0]).numpy(), rtol=1e-9
    )


def test_the_history_goes_on_from_stage_to_stage(ax: Axes) -> None:
    box = Box((0, 0), (1, 1))
    solution = solve(
        waves(box, "xt"), network=Network(4, 1), numbers=Numbers(10, 4, 1), stages=[Adam(3), Adam(4)], log=1
    )
    domain_plots.history(ax, solution)
    assert [line.get_label() for line in ax.lines if not str(line.get_label()).startswith("_")] == [
        "equation", "start", "relative error",
    ]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(ax.lines[1].get_xdata()), [0, 1, 2, 3, 3, 4, 5, 6, 7])


def test_misuse_says_the_mend(solved: dict[str, Solution], ax: Axes) -> None:
    for changes, says in (
        ({}, "pin all but"),
        ({"at": {"z": 1.0}}, "no coordinate z"),
        ({"of": "v", "at": {"t": 0}}, "v"),
    ):
        with pytest.raises(ValueError, match=says):
            domain_plots.field_map(ax, solved["bend"], **changes)  # type: ignore[arg-type]
