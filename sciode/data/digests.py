"""What a checksum is a checksum of: the bytes of a file, or the data in it whatever its packing.

The same data reach us with other comments, other compression or other time stamps (the .ts files of the archive exist
with and without a description on top), so most manifests pin the content. Each function maps a file to a sha256 in hex.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .ts_format import Cases, read_ts


def bytes_digest(file: Path) -> str:
    """sha256 of the file as it is."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cases_digest(file: Path) -> str:
    """sha256 of the parsed cases of a .ts file: see :func:`digest_of_cases`."""
    return digest_of_cases(read_ts(file))


def digest_of_cases(cases: Cases) -> str:
    """sha256 over the cases in order: shape (2 x int64), values (float64, row-major), label (UTF-8, one zero byte).

    Little-endian throughout; every NaN is the same NaN and -0.0 is 0.0.
    """
    total = hashlib.sha256()
    for value, label in zip(cases.values, cases.labels, strict=True):
        plain = np.where(np.isnan(value), np.nan, value + 0.0)
        total.update(np.array(value.shape, dtype="<i8").tobytes())
        total.update(np.ascontiguousarray(plain, dtype="<f8").tobytes())
        total.update(str(label).encode() + b"\0")
    return total.hexdigest()


def arrays_digest(file: Path) -> str:
    """sha256 over the arrays of a .npy or .npz file, by name: name, dtype, shape, elements. Never unpickles."""
    total = hashlib.sha256()
    for name, array in sorted(read_arrays(file).items()):
        head = f"{name} {array.dtype.str} {array.shape} "
        total.update(head.encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def read_arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a .npz file by name, or of a .npy file under the name "". Raises ValueError on pickled objects."""
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {"": loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def members_digest(file: Path) -> str:
    """sha256 over the regular files of a tar archive, sorted by name: name, zero byte, sha256 of the content."""
    found: dict[str, str] = {}
    with tarfile.open(file) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None:
                found[member.name.removeprefix("./")] = hashlib.sha256(stream.read()).hexdigest()
    total = hashlib.sha256()
    for name, digest in sorted(found.items()):
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


DIGESTS: Mapping[str, Callable[[Path], str]] = MappingProxyType(
    {"bytes": bytes_digest, "cases": cases_digest, "arrays": arrays_digest, "members": members_digest}
)
"""The digests a manifest may name in ``hash_of``."""
