"""PhysioNet 2012: the first 48 hours of stays in intensive care, from the raw text of set A."""

from __future__ import annotations

import csv
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .series import IrregularSeries
from .store import get

_HOURS = 48

CHANNELS = (
    "ALP", "ALT", "AST", "Albumin", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS",
    "Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "MechVent", "Mg", "NIDiasABP", "NIMAP", "NISysABP", "Na",
    "PaCO2", "PaO2", "Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine", "WBC",
    "Weight", "pH",
)  # fmt: skip
"""What is measured over time, in the order of `Stays.series`' channels; units as PhysioNet gives them."""
STATIC = ("Age", "Gender", "Height", "ICUType")
"""What is known at admission, in the order of `Stays.series.static`."""


class Stays(NamedTuple):
    """Stays with at least one reading: series (37 channels, times in hours), ids [n], died in hospital [n] bool."""

    series: IrregularSeries
    ids: NDArray[np.int64]
    died: NDArray[np.bool_]


class _Raw(NamedTuple):
    """All readings in one table: stay, minute, channel, value; static [n, 4]; ids [n]; died [n]."""

    stay: NDArray[np.int64]
    minute: NDArray[np.int64]
    channel: NDArray[np.int64]
    value: NDArray[np.float64]
    static: NDArray[np.float64]
    ids: NDArray[np.int64]
    died: NDArray[np.bool_]


def stays(minutes: int = 1) -> Stays:
    """Load PhysioNet 2012, set A, downloading it first if it is not on this machine.

    Times are rounded to slots of `minutes` (a half rounds up); readings of one channel in one slot are averaged. -1,
    PhysioNet's mark, is missing; other implausible values are left as they were recorded. Stays without any reading
    (a few) are left out; the rest is sorted by id. The text is parsed once a process.

    Args:
        minutes: length of a slot, a divisor of 2880; 6 is that of the latent ODE authors' classification.

    Raises:
        ValueError: minutes that do not divide 48 hours, a damaged file.
        ConnectionError: the set is not here and no source answered.
    """
    if minutes < 1 or _HOURS * 60 % minutes:
        raise ValueError(f"minutes is {minutes}: give a positive divisor of {_HOURS * 60}, so that slots fill 48 hours")
    folder = get("physionet2012")
    raw = _parsed(folder / "set-a.tar.gz", folder / "Outcomes-a.txt")
    slots = _HOURS * 60 // minutes + 1
    slot = (2 * raw.minute + minutes) // (2 * minutes)
    rows, row = np.unique(raw.stay * slots + slot, return_inverse=True)
    cells = len(rows) * len(CHANNELS)
    cell = row * len(CHANNELS) + raw.channel
    count = np.bincount(cell, minlength=cells)
    total = np.bincount(cell, raw.value, minlength=cells)
    values = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(len(rows), len(CHANNELS))
    here, starts = np.unique(rows // slots, return_index=True)
    hours = (rows % slots) * (minutes / 60)
    series = IrregularSeries(np.split(values, starts[1:]), np.split(hours, starts[1:]), raw.static[here])
    return Stays(series, raw.ids[here], raw.died[here])


@lru_cache(maxsize=1)
def _parsed(archive: Path, outcomes: Path) -> _Raw:
    columns = {name: place for place, name in enumerate(CHANNELS)}
    table: list[tuple[int, int, int, float]] = []
    static: list[list[float]] = []
    ids: list[int] = []
    for number, lines in sorted(_texts(archive)):
        known = dict.fromkeys(STATIC, np.nan)
        for line in lines:
            clock, name, text = line.split(",")
            value = float(text)
            if value == -1:
                continue
            if name in columns:
                table.append((len(ids), 60 * int(clock[:2]) + int(clock[3:]), columns[name], value))
            elif name in known:
                known[name] = value
            elif name != "RecordID":
                raise ValueError(f"{archive.name}: stay {number} has a parameter {name!r} that set A does not know")
        static.append(list(known.values()))
        ids.append(number)
    with outcomes.open(encoding="ascii", newline="") as stream:
        died = {int(row["RecordID"]): row["In-hospital_death"] == "1" for row in csv.DictReader(stream)}
    stay, minute, channel, value = (np.array(column) for column in zip(*table, strict=True))
    return _Raw(stay, minute, channel, value, np.array(static), np.array(ids), np.array([died[i] for i in ids]))


def _texts(archive: Path) -> list[tuple[int, list[str]]]:
    """(id, lines below the header) of each stay; the archive is read as a stream and never unpacked."""
    found = []
    with tarfile.open(archive, "r|gz") as opened:
        for member in opened:
            stream = opened.extractfile(member) if member.isreg() else None
            if stream is not None and member.name.endswith(".txt"):
                lines = stream.read().decode("ascii").splitlines()
                found.append((int(Path(member.name).stem), lines[1:]))
    return found
