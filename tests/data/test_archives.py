"""Unpacking: everything or nothing, and nothing outside the folder."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sciode.data import unpack


def zipped(file: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file


def tarred(file: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def tar_link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_comes_out_whole(tmp_path: Path, mode: str) -> None:
    empty = tarfile.TarInfo("set/empty")
    empty.type = tarfile.DIRTYPE
    archive = tarred(tmp_path / "a.tar", (tarfile.TarInfo("./set/a.txt"), b"one"), (empty, b""), mode=mode)
    assert unpack(archive, tmp_path / "out") == tmp_path / "out"
    assert (tmp_path / "out/set/a.txt").read_bytes() == b"one" and (tmp_path / "out/set/empty").is_dir()
    assert everything_below(tmp_path) == ["a.tar", "out", "out/set", "out/set/a.txt", "out/set/empty"]


def test_a_zip_archive_comes_out_whole(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("set/", b""), ("set/a.txt", b"one"), ("b.txt", b"two" * 1000))
    out = unpack(archive, tmp_path / "deep" / "out")
    assert (out / "set/a.txt").read_bytes() == b"one" and (out / "b.txt").read_bytes() == b"two" * 1000


def test_modes_of_the_archive_are_forgotten(tmp_path: Path) -> None:
    info = tarfile.TarInfo("run")
    info.mode = 0o6777
    out = unpack(tarred(tmp_path / "a.tar", (info, b"#!/bin/sh")), tmp_path / "out")
    assert not (out / "run").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


NAMES = [
    "../evil",
    "a/../../evil",
    "/tmp/evil",
    "..",
    "a\\..\\..\\evil",
    "C:/evil",
    "C:evil",
    "//server/evil",
    "a/..",
]


def attack_zip_name(name: str) -> Callable[[Path], Path]:
    return lambda folder: zipped(folder / "a.zip", ("fine.txt", b"1"), (name, b"evil"))


def attack_tar_name(name: str) -> Callable[[Path], Path]:
    return lambda folder: tarred(
        folder / "a.tar", (tarfile.TarInfo("fine.txt"), b"1"), (tarfile.TarInfo(name), b"evil")
    )


def attack_tar_link(kind: bytes, target: str) -> Callable[[Path], Path]:
    return lambda folder: tarred(
        folder / "a.tar", (tar_link("out", kind, target), b""), (tarfile.TarInfo("out/evil"), b"evil")
    )


def attack_encrypted(folder: Path) -> Path:
    archive = zipped(folder / "a.zip", ("secret", b"1"))
    raw = bytearray(archive.read_bytes())
    # Bit 0 of the flags, in the local header and in the central directory.
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    return archive


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        *((attack_zip_name(name), "would leave the folder") for name in NAMES),
        *((attack_tar_name(name), "would leave the folder") for name in NAMES),
        (attack_tar_link(tarfile.SYMTYPE, "/tmp"), "link or a device"),
        (attack_tar_link(tarfile.SYMTYPE, "fine"), "link or a device"),
        (attack_tar_link(tarfile.LNKTYPE, "../evil"), "link or a device"),
        (attack_tar_link(tarfile.FIFOTYPE, ""), "link or a device"),
        (attack_tar_link(tarfile.CHRTYPE, ""), "link or a device"),
        (attack_tar_link(tarfile.BLKTYPE, ""), "link or a device"),
        (lambda folder: zipped(folder / "a.zip", (zip_link("out"), b"/tmp")), "link or a device"),
        (lambda folder: zipped(folder / "a.zip", ("a.txt", b"1"), ("A.TXT", b"2")), "two members"),
        (lambda folder: zipped(folder / "a.zip", ("a.txt", b"1"), ("./a.txt", b"2")), "two members"),
        (attack_encrypted, "encrypted"),
    ],
)
def test_an_attack_writes_nothing(tmp_path: Path, attack: Callable[[Path], Path], message: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = attack(inner)
    with pytest.raises(ValueError, match=message):
        unpack(archive, inner / "out")
    assert everything_below(tmp_path) == ["inner", f"inner/{archive.name}"]


def test_a_bomb_stops_at_the_cap(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("zeros", bytes(5_000_000)))
    assert archive.stat().st_size < 10_000
    with pytest.raises(ValueError, match="more than 1000000 bytes"):
        unpack(archive, tmp_path / "out", max_bytes=1_000_000)
    assert everything_below(tmp_path) == ["a.zip"]


def test_the_cap_counts_all_members_together(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar", *((tarfile.TarInfo(str(i)), bytes(600)) for i in range(2)))
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        unpack(archive, tmp_path / "out", max_bytes=1000)
    assert unpack(archive, tmp_path / "out", max_bytes=1200).is_dir()


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", *((f"{i}", b"") for i in range(11)))
    with pytest.raises(ValueError, match="more than 10 members"):
        unpack(archive, tmp_path / "out", max_members=10)


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists"):
        unpack(zipped(tmp_path / "a.zip", ("a", b"1")), tmp_path / "out")
    assert everything_below(tmp_path) == ["a.zip", "out"]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"hello")
    with pytest.raises(ValueError, match="neither a zip nor a tar"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_a_damaged_or_cut_archive_leaves_nothing(tmp_path: Path, mode: str) -> None:
    content = np.random.default_rng(0).bytes(5000)
    file = tmp_path / "a"
    archive = (
        zipped(file, ("a", content)) if mode == "zip" else tarred(file, (tarfile.TarInfo("a"), content), mode=mode)
    )
    whole = archive.read_bytes()
    flipped = bytearray(whole)
    flipped[200:300] = bytes(100)
    damaged = [whole[: len(whole) // 2], flipped] if mode != "w" else [whole[: len(whole) // 2]]
    for raw in damaged:
        archive.write_bytes(raw)
        with pytest.raises(ValueError):
            unpack(archive, tmp_path / "out")
        assert everything_below(tmp_path) == ["a"]
