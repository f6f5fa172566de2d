"""Whether `Prose.predict` knows what it does not know: bands, doubts, a search for terms that no trained system has.

    sciode train prose_doubts
    sciode train prose_doubts --set noises=[0.1] sets=4 --device cpu

Rows: one trajectory at one level of noise; 64 frames up to t = 2 are read, nothing is told, and times from there to 6
are asked. "seen" systems are those of the shipped model, with numbers of the tests' part; "never seen" ones are none of
its terms. "doubted": what the written candidates leave is more than noise explains (`DOUBTFUL`, chosen on trajectories
of the part for validation); "after": of the answer, once the search is over. "covered": the share of true values in the
band of 90 %. Right-hand sides are judged on the true trajectory. Other weights make rows of their own.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.lab.tables import show, table
from sciode.prose import (
    Drawing,
    Expression,
    Fit,
    Forecast,
    Programs,
    Prose,
    constant,
    draw,
    misfit,
    noisy,
    refine,
    sin,
    variable,
    variables,
)  # fmt: skip
from sciode.prose.estimator import DOUBTFUL
from sciode.prose.metrics import Terms, right_hand_error, solved, terms_of
from sciode.prose.shooting import noise_of, shoot
from sciode.training import checksum, choose_device, derive_seed

__all__ = ["NEVER_SEEN", "Settings", "made", "main"]

_READ = 64
Equations = tuple[Expression, ...]


def _never_seen() -> Mapping[str, tuple[Equations, tuple[float, ...]]]:
    x = variable(0)
    u, v = variables(2)
    a, b, _ = variables(3)
    return {
        "decay": ((-1.0 * x,), (1.0,)),
        "logistic": ((x * (1.0 - x),), (0.1,)),
        "van der Pol": ((v, (1.0 - u**2) * v - u), (1.0, 0.5)),
        "SIR": ((-1.5 * a * b, 1.5 * a * b - 0.5 * b, 0.5 * b), (0.95, 0.05, 0.0)),
        "pendulum": ((v, -4.0 * sin(u)), (1.0, 0.5)),
        "oscillator and drift": ((b, -a, constant(0.3)), (0.0, 1.0, 0.0)),
        "Lotka-Volterra": ((1.5 * u - u * v, u * v - v), (1.0, 0.5)),
    }


NEVER_SEEN: Mapping[str, tuple[Equations, tuple[float, ...]]] = MappingProxyType(_never_seen())
"""Equations and a start, by name: none is of the systems that the shipped model was trained on."""


@dataclass(frozen=True)
class Settings:
    """noises: levels. sets: of numbers of each seen system, 0 for none; unseen: of `NEVER_SEEN`. beams, fit, search: of
    `Prose.predict`; the search is for systems that were never seen. Raises ValueError for unknown names."""

    noises: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1)
    sets: int = 2
    unseen: tuple[str, ...] = tuple(NEVER_SEEN)
    beams: int = 2
    fit: int = 40
    search: int = 8
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("unseen", self.unseen, NEVER_SEEN)
        if self.sets < 0 or min(self.beams, self.fit, self.workers) < 1 or not self.noises:
            raise ValueError(f"beams, fit and workers must be at least 1, sets 0, and noises be given, got {self}")


@cache
def _prose(device: str) -> Prose:
    return Prose.from_pretrained(device=device)


@cache
def _trajectory(system: str, place: int) -> tuple[Tensor, Equations]:
    """A path [192, d] up to 6, and its equations."""
    how = Drawing(equations=1, starts=1, engine="eager")
    if system in NEVER_SEEN:
        equations, start = NEVER_SEEN[system]
        return solved([equations], torch.tensor([start], dtype=torch.float64), how.times).values[0], equations
    seed = derive_seed(9, place)
    while True:
        # A start that grows too large is drawn anew.
        (found,) = draw(Drawing((system,), 1, 1, engine="eager", part="test"), seed)
        if len(found.values):
            return found.values[0], found.equations[0]
        seed = derive_seed(seed, 1)


def made(settings: Settings, system: str, part: str, place: int, noise: float) -> dict[str, Any]:
    """One row."""
    path, true = _trajectory(system, place)
    times = Drawing().times
    readings = noisy(path[None, :_READ], noise, derive_seed(11, place, zlib.crc32(system.encode())))[0]
    search = settings.search if part == "never seen" else 0
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _prose(settings.device).predict(
            times[:_READ], readings, times[_READ:], beams=settings.beams, fit=Fit(settings.fit), search=search
        )
    seconds = time.perf_counter() - began
    ahead = path[_READ:].numpy()
    own = found.equations[found.best]
    written = found.excess[: settings.beams]
    terms = Terms.between(terms_of(own, 1e-3), terms_of(true))
    return {
        "doubted": bool(not (written <= DOUBTFUL).any()),
        "after": found.doubtful,
        "excess": float(found.excess[found.best]),
        "exact": terms.exact,
        "rhs": float(right_hand_error([own], [true], path[None, ::4])),
        **_fits(settings, found, times[:_READ], readings, true, path),
        "l2": _apart(found.values, ahead),
        "l2_written": _written(found, settings.beams, ahead),
        "l2_operator": _apart(found.operator, ahead),
        "l2_last": _apart(np.repeat(readings[-1:].numpy(), len(ahead), 0), ahead),
        **_band(found, ahead),
        "noise": noise,
        "noise_told": float((noise_of(readings) / (readings - path[:_READ]).std(0).clamp(min=1e-12)).mean()),
        "equations": [str(one) for one in found.sympy()],
        "seconds": seconds,
    }


def _fits(
    settings: Settings, found: Forecast, times: Tensor, readings: Tensor, true: Equations, path: Tensor
) -> dict[str, Any]:
    """Of the best candidate that was written: errors of its right-hand side and of short solutions from the readings,
    as it was written, fitted to short solutions, and fitted to the whole path."""
    best = int(found.excess[: len(found.written)].argmin())
    data, how = readings[None].double(), Fit(settings.fit)
    written, whole = found.written[best], found.equations[best]
    systems = {"written": written, "short": refine([written], times, data, how).equations[0], "whole": whole}
    row = {}
    for name, one in systems.items():
        row[f"rhs_{name}"] = float(right_hand_error([one], [true], path[None, ::4]))
        row[f"misfit_{name}"] = float(misfit(Programs([one], data.shape[-1], data), times, data, how))
        row[f"path_{name}"] = float(shoot([one], times, readings, rounds=0).total)
    return row


def _written(found: Forecast, beams: int, ahead: Any) -> float:
    """The error of the best of what the model itself wrote, the operator's where none was solved."""
    best = int(found.excess[:beams].argmin())
    own = found.solutions[best]
    return _apart(own if np.isfinite(own).all() else found.operator, ahead)


