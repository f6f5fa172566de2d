"""Operators and equations from trajectories: a model that is told symbols beside its twins and what knows none.

    sciode train prose
    sciode train prose --set preset=small equations=2134 starts=20 batch=512 steps=40000 --device cuda
    sciode train prose --set 'systems=["lorenz"]'                        # one to one
    sciode train prose --set 'unseen=["dadras"]'                         # a system that training never sees
    sciode train prose --set read=8                                      # a short look, in which symbols tell something
    sciode train prose --set dimension=5                                 # all fifteen systems
    sciode train prose --set 'lines=["symbols only, solved"]'            # text alone

Trajectories of systems with drawn numbers are read up to t = 2 (64 frames, with noise) and asked for from there to 6.
All models of a seed train in lockstep on the same batches; what is judged are averaged weights, on starts and sets of
numbers that training has not seen. "data only" is told no symbols, but writes some; "no symbols" does neither (the
twin of PROSE's own code); "symbols only" writes from what it is told alone, while its operator reads frames; of "all
tokens", both decoders see those of data and of symbols. "told": what is known of the equations beforehand, "known"
(their skeleton), "wrong" (a term too many or too few) or "nothing". Errors are relative L2 errors, means over samples;
"near" is the first quarter.

"full, solved" answers by the equations that it writes, fitted to the frames that are read, and solved; so do others
that write some. Where a solution stops or grows too large, the model answers, or the last frame: "reached" is the share
in which none does. Rows of equations: terms, the right-hand side on the true trajectory (before and after the fit,
medians), and the data error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.experiments.prose_rows import EQUATIONS, TOLD, equation_row, operator_row
from sciode.experiments.prose_tables import figure, tables
from sciode.experiments.prose_training import Trained, course_of, fitted
from sciode.lab.tables import show
from sciode.prose import PRESETS, SYSTEMS, Drawing, Transformer, of_dimension
from sciode.prose.opponents import DeepONet, FourierOperator
from sciode.prose.pool import Pool, Reading, filled
from sciode.training import choose_device, derive_seed

__all__ = ["LINES", "MODELS", "Settings", "main", "trained"]

_TRAIN, _TEST = 1, 2
"""First entries of the paths of the seeds that draw systems."""
_OF_ROWS = ("lines", "noises", "told", "seeds", "test_equations", "test_starts", "written", "beams", "fit", "models")
"""Fields that training does not hang on; what is trained side by side is named beside them."""


@dataclass(frozen=True)
class Settings:
    """systems: in training and tests, () for all of at most `dimension` components; unseen: only in tests. preset: of
    `sciode.prose.PRESETS`. lines, noises, told, seeds: what rows there are. models: what is trained side by side, ()
    for what lines ask for. read: frames that are read; noise: its largest level in training. equations, starts: of
    training, a system. steps, seconds, batch, lr: see `Course`; opponents' rate is `rival_lr`. test_equations,
    test_starts: of tests. written: samples a system whose equations are written, beams each; fit: iterations of their
    fits. engine: of solves; training: of training's steps, see `Course`.

    Raises ValueError for unknown names, sizes below one, or a line whose model is not among `models`.
    """

    systems: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    dimension: int = 3
    preset: str = "tiny"
    lines: tuple[str, ...] = (
        "full", "data only", "no symbols", "DeepONet", "Fourier operator", "last value",
        "full, solved", "data only, solved", "sparse regression",
    )  # fmt: skip
    noises: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1)
    told: tuple[str, ...] = ("known", "wrong", "nothing")
    models: tuple[str, ...] = ()
    read: int = 64
    noise: float = 0.05
    seeds: tuple[int, ...] = (0, 1, 2)
    equations: int = 100
    starts: int = 20
    steps: int = 3000
    seconds: float = 0.0
    batch: int = 64
    lr: float = 2e-3
    rival_lr: float = 1e-3
    test_equations: int = 25
    test_starts: int = 2
    written: int = 5
    beams: int = 4
    fit: int = 90
    engine: str = "auto"
    training: str = "auto"
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("lines", self.lines, LINES)
        named("models", self.models, MODELS)
        if self.models and (lacking := set(self.asked) - set(self.models)):
            raise ValueError(f"lines ask for {', '.join(sorted(lacking))}, which is not among models")
        named("told", self.told, TOLD)
        named("systems", (*self.systems, *self.unseen), SYSTEMS)
        named("preset", (self.preset,), PRESETS)
        sizes = (self.equations, self.starts, self.steps, self.batch, self.test_equations, self.test_starts)
        if min(*sizes, self.written, self.beams, self.fit, len(self.lines), len(self.seeds), self.workers) < 1:
            raise ValueError("settings: sizes and numbers of lines and seeds must be at least 1")

    @property
    def asked(self) -> tuple[str, ...]:
        """The models that lines need."""
        needed = {SOLVED.get(line, line) for line in self.lines}
        return tuple(name for name in MODELS if name in needed)

    @property
    def seen(self) -> tuple[str, ...]:
        """The systems of training."""
        return tuple(name for name in self.systems or of_dimension(self.dimension) if name not in self.unseen)


def _transformer(settings: Settings, reads: str, **more: Any) -> nn.Module:
    return Transformer(replace(PRESETS[settings.preset], dimension=settings.dimension, reads=reads, **more))


def _width(settings: Settings) -> int:
    """Opponents are as wide as twice the transformer's layers."""
    return 2 * PRESETS[settings.preset].width


