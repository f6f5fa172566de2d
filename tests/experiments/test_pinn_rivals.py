"""The table of rivals: one course for all who take Adam's steps, time without looks, choice by validation, misuse."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.experiments import pinn_contest, pinn_rivals
from sciode.experiments.curves import Entry
from sciode.experiments.pinn_contest import DTYPES, PARAMETERS, Journal, Recipe, Task, given
from sciode.experiments.pinn_rivals import LINES, Settings, chosen, verdicts
from sciode.pinn.problem import Reference
from sciode.training import Adam, Stopwatch

RIVALS = [name for name, line in LINES.items() if line.module]
SMALL: dict[str, Any] = {
    "families": ("poisson",), "lines": ("ours, L-BFGS", "ours, LM"), "seeds": (0,), "seconds": 0.3, "trial": 0.1,
    "width": 5, "hidden": 1, "points": 60, "data": 20, "every": 5, "dtypes": ("float64",), "rates": (1e-3, 1e-2),
    "warmups": (10,),
}  # fmt: skip


def task(family: str, seconds: float) -> Task:
    return Task(family, 6, 2, 50, 12, seconds, 5, 0, "test", "cpu")


COURSES = """
import json, sys
from sciode.experiments.pinn_contest import Recipe, Task
from sciode.experiments.pinn_rivals import LINES

for family in sys.argv[2:]:
    task = Task(family, 6, 2, 50, 12, 0.5, 5, 0, "test", "cpu")
    print(json.dumps(LINES[sys.argv[1]].train(task, Recipe("float64", 1e-2, 20))))