def _band(found: Forecast, ahead: Any) -> dict[str, Any]:
    low, high = found.band(0.9)
    if not np.isfinite(low).all():
        return {"covered": None, "width": None}
    inside = (low <= ahead) & (ahead <= high)
    return {"covered": float(inside.mean()), "width": float(np.linalg.norm(high - low) / np.linalg.norm(ahead))}


def _apart(found: Any, true: Any) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl, which resumes, and table.json. Returns 0."""
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    systems = [("never seen", name, 0) for name in settings.unseen]
    systems += [("seen", name, place) for place in range(settings.sets) for name in _prose(settings.device).systems]
    keys = [
        {"part": part, "system": name, "place": place, "noise": noise}
        for part, name, place in systems
        for noise in settings.noises
    ]
    stamp = stamped(settings, "noises", "sets", "unseen", weights=checksum(_prose(settings.device).model))
    rows = finished_rows(out, keys, stamp, partial(made, settings), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    show(_table(settings, rows))
    print(f"numbers: {numbers}")
    return 0


def _table(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> Any:
    cells = []
    for part in ("seen", "never seen"):
        for noise in settings.noises:
            own = [row for row in rows if row["part"] == part and row["noise"] == noise]
            if own:
                shares = [float(np.mean([row[name] for row in own])) for name in ("doubted", "after", "exact")]
                covered = [row["covered"] for row in own if row["covered"] is not None]
                medians = [float(np.median([row[name] for row in own])) for name in ("rhs", "l2", "l2_operator")]
                cells.append([part, f"{noise:.0%}", len(own), *shares, float(np.mean(covered or [np.nan])), *medians])
    columns = ("systems", "noise", "rows", "doubted", "after", "all terms", "covered", "rhs", "error", "operator")
    caption = f"shares, and medians of errors; {settings.beams} beams, {settings.fit} iterations, {settings.device}"
    return table("What is doubted, and what the band of 90 % covers", columns, cells, caption)
