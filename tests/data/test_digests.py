"""Checksums of content: blind to packing, not to data."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciode.data.digests import (
    arrays_digest,
    bytes_digest,
    cases_digest,
    digest_of_cases,
    members_digest,
    read_arrays,
)
from sciode.data.ts_format import Cases


def cases() -> Cases:
    return Cases((np.array([[1.0, 2.0], [np.nan, 0.0]]), np.array([[5.0, 6.0]])), np.array(["up", "down"]))


def test_bytes_are_hashed_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert bytes_digest(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_comments_and_notation_do_not_change_the_digest_of_cases(tmp_path: Path) -> None:
    header = "@classLabel true up down\n@data\n"
    (tmp_path / "a.ts").write_text(header + "1,?:2,0:up\n5:6:down\n")
    (tmp_path / "b.ts").write_text("# words\n@problemName X\n" + header + "1.0,NaN:20e-1,-0:up\n5:6:down\n")
    assert cases_digest(tmp_path / "a.ts") == cases_digest(tmp_path / "b.ts") == digest_of_cases(cases())


@given(st.integers(0, 5), st.floats(-10, 10).filter(lambda x: x != 0))
def test_any_other_reading_changes_the_digest_of_cases(which: int, by: float) -> None:
    flat = np.concatenate([value.ravel() for value in cases().values])
    flat[which] = by if np.isnan(flat[which]) else flat[which] + by
    other = Cases((flat[:4].reshape(2, 2), flat[4:].reshape(1, 2)), cases().labels)
    before = np.concatenate([value.ravel() for value in cases().values])
    same = np.array_equal(flat, before, equal_nan=True)
    assert (digest_of_cases(other) == digest_of_cases(cases())) == same


def test_shape_order_and_labels_change_the_digest_of_cases() -> None:
    first, second = cases().values
    different = [
        Cases((first.reshape(1, 4), second), cases().labels),
        Cases((second, first), cases().labels),
        Cases((first, second), np.array(["down", "up"])),
        Cases((first,), np.array(["up"])),
    ]
    digests = {digest_of_cases(other) for other in [cases(), *different]}
    assert len(digests) == 5


def test_compression_does_not_change_the_digest_of_arrays_but_dtype_does(tmp_path: Path) -> None:
    data = {"a": np.arange(12).reshape(3, 4), "b": np.ones(2)}
    np.savez(tmp_path / "plain.npz", **data)
    np.savez_compressed(tmp_path / "small.npz", b=data["b"], a=data["a"])
    np.savez(tmp_path / "other.npz", a=data["a"].astype(np.float64), b=data["b"])
    assert arrays_digest(tmp_path / "plain.npz") == arrays_digest(tmp_path / "small.npz")
    assert arrays_digest(tmp_path / "plain.npz") != arrays_digest(tmp_path / "other.npz")


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
            read_arrays(tmp_path / name)


def tarred(file: Path, *members: tuple[str, bytes, int], mode: str) -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content, mtime in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            archive.addfile(info, io.BytesIO(content))
    return file


def test_order_and_time_stamps_do_not_change_the_digest_of_members_but_content_does(tmp_path: Path) -> None:
    one = tarred(tmp_path / "1.tar", ("./a", b"1", 0), ("b", b"2", 0), mode="w:gz")
    two = tarred(tmp_path / "2.tar", ("b", b"2", 99), ("a", b"1", 5), mode="w")
    three = tarred(tmp_path / "3.tar", ("b", b"1", 99), ("a", b"2", 5), mode="w")
    assert members_digest(one) == members_digest(two) != members_digest(three)
