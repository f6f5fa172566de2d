"""The frame of the tables: every recipe's rows once, reasons instead of gaps, seeds that do not feel one another."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sciode.experiments import EXPERIMENTS, contest, frame
from sciode.experiments.recipes import RECIPES, Recipe
from sciode.experiments.stacked import StackedLinear
from sciode.experiments.verdicts import Score
from sciode.solvers import Jacobian, Kinetic, Solution, Taylor
from sciode.timeseries import MODELS
from sciode.training import derive_seed

TS = torch.tensor([0.0, 1.0], dtype=torch.float64)
TINY: dict[str, Any] = {"steps": 2, "batch": 6, "engine": "eager", "seeds": (0, 1), "strengths": (1.0,)}


@dataclass(frozen=True)
class Settings(frame.Settings):
    points: int = 9


class Line(nn.Module):
    """y' = W y."""

    def __init__(self, seeds: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = StackedLinear(2, 2, seeds)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.linear(y)


class Turning(frame.Task):
    """Learn a quarter turn."""

    title = "a quarter turn"
    score = Score("mse", "MSE", "lower", loses=0.1, relative=True, digits=4)
    inapplicable: ClassVar[dict[str, str]] = {"Taylor 3": "the field is only linear"}

    def model(self) -> Line:
        return Line(self.settings.seeds)

    def points(self, seed: int, count: int) -> Tensor:
        return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))

    def loss(self, model: Line, step: int, solver: frame.Solver) -> tuple[Tensor, Solution]:
        y0 = torch.stack([self.points(derive_seed(s, step), self.settings.batch) for s in self.settings.seeds])
        found = solver(model, y0, TS)
        return (found.ys[-1] - y0.flip(-1)).square().mean((1, 2)).sum(), found

    def size(self, part: str) -> int:
        return self.settings.points

    def judge(self, model: Line, part: str, rows: slice, solver: frame.Solver) -> frame.Judged:
        y0 = self.points(7, self.settings.points)[rows].repeat(len(self.settings.seeds), 1, 1)
        found = solver(model, y0, TS)
        return frame.Judged((found.ys[-1] - y0.flip(-1)).square().mean(-1).sum(1), y0.shape[1], found)


def test_rows_are_made_once_and_what_does_not_apply_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.run(Turning, Settings, tmp_path, "cpu", TINY) == 0
    shown = capsys.readouterr().out
    assert "only linear" in shown
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["recipe"] for row in rows} == {r.name for r in RECIPES} - {"Taylor 3"}
    best = json.loads((tmp_path / "table.json").read_text())
    assert [row["recipe"] for row in best] == [r.name for r in RECIPES]
    assert {"recipe": "Taylor 3", "note": "not applicable: the field is only linear"} in best
    monkeypatch.setattr(frame, "train", None)
    assert frame.run(Turning, Settings, tmp_path, "cpu", TINY) == 0
    with pytest.raises(TypeError):  # one more strength is one more row
        frame.run(Turning, Settings, tmp_path, "cpu", {**TINY, "strengths": (1.0, 2.0)})
    with pytest.raises(TypeError):  # other settings make rows anew
        frame.run(Turning, Settings, tmp_path, "cpu", {**TINY, "lr": 0.5})
    heavier = [replace(r, penalties=tuple(replace(p, weight=2 * p.weight) for p in r.penalties)) for r in RECIPES]
    monkeypatch.setattr(Turning, "recipes", heavier)
    with pytest.raises(TypeError):  # and so does a recipe of another weight
        frame.run(Turning, Settings, tmp_path, "cpu", TINY)


def test_a_batch_that_does_not_divide_a_part_weighs_each_point_alike() -> None:
    results = [
        frame.tested(task := Turning(Settings(**{**TINY, "batch": batch})), task.model(), "test") for batch in (9, 4, 2)
    ]
    for name in ("mse", "nfe"):
        for other in results[1:]:
            assert other[name] == pytest.approx(results[0][name], rel=1e-6)


def test_a_seed_is_trained_as_if_it_were_alone() -> None:
    """Without draws of the recipes', which hang on the first seed."""
    recipe = next(r for r in RECIPES if r.name == "error and stiffness")

    def trained(seeds: tuple[int, ...]) -> Tensor:
        task = Turning(Settings(**{**TINY, "seeds": seeds, "steps": 5, "lr": 0.05}))
        model = task.model()
        frame.train(task, model, recipe, 1.0)
        return model.linear.weight.detach()

    together = trained((3, 4, 5))
    for i, seed in enumerate((3, 4, 5)):
        torch.testing.assert_close(together[i], trained((seed,))[0], rtol=1e-4, atol=1e-6)


