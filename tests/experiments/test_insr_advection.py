"""The advection table: floors by theory, every kind of line, rows made once, misuse."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sciode.experiments import insr_advection
from sciode.experiments.insr_advection import LINES, Line, Settings, floor, network, strip
from sciode.pde import problem_of
from sciode.pinn import Network

SMALL: dict[str, Any] = {"seeds": (0,), "horizon": 0.1, "width": 8, "hidden": 1, "points": 200}


def test_the_floors_are_those_that_were_measured_beforehand() -> None:
    """Of the design notes: 4.42e-3 at T = 1 and 5.28e-2 at T = 12 for the midpoint rule, 1.13e-1 for implicit Euler."""
    settings = Settings()
    assert floor("implicitmidpoint", settings, 1.0) == pytest.approx(4.42e-3, rel=2e-3)
    assert floor("implicitmidpoint", settings, 12.0) == pytest.approx(5.28e-2, rel=2e-3)
    assert floor("impliciteuler", settings, 1.0) == pytest.approx(1.13e-1, rel=5e-3)
    assert floor("bdf2", settings, 1.0) is None


def test_the_floor_falls_with_the_order_of_the_scheme() -> None:
    for scheme, order in (("implicitmidpoint", 2), ("gausslegendre4", 4)):
        coarse, fine = (floor(scheme, Settings(dt=dt, horizon=1.0), 1.0) for dt in (0.1, 0.05))
        assert coarse is not None and fine is not None
        assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_networks_have_the_weights_that_the_paper_counts() -> None:
    sizes = {kind: sum(p.numel() for p in network(kind, 1, Settings(), 0).parameters()) for kind in ("walls", "hard")}
    assert sizes == {"walls": 901, "hard": 901}
    assert sum(p.numel() for p in network("periodic", 1, Settings(), 0).parameters()) == 921


def test_a_table_is_made_once_and_says_what_it_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("midpoint", "Galerkin, rk4", "midpoint, hard", "grid, cubic")
    assert insr_advection.main(tmp_path, "cpu", lines=lines, **SMALL) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == list(lines) and all(row["reached"] == 0.1 for row in rows)
    galerkin, cubic = rows[1], rows[3]
    assert galerkin["errors"][-1] < 1e-4 < cubic["errors"][-1]
    assert (tmp_path / "errors.png").stat().st_size > 0 and "floor" in capsys.readouterr().out
    monkeypatch.setattr(insr_advection, "made", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert insr_advection.main(tmp_path, "cpu", lines=lines, **SMALL) == 0


def test_the_exact_solution_solves_the_problem_that_the_rival_in_space_and_time_is_given() -> None:
    problem, of = problem_of("advection"), strip(problem_of("advection"), 2.0)
    assert problem.exact is not None
    x = of.domain.sample(64, 0, dtype=torch.float64).requires_grad_()
    u = problem.exact(x[:, :1], x[:, 1:])
    (slopes,) = torch.autograd.grad(u.sum(), x)
    assert float(slopes.abs().max()) > 0.1
    residual = of.equation(SimpleNamespace(u_x=slopes[:, 0], u_t=slopes[:, 1]), SimpleNamespace(**of.parameters))  # type: ignore[arg-type]
    assert float(torch.as_tensor(residual).abs().max()) < 1e-12


def test_the_rival_in_space_and_time_is_a_row_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LINES, "short", Line(pinn=Network(8, 2), seconds=(0.5, 1.0)))
    row = insr_advection.made(Settings(lines=("short",), **SMALL), "short", 0)
    assert row["reached"] == row["ts"][-1] == 0.1 and row["fit_seconds"] < 10.0
    assert row["errors"][-1] < 0.9, "it is better than nothing"


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"lines": ("midpont",)}, "there are"), ({"horizon": 0.12}, "multiple"), ({"points": 0}, "at least 1")],
)
def test_misuse_says_the_mend(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**changes)
