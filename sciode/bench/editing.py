"""`sciode bench editing`: corrupted digits restored by CODE and by SDEdit, held against one another at equal fidelity.

A denoiser that never saw a corrupted digit edits them; a support-vector classifier that never saw an edited one judges.
Fidelity is the root mean square distance of what comes out from what went in. Higher levels make both methods more
faithful to the model and less to the input, so accuracies are compared where distances are the same. CODE's bounds,
updates and step size are chosen on other images than those that it is judged on, once for all corruptions: bounds
first, without updates, then updates within those bounds. SDEdit takes as many evaluations as CODE without updates.
Nothing is timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciode.bench.timing import machine
from sciode.diffusion.editing import code, sdedit
from sciode.lab.scans import SCHEDULE, Scans, denoiser, scans
from sciode.lab.tables import show, table

__all__ = [
    "CORRUPTIONS", "LEVELS", "Curve", "Setting", "Verdict", "advantage", "corrupted", "curves", "main", "verdicts",
]  # fmt: skip

LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
SEEDS = (0, 1, 2)
_STEPS = 12
"""Of Heun's method, each way."""
_TRAINING = 1500


class Setting(NamedTuple):
    """Of CODE. bounds: "one" (data within +- 1), or "pixel" (within the range of each pixel of the training images, but
    for a hundredth at each end); confidence: None = no clipping."""

    bounds: str = "one"
    confidence: float | None = 1.7
    updates: int = 0
    step: float = 0.05

    @property
    def name(self) -> str:
        """What its curve is called."""
        within = f", {self.bounds} {self.confidence}" if self.confidence else ""
        climbs = f", {self.updates} x {self.step}" if self.updates else ""
        return f"code{within or ', no clipping'}{climbs}"


BOUNDS = tuple(Setting(bounds, confidence) for bounds in ("one", "pixel") for confidence in (1.0, 1.7, 2.5))
CLIMBS = ((3, 0.03), (10, 0.03), (10, 0.1), (30, 0.1), (30, 0.3))
"""(updates, step): from a tenth to nine in units of sigma^2 altogether."""


def _blur(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _erased(x: Tensor, generator: torch.Generator) -> Tensor:
    rows = torch.randint(1, 6, (len(x), 1, 1, 1), generator=generator)
    place = torch.arange(8)[:, None]
    return torch.where((place >= rows) & (place < rows + 2), -1.0, x)


def _salt(x: Tensor, generator: torch.Generator) -> Tensor:
    hit = torch.rand(x.shape, generator=generator) < 0.2
    return torch.where(hit, torch.sign(torch.randn(x.shape, generator=generator)), x)


CORRUPTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noise": lambda x, generator: x + 0.7 * torch.randn(x.shape, generator=generator),
    "salt and pepper": _salt,
    "two rows erased": _erased,
    "blur": lambda x, generator: _blur(_blur(x)),
    "low contrast": lambda x, generator: 0.35 * x - 0.3,
}


