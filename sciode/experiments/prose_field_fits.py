"""Numbers of equations of fields, fitted to what is read of them: what that is worth where the terms are known.

    sciode train prose_field_fits
    sciode train prose_field_fits --set families='["heat","kdv"]' noises='[0.05]' draws=10

No training: terms are the true ones, numbers the nominal ones of the family, within 10 % of which true ones are drawn.
32 points of the first field are read at the first 16 of 32 times, with noise, and asked for at the others; velocities
of waves are not read. Each row has a start, numbers and noise of its own. Errors are relative L2 errors at the asked
times of solutions: of the nominal and of the true equation from the first frame less waves that noise drowns, of the
fitted one from its fitted start, and of the true one from a start fitted alike. "numbers": the largest relative error
of a coefficient, terms multiplied out. The simple way beside it is regression: u(t) - u(0) against integrals of the
right-hand side of the readings themselves, less the modes that noise drowns; it needs all fields, and is not for waves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.lab.tables import show, table
from sciode.prose import FAMILIES, Expression, draw_fields, equations_of_family, noise_of, noisy, refine_field
from sciode.prose.circle import Circle, refined_grid
from sciode.prose.field_readings import last_heard
from sciode.prose.metrics import coefficient_error
from sciode.prose.shooting import Model, shot_of
from sciode.training import derive_seed

__all__ = ["Settings", "apart", "by_integrals", "made", "main"]

_STREAM = 6
_KNOWN = 1e-7
"""A spread that leaves numbers as they are."""


@dataclass(frozen=True)
class Settings:
    """families: () for all ten. noises, draws: what rows there are. points, frames, read: of a field. spread, rounds:
    of `sciode.prose.refine_field`. device: the CPU, where these fits are made. Raises ValueError for unknown
    families, sizes that do not fit or another device."""

    families: tuple[str, ...] = ()
    noises: tuple[float, ...] = (0.0, 0.02, 0.05)
    draws: int = 3
    points: int = 32
    frames: int = 32
    read: int = 16
    spread: float = 0.05
    rounds: int = 6
    workers: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        named("families", self.families, FAMILIES)
        if self.device != "cpu":
            raise ValueError(f"device: got {self.device!r}; these fits are made on the CPU, leave it out")
        if min(self.draws, self.rounds, self.workers) < 1 or not 8 <= self.read < self.frames or 128 % self.points:
            raise ValueError("settings: draws and rounds from 1, 8 <= read < frames, and points a divisor of 128")


def made(settings: Settings, family: str, noise: float, draw: int) -> dict[str, Any]:
    """One row."""
    own, began = FAMILIES[family], time.perf_counter()
    seed = derive_seed(_STREAM, sorted(FAMILIES).index(family), draw)
    found = draw_fields(own, 1, 1, seed, 128, settings.frames, part="test")
    field = found.values[:, :, 0, :: 128 // settings.points]
    readings = noisy(field[:, : settings.read], noise, seed)[0]
    x = own.length * torch.arange(settings.points, dtype=torch.float64) / settings.points
    times, ahead = found.times, field[0, settings.read :]
    trees = equations_of_family(own)
    numbers = dict(zip(own.nominal, found.numbers[0].tolist(), strict=True))
    written, true = (tuple(one.bound(some) for one in trees) for some in (own.nominal, numbers))

    def fitted(equations: tuple[Expression, ...], spread: float, rounds: int) -> Any:
        read = (x, times[: settings.read], readings, times[settings.read :])
        return refine_field(equations, *read, spread=spread, rounds=rounds)

    fit = fitted(written, settings.spread, settings.rounds)
    plain = None if own.fields > 1 else by_integrals(written, own.length, times[: settings.read], readings, settings)
    return {
        "numbers": coefficient_error(written, true),
        "numbers_regressed": plain and coefficient_error(plain, true),
        "numbers_fitted": coefficient_error(fit.equations, true),
        "data": fit.before,
        "data_fitted": fit.after,
        "excess": fit.excess,
        "solved": fit.solved,
        "l2_nominal": apart(fitted(written, settings.spread, 0).values[:, 0], ahead),
        "l2_regressed": plain and apart(fitted(plain, settings.spread, 0).values[:, 0], ahead),
        "l2_fitted": apart(fit.values[:, 0], ahead),
        "l2_true": apart(fitted(true, settings.spread, 0).values[:, 0], ahead),
        "l2_true_fitted": apart(fitted(true, _KNOWN, settings.rounds).values[:, 0], ahead),
        "seconds": time.perf_counter() - began,
    }


def by_integrals(
    equations: tuple[Expression, ...], length: float, times: Tensor, readings: Tensor, settings: Settings
) -> tuple[Expression, ...]:
    """Return one field's equation with the numbers at which integrals of its right-hand side are nearest to readings.

    By Gauss and Newton, beside the same prior as the fit: of products of numbers the problem is not linear.
    """
    points, sigma = readings.shape[1], noise_of(readings, shared=True)
    kept = torch.arange(points // 2 + 1) <= last_heard(readings, float(sigma[0]))
    smooth = torch.fft.irfft(torch.fft.rfft(readings) * kept, n=points)
    circle = Circle([equations], length, 2 * points)
    fine = refined_grid(smooth, circle.points)
    sums = torch.tensor(CubicSpline(times, np.eye(len(times))).antiderivative()(times))

    def follow(numbers: Tensor, starts: Tensor, frames: int) -> Tensor:
        each = numbers.repeat_interleave(len(fine), 1)
        rates = circle.slopes(each, fine.repeat(numbers.shape[1], 1)[None, :, None])[0, :, 0, ::2]
        paths = starts[0] + torch.einsum("ts,nsp->tnp", sums, rates.unflatten(0, (-1, len(fine))))
        return paths[:frames, None]

    nudge = 1e-5 * readings.std().expand(points)
    model = Model(circle.constants, circle.owners, readings, sigma, readings[0], sigma, nudge, follow, 1e-12)
    return shot_of(model, [equations], settings.spread, 2 * settings.rounds, (1.0,)).equations[0]


def apart(found: Any, true: Tensor) -> float:
    """The relative L2 distance, of all times and points together."""
    return float(np.linalg.norm(found - true.numpy()) / np.linalg.norm(true.numpy()))


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl, which resumes, and table.json. Returns 0. On the CPU."""
    out, settings = Path(out), Settings(**{**changes, "device": "cpu" if device == "auto" else device})
    keys = [
        {"family": family, "noise": noise, "draw": draw}
        for draw in range(settings.draws)
        for family in settings.families or FAMILIES
        for noise in settings.noises
    ]
    stamp = stamped(settings, "families", "noises", "draws")
    rows = finished_rows(out, keys, stamp, partial(made, settings), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    show(_table(settings, rows))
    print(f"numbers: {numbers}")
    return 0


def _table(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> Any:
    names = (
        "numbers", "numbers_regressed", "numbers_fitted", "l2_nominal", "l2_regressed", "l2_fitted", "l2_true",
        "l2_true_fitted",
    )  # fmt: skip
    cells = []
    for family in (*(settings.families or FAMILIES), "all"):
        for noise in settings.noises:
            own = [row for row in rows if family in (row["family"], "all") and row["noise"] == noise]
            raised = sum(row["data_fitted"] > row["data"] for row in own)
            cells.append([family, f"{noise:.0%}", *(_middle(own, name) for name in names), raised])
    columns = (
        "family", "noise", "numbers: nominal", "regressed", "fitted", "solutions: nominal", "regressed", "fitted",
        "true, first frame", "true, fitted start", "data error raised",
    )  # fmt: skip
    caption = f"medians of {settings.draws} draws a family; {settings.read} of {settings.frames} frames read, CPU"
    return table("Equations of fields with fitted numbers: relative errors", columns, cells, caption)


def _middle(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    found = [row[name] for row in rows if row[name] is not None]
    return f"{median(found):.2g}" if found else None
