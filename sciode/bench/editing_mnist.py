"""`sciode bench editing_mnist`: corrupted MNIST digits restored by CODE and by SDEdit with the shipped U-Net.

The rule is that of `restoring`. The network is told no digit, learnt the first 50,000 training images and saw no
corruption; a convolutional classifier, trained on the same clean images anew for each seed, judges. The one network's
setting and levels are chosen once, on training images that neither learnt; judged are test images, others for each
seed. Nothing is timed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode import data
from sciode.bench.digit_judge import trained_judge
from sciode.bench.restoring import (
    Bench,
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
from sciode.diffusion.networks import load_model, pretrained
from sciode.training import checksum, choose_device

__all__ = ["CLIMBS", "CORRUPTIONS", "LEVELS", "Settings", "main"]

LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
CLIMBS = ((3, 0.03), (10, 0.03), (30, 0.05), (100, 0.02))
"""(updates, step): from 0.1 to 2 in units of sigma^2 altogether."""
CORRUPTIONS = {
    "noise": noisy(1.0),
    "salt and pepper": salted(0.3),
    "four rows erased": erased(4, 5, 19),
    "blur": blurred(5),
    "low contrast": faded(0.15),
}
"""Of a strength at which a classifier of clean digits is right in some 70 to 80 of 100."""
_LEARNT = 50_000


@dataclass(frozen=True)
class Settings:
    """choosing, judged: images, judged ones of each seed; steps: of CODE, each way; judge_steps: of the classifier's
    training."""

    seeds: tuple[int, ...] = (0, 1, 2)
    choosing: int = 200
    judged: int = 300
    steps: int = 12
    judge_steps: int = 800
    levels: tuple[float, ...] = LEVELS
    device: str = "cpu"


def _bench(settings: Settings, network: Any) -> Bench:
    with np.load(data.get("mnist")) as file:
        parts = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
    learnt = _pictures(parts["x_train"][:_LEARNT]), parts["y_train"][:_LEARNT].long()

    def images(seed: int, part: str) -> tuple[Tensor, Tensor]:
        """Those to choose on, which no network has learnt, or those to be judged."""
        name, first, count = (
            ("train", _LEARNT, settings.choosing) if part == "choose"
            else ("test", seed * settings.judged, settings.judged)
        )  # fmt: skip
        rows = slice(first, first + count)
        return _pictures(parts[f"x_{name}"][rows]), parts[f"y_{name}"][rows].long()

    def judge(seed: int) -> Judge:
        """Accuracy of a classifier that learnt clean images."""
        given = (v.to(settings.device) for v in learnt)
        net = trained_judge(*given, steps=settings.judge_steps, seed=seed)
        return lambda x, labels: float((net(x.to(settings.device)).argmax(1).cpu() == labels).float().mean())

    limits = {"one": 1.0, "pixel": pixel_range(learnt[0][:10_000])}
    return Bench(
        network, images, judge, CORRUPTIONS, settings.levels, CLIMBS, limits, settings.steps, settings.device
    )  # fmt: skip


def _stamp(settings: Settings, network: Any) -> str:
    """Of settings and weights, so that no curve is taken for one of others; what stands in the code is not in it."""
    told = {name: value for name, value in asdict(settings).items() if name not in ("seeds", "device")}
    return hashlib.sha256(json.dumps([told, checksum(network)], sort_keys=True).encode()).hexdigest()[:12]


def _pictures(pixels: Tensor) -> Tensor:
    return (pixels.float() / 127.5 - 1)[:, None]


def main(
    out: Path | None = None, device: str | None = None, *, checkpoint: Path | None = None, **changes: Any
) -> int:  # fmt: skip
    """Choose, judge, print the table; curves (curves-*.jsonl, to go on from: a file for each model and settings) and
    editing_mnist.json go to `out` (sciode-editing-mnist).

    checkpoint: another model than the shipped one.
    """
    settings = Settings(device=str(choose_device(device or "auto")), **changes)
    out = out or Path("sciode-editing-mnist")
    out.mkdir(parents=True, exist_ok=True)
    network, model = (
        pretrained("mnist_unet", settings.device) if checkpoint is None else load_model(checkpoint, settings.device)
    )
    bench = _bench(settings, network)
    file = out / f"curves-{_stamp(settings, network)}.jsonl"
    for n in range(1, len(settings.seeds) + 1):
        setting, found = restored(bench, 0, settings.seeds[:n], file)
        record = {
            "date": date.today().isoformat(), "torch": torch.__version__, "settings": asdict(settings),
            "device": torch.cuda.get_device_name() if settings.device.startswith("cuda") else settings.device,
            "model": model, "chosen": setting, "curves": [asdict(c) for c in found],
            "verdicts": [asdict(v) for v in verdicts(found)],
        }  # fmt: skip
        (out / "editing_mnist.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"chosen: {setting.name}", flush=True)
    show_verdicts(found)
    return 0
