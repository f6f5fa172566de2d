"""`sciode bench editing`: corrupted digits restored by CODE and by SDEdit, held against one another at equal fidelity.

A denoiser that never saw a corrupted digit edits them; a support-vector classifier that never saw an edited one judges.
Fidelity is the root mean square distance of what comes out from what went in. Higher levels make both methods more
faithful to the model and less to the input, so accuracies are compared where distances are the same. CODE's updates
and step size are chosen on other images than those that it is judged on, once for all corruptions. Nothing is timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.bench.digit_denoiser import SCHEDULE, DigitDenoiser, Digits, digits, trained
from sciode.bench.timing import machine
from sciode.diffusion.editing import code, sdedit
from sciode.lab.tables import show, table

__all__ = [
    "CORRUPTIONS", "LEVELS", "Curve", "Verdict", "advantage", "chosen", "code_name", "corrupted", "curves", "main",
    "show_verdicts", "verdicts",
]  # fmt: skip

LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
SEEDS = (0, 1, 2)
SETTINGS = ((0, 0.05), (3, 0.01), (10, 0.05))
"""(updates, step) of CODE to choose from."""
_STEPS = 12
_TRAINING = 1500


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


def classifier(data: Digits) -> Callable[[Tensor, Any], float]:
    """Accuracy of a support-vector machine that learnt the clean training images."""
    from sklearn.svm import SVC

    options: dict[str, Any] = {"gamma": 0.02, "random_state": 0}
    fitted = SVC(**options).fit(data.train.flatten(1).numpy(), data.train_labels)
    return lambda x, labels: float(fitted.score(x.flatten(1).numpy(), labels))


def curves(
    net: DigitDenoiser, data: Digits, seed: int, part: str, settings: Sequence[tuple[int, float]],
    clipping: Sequence[float | None] = (1.7,), levels: Sequence[float] | None = None,
) -> Iterator[Curve]:  # fmt: skip
    """SDEdit, and CODE with these settings; part: "choose" or "judge", the halves of the test images."""
    levels = LEVELS if levels is None else levels
    judge, half = classifier(data), len(data.test) // 2
    here = slice(0, half) if part == "choose" else slice(half, None)
    clean, labels = data.test[here], data.test_labels[here]
    methods: dict[str, Callable[[Tensor, float], Tensor]] = {
        "sdedit": lambda x, level: sdedit(net, x, SCHEDULE, level, steps=_STEPS, seed=seed)
    }
    for (updates, step), confidence in product(settings, clipping):
        name = code_name(updates, step, confidence)
        methods[name] = lambda x, level, updates=updates, step=step, confidence=confidence: code(
            net, x, SCHEDULE, level, updates=updates, step=step, confidence=confidence, steps=_STEPS, seed=seed
        )
    for corruption in CORRUPTIONS:
        x = corrupted(clean, corruption, seed)
        for name, edit in methods.items():
            found = [edit(x, level) for level in levels]
            distance = tuple(float((y - x).square().mean().sqrt()) for y in found)
            accuracy = tuple(judge(y, labels) for y in found)
            yield Curve(seed, part, corruption, name, distance, accuracy, judge(x, labels))


def code_name(updates: int, step: float, confidence: float | None = 1.7) -> str:
    """What a curve of CODE is called."""
    clipping = {None: ", no clipping", 1.7: ""}.get(confidence, f", within {confidence}")
    return f"code, {updates} x {step}" + clipping


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


def verdicts(found: Sequence[Curve]) -> list[Verdict]:
    """One for every corruption and way of CODE, and one for their mean."""
    rows = []
    judged = [curve for curve in found if curve.part == "judge"]
    kinds = list(dict.fromkeys("no clipping" in c.method for c in judged if c.method != "sdedit"))
    corruptions = list(dict.fromkeys(c.corruption for c in judged))
    for plain in kinds:
        gaps: dict[str, list[float]] = {name: [] for name in (*corruptions, "all")}
        for seed in dict.fromkeys(c.seed for c in judged):
            per_kind = [_gap(judged, seed, name, plain) for name in corruptions]
            for name, gap in zip(corruptions, per_kind, strict=True):
                gaps[name] += [] if gap is None else [gap]
            gaps["all"].append(fmean(g for g in per_kind if g is not None))
        for name, values in gaps.items():
            if values:
                sd = stdev(values) if len(values) > 1 else 0.0
                said = "code, no clipping" if plain else "code"
                rows.append(Verdict(name, said, fmean(values), sd, fmean(values) > sd))
    return rows


def _gap(judged: Sequence[Curve], seed: int, corruption: str, plain: bool) -> float | None:
    here = [c for c in judged if (c.seed, c.corruption) == (seed, corruption)]
    other = next(c for c in here if c.method == "sdedit")
    return advantage(next(c for c in here if c is not other and ("no clipping" in c.method) == plain), other)


def chosen(found: Sequence[Curve], settings: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The settings of CODE, arguments of `code_name`, with the largest mean advantage over all corruptions."""
    others = {c.corruption: c for c in found if c.method == "sdedit"}

    def worth(setting: tuple[Any, ...]) -> float:
        mine = [c for c in found if c.method == code_name(*setting)]
        gaps = [advantage(c, others[c.corruption]) for c in mine]
        return fmean(-1.0 if g is None else g for g in gaps)

    return max(settings, key=worth)


def main(out: Path | None = None) -> int:
    """Train three denoisers, measure, print the table; with `out` write editing_cpu.json there. Some ten minutes."""
    data, found = digits(), []
    for seed in SEEDS:
        net = trained(data.train, _TRAINING, seed)
        choice = list(curves(net, data, seed, "choose", SETTINGS))
        setting: Any = chosen(choice, SETTINGS)
        found += list(curves(net, data, seed, "judge", [setting], clipping=(1.7, None)))
        gains = ", ".join(f"{v.corruption} {v.mean:+.3f}" for v in verdicts([c for c in found if c.seed == seed]))
        print(f"seed {seed}: {code_name(*setting)}: {gains}", flush=True)
        _write(out, found)
    show_verdicts(found)
    return 0


def show_verdicts(found: Sequence[Curve]) -> None:
    """The table."""
    rows = [
        (v.corruption, v.method, f"{v.mean:+.3f} ± {v.sd:.3f}", {True: "above", False: "not above"}[v.met])
        for v in verdicts(found)
    ]
    show(table("CODE over SDEdit: accuracy at equal distance", ["corruption", "way", "gain", ""], rows))


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