def test_a_solve_that_breaks_down_is_a_row_with_a_reason(tmp_path: Path) -> None:
    class Breaking(Turning):
        inapplicable: ClassVar[dict[str, str]] = {}

        def loss(self, model: Line, step: int, solver: frame.Solver) -> tuple[Tensor, Solution]:
            if solver.recipe.name != "error":
                return super().loss(model, step, solver)
            y0 = self.points(0, 4).repeat(len(self.settings.seeds), 1, 1)
            found = solver(lambda t, y: model(t, y) / (t < 0.5), y0, TS)
            return found.ys[-1].sum(), found

    frame.run(Breaking, Settings, tmp_path, "cpu", TINY)
    best = {row["recipe"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    assert best["error"]["note"].startswith("failed: ")
    assert "note" not in best["vanilla"]


def test_penalties_weigh_as_much_more_as_the_task_says() -> None:
    class Loud(Turning):
        unit = 10.0

    recipe, weights = next(r for r in RECIPES if r.name == "stiffness"), []
    for kind, factor in ((Turning, 10.0), (Loud, 1.0)):
        task = kind(Settings(**TINY))
        model = task.model()
        frame.train(task, model, recipe, factor)
        weights.append(model.linear.weight.detach())
    assert torch.equal(*weights)


def test_recipes_on_a_part_differ_in_nothing_else() -> None:
    for recipe in RECIPES:
        narrow = recipe.on(2)
        assert (narrow.name, narrow.kind, narrow.weights, narrow.spread) == (
            recipe.name,
            recipe.kind,
            recipe.weights,
            recipe.spread,
        )
        for ours, theirs in zip(narrow.penalties, recipe.penalties, strict=True):
            looks = isinstance(theirs.regularizer, Kinetic | Jacobian | Taylor)
            assert getattr(ours.regularizer, "part", None) == (2 if looks else None)
            assert (ours.weight, ours.fall) == (theirs.weight, theirs.fall)


def test_random_times_move_by_at_most_half_a_gap_and_keep_their_ends() -> None:
    recipe = Recipe("random end", "baseline", spread=0.5)
    ends = [float(recipe.times(TS, seed)[-1]) for seed in range(200)]
    assert 0.5 <= min(ends) < 0.55 and 1.45 < max(ends) <= 1.5
    grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    moved = recipe.times(grid, 0)
    assert moved[0] == 0 and bool((moved.diff() >= 0).all())
    assert float((moved - grid).abs().max()) <= 0.05


def test_settings_and_reasons_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    class Misnamed(Turning):
        inapplicable: ClassVar[dict[str, str]] = {"Tailor": "no such recipe"}

    for changes in ({"steps": 0}, {"points": 0}, {"seeds": ()}):
        with pytest.raises(ValueError, match="sizes must be at least 1"):
            frame.run(Turning, Settings, tmp_path, "cpu", changes)
    with pytest.raises(ValueError, match="there is no recipe Tailor"):
        frame.run(Misnamed, Settings, tmp_path, "cpu", TINY)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_command_and_is_one_task_or_one_contest_or_neither(name: str) -> None:
    module = importlib.import_module(f"sciode.experiments.{name}")
    kinds = [value for value in vars(module).values() if isinstance(value, type) and value is not contest.Contest]
    tasks = [kind for kind in kinds if issubclass(kind, frame.Task)]
    contests = [kind for kind in kinds if issubclass(kind, contest.Contest)]
    assert len(tasks) + len(contests) <= 1 and callable(module.main) and hasattr(module.Settings(), "device")
    assert all(issubclass(module.Settings, frame.Settings) for _ in tasks)
    assert all(issubclass(module.Settings, contest.Settings) for _ in contests)
    assert all(task.recipes[0].kind == "vanilla" for task in tasks)
    assert all(kind.rivals and kind.measures and not kind.rivals.keys() & MODELS.keys() for kind in contests)


@pytest.mark.parametrize("name", ["cnf", "spiral_sde", "mnist_ode", "mnist_sde"])
def test_in_double_precision_everything_is_double(name: str) -> None:
    module: Any = importlib.import_module(f"sciode.experiments.{name}")
    kind = next(x for x in vars(module).values() if isinstance(x, type) and issubclass(x, frame.Task))
    sizes: dict[str, Any] = {"batch": 4, "tested": 4, "seeds": (0,), "engine": "eager"} | (
        {"images": 8} if "mnist" in name else {}
    )
    sizes |= {"simulated": 16} if name == "spiral_sde" else {}
    task = kind(module.Settings(**sizes, dtype="float64", tolerance=0.1))
    model = task.model().to(torch.float64)
    loss, found = task.loss(model, 0, frame.Solver(task.settings, task.recipes[0], 0))
    judged = task.judge(model, "test", slice(0, 1), frame.Solver(task.settings, task.recipes[0], 0))
    assert {x.dtype for x in (loss, found.ys, judged.found.ys)} == {torch.float64}


def test_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype: one of float32, float64"):
        Settings(dtype="float16")
