"""Small classification sets packed into one .npz that numpy reads without pickle, value for value.

A reading written with at most d decimals is the whole number x * 10^d, so int32 holds it exactly, and the quotient is
again the double that the text parses to (division rounds correctly). Differences of neighbours compress better than
the numbers themselves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .digests import read_arrays
from .ts_format import Cases


def pack(file: Path, train: Cases, test: Cases, decimals: int) -> None:
    """Write a sample. Raises ValueError if a reading is missing or is no multiple of 10^-decimals within int32."""
    arrays: dict[str, NDArray[np.generic]] = {"decimals": np.array(decimals)}
    for split, cases in (("train", train), ("test", test)):
        rows = np.concatenate(cases.values)
        whole = np.rint(rows * 10.0**decimals)
        steps = np.diff(whole, axis=0, prepend=0.0)
        if not np.array_equal(whole / 10.0**decimals, rows) or np.abs(steps).max() > np.iinfo(np.int32).max:
            raise ValueError(f"{split}: readings do not fit into int32 with {decimals} decimals")
        arrays[f"{split}_steps"] = steps.astype(np.int32)
        arrays[f"{split}_lengths"] = np.array([len(value) for value in cases.values], dtype=np.int32)
        arrays[f"{split}_labels"] = cases.labels
    np.savez_compressed(file, allow_pickle=False, **arrays)


def unpack(file: Path, split: str) -> Cases:
    """The cases of one split ("train" or "test") of a packed sample."""
    arrays = read_arrays(file)
    whole = np.cumsum(arrays[f"{split}_steps"].astype(np.int64), axis=0)
    rows = whole / 10.0 ** int(arrays["decimals"])
    cuts = np.cumsum(arrays[f"{split}_lengths"].astype(np.int64))[:-1]
    return Cases(tuple(np.split(rows, cuts)), arrays[f"{split}_labels"].astype(np.str_))
