"""The benchmark of queries: every way is timed, and chunks do not change answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sciode.bench import observer_steps, observers
from sciode.bench.observers import asking, observed


def test_every_way_is_timed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "QUERIES", 20_000)
    monkeypatch.setattr(observers, "SENSORS", (30,))
    monkeypatch.setattr(observers, "STEPS", 2)
    monkeypatch.setattr(observers, "_REPEATS", 1)
    small = {"SENSORS": (16,), "WINDOWS": {"eager": 2}, "FRAMES": 4, "BATCH": 2, "QUERIES": 8, "WIDTH": 8}
    for name, value in small.items():
        monkeypatch.setattr(observer_steps, name, value)
    assert observers.main(tmp_path, "cpu") == 0
    record = json.loads((tmp_path / "observers.json").read_text())
    rows = record["rows"]
    assert [(step["who"], step["engine"]) for step in record["steps"]] == [
        ("observer", "eager"), ("MeshGraphNet", "eager"), ("Fourier operator", "eager")
    ]  # fmt: skip
    assert len(rows) == 6 and all(row["queries"] == 20 and row["met"] is None and row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize("base", ["none", "cubic"])
def test_chunks_do_not_change_answers(base: str) -> None:
    model, scene = observed("nearest", base, 40, torch.device("cpu"))
    one, other = (asking(model, scene, 50, chunk)() for chunk in (50, 7))
    assert torch.allclose(one, other, atol=1e-5)
