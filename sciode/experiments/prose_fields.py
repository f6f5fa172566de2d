"""The transformer of PROSE on ten families of partial differential equations in one dimension.

    sciode train prose_fields
    sciode train prose_fields --set preset=mini equations=400 starts=20 batch=256 steps=20000 seconds=120 --device cuda

Fields at 32 points are read at the first 16 of 32 times, with noise, and asked for at the others; starts are random
waves, numbers within 10 % of nominal ones, and sets of numbers of tests are in no training. All models of a seed train
in lockstep on the same batches; averaged weights are judged. Errors are relative L2 errors, means over samples. Written
equations are trees of derivatives (`sciode.prose.fields`), valid by the grammar: "all terms" is the share whose terms
are the true ones, "numbers" the median relative error of their numbers there, as written. A second table has a few
samples a family, whose equations are solved as written from the first frame, and fitted to what is read
(`sciode.prose.refine_field`), beside operators and the true equation from the first frame; "coefficients" are medians
of the largest relative error of a coefficient, terms multiplied out, where all terms are right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.experiments.prose_field_rows import few_of, few_row, same_terms, true_equations, true_row
from sciode.experiments.prose_rows import TOLD, chosen, operator_row
from sciode.experiments.prose_training import Trained, course_of, fitted
from sciode.lab.tables import mean_sd, show, table
from sciode.prose import FAMILIES, PRESETS, Expression, Grammar, Memory, Pool, Reading, Transformer
from sciode.prose.fields import READS, FieldDrawing, filled_fields
from sciode.prose.opponents import DeepONet, FourierOperator
from sciode.prose.pool import Batch
from sciode.prose.samples import Drawing
from sciode.prose.writing import Writing, write
from sciode.training import choose_device, derive_seed

__all__ = ["LINES", "MODELS", "Settings", "made", "main"]

_TRAIN, _TEST = 3, 4
_OF_ROWS = ("lines", "noises", "told", "seeds", "test_equations", "test_starts", "written", "beams", "fits", "cores")
"""Fields that training does not hang on; what is trained side by side is named beside them."""


@dataclass(frozen=True)
class Settings:
    """families: () for all ten. lines, told, noises, seeds: what rows there are. equations, starts: of training, a
    family; test_equations, test_starts: of tests. points, frames, read: of a sample. written: samples a family whose
    equations are written. fits: of these, how many are fitted; 0 for none. cores: of the CPU, for fits side by side.
    training: how its steps run, see `Course.engine`. Others: see `Course` and `sciode.prose.PRESETS`. Raises ValueError
    for unknown names."""

    families: tuple[str, ...] = ()
    preset: str = "tiny"
    lines: tuple[str, ...] = ("full", "data only", "DeepONet", "Fourier operator", "last value", "true equation")
    told: tuple[str, ...] = ("known", "nothing")
    noises: tuple[float, ...] = (0.0, 0.02)
    seeds: tuple[int, ...] = (0, 1, 2)
    equations: int = 50
    starts: int = 10
    points: int = 32
    frames: int = 32
    read: int = 16
    steps: int = 1500
    seconds: float = 0.0
    batch: int = 32
    lr: float = 2e-3
    rival_lr: float = 1e-3
    noise: float = 0.05
    test_equations: int = 10
    test_starts: int = 2
    written: int = 10
    beams: int = 2
    fits: int = 1
    cores: int = 1
    training: str = "auto"
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("lines", self.lines, LINES)
        named("told", self.told, TOLD)
        named("families", self.families, FAMILIES)
        named("preset", (self.preset,), PRESETS)
        sizes = (self.equations, self.starts, self.steps, self.batch, self.test_equations, self.test_starts)
        if (
            self.fits < 0
            or min(*sizes, self.written, self.beams, len(self.lines), len(self.seeds), self.workers, self.cores) < 1
        ):
            raise ValueError("settings: sizes and numbers of lines and seeds must be at least 1")

    def drawing(self, equations: int, starts: int, part: str) -> FieldDrawing:
        """What is drawn."""
        return FieldDrawing(self.families or tuple(FAMILIES), equations, starts, self.points, self.frames, part)


def _transformer(settings: Settings, reads: str) -> nn.Module:
    return Transformer(replace(PRESETS[settings.preset], dimension=settings.points, reads=reads))


MODELS: Mapping[str, Callable[[Settings], nn.Module]] = {
    "full": lambda s: _transformer(s, "both"),
    "data only": lambda s: _transformer(s, "data"),
    "DeepONet": lambda s: DeepONet(s.points, s.read, 4 * PRESETS[s.preset].width, 64),
    "Fourier operator": lambda s: FourierOperator(s.points, s.frames, Drawing.end, PRESETS[s.preset].width, 8),
}
"""What is trained, by the names of lines."""

LINES = (*MODELS, "last value", "true equation")


@cache
def _pool(settings: Settings, seed: int) -> Pool:
    how = settings.drawing(settings.equations, settings.starts, "train")
    return filled_fields(how, derive_seed(_TRAIN, seed), settings.device)


@cache
def _tests(settings: Settings) -> Pool:
    how = settings.drawing(settings.test_equations, settings.test_starts, "test")
    return filled_fields(how, derive_seed(_TEST, 0), settings.device)


@cache
def _trained(settings: Settings, seed: int, out: Path) -> Trained:
    """The models of a seed; training goes on where it was interrupted."""
    kinds = {name: partial(MODELS[name], settings) for name in MODELS if name in settings.lines}
    course = course_of(settings, seed, Reading(settings.read, settings.read, settings.noise), warmup=200)
    stamp = stamped(settings, *_OF_ROWS)
    families = settings.drawing(1, 1, "train").families
    return fitted(kinds, lambda: _pool(settings, seed), course, settings, stamp, 5, out, families=families)


def made(settings: Settings, out: Path, **key: Any) -> dict[str, Any]:
    """One row."""
    fit = _trained(settings, key["seed"], out) if key["line"] in MODELS else None
    model = fit and fit.models[key["line"]]
    began = time.perf_counter()
    test = _tests(settings)
    reading = Reading(settings.read, 0, key["noise"], fixed=True, told=TOLD[key["told"]])
    few = few_of(test, settings.fits, reading) if settings.fits else None
    if few and key["line"] == "true equation":
        return {**true_row(few, settings.cores), "seconds": time.perf_counter() - began}
    row = operator_row(model, test, reading)
    if isinstance(model, Transformer):
        row |= _written(settings, model, test, reading)
    if few:
        found = _decoded(settings, model, few.batch, few.true) if isinstance(model, Transformer) else None
        row |= few_row(few, model, found, settings.cores)
    if fit and model:
        row["weights"] = sum(one.numel() for one in model.parameters())
        row["steps"] = fit.steps
    return {**row, "seconds": time.perf_counter() - began, "left_out": test.left_out}


def _written(settings: Settings, model: Transformer, test: Pool, reading: Reading) -> dict[str, Any]:
    rows = chosen(test, settings.written)
    batch = test.rows(rows, reading, torch.Generator(test.values.device).manual_seed(7))
    true = true_equations(test, rows)
    top = _decoded(settings, model, batch, true)
    right = [same_terms(a, b) for a, b in zip(top, true, strict=True)]
    apart = [_numbers(a, b) for a, b, same in zip(top, true, right, strict=True) if same]
    names = [test.names[k] for k in test.system[rows].tolist()]
    own = {name: sum(r for r, n in zip(right, names, strict=True) if n == name) / names.count(name) for name in names}
    valid = sum(len(a) == len(b) for a, b in zip(top, true, strict=True)) / len(true)
    return {"valid": valid, "exact": sum(right) / len(right), "exact_families": own,
            "numbers": sorted(apart)[len(apart) // 2] if apart else None, "written": len(true)}  # fmt: skip


def _decoded(
    settings: Settings, model: Transformer, batch: Batch, true: Sequence[Sequence[Expression]]
) -> list[tuple[Expression, ...]]:
    """The likeliest equations of each sample, of as many fields as there are."""
    device = batch.values.device
    counts = torch.tensor([len(one) for one in true], device=device)
    with torch.no_grad():
        fused = model.read(batch.times, batch.values, batch.symbols, batch.components)
        memory = Memory(model, fused, settings.beams)
        grammar = Grammar(model.vocabulary, device, READS)
        found = write(memory.scores, grammar, counts, Writing(settings.beams), follow=memory.follow).equations
    return [own[0] for own in found]


def _numbers(found: Sequence[Expression], true: Sequence[Expression]) -> float:
    """The largest relative error of numbers, in the order of trees; infinite for another number of them."""
    mine, others = ([x for one in some for x in one.constants] for some in (found, true))
    if len(mine) != len(others):
        return float("inf")
    return max((abs(a - b) / max(abs(b), 1e-12) for a, b in zip(mine, others, strict=True)), default=0.0)


def _stamp(settings: Settings) -> dict[str, Any]:
    return stamped(settings, "noises", "told", "seeds", "cores")


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes, and so does training), table.json. Returns 0."""
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [
        {"line": line, "told": told, "noise": noise, "seed": seed}
        for seed in settings.seeds
        for line in settings.lines
        for told in (settings.told if line == "full" else settings.told[-1:])
        for noise in settings.noises
        if line in MODELS or (seed == settings.seeds[0] and (settings.fits or line != "true equation"))
    ]
    rows = finished_rows(out, keys, _stamp(settings), partial(made, settings, out), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    show(_table(settings, [row for row in rows if "l2" in row]))
    if settings.fits:
        show(_fits(settings, rows))
    print(f"numbers: {numbers}")
    return 0


def _table(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> Any:
    cells = []
    for (line, told, noise), own in _grouped(rows).items():
        errors = [mean_sd([row[name] for row in own]) for name in ("l2", "median")]
        writes = "exact" in own[0]
        shares = [mean_sd([row[name] for row in own], 2) if writes else None for name in ("valid", "exact")]
        numbers = [row["numbers"] for row in own if row.get("numbers") is not None]
        heard = told if line == "full" else None
        cells.append([line, heard, f"{noise:.0%}", *errors, *shares, mean_sd(numbers) if numbers else None])
    caption = (
        f"mean ± sd over {len(settings.seeds)} seeds; {settings.preset}, {settings.steps} steps, {settings.device}"
    )
    columns = ("line", "told", "noise", "mean", "median", "valid", "all terms", "numbers")
    return table("Relative L2 errors of fields, and what is written of their equations", columns, cells, caption)


def _grouped(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Rows of all seeds, by line, by what is told, and by noise."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["line"], row["told"], row["noise"]), []).append(row)
    return groups


def _fits(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> Any:
    names = ("few", "few_written", "few_fitted", "few_reached", "coefficients", "coefficients_fitted", "raised")
    cells = []
    for (line, told, noise), own in _grouped(rows).items():
        found = [[row[name] for row in own if row.get(name) is not None] for name in names]
        heard = told if line == "full" else None
        cells.append([line, heard, f"{noise:.0%}", *(mean_sd(some) if some else None for some in found)])
    caption = f"{settings.fits} samples a family, mean ± sd over seeds; the fits on {settings.cores} cores of a CPU"
    columns = (
        "line", "told", "noise", "operator", "equation, written", "fitted", "solved", "coefficients", "fitted",
        "data error raised",
    )  # fmt: skip
    return table("Fields by their equations: relative L2 errors, and errors of coefficients", columns, cells, caption)
