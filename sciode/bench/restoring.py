"""Corrupted pictures restored by CODE and by SDEdit, held against one another: what the benchmarks of editing share.

A denoiser that never saw a corrupted picture edits them, a classifier that never saw an edited one judges. Fidelity is
the root mean square distance of what comes out from what went in; higher levels make both methods more faithful to the
model and less to the input. The rule: on pictures to choose by, each method's level is chosen, by corruption, for the
accuracy after it, and CODE's setting, once for a network, by the mean of that over all corruptions: bounds first,
without updates, then updates within those bounds. On other pictures CODE, at its levels, is compared with SDEdit at the
same distances, and both with the input. SDEdit takes as many evaluations as the costliest CODE beside it.

Means over all levels say less: far from the input both methods are wrong, and whoever is less so there would win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from sciode.diffusion import VPLinear
from sciode.diffusion.editing import code, sdedit
from sciode.diffusion.editing.score_ascent import Limit
from sciode.lab.progress import say
from sciode.lab.tables import show, table
from sciode.training import append_json, read_json_lines

__all__ = [
    "BOUNDS", "PAPER", "PLAIN", "Bench", "Corruption", "Curve", "Setting", "Verdict", "at_distance", "blurred",
    "chosen", "corrupted", "curves", "erased", "faded", "noisy", "pixel_range", "restored", "salted", "show_verdicts",
    "verdicts",
]  # fmt: skip

_SCHEDULE = VPLinear()
"""Of all denoisers here."""


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
"""To choose from, first."""
PAPER, PLAIN = Setting(), Setting(confidence=None)
"""The paper's bounds, and encoding alone."""

Corruption = Callable[[Tensor, torch.Generator], Tensor]


def noisy(deviation: float) -> Corruption:
    """Normal noise."""
    return lambda x, generator: x + deviation * torch.randn(x.shape, generator=generator)


def salted(share: float) -> Corruption:
    """Salt and pepper: a share of the pixels is -1 or 1."""

    def corrupt(x: Tensor, generator: torch.Generator) -> Tensor:
        hit = torch.rand(x.shape, generator=generator) < share
        return torch.where(hit, torch.sign(torch.randn(x.shape, generator=generator)), x)

    return corrupt


def erased(rows: int, first: int, end: int) -> Corruption:
    """So many rows become -1; their first one is from `first` to end - 1."""

    def corrupt(x: Tensor, generator: torch.Generator) -> Tensor:
        begin = torch.randint(first, end, (len(x), 1, 1, 1), generator=generator)
        place = torch.arange(x.shape[-2])[:, None]
        return torch.where((place >= begin) & (place < begin + rows), -1.0, x)

    return corrupt


