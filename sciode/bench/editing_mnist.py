"""`sciode bench editing_mnist`: CODE and SDEdit restore corrupted MNIST digits with the shipped U-Net.

As `editing`, on a stronger network: it is told no digit, learnt the first 50,000 training images and saw no corruption;
a convolutional classifier, trained on the same clean images anew for each seed, judges what comes out. CODE's updates,
step and clipping are chosen once, for all corruptions and seeds, on training images that neither learnt; judged are
test images, others for each seed. SDEdit has as many steps of DDIM as CODE's two ways together. A gain is CODE's
accuracy over SDEdit's at the same distance from the input, in the mean over all levels. Nothing is timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from sciode import data
from sciode.bench.digit_judge import trained_judge
from sciode.bench.editing import Curve, at_distance
from sciode.diffusion import VPLinear
from sciode.diffusion.editing import code, sdedit
from sciode.diffusion.networks import load_model, pretrained
from sciode.lab.progress import say
from sciode.lab.tables import show, table
from sciode.training import append_json, choose_device, read_json_lines

__all__ = ["CORRUPTIONS", "LEVELS", "SETTINGS", "Gain", "Setting", "Settings", "corrupted", "gains", "main"]

SCHEDULE = VPLinear()
LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


class Setting(NamedTuple):
    """Of CODE; confidence: None = no clipping."""

    updates: int
    step: float
    confidence: float | None = 1.7

    @property
    def name(self) -> str:
        """What its curve is called."""
        clipping = {None: ", no clipping", 1.7: ""}.get(self.confidence, f", within {self.confidence}")
        return f"code, {self.updates} x {self.step}" + clipping


SETTINGS = (
    Setting(0, 0.02), Setting(0, 0.02, 1.0), Setting(10, 0.02), Setting(30, 0.02), Setting(30, 0.02, 1.0),
    Setting(30, 0.05), Setting(100, 0.02),
)  # fmt: skip
"""Of CODE, to choose from."""


def _blurred(x: Tensor) -> Tensor:
    return avg_pool2d(pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1)


def _erased(x: Tensor, generator: torch.Generator) -> Tensor:
    first = torch.randint(5, 19, (len(x), 1, 1, 1), generator=generator)
    place = torch.arange(28)[:, None]
    return torch.where((place >= first) & (place < first + 4), -1.0, x)


def _salt(x: Tensor, generator: torch.Generator) -> Tensor:
    hit = torch.rand(x.shape, generator=generator) < 0.3
    return torch.where(hit, torch.sign(torch.randn(x.shape, generator=generator)), x)


CORRUPTIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noise": lambda x, generator: x + torch.randn(x.shape, generator=generator),
    "salt and pepper": _salt,
    "four rows erased": _erased,
    "blur": lambda x, generator: _blurred(_blurred(x)),
    "low contrast": lambda x, generator: 0.15 * x,
}
"""Of a strength at which a classifier of clean digits is right in some 70 to 80 of 100."""


def corrupted(x: Tensor, name: str, seed: int = 0) -> Tensor:
    """Images [n, 1, 28, 28] on the CPU with one of CORRUPTIONS."""
    return CORRUPTIONS[name](x, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Settings:
    """choosing, judged: images, judged ones of each seed; steps: of CODE, each way; judge_steps: of the classifier's
    training."""

    seeds: tuple[int, ...] = (0, 1, 2)
    choosing: int = 200
    judged: int = 300
    steps: int = 20
    judge_steps: int = 800
    levels: tuple[float, ...] = LEVELS
    device: str = "cpu"


class _Bench:
    """The network, the images, and a judge a seed."""

    def __init__(self, settings: Settings, checkpoint: Path | None) -> None:
        self.settings, device = settings, settings.device
        self.model, self.record = (
            pretrained("mnist_unet", device) if checkpoint is None else load_model(checkpoint, device)
        )
        with np.load(data.get("mnist")) as file:
            parts = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
        self.train, self.train_labels = parts["x_train"], parts["y_train"].long()
        self.test, self.test_labels = parts["x_test"], parts["y_test"].long()

    def images(self, seed: int, part: str) -> tuple[Tensor, Tensor]:
        """Those to choose on, which no network has learnt, or those to be judged."""
        if part == "choose":
            rows = slice(50_000, 50_000 + self.settings.choosing)
            return _pictures(self.train[rows]), self.train_labels[rows]
        rows = slice(seed * self.settings.judged, (seed + 1) * self.settings.judged)
        return _pictures(self.test[rows]), self.test_labels[rows]

    def judge(self, seed: int) -> Callable[[Tensor, Tensor], float]:
        """Accuracy of a classifier that learnt clean images."""
        device = self.settings.device
        learnt = _pictures(self.train[:50_000]).to(device), self.train_labels[:50_000].to(device)
        judge = trained_judge(*learnt, steps=self.settings.judge_steps, seed=seed)
        return lambda x, labels: float((judge(x.to(device)).argmax(1).cpu() == labels).float().mean())

    def edits(self, seed: int, settings: Sequence[Setting]) -> dict[str, Callable[[Tensor, float], Tensor]]:
        """SDEdit, and CODE with each of the settings: (images, level) -> images."""
        steps = self.settings.steps
        found: dict[str, Callable[[Tensor, float], Tensor]] = {
            "sdedit": lambda x, level: sdedit(
                self.model, x, SCHEDULE, level, sampler="ddim", steps=2 * steps, seed=seed
            )
        }  # fmt: skip
        for setting in settings:
            options = setting._asdict() | {"sampler": "ddim", "steps": steps, "seed": seed}
            found[setting.name] = lambda x, level, options=options: code(self.model, x, SCHEDULE, level, **options)
        return found

    def curves(self, seed: int, part: str, settings: Sequence[Setting], file: Path) -> list[Curve]:
        """Of every edit on every corruption; those that are in the file are not made again."""
        edits = self.edits(seed, settings)
        rows = [Curve(**_tuples(row)) for row in read_json_lines(file)]
        known = {(c.corruption, c.method): c for c in rows if (c.seed, c.part) == (seed, part)}
        wanted = [(corruption, name) for corruption in CORRUPTIONS for name in edits]
        missing = [key for key in wanted if key not in known]
        if missing:
            judge, (clean, labels) = self.judge(seed), self.images(seed, part)
            for corruption, name in missing:
                x = corrupted(clean, corruption, seed).to(self.settings.device)
                with torch.no_grad():
                    found = [edits[name](x, level) for level in self.settings.levels]
                distance = tuple(float((y - x).square().mean().sqrt()) for y in found)
                accuracy = tuple(judge(y, labels) for y in found)
                curve = Curve(seed, part, corruption, name, distance, accuracy, judge(x, labels))
                known[corruption, name] = curve
                append_json(file, asdict(curve))
                say(f"{part}, seed {seed}, {corruption}: {name}")
        return [known[key] for key in wanted]


@dataclass(frozen=True)
class Gain:
    """Of CODE on one corruption ("all": their mean) over the seeds; met: above 0 by more than its spread."""

    corruption: str
    method: str
    mean: float
    sd: float
    met: bool


def advantage(mine: Curve, other: Curve) -> float | None:
    """Mean accuracy of mine over the other's at the same distance, where both have one; None where they have none."""
    theirs = [at_distance(other, distance) for distance in mine.distance]
    gaps = [a - b for a, b in zip(mine.accuracy, theirs, strict=True) if b is not None]
    return fmean(gaps) if gaps else None


