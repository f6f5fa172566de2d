"""The benchmark of arms: what is timed trains, and ratios are of medians."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sciode.bench import arms
from sciode.bench.timing import Timing
from sciode.pinn import Network, Numbers

SMALL = arms.Task(Numbers(12, 6, 4), Network(4, 1))


@pytest.mark.parametrize("stage", arms.STAGES)
def test_each_number_of_arms_is_timed_and_compared_with_one(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "_ITERATIONS", 1)
    rows = arms.measure(SMALL, stage, "eager", torch.device("cpu"), (1, 3))
    assert [row.arms for row in rows] == [1, 3] and rows[0].ratio is None
    assert rows[1].ratio == pytest.approx(rows[1].seconds / rows[0].seconds)


def test_only_all_arms_are_judged_and_only_by_steady_timings() -> None:
    quick, slow, shaky = Timing(1.0, 1.0, 1.0), Timing(3.9, 3.9, 3.9), Timing(4.1, 2.0, 6.0)
    assert arms._judged({1: quick, 512: slow}, 512) == (3.9, True)
    assert arms._judged({1: quick, 512: Timing(4.1, 4.1, 4.1)}, 512) == (4.1, False)
    assert arms._judged({1: quick, 512: shaky}, 512) == (4.1, None)
    assert arms._judged({1: quick, 64: slow}, 64) == (3.9, None)


def test_the_table_and_the_file_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def measured(task: arms.Task, stage: str, engine: str, device: torch.device) -> list[arms.Row]:
        return [arms.Row(stage, engine, 512, 4e-3, 4e-3, 4e-3, 3.5, True, 1.0, 2**20)]

    monkeypatch.setattr(arms, "measure", measured)
    assert arms.main(tmp_path, "cpu") == 0
    assert "3.50" in capsys.readouterr().out
    assert [row["ratio"] for row in json.loads((tmp_path / "arms.json").read_text())["rows"]] == [3.5] * 4