MODELS: Mapping[str, Callable[[Settings], nn.Module]] = {
    "full": lambda s: _transformer(s, "both"),
    "full, all tokens": lambda s: _transformer(s, "both", sees="all"),
    "data only": lambda s: _transformer(s, "data"),
    "no symbols": lambda s: _transformer(s, "data", writes=False),
    "symbols only": lambda s: _transformer(s, "symbols"),
    "DeepONet": lambda s: DeepONet(s.dimension, s.read, 2 * _width(s), 128),
    "Fourier operator": lambda s: FourierOperator(s.dimension, Drawing().frames, Drawing().end, _width(s) // 2),
}
"""What is trained, by the names of lines."""

SOLVED = {f"{name}, solved": name for name in ("full", "full, all tokens", "data only", "symbols only")}
"""Lines that answer by the equations of a model, which they are named with."""

LINES = (*MODELS, "last value", *SOLVED, *EQUATIONS)
"""Lines of the table. `EQUATIONS` are ways to equations that learn nothing beforehand."""

_HEARS = tuple(name for name in LINES if SOLVED.get(name, name) in ("full", "full, all tokens", "symbols only"))
"""Lines that hear what is told."""


def drawing(settings: Settings, systems: Sequence[str], equations: int, starts: int, part: str = "train") -> Drawing:
    """What is drawn of some systems."""
    return Drawing(tuple(systems), equations, starts, engine=settings.engine, part=part)


@cache
def pool(settings: Settings, seed: int) -> Pool:
    """The training pool of a seed."""
    how = drawing(settings, settings.seen, settings.equations, settings.starts)
    return filled(how, derive_seed(_TRAIN, seed), settings.dimension, settings.device)


@cache
def tests(settings: Settings, part: str) -> Pool:
    """The test pool, the same for all seeds; part: "seen" or "unseen"."""
    systems = settings.seen if part == "seen" else settings.unseen
    how = drawing(settings, systems, settings.test_equations, settings.test_starts, "test")
    return filled(how, derive_seed(_TEST, 0), settings.dimension, settings.device)


@cache
def trained(settings: Settings, seed: int, out: Path) -> Trained:
    """The models of a seed; training goes on where it was interrupted."""
    kinds = {name: partial(MODELS[name], settings) for name in settings.models or settings.asked}
    course = course_of(settings, seed, Reading(settings.read, noise=settings.noise), warmup=500)
    stamp = stamped(settings, *_OF_ROWS)
    return fitted(kinds, lambda: pool(settings, seed), course, settings, stamp, 3, out, systems=settings.seen)


def made(settings: Settings, out: Path, **key: Any) -> dict[str, Any]:
    """One row: errors of answers, or of equations, or of both."""
    began = time.perf_counter()
    line = key["line"]
    models = trained(settings, key["seed"], out).models if line in (*MODELS, *SOLVED) else {}
    trained_seconds = time.perf_counter() - began
    test = tests(settings, key["part"])
    reading = Reading(settings.read, 0, key["noise"], fixed=True, told=TOLD[key["told"]])
    row: dict[str, Any] = {}
    if line in MODELS or line == "last value":
        row |= operator_row(models.get(line), test, reading)
    if line in EQUATIONS or line in SOLVED:
        model = models.get(SOLVED.get(line, ""))
        row |= equation_row(line, model, test, reading, settings.written, settings.beams, settings.fit)
    if line in models:
        row["weights"] = sum(one.numel() for one in models[line].parameters())
    return {**row, "seconds": time.perf_counter() - began - trained_seconds, "left_out": test.left_out}


def _stamp(settings: Settings) -> dict[str, Any]:
    return stamped(settings, "lines", "noises", "told", "seeds")


def _keys(settings: Settings) -> list[dict[str, Any]]:
    """What rows there are, the quick ones first: what learns nothing has one seed."""
    parts = ("seen", "unseen") if settings.unseen else ("seen",)
    lines = sorted(settings.lines, key=lambda line: line in EQUATIONS or line in SOLVED)
    return [
        {"line": line, "part": part, "told": told, "noise": noise, "seed": seed}
        for line in lines
        for told in (settings.told if line in _HEARS else settings.told[:1])
        for noise in settings.noises
        for part in parts
        for seed in (settings.seeds[:1] if line == "last value" or line in EQUATIONS else settings.seeds)
    ]


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes, and so does training), table.json, errors.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    rows = finished_rows(out, _keys(settings), _stamp(settings), partial(made, settings, out), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    caption = (
        f"mean ± sd over {len(settings.seeds)} seeds; {settings.preset}, {settings.steps} steps, {settings.device}"
    )
    show(*tables(rows, _HEARS, settings.read, caption))
    figure(rows, _HEARS, out / "errors.png")
    print(f"numbers: {numbers}\nfigure: {out / 'errors.png'}")
    return 0