def chosen(found: Sequence[Curve], settings: Sequence[Setting]) -> Setting:
    """The setting with the largest mean advantage over all corruptions."""
    others = {c.corruption: c for c in found if c.method == "sdedit"}

    def worth(setting: Setting) -> float:
        gaps = [advantage(c, others[c.corruption]) for c in found if c.method == setting.name]
        return fmean(-1.0 if g is None else g for g in gaps)

    return max(settings, key=worth)


def gains(judged: Sequence[Curve]) -> list[Gain]:
    """One for every corruption and way of CODE, clipped and not, and one for their mean."""
    rows = []
    corruptions = list(dict.fromkeys(c.corruption for c in judged))
    for plain in dict.fromkeys("no clipping" in c.method for c in judged if c.method != "sdedit"):
        gaps: dict[str, list[float]] = {name: [] for name in (*corruptions, "all")}
        for seed in dict.fromkeys(c.seed for c in judged):
            here = {name: _gap(judged, seed, name, plain) for name in corruptions}
            known = {name: gap for name, gap in here.items() if gap is not None}
            for name, gap in (known | {"all": fmean(known.values())}).items():
                gaps[name].append(gap)
        for name, values in gaps.items():
            if values:
                sd = stdev(values) if len(values) > 1 else 0.0
                said = "code, no clipping" if plain else "code"
                rows.append(Gain(name, said, fmean(values), sd, fmean(values) > sd))
    return rows


def _gap(judged: Sequence[Curve], seed: int, corruption: str, plain: bool) -> float | None:
    here = [c for c in judged if (c.seed, c.corruption) == (seed, corruption)]
    other = next(c for c in here if c.method == "sdedit")
    return advantage(next(c for c in here if c is not other and ("no clipping" in c.method) == plain), other)


def _show(found: Sequence[Gain]) -> None:
    rows = [
        (v.corruption, v.method, f"{v.mean:+.3f} ± {v.sd:.3f}", {True: "above", False: "not above"}[v.met])
        for v in found
    ]
    show(table("CODE over SDEdit: accuracy at equal distance", ["corruption", "way", "gain", ""], rows))


def _pictures(pixels: Tensor) -> Tensor:
    return (pixels.float() / 127.5 - 1)[:, None]


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def main(
    out: Path | None = None, device: str | None = None, *, checkpoint: Path | None = None, **changes: Any
) -> int:  # fmt: skip
    """Choose, judge, print the table; curves (curves.jsonl, to go on from) and editing_mnist.json go to `out`
    (sciode-editing-mnist).

    checkpoint: another model than the shipped one.
    """
    settings = Settings(device=str(choose_device(device or "auto")), **changes)
    out = out or Path("sciode-editing-mnist")
    out.mkdir(parents=True, exist_ok=True)
    bench, file = _Bench(settings, checkpoint), out / "curves.jsonl"
    choice = bench.curves(0, "choose", SETTINGS, file)
    setting = chosen(choice, SETTINGS)
    print(f"chosen: {setting.name}", flush=True)
    judged: list[Curve] = []
    for seed in settings.seeds:
        judged += bench.curves(seed, "judge", [setting, setting._replace(confidence=None)], file)
        record = {
            "date": date.today().isoformat(), "torch": torch.__version__, "settings": asdict(settings),
            "device": torch.cuda.get_device_name() if settings.device.startswith("cuda") else settings.device,
            "model": bench.record, "chosen": setting, "curves": [asdict(c) for c in (*choice, *judged)],
            "verdicts": [asdict(v) for v in gains(judged)],
        }  # fmt: skip
        (out / "editing_mnist.json").write_text(json.dumps(record, indent=1) + "\n")
    _show(gains(judged))
    return 0
