"""The benchmark of samplers: what it measures, and what it makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sciode.bench import samplers
from sciode.bench.samplers import Few, Order, Trip


def test_orders_are_measured_and_claims_judged() -> None:
    rows = {row.name: row for row in samplers.orders(["dpm++-2m", "dpm++-2m-sde"], peers=False)}
    assert rows["dpm++-2m"].kind == "ode" and rows["dpm++-2m-sde"].kind == "drift"
    for row in rows.values():
        assert row.claim == 2 and row.kept and 1.85 <= max(row.slopes) < 2.5


def test_budgets_are_evaluations_and_too_small_ones_are_left_out() -> None:
    found = list(
        samplers.few_steps(
            ["smooth 3-D"], budgets=(3, 8), names=("dpm++-3m", "rk-rk4"), seeds=(0,), peers=(), grids=("log-snr",)
        )
    )
    by_name = {row.name: row for row in found}
    assert by_name["rk-rk4"].mean(3) is None and by_name["rk-rk4"].mean(8) is not None
    three, eight = by_name["dpm++-3m"].mean(3), by_name["dpm++-3m"].mean(8)
    assert three is not None and eight is not None and eight < three


def test_bars_compare_geometric_means() -> None:
    few = [
        Few("m", "dpm++-3m", {20: [1e-3, 4e-3]}),
        Few("m", "diffusers: dpmsolver++ 3", {20: [1e-2, 1e-2]}),
        Few("m", "dpm-v3", {5: [0.1, 0.1], 20: [1e-2, 1e-2]}),
        Few("m", "dpm++-2m", {5: [0.1, 0.1]}),
        Few("m", "dpm-v3", {5: [0.1, 0.1], 20: [1e-3, 1e-3]}, "middle"),
        Few("m", "dpm++-2m", {5: [0.4, 0.1]}, "middle"),
    ]
    measured = [Order("dpm++-3m", "ode", 3, (1, 2, 4), (1.0, 0.5, 0.1), (1.0, 2.3), False)]
    found = samplers.bars(measured, few, [Trip("bdia", "float32", 100, 2e-7, 1.0)])
    assert [(value, met) for _, _, value, met in found] == [
        (2.3, False), (pytest.approx(0.2), True), (pytest.approx(1.0), False), (pytest.approx(1.0), False),
        (pytest.approx(0.5), True), (2e-7, True),
    ]  # fmt: skip


def test_the_file_holds_what_the_tables_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(samplers, "MIXTURES", {"smooth 3-D": samplers.MIXTURES["smooth 3-D"]})
    monkeypatch.setattr(samplers, "SEEDS", (0,))
    monkeypatch.setattr(samplers, "trips", lambda: [Trip("bdia", "float32", 100, 2e-7, 1.0)])
    monkeypatch.setattr(
        samplers, "few_steps", lambda names: iter([Few("smooth 3-D", "ddim", {n: [0.5] for n in samplers.BUDGETS})])
    )
    assert samplers.main(tmp_path, only="unipc-2-bh1") == 0
    record = json.loads((tmp_path / "samplers.json").read_text())
    assert [row["name"] for row in record["orders"]] == ["unipc-2-bh1"] and record["orders"][0]["kept"]
    assert record["bars"][0]["met"] and (tmp_path / "samplers.png").stat().st_size > 0
    assert "unipc-2-bh1" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no sampler"):
        samplers.main(only="nothing")
