"""The benchmark of search: who is judged on what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sciode.bench import sampler_search as bench
from sciode.bench.sampler_search import Line
from sciode.diffusion.search import Search


def test_the_bar_compares_with_the_best_rival_of_the_same_mixture() -> None:
    recipe = {"times": [1.0, 0.5]}
    found = [
        Line("a", 0, "ddim, uniform", None, (0.3, 0.3)), Line("a", 0, "dpm-v3, karras", None, (0.1, 0.1)),
        Line("a", 0, "searched", 0.05, (0.09, 0.09), recipe), Line("a", 0, "without statistics", 0.01, (0.01,), recipe),
        Line("b", 0, "ddim, uniform", None, (0.01,)), Line("b", 0, "searched", 0.01, (0.005,), recipe),
    ]  # fmt: skip
    assert bench.bar(found) == [
        ("a, seed 0", "dpm-v3, karras", pytest.approx(0.9), False), ("b, seed 0", "ddim, uniform", 0.5, True),
    ]  # fmt: skip


def test_the_file_holds_recipes_and_the_ten_best_rivals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SEEDS", (0,))
    monkeypatch.setattr(bench, "_SEEN", 16)
    monkeypatch.setattr(bench, "_UNSEEN", (16,))
    monkeypatch.setattr(bench, "GRIDS", ("uniform",))
    monkeypatch.setattr(bench, "WAYS", {"searched": {"mean": None, "kinds": ("data",)}})
    monkeypatch.setattr(bench, "_SETTINGS", Search(stages=1, population=4, pool=3))
    found = list(bench.lines([("smooth 3-D", 5), ("smooth 3-D", 7)], seeds=(0,)))
    monkeypatch.setattr(bench, "lines", lambda wanted, folder: iter(found))
    assert bench.main(tmp_path, only="smooth 3") == 0
    record = json.loads((tmp_path / "sampler_search.json").read_text())
    assert sum(line["recipe"] is None for line in record["lines"]) == 20 and len(record["bars"]) == 2
    with pytest.raises(ValueError, match="in no name"):
        bench.main(only="nothing")
