"""PBC2: twelve laboratory values and signs of 312 patients with liver disease, at visits months to years apart."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .series import IrregularSeries
from .store import get

LABORATORY = ("serBilir", "serChol", "albumin", "alkaline", "SGOT", "platelets", "prothrombin")
"""Bilirubin, cholesterol mg/dl; albumin g/dl; alkaline phosphatase U/l; SGOT U/ml; platelets 1000/ml³; clotting s."""
SIGNS: dict[str, dict[str, float]] = {
    "ascites": {"No": 0.0, "Yes": 1.0},
    "hepatomegaly": {"No": 0.0, "Yes": 1.0},
    "spiders": {"No": 0.0, "Yes": 1.0},
    "edema": {"No edema": 0.0, "edema no diuretics": 0.5, "edema despite diuretics": 1.0},
    "histologic": {"1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0},
}
"""What was seen, as the number that stands for it; `histologic` is the stage of the disease."""
STATIC = ("age", "sex", "drug")
"""Age at the first visit in years; text; "D-penicil" or "placebo"."""


class Patients(NamedTuple):
    """Patients by id: series (channels `LABORATORY`, then `SIGNS`; times in years from the first visit; static
    `STATIC`), ids [n], years [n] of follow-up, and status [n] at their end: "alive", "dead" or "transplanted"."""

    series: IrregularSeries
    ids: NDArray[np.int64]
    years: NDArray[np.float64]
    status: NDArray[np.str_]


def pbc2() -> Patients:
    """Load PBC2, downloading it first if it is not on this machine; NA is missing, and no visit is left out.

    A series ends where its patient's follow-up does: who predicts the outcome must cut it (`times <= some year`), and
    leave out those who were not followed for so long.

    Raises ValueError for a damaged file, ConnectionError if the set is not here and no source answered.
    """
    return read_pbc2(get("pbc2"))


def read_pbc2(file: Path) -> Patients:
    """Parse the file as the R package JM writes it, rows in any order. Raises ValueError naming a bad line."""
    rows: dict[int, list[tuple[float, list[float]]]] = {}
    known: dict[int, tuple[list[float | str], float, str]] = {}
    with file.open(encoding="utf-8", newline="") as stream:
        for line, row in enumerate(csv.DictReader(stream), 2):
            try:
                number = int(row["id"])
                static: list[float | str] = [float(row["age"]), row["sex"], row["drug"]]
                fixed = (static, float(row["years"]), row["status"])
                readings = [_number(row[name]) for name in LABORATORY]
                readings += [marks[row[name]] if row[name] != "NA" else np.nan for name, marks in SIGNS.items()]
                visit = (float(row["year"]), readings)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{file.name}, line {line}: {error}") from error
            if known.setdefault(number, fixed) != fixed:
                raise ValueError(f"{file.name}, line {line}: patient {number} changes in what does not change")
            rows.setdefault(number, []).append(visit)
    ids = sorted(rows)
    visits = [sorted(rows[number], key=lambda visit: visit[0]) for number in ids]
    values = [np.array([readings for _, readings in own]) for own in visits]
    times = [np.array([time for time, _ in own]) for own in visits]
    static_table = np.array([known[number][0] for number in ids], dtype=object)
    years = np.array([known[number][1] for number in ids])
    status = np.array([known[number][2] for number in ids])
    return Patients(IrregularSeries(values, times, static_table), np.array(ids), years, status)


def _number(text: str) -> float:
    return np.nan if text == "NA" else float(text)
