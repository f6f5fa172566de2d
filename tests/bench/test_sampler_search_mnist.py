"""The benchmark of search on a network, in small: every rival runs, and nothing is made twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sciode.bench import sampler_search_mnist as bench
from sciode.diffusion import VPLinear
from sciode.diffusion.networks import Preconditioned, build, save_model
from sciode.diffusion.search import Search


def test_searches_and_rivals_are_judged_on_starts_that_no_search_saw(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build("unet-digits", width=8, heads=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    save_model(tmp_path / "model.safetensors", Preconditioned(network, VPLinear(), deviation=0.6), record={"step": 1})
    monkeypatch.setattr(bench, "_SEEN", 2)
    monkeypatch.setattr(bench, "_UNSEEN", (1, 1))
    monkeypatch.setattr(bench, "_REFERENCE", 8)
    monkeypatch.setattr(bench, "SEEDS", (0,))
    monkeypatch.setattr(bench, "GRIDS", ("middle",))
    monkeypatch.setattr(bench, "BUDGETS", (2,))
    monkeypatch.setattr(bench, "_SETTINGS", Search(stages=1, population=2, pool=2))
    monkeypatch.setattr(bench, "WAYS", {"searched": {}})
    options = {"checkpoint": tmp_path / "model.safetensors", "samples": 2, "ems_images": 4, "ems_points": 4}
    assert bench.main(tmp_path / "out", "cpu", **options) == 0
    record = json.loads((tmp_path / "out" / "sampler_search_mnist.json").read_text())
    searched, *rivals = record["lines"]
    assert searched["recipe"]["times"][0] == 1.0 and len(rivals) == 10 and len(record["bars"]) == 1
    assert "2 evaluations" in capsys.readouterr().out
    monkeypatch.setattr(bench, "_Trial", None)
    assert bench.main(tmp_path / "out", "cpu", **options) == 0
    with pytest.raises(ValueError, match="budgets"):
        bench.main(tmp_path / "out", "cpu", only="3")
