"""`sciode bench editing`: corrupted 8 x 8 digits restored by CODE and by SDEdit, on three networks trained here.

The rule is that of `restoring`: each network's setting is chosen on half of the test images, which are corrupted, and
judged on the other half by a support-vector classifier of clean ones. Nothing is timed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from sciode.bench.restoring import (
    Bench,
    Curve,
    Judge,
    blurred,
    erased,
    faded,
    noisy,
    pixel_range,
    restored,
    salted,
    show_verdicts,
    verdicts,
)  # fmt: skip
from sciode.bench.timing import machine
from sciode.lab.scans import Scans, denoiser, scans

__all__ = ["CLIMBS", "CORRUPTIONS", "LEVELS", "SEEDS", "classifier", "main"]

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SEEDS = (0, 1, 2)
CLIMBS = ((3, 0.01), (3, 0.03), (10, 0.03), (30, 0.1))
"""(updates, step): from 0.03 to 3 in units of sigma^2 altogether."""
CORRUPTIONS = {
    "noise": noisy(0.7),
    "salt and pepper": salted(0.2),
    "two rows erased": erased(2, 1, 6),
    "blur": blurred(3),
    "low contrast": faded(0.35, -0.3),
}
_STEPS = 12
_TRAINING = 1500


def classifier(data: Scans) -> Judge:
    """Accuracy of a support-vector machine that learnt the clean training images."""
    from sklearn.svm import SVC

    options: dict[str, Any] = {"gamma": 0.02, "random_state": 0}
    fitted = SVC(**options).fit(data.train.flatten(1).numpy(), data.train_labels.numpy())
    return lambda x, labels: float(fitted.score(x.flatten(1).numpy(), labels.numpy()))


def _bench(data: Scans, seed: int) -> Bench:
    """With a network of its own."""
    net, judge = denoiser({"x": data.train}, steps=_TRAINING, seed=seed, batch=256).network, classifier(data)

    def images(seed: int, part: str) -> tuple[Tensor, Tensor]:
        half = len(data.test) // 2
        here = slice(0, half) if part == "choose" else slice(half, None)
        return data.test[here], data.test_labels[here]

    limits = {"one": 1.0, "pixel": pixel_range(data.train)}
    return Bench(net, images, lambda seed: judge, CORRUPTIONS, LEVELS, CLIMBS, limits, _STEPS)


def main(out: Path | None = None) -> int:
    """Train three denoisers, measure, print the table; with `out` write editing_cpu.json, and curves to go on from,
    there. Some ten minutes.
    """
    data: Scans = scans()
    found: list[Curve] = []
    for seed in SEEDS:
        setting, here = restored(_bench(data, seed), seed, (seed,), None if out is None else out / "curves.jsonl")
        found += here
        gains = [f"{v.corruption} {v.gain:+.3f}" for v in verdicts(here) if v.way == "chosen"]
        print(f"seed {seed}: {setting.name}: {', '.join(gains)}", flush=True)
        _write(out, found)
    show_verdicts(found)
    return 0


def _write(out: Path | None, found: Sequence[Curve]) -> None:
    """What there is so far."""
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine(),
        "levels": LEVELS,
        "curves": [asdict(c) for c in found],
        "verdicts": [asdict(v) for v in verdicts(found)],
    }
    (out / "editing_cpu.json").write_text(json.dumps(record, indent=1) + "\n")
