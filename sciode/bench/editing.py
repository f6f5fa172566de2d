"""`sciode bench editing`: corrupted digits restored by CODE and by SDEdit, held against one another at equal fidelity.

A denoiser that never saw a corrupted digit edits them; a support-vector classifier that never saw an edited one judges.
Fidelity is the root mean square distance of what comes out from what went in. Higher levels make both methods more
faithful to the model and less to the input. On half of the test images each method's level is chosen, by corruption,
for the accuracy after it, and CODE's setting by the mean of that over all corruptions: bounds first, without updates,
then updates within those bounds. On the other half CODE, at its levels, is compared with SDEdit at the same distances,
and both with the input. SDEdit takes as many evaluations as CODE without updates. Nothing is timed.
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
    "CORRUPTIONS", "LEVELS", "Curve", "Setting", "Verdict", "corrupted", "curves", "main", "verdicts",
]  # fmt: skip

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
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


BOUNDS = tuple(Setting(bounds, confidence) for bounds in ("one", "pixel") for confidence in (1.0, 1.7))
CLIMBS = ((3, 0.01), (3, 0.03), (10, 0.03), (30, 0.1))
"""(updates, step): from 0.03 to 3 in units of sigma^2 altogether."""


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


def at_distance(curve: Curve, distance: float) -> float | None:
    """Accuracy of a method where it leaves images this far from its input; None where it leaves none."""
    # At level 0 an edit is the input itself.
    distances, accuracies = np.array((0.0, *curve.distance)), np.array((curve.before, *curve.accuracy))
    order = np.argsort(distances)
    if distance > distances.max():
        return None
    return float(np.interp(distance, distances[order], accuracies[order]))


def best_level(curve: Curve) -> int:
    """The place of the level with the highest accuracy, the lowest of them."""
    return int(np.argmax(curve.accuracy))


def chosen(found: Sequence[Curve], settings: Sequence[Setting]) -> Setting:
    """The settings of CODE with the highest accuracy, at the best level of each corruption, in the mean over them."""

    def worth(setting: Setting) -> float:
        return fmean(max(c.accuracy) for c in found if c.method == setting.name)

    return max(settings, key=worth)


@dataclass(frozen=True)
class Verdict:
    """Of one corruption ("all": their mean) over the seeds, on images that chose nothing: accuracies of the input, of
    SDEdit and of CODE at levels chosen before; gain: of CODE over SDEdit at CODE's distance, with its standard
    deviation; met: a gain by more than that."""

    corruption: str
    way: str
    before: float
    sdedit: float
    code: float
    distance: float
    gain: float
    sd: float
    met: bool


_Row = tuple[float, float, float, float, float]
_WAYS = ("chosen", "the paper's bounds", "no clipping")
"""What is judged: the setting chosen by seed, the paper's default bounds, and encoding alone; the first alone may
climb."""


def verdicts(found: Sequence[Curve]) -> list[Verdict]:
    """One for every corruption and way of CODE, and one for their mean."""
    rows = []
    for way in _WAYS:
        by_kind: dict[str, list[_Row]] = {name: [] for name in (*CORRUPTIONS, "all")}
        for seed in dict.fromkeys(c.seed for c in found):
            here = [_judged([c for c in found if (c.seed, c.corruption) == (seed, kind)], way) for kind in CORRUPTIONS]
            for kind, row in zip(CORRUPTIONS, here, strict=True):
                by_kind[kind] += [row] if row else []
            known = [row for row in here if row]
            by_kind["all"] += [tuple(map(fmean, zip(*known, strict=True)))] if known else []  # type: ignore[list-item]
        for kind, values in by_kind.items():
            if values:
                gains = [row[-1] for row in values]
                sd = stdev(gains) if len(gains) > 1 else 0.0
                before, other, own, distance, gain = (fmean(column) for column in zip(*values, strict=True))
                rows.append(Verdict(kind, way, before, other, own, distance, gain, sd, gain > sd))
    return rows


def _judged(curves: Sequence[Curve], way: str) -> _Row | None:
    """(input, SDEdit, CODE, its distance, its gain at that distance) of one seed and corruption."""
    fixed = {"the paper's bounds": Setting().name, "no clipping": Setting(confidence=None).name}
    mine = next((c.method for c in curves if c.part == "judge" and c.method != "sdedit"), "")
    name = fixed.get(way, mine)
    parts = {(c.part, c.method): c for c in curves}
    wanted = [parts.get((part, method)) for part in ("choose", "judge") for method in (name, "sdedit")]
    if any(curve is None for curve in wanted):
        return None
    chose, chose_other, code_curve, other = wanted
    level = best_level(chose)  # type: ignore[arg-type]
    accuracy, distance = code_curve.accuracy[level], code_curve.distance[level]  # type: ignore[union-attr]
    theirs = at_distance(other, distance)  # type: ignore[arg-type]
    if theirs is None:
        return None
    best = other.accuracy[best_level(chose_other)]  # type: ignore[union-attr,arg-type]
    return other.before, best, accuracy, distance, accuracy - theirs  # type: ignore[union-attr]


def _choice(net: Callable[..., Tensor], data: Scans, seed: int) -> tuple[Setting, list[Curve]]:
    """The setting that does best on the images to choose by, and all curves there."""
    found = list(curves(net, data, seed, "choose", [*BOUNDS, Setting(confidence=None)]))
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
        gains = [v for v in verdicts([c for c in found if c.seed == seed]) if v.way == _WAYS[0]]
        print(f"seed {seed}: {setting.name}: {', '.join(f'{v.corruption} {v.gain:+.3f}' for v in gains)}", flush=True)
        _write(out, found)
    rows = [
        (v.corruption, v.way, f"{v.before:.3f}", f"{v.sdedit:.3f}", f"{v.code:.3f}", f"{v.distance:.2f}",
         f"{v.gain:+.3f} ± {v.sd:.3f}", {True: "above", False: "not above"}[v.met])
        for v in verdicts(found)
    ]  # fmt: skip
    head = ["corruption", "CODE", "input", "SDEdit", "CODE", "distance", "gain at it", ""]
    show(table("Digits classified rightly after restoring", head, rows))
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
