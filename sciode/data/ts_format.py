"""The ``.ts`` text format of the UCR and UEA archives, read strictly and with numpy alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FLAGS = ("timestamps", "missing", "univariate", "equallength", "classlabel", "targetlabel")


@dataclass(frozen=True)
class Cases:
    """What a .ts file holds: n arrays [L_i, channels] of float64 with NaN for missing, and n class labels (text)."""

    values: tuple[NDArray[np.float64], ...]
    labels: NDArray[np.str_]


def read_ts(file: Path) -> Cases:
    """Read a classification file: header tags ``@name value``, ``@data``, then one case a line.

    A case is channels parted by ``:``, readings parted by ``,``, the class label last; ``?`` or ``NaN`` is a missing
    reading. Lengths may differ from case to case, not from channel to channel. Of the header are trusted
    ``@classLabel`` (every label must be in its list), ``@equalLength`` and ``@univariate``; ``@seriesLength``,
    ``@dimensions`` and ``@missing`` are not: files of the archive state them wrongly (EyesOpenShut says 127 and holds
    128).

    Raises:
        ValueError: no ``@data``, time stamps, no class labels, unequal channels, a word that is no number, an infinite
            reading, a label outside the list; the message begins with file:line.
    """
    lines = _lines(file)
    flags, classes = _header(file, lines)
    values: list[NDArray[np.float64]] = []
    labels: list[str] = []
    for number, line in lines:
        *channels, label = line.split(":")
        where = f"{file.name}:{number}"
        if label.strip() not in classes:
            raise ValueError(f"{where}: label {label.strip()!r} is not one of {', '.join(sorted(classes))}")
        values.append(_case(channels, where))
        labels.append(label.strip())
        _check_against(values, flags, where)
    if not values:
        raise ValueError(f"{file.name}: no case follows @data")
    return Cases(tuple(values), np.array(labels))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that say something: no blanks, no comments."""
    with file.open(encoding="utf-8") as text:
        for number, line in enumerate(text, start=1):
            stripped = line.strip()
            if stripped and not stripped.startswith("#"):
                yield number, stripped


def _header(file: Path, lines: Iterator[tuple[int, str]]) -> tuple[dict[str, bool], frozenset[str]]:
    flags: dict[str, bool] = {}
    classes: frozenset[str] = frozenset()
    for number, line in lines:
        tag, *words = line.split()
        name = tag[1:].lower()
        if not tag.startswith("@"):
            raise ValueError(f"{file.name}:{number}: expected a tag such as @problemName before @data")
        if name == "data":
            _check_header(file, flags)
            return flags, classes
        if name in _FLAGS:
            if not words or words[0].lower() not in ("true", "false"):
                raise ValueError(f"{file.name}:{number}: {tag} needs true or false")
            flags[name] = words[0].lower() == "true"
            classes = frozenset(words[1:]) if name == "classlabel" else classes
    raise ValueError(f"{file.name}: there is no @data line")


def _check_header(file: Path, flags: dict[str, bool]) -> None:
    if flags.get("timestamps", False):
        raise ValueError(f"{file.name}: files with time stamps are not read: build IrregularSeries from a frame")
    if flags.get("targetlabel", False) or not flags.get("classlabel", False):
        raise ValueError(f"{file.name}: only classification files are read, and @classLabel is not true")


def _case(channels: list[str], where: str) -> NDArray[np.float64]:
    if not channels:
        raise ValueError(f"{where}: expected channels parted by ':' and a label")
    readings = [[_number(word, where) for word in channel.split(",")] for channel in channels]
    if len({len(channel) for channel in readings}) > 1:
        raise ValueError(f"{where}: channels of {sorted({len(c) for c in readings})} points: all need the same")
    return np.array(readings, dtype=np.float64).T


def _number(word: str, where: str) -> float:
    text = word.strip()
    if text == "?" or text.lower() == "nan":
        return float("nan")
    try:
        # Python reads 1_0 as ten; a data file that says so is damaged.
        number = float(text.replace("_", "?"))
    except ValueError:
        raise ValueError(f"{where}: {text!r} is not a number") from None
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{where}: infinite reading")
    return number


def _check_against(values: list[NDArray[np.float64]], flags: dict[str, bool], where: str) -> None:
    """Hold the newest case against the header and the first case."""
    length, channels = values[-1].shape
    if channels != values[0].shape[1]:
        raise ValueError(f"{where}: {channels} channels, and the first case has {values[0].shape[1]}")
    if flags.get("univariate", False) and channels != 1:
        raise ValueError(f"{where}: {channels} channels, and the header says univariate")
    if flags.get("equallength", False) and length != len(values[0]):
        raise ValueError(f"{where}: {length} points, and the header says that all cases have {len(values[0])}")
