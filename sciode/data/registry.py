"""Data sets as data: one TOML file a set, with its sources, checksums, licence, citation and shape."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from .digests import DIGESTS

Kind = Literal["classification", "clinical", "flow", "forecasting", "images"]


@dataclass(frozen=True)
class File:
    """One file of a set.

    Args:
        path: below a data folder, e.g. "uea/GunPoint/GunPoint_TRAIN.ts".
        sources: addresses to try in turn. An address that ends in .zip or .whl, where path does not, is an archive
            that has the file in it. Empty for a file that is made on this machine.
        hash_of: what sha256 is a hash of: "bytes", "cases", "arrays" or "members" (see :mod:`sciode.data.digests`).
        sha256: None where no public copy could be hashed; then only the shape is checked.
        source_sha256: of the bytes at the first source, where it is known and our hash is one of content.
        split: "train" or "test" for a part of a classification set.
        made_by: a name in `sciode.data.store.MAKERS` for a file that is simulated, not downloaded.
    """

    path: str
    sources: tuple[str, ...]
    hash_of: str = "bytes"
    sha256: str | None = None
    source_sha256: str | None = None
    split: str | None = None
    made_by: str | None = None

    def __post_init__(self) -> None:
        inside = PurePosixPath(self.path)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"path {self.path!r} must lie below the data folder")
        if self.hash_of not in DIGESTS:
            raise ValueError(f"hash_of is {self.hash_of!r}: give one of {', '.join(DIGESTS)}")
        if bool(self.sources) == (self.made_by is not None):
            raise ValueError(f"{self.path}: give the sources of a file, or made_by if it is made here")


@dataclass(frozen=True)
class Sample:
    """A small copy shipped with sciode: file below datasets/, sha256 of its bytes, where it came from, its licence."""

    file: str
    sha256: str
    source: str
    licence: str


@dataclass(frozen=True)
class Shape:
    """Numbers of cases (train, test, and validation where a set has that part), channels, shortest and longest length
    in time points, number of classes.

    ``irregular`` says how the set departs from a shared grid: "no", "missing", "length" or "times". A number that
    does not apply (classes of a forecasting set) is 0.
    """

    train: int
    test: int
    channels: int
    length: tuple[int, int]
    classes: int
    irregular: str
    validation: int = 0


@dataclass(frozen=True)
class Manifest:
    """What is known of a data set; see the fields' own types. ``note`` is what a user must know before using it.

    ``recipe`` is how a set of flows is made here (see :mod:`sciode.data.flow_recipes`): its file is made anew where it
    was made by another one.
    """

    name: str
    title: str
    kind: Kind
    homepage: str
    licence: str
    citation: str
    shape: Shape
    files: tuple[File, ...]
    sample: Sample | None = None
    note: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)


def folder() -> Path:
    """The folder of the manifests: ``sciode/datasets`` in a wheel, ``datasets`` of the repository otherwise."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "datasets", package.parent / "datasets"):
        if any(candidate.glob("*.toml")):
            return candidate
    raise FileNotFoundError("the folder of dataset manifests is missing: reinstall sciode")


@cache
def _all() -> dict[str, Manifest]:
    found = (read_manifest(file) for file in folder().glob("*.toml"))
    return {manifest.name: manifest for manifest in sorted(found, key=lambda manifest: manifest.name.lower())}


def manifests() -> dict[str, Manifest]:
    """Every data set sciode knows, by name, in alphabetical order."""
    return dict(_all())


def manifest(name: str) -> Manifest:
    """One data set. Raises ValueError with the nearest names if there is no such set; case does not matter."""
    known = {key.lower(): value for key, value in _all().items()}
    if name.lower() in known:
        return known[name.lower()]
    near = [known[key].name for key in difflib.get_close_matches(name.lower(), known, n=3)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(_all())}"
    raise ValueError(f"there is no data set {name!r}: {hint}")


def read_manifest(file: Path) -> Manifest:
    """Parse one manifest.

    Raises:
        ValueError: a missing or unknown key, a file named otherwise than its set, a source that is not https.
    """
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    try:
        shape = table.pop("shape")
        shape["length"] = tuple(shape["length"])
        files = tuple(_file(entry) for entry in table.pop("files"))
        sample = table.pop("sample", None)
        found = Manifest(
            **table, shape=Shape(**shape), files=files, sample=Sample(**sample) if sample is not None else None
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    if found.name != file.stem:
        raise ValueError(f"{file.name} describes {found.name!r}: a manifest is named after its set")
    return found


def _file(entry: dict[str, Any]) -> File:
    found = File(**{**entry, "sources": tuple(entry["sources"])})
    for source in found.sources:
        if not source.startswith("https://"):
            raise ValueError(f"source {source} is not https")
    return found