"""


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_takes_our_steps_of_adam_and_then_goes_down_by_its_own_l_bfgs(rival: str, tmp_path: Path) -> None:
    """Same points, weights, loss and rate: the same course of errors, to rounding, though derivatives differ.

    Adam divides slopes by their own sizes, so that rounding in small ones grows from step to step. One process of its
    own for both families, because a rival takes seconds to import.
    """
    if util.find_spec(LINES[rival].module) is None:
        pytest.skip(f'{rival} is not installed: pip install "sciode[rivals]"')
    found = subprocess.run(
        [sys.executable, "-c", COURSES, rival, *PARAMETERS], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    for family, said in zip(PARAMETERS, found.stdout.splitlines(), strict=True):
        theirs = [Entry(*one) for one in json.loads(said)]
        recipe = Recipe("float64", 1e-2, 20)
        ours = pinn_contest._Ours(task(family, 100.0), recipe)
        ours.train(Adam(recipe.warmup, lr=recipe.lr), 0)
        adam, later = ([one for one in theirs if one.stage == stage] for stage in (0, 1))
        assert [one.iteration for one in adam] == [one.iteration for one in ours.curve] == [0, 5, 10, 15, 20]
        assert [one.error for one in adam] == pytest.approx([one.error for one in ours.curve], rel=1e-8)
        assert later and later[-1].iteration > 0 and later[-1].seconds >= adam[-1].seconds
        assert min(one.error for one in later) < adam[-1].error


def test_looks_at_the_error_take_no_time_of_a_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(Stopwatch, "_now", lambda self: now[0])

    def slow(points: torch.Tensor) -> torch.Tensor:
        now[0] += 100.0
        return points[:, :1]

    known = Reference(torch.ones(3, 2, dtype=torch.float64), torch.full((3, 1), 2.0, dtype=torch.float64))
    journal = Journal(task("poisson", 2.5), known, slow, "float64")
    over = []
    for k in range(4):
        over.append(journal.look(0, k))
        now[0] += 1.0
    assert journal.curve == [Entry(0, k, float(k), 0.5) for k in range(4)]
    assert over == [False, False, False, True]


def test_parts_share_no_point_and_training_points_are_none_of_theirs() -> None:
    for family in PARAMETERS:
        held, tested = (
            set(map(tuple, pinn_contest.known(family)[part].points.tolist())) for part in ("validation", "test")
        )
        trained = set(map(tuple, given(task(family, 1.0)).inside.tolist()))
        assert len(held) > 1000 and len(tested) > 1000 and not held & tested and not trained & (held | tested)


def test_what_rivals_are_given_is_what_the_problem_says() -> None:
    told = given(task("burgers", 1.0))
    start, walls = told.told
    assert (start.name, walls.name) == ("initial", "walls") and len(told.inside) == 50
    torch.testing.assert_close(start.values, -torch.sin(torch.pi * start.points[:, :1]))
    assert bool((start.points[:, 1] == 0).all()) and bool((walls.points[:, 0].abs() == 1).all())
    assert float(walls.values.abs().max()) < 1e-12
    assert [tuple(weight.shape) for weight, _ in told.layers] == [(2, 6), (6, 6), (6, 1)]


def test_a_recipe_is_chosen_by_the_error_that_its_trial_ends_with() -> None:
    settings = Settings(families=("poisson",), lines=("PINA",))
    rows = []
    for recipe, errors in zip(settings.recipes, ([0.1, 0.5], [0.3, 0.2], [0.1, float("nan")]), strict=False):
        curve = [(0, k, float(k), error) for k, error in enumerate(errors)]
        rows.append({"family": "poisson", "line": "PINA", **recipe._asdict(), "curve": curve})
    assert chosen(settings, rows, "poisson", "PINA") == settings.recipes[1]
    assert chosen(settings, [], "poisson", "PINA") == settings.recipes[0]


def test_a_verdict_names_the_error_the_ratio_and_whether_the_bar_is_met() -> None:
    settings = Settings(families=("poisson",), lines=("PINA", "ours, LM", "ours, L-BFGS"))
    ends = {"PINA": (10.0, 0.1), "ours, LM": (4.0, 0.1), "ours, L-BFGS": (6.0, 0.05)}
    rows = [
        {"family": "poisson", "line": line, "curve": [(0, 0, 0.0, 1.0), (0, 1, *end)]} for line, end in ends.items()
    ]
    found = {one["ours"]: one for one in verdicts(settings, rows)}
    assert found["ours, LM"]["ratio"] == pytest.approx(0.4) and found["ours, LM"]["met"]
    assert found["ours, L-BFGS"]["level"] == 0.1 and not found["ours, L-BFGS"]["met"]


def test_a_table_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pinn_rivals.main(tmp_path, "cpu", **SMALL) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == 4 * ["validation"] + 2 * ["test"]
    for row in rows:
        seconds = [one[2] for one in row["curve"]]
        assert seconds == sorted(seconds) and all(one[3] > 0 for one in row["curve"])
    assert (tmp_path / "errors.png").stat().st_size > 0 and "ours, LM" in capsys.readouterr().out
    monkeypatch.setattr(pinn_rivals, "made", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert pinn_rivals.main(tmp_path, "cpu", **SMALL) == 0


def test_a_rival_is_trained_in_a_process_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    """`print` stands for a rival: what it says is not said by this process."""
    recipe = Recipe("float32", 1e-3, 1)
    assert pinn_rivals._alone(print, task("burgers", 1.0), recipe) is None  # type: ignore[arg-type]
    assert str(recipe) in capfd.readouterr().out


def test_rows_may_be_sent_to_other_processes() -> None:
    """A task, a recipe and a maker are plain data."""
    from multiprocessing.reduction import ForkingPickler

    for name in LINES:
        assert ForkingPickler.dumps((partial(pinn_rivals.made, Settings()), LINES[name].train, task("burgers", 1.0)))
    assert set(Settings().dtypes) == set(DTYPES)


def test_a_rival_that_is_not_installed_is_named_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinn_rivals.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"deepxde and pina-mathlab not found: .*sciode\[rivals\]"):
        pinn_rivals.main(tmp_path, "cpu")
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"families": ("heat",)}, "there are"), ({"lines": ()}, "at least one"), ({"seconds": 0.0}, "positive"),
     ({"warmups": (0,)}, "at least 1"), ({"dtypes": ("float16",)}, "there are")],
)  # fmt: skip
def test_misuse_says_the_mend(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**changes)