def blurred(width: int) -> Corruption:
    """Twice the mean over a square of an odd width."""

    def once(x: Tensor) -> Tensor:
        return avg_pool2d(pad(x, (width // 2,) * 4, mode="replicate"), width, 1)

    return lambda x, generator: once(once(x))


def faded(contrast: float, shift: float = 0.0) -> Corruption:
    """Low contrast."""
    return lambda x, generator: contrast * x + shift


def corrupted(x: Tensor, corruption: Corruption, seed: int = 0) -> Tensor:
    """Pictures [n, 1, height, width] on the CPU, corrupted."""
    return corruption(x, torch.Generator().manual_seed(seed))


def pixel_range(train: Tensor) -> tuple[Tensor, Tensor]:
    """What each pixel of the training images lies between, but for a hundredth at each end."""
    low, high = torch.quantile(train, torch.tensor([0.01, 0.99]), dim=0)
    return low, high


Judge = Callable[[Tensor, Tensor], float]
"""(pictures, labels) -> accuracy."""


@dataclass(frozen=True)
class Bench:
    """One network and how it is tried.

    images(seed, part) -> (pictures, labels) of "choose" or "judge"; judge(seed): a classifier; climbs: (updates, step)
    of CODE to choose from, in units of sigma^2; limits: what bounds stand for; steps: of Heun's method, each way.
    """

    network: Callable[..., Tensor]
    images: Callable[[int, str], tuple[Tensor, Tensor]]
    judge: Callable[[int], Judge]
    corruptions: Mapping[str, Corruption]
    levels: tuple[float, ...]
    climbs: tuple[tuple[int, float], ...]
    limits: Mapping[str, Limit]
    steps: int = 12
    device: str = "cpu"

    def evaluations(self, setting: Setting = PLAIN) -> int:
        """That CODE takes: two a step each way, and one an update."""
        return 4 * self.steps + setting.updates


@dataclass(frozen=True)
class Curve:
    """Of one method on one corruption: distance to the input and accuracy at the levels; `before`: the input's
    accuracy."""

    seed: int
    part: str
    corruption: str
    method: str
    distance: tuple[float, ...]
    accuracy: tuple[float, ...]
    before: float
    evaluations: int


_Edit = Callable[[Tensor, float], Tensor]
"""(pictures, level) -> pictures."""


def _by_code(bench: Bench, seed: int, s: Setting) -> _Edit:
    limit = bench.limits[s.bounds]

    def edit(x: Tensor, level: float) -> Tensor:
        return code(
            bench.network, x, _SCHEDULE, level, updates=s.updates, step=s.step, confidence=s.confidence, limit=limit,
            steps=bench.steps, seed=seed,
        )  # fmt: skip

    return edit


def _by_sdedit(bench: Bench, seed: int, nfe: int) -> _Edit:
    return lambda x, level: sdedit(bench.network, x, _SCHEDULE, level, nfe=nfe, seed=seed)


def curves(
    bench: Bench, seed: int, part: str, settings: Sequence[Setting], file: Path | None = None, beside: bool = True
) -> Iterator[Curve]:  # fmt: skip
    """CODE with these settings, and (beside=True) SDEdit; part: "choose" or "judge".

    file: a line a curve; those that are in it are not made again.
    """
    most = max(map(bench.evaluations, settings))
    methods = [("sdedit", most, _by_sdedit(bench, seed, most))] if beside else []
    methods += [(s.name, bench.evaluations(s), _by_code(bench, seed, s)) for s in settings]
    rows = [] if file is None else [Curve(**_tuples(row)) for row in read_json_lines(file)]
    known = {(c.seed, c.part, c.corruption, c.method, c.evaluations): c for c in rows}
    judge: Judge | None = None
    for kind, corruption in bench.corruptions.items():
        for name, evaluations, edit in methods:
            stored = known.get((seed, part, kind, name, evaluations))
            if stored is None:
                judge = judge or bench.judge(seed)
                clean, labels = bench.images(seed, part)
                x = corrupted(clean, corruption, seed).to(bench.device)
                with torch.no_grad():
                    found = [edit(x, level) for level in bench.levels]
                distance = tuple(float((y - x).square().mean().sqrt()) for y in found)
                accuracy = tuple(judge(y, labels) for y in found)
                stored = Curve(seed, part, kind, name, distance, accuracy, judge(x, labels), evaluations)
                if file is not None:
                    append_json(file, asdict(stored))
                    say(f"{part}, seed {seed}, {kind}: {name}")
            yield stored


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def at_distance(curve: Curve, distance: float) -> float | None:
    """Accuracy of a method where it leaves images this far from its input; None where it leaves none."""
    # At level 0 an edit is the input itself.
    distances, accuracies = np.array((0.0, *curve.distance)), np.array((curve.before, *curve.accuracy))
    order = np.argsort(distances)
    if distance > distances.max():
        return None
    return float(np.interp(distance, distances[order], accuracies[order]))


def _best_level(curve: Curve) -> int:
    """The place of the level with the highest accuracy, the lowest of them."""
    return int(np.argmax(curve.accuracy))


def chosen(found: Sequence[Curve], settings: Sequence[Setting]) -> Setting:
    """The settings of CODE with the highest accuracy, at the best level of each corruption, in the mean over them."""

    def worth(setting: Setting) -> float:
        return fmean(max(c.accuracy) for c in found if c.method == setting.name)

    return max(settings, key=worth)


def restored(bench: Bench, seed: int, seeds: Sequence[int], file: Path | None = None) -> tuple[Setting, list[Curve]]:
    """The setting that does best on the pictures to choose by, of this seed, and all curves: those, and those of the
    pictures to judge by, of `seeds`."""
    found = list(curves(bench, seed, "choose", [*BOUNDS, PLAIN], file))
    still = chosen(found, BOUNDS)
    climbs = [still._replace(updates=updates, step=step) for updates, step in bench.climbs]
    found += curves(bench, seed, "choose", climbs, file, beside=False)
    best = chosen(found, [still, *climbs])
    for one in seeds:
        found += curves(bench, one, "judge", list(dict.fromkeys((best, PAPER, PLAIN))), file)
    return best, found


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
"""What is judged: the chosen setting, the paper's default bounds, and encoding alone; the first alone may climb."""


def verdicts(found: Sequence[Curve]) -> list[Verdict]:
    """One for every corruption and way of CODE, and one for their mean."""
    rows, kinds = [], list(dict.fromkeys(c.corruption for c in found))
    choosers = list(dict.fromkeys(c.seed for c in found if c.part == "choose"))
    for way in _WAYS:
        by_kind: dict[str, list[_Row]] = {name: [] for name in (*kinds, "all")}
        for seed in dict.fromkeys(c.seed for c in found if c.part == "judge"):
            # One network is chosen for once, whatever judges it.
            chooser = seed if seed in choosers else choosers[0]
            parts = [c for c in found if (c.part, c.seed) in (("choose", chooser), ("judge", seed))]
            here = [_judged([c for c in parts if c.corruption == kind], way) for kind in kinds]
            for kind, row in zip(kinds, here, strict=True):
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
    fixed = {"the paper's bounds": PAPER.name, "no clipping": PLAIN.name}
    mine = next((c.method for c in curves if c.part == "judge" and c.method != "sdedit"), "")
    name = fixed.get(way, mine)
    parts = {(c.part, c.method): c for c in curves}
    wanted = [parts.get((part, method)) for part in ("choose", "judge") for method in (name, "sdedit")]
    if any(curve is None for curve in wanted):
        return None
    chose, chose_other, code_curve, other = wanted
    level = _best_level(chose)  # type: ignore[arg-type]
    accuracy, distance = code_curve.accuracy[level], code_curve.distance[level]  # type: ignore[union-attr]
    theirs = at_distance(other, distance)  # type: ignore[arg-type]
    if theirs is None:
        return None
    best = other.accuracy[_best_level(chose_other)]  # type: ignore[union-attr,arg-type]
    return other.before, best, accuracy, distance, accuracy - theirs  # type: ignore[union-attr]


def show_verdicts(found: Sequence[Curve]) -> None:
    """The table."""
    rows = [
        (v.corruption, v.way, f"{v.before:.3f}", f"{v.sdedit:.3f}", f"{v.code:.3f}", f"{v.distance:.2f}",
         f"{v.gain:+.3f} ± {v.sd:.3f}", {True: "above", False: "not above"}[v.met])
        for v in verdicts(found)
    ]  # fmt: skip
    head = ["corruption", "CODE", "input", "SDEdit", "CODE", "distance", "gain at it", ""]
    show(table("Digits classified rightly after restoring", head, rows))