def corrupted(x: Tensor, name: str, seed: int = 0) -> Tensor:
    """Images [n, 1, 8, 8] with one of CORRUPTIONS."""
    return CORRUPTIONS[name](x, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Curve:
    """Of one method on one corruption: distance to the input and accuracy at LEVELS; `before`: the input's accuracy."""

    seed: int
    part: str
    corruption: str
    method: str
    distance: tuple[float, ...]
    accuracy: tuple[float, ...]
    before: float


def classifier(data: Scans) -> Callable[[Tensor, Tensor], float]:
    """Accuracy of a support-vector machine that learnt the clean training images."""
    from sklearn.svm import SVC

    options: dict[str, Any] = {"gamma": 0.02, "random_state": 0}
    fitted = SVC(**options).fit(data.train.flatten(1).numpy(), data.train_labels.numpy())
    return lambda x, labels: float(fitted.score(x.flatten(1).numpy(), labels.numpy()))


def pixel_range(data: Scans) -> tuple[Tensor, Tensor]:
    """What each pixel of the training images lies between, but for a hundredth at each end."""
    low, high = torch.quantile(data.train, torch.tensor([0.01, 0.99]), dim=0)
    return low, high


def curves(
    net: Callable[..., Tensor], data: Scans, seed: int, part: str, settings: Sequence[Setting],
    levels: Sequence[float] | None = None,
) -> Iterator[Curve]:  # fmt: skip
    """SDEdit, and CODE with these settings; part: "choose" or "judge", the halves of the test images."""
    levels = LEVELS if levels is None else levels
    judge, half = classifier(data), len(data.test) // 2
    here = slice(0, half) if part == "choose" else slice(half, None)
    clean, labels = data.test[here], data.test_labels[here]
    limits: dict[str, Any] = {"one": 1.0, "pixel": pixel_range(data)}
    methods: dict[str, Callable[[Tensor, float], Tensor]] = {
        "sdedit": lambda x, level: sdedit(net, x, SCHEDULE, level, nfe=4 * _STEPS - 2, seed=seed)
    }
    for s in settings:
        methods[s.name] = lambda x, level, s=s: code(
            net, x, SCHEDULE, level, updates=s.updates, step=s.step, confidence=s.confidence, limit=limits[s.bounds],
            steps=_STEPS, seed=seed,
        )  # fmt: skip
    for corruption in CORRUPTIONS:
        x = corrupted(clean, corruption, seed)
        for name, edit in methods.items():
            with torch.no_grad():
                found = [edit(x, level) for level in levels]
            distance = tuple(float((y - x).square().mean().sqrt()) for y in found)
            accuracy = tuple(judge(y, labels) for y in found)
            yield Curve(seed, part, corruption, name, distance, accuracy, judge(x, labels))


def advantage(mine: Curve, other: Curve) -> float | None:
    """Mean accuracy of mine over the other's at the same distance, where both have one; None where they have none."""
    # At level 0 an edit is the input itself.
    distance, accuracy = np.array((0.0, *other.distance)), np.array((other.before, *other.accuracy))
    order = np.argsort(distance)
    at, heights = distance[order], accuracy[order]
    gaps = [
        a - float(np.interp(d, at, heights))
        for d, a in zip(mine.distance, mine.accuracy, strict=True)
        if at[0] <= d <= at[-1]
    ]
    return fmean(gaps) if gaps else None


@dataclass(frozen=True)
class Verdict:
    """Of one corruption over the seeds: advantage of CODE at equal distance; met: above 0 by more than its spread."""

    corruption: str
    method: str
    mean: float
    sd: float
    met: bool


_WAYS = ("chosen", "the paper's bounds", "no clipping")
"""What is judged: the setting chosen by seed, the paper's default bounds, and encoding alone; none climbs but the
first."""


def _way(way: str, judged: Sequence[Curve]) -> str:
    """The name of this way's curve among those of one seed and corruption, which come in the order of `_WAYS`."""
    fixed = {"the paper's bounds": Setting().name, "no clipping": Setting(confidence=None).name}
    return fixed.get(way) or next(c.method for c in judged if c.method != "sdedit")


def verdicts(found: Sequence[Curve]) -> list[Verdict]:
    """One for every corruption and way of CODE, and one for their mean."""
    rows = []
    judged = [curve for curve in found if curve.part == "judge"]
    for way in _WAYS:
        gaps: dict[str, list[float]] = {name: [] for name in (*CORRUPTIONS, "all")}
        for seed in dict.fromkeys(c.seed for c in judged):
            per_kind = [_gap(judged, seed, name, way) for name in CORRUPTIONS]
            for name, gap in zip(CORRUPTIONS, per_kind, strict=True):
                gaps[name] += [] if gap is None else [gap]
            known = [g for g in per_kind if g is not None]
            gaps["all"] += [fmean(known)] if known else []
        for name, values in gaps.items():
            if values:
                sd = stdev(values) if len(values) > 1 else 0.0
                rows.append(Verdict(name, way, fmean(values), sd, fmean(values) > sd))
    return rows


def _gap(judged: Sequence[Curve], seed: int, corruption: str, way: str) -> float | None:
    here = [c for c in judged if (c.seed, c.corruption) == (seed, corruption)]
    other = next((c for c in here if c.method == "sdedit"), None)
    mine = next((c for c in here if c.method == _way(way, here)), None)
    return None if other is None or mine is None else advantage(mine, other)


def chosen(found: Sequence[Curve], settings: Sequence[Setting]) -> Setting:
    """The settings of CODE with the largest mean advantage over all corruptions."""
    others = {c.corruption: c for c in found if c.method == "sdedit"}

    def worth(setting: Setting) -> float:
        mine = [c for c in found if c.method == setting.name]
        gaps = [advantage(c, others[c.corruption]) for c in mine]
        return fmean(-1.0 if g is None else g for g in gaps)

    return max(settings, key=worth)


def _choice(net: Callable[..., Tensor], data: Scans, seed: int) -> tuple[Setting, list[Curve]]:
    """The setting that does best on the images to choose by, and all curves there."""
    found = list(curves(net, data, seed, "choose", BOUNDS))
    still = chosen(found, BOUNDS)
    climbs = [still._replace(updates=updates, step=step) for updates, step in CLIMBS]
    found += [c for c in curves(net, data, seed, "choose", climbs) if c.method != "sdedit"]
    return chosen(found, [still, *climbs]), found


def main(out: Path | None = None) -> int:
    """Train three denoisers, measure, print the table; with `out` write editing_cpu.json there. Some ten minutes."""
    data, found = scans(), []
    for seed in SEEDS:
        net = denoiser({"x": data.train}, steps=_TRAINING, seed=seed, batch=256).network
        setting, tried = _choice(net, data, seed)
        shown = list(dict.fromkeys((setting, Setting(), Setting(confidence=None))))
        found += [*tried, *curves(net, data, seed, "judge", shown)]
        own = [v for v in verdicts([c for c in found if c.seed == seed]) if v.method == _WAYS[0]]
        gains = ", ".join(f"{v.corruption} {v.mean:+.3f}" for v in own)
        print(f"seed {seed}: {setting.name}: {gains}", flush=True)
        _write(out, found)
    told = verdicts(found)
    rows = [
        (v.corruption, v.method, f"{v.mean:+.3f} ± {v.sd:.3f}", {True: "above", False: "not above"}[v.met])
        for v in told
    ]
    show(table("CODE over SDEdit: accuracy at equal distance", ["corruption", "way", "gain", ""], rows))
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
