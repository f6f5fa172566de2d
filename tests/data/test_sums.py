"""Sums beside data: sha256sum's format, every difference seen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sciode.data import pin
from sciode.data.sums import check_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"a.txt": "a", "sub/b.txt": "b", ".hidden/c": "c"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_sums_are_those_of_sha256sum(folder: Path) -> None:
    digests = [hashlib.sha256(text).hexdigest() for text in (b"a", b"b")]
    assert pin(folder).read_text() == f"{digests[0]}  a.txt\n{digests[1]}  sub/b.txt\n"
    assert pin(folder, ["sub/b.txt"]).read_text() == f"{digests[1]}  sub/b.txt\n"


def test_a_file_that_differs_or_is_not_listed_is_refused(folder: Path) -> None:
    check_sums(folder, ["a.txt"])
    pin(folder, ["a.txt"])
    check_sums(folder, ["a.txt"])
    with pytest.raises(ValueError, match=r"b.txt is not in .*SHA256SUMS"):
        check_sums(folder, ["sub/b.txt"])
    (folder / "a.txt").write_text("A")
    with pytest.raises(ValueError, match=r"a.txt is not the file that .* pins"):
        check_sums(folder, ["a.txt"])
    (folder / "SHA256SUMS").write_text("abc\n")
    with pytest.raises(ValueError, match="line 1: expected a sha256"):
        check_sums(folder, ["a.txt"])


def test_an_empty_folder_has_nothing_to_pin(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        pin(tmp_path)
