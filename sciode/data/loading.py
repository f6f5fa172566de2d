"""From the name of a classification set to series and labels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import samples
from .digests import bytes_digest
from .registry import Manifest, folder, manifest
from .series import IrregularSeries
from .store import Place, cache_folder, fetch, locate
from .ts_format import Cases, read_ts


def load(
    name: str, split: Literal["train", "test", "all"] = "all", progress: bool = False
) -> tuple[IrregularSeries, NDArray[np.str_]]:
    """Load a classification set, downloading it first if it is not on this machine.

    The result is the same to the last bit whether it comes from SCIODE_DATA, the shipped sample or the cache.

    Args:
        name: of the set, see :func:`manifests`.
        split: the archive's own parts; "all" is train followed by test (for pooled splits).
        progress: show a progress bar while downloading.

    Returns:
        The series (float64, the archive's units, times 0 .. L_i - 1 because the archive has no clocks) and the labels
        [n], text.

    Raises:
        ValueError: unknown name or split, a set that is not one of classification, a damaged file.
        ConnectionError: the set is not here and no source answered.
    """
    wanted = manifest(name)
    if wanted.kind != "classification":
        raise ValueError(f"{wanted.name} is a set of kind {wanted.kind!r}: read its files at sciode.data.get({name!r})")
    if split not in ("train", "test", "all"):
        raise ValueError(f"split is {split!r}: give 'train', 'test' or 'all'")
    place = locate(wanted) or fetch(wanted, cache_folder(), progress)
    parts = [_cases(wanted, place, part) for part in (("train", "test") if split == "all" else (split,))]
    values = [value for cases in parts for value in cases.values]
    return IrregularSeries(values), np.concatenate([cases.labels for cases in parts])


def _cases(wanted: Manifest, place: Place, split: str) -> Cases:
    if not place.sample:
        file = next(file for file in wanted.files if file.split == split)
        return read_ts(place.root / file.path)
    if wanted.sample is None or bytes_digest(place.root) != wanted.sample.sha256:
        raise ValueError(f"the sample {place.root.relative_to(folder())} is damaged: reinstall sciode")
    return samples.unpack(place.root, split)
