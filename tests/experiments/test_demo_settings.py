"""The demo's settings: the rule that ranks them, and that the committed search leads to what the demo uses."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from sciode.experiments.demo_settings import BATCH_SIZE, GRID, ranking, trials
from sciode.experiments.irregular_demo import DATASETS, SETTINGS
from sciode.timeseries import IrregularClassifier
from sciode.training import read_json_lines


def test_accuracy_ranks_and_log_loss_breaks_ties() -> None:
    records = [
        {
            "dataset": "a",
            **dict(zip(GRID, values, strict=True)),
            "accuracy": 0.5 + (i < 2) / 4,
            "log_loss": 1.0 - i / 100,
        }
        for i, values in enumerate(product(*GRID.values()))
        for _ in range(2)
    ]
    ranked = ranking(records, "a")
    assert [row[1] for row in ranked[:3]] == [0.75, 0.75, 0.5]
    assert ranked[0][0] == list(product(*GRID.values()))[1]


def test_the_demo_uses_what_the_recorded_search_chose(repository: Path) -> None:
    records = read_json_lines(repository / "notebooks" / "results" / "demo_settings.jsonl")
    assert len(records) == len(trials())
    for dataset in DATASETS:
        best = dict(zip(GRID, ranking(records, dataset)[0][0], strict=True))
        used = IrregularClassifier(**SETTINGS[dataset])
        assert {name: getattr(used, name) for name in GRID} == best
        assert used.batch_size == BATCH_SIZE[dataset]
