"""Unpacking an archive that nobody has vouched for."""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

_BLOCK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
)


def unpack(archive: Path, target: Path, max_bytes: int = 2 << 30, max_members: int = 100_000) -> Path:
    """Unpack a zip or tar archive (plain, gz, bz2, xz) into the new folder ``target``: entirely, or not at all.

    Members go to a temporary folder beside ``target`` that is renamed at the end. Only regular files and folders come
    out, without the archive's owners and modes; what is written is counted, so a small archive that claims to be small
    and is not (a bomb) stops at the cap.

    Args:
        archive: the file.
        target: a folder that does not exist yet; its parent is made if need be.
        max_bytes: cap on the bytes of all members together.
        max_members: cap on the number of members.

    Returns:
        target.

    Raises:
        ValueError: not a zip or tar archive, target exists, a member with an absolute path or ``..``, a link, a device,
            an encrypted member, two members of the same name, or a cap reached. The message names the member.
    """
    if target.exists():
        raise ValueError(f"{target} exists: unpack into a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        inside = Path(scratch) / "content"
        inside.mkdir()
        try:
            _write_all(archive, inside, max_bytes, max_members)
        except _DAMAGE as error:
            raise ValueError(f"{archive.name} is damaged: {error}") from error
        inside.rename(target)
    return target


def _write_all(archive: Path, folder: Path, max_bytes: int, max_members: int) -> None:
    left = max_bytes
    seen: set[str] = set()
    for name, stream in _members(archive):
        parts = _safe_parts(name)
        # Some file systems ignore case: two names that differ in nothing else would overwrite one another there.
        key = "/".join(parts).casefold()
        if key in seen:
            raise ValueError(f"{archive.name}: two members are named {name!r}")
        seen.add(key)
        if len(seen) > max_members:
            raise ValueError(f"{archive.name}: more than {max_members} members")
        if stream is None:
            folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            continue
        with stream:
            left -= _copy(stream, folder.joinpath(*parts), left)
        if left < 0:
            raise ValueError(f"{archive.name}: more than {max_bytes} bytes when unpacked, at member {name!r}")


def _copy(stream: IO[bytes], file: Path, limit: int) -> int:
    """Write a stream to a new file; stop as soon as more than ``limit`` bytes are read. Returns the bytes read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with file.open("xb") as out:
        while size <= limit and (block := stream.read(_BLOCK)):
            size += len(block)
            out.write(block)
    return size


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """(name, content) of each member, content None for a folder; raises on anything that is neither."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        raise ValueError(f"{archive.name} is neither a zip nor a tar archive")


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{archive.name}: member {info.filename!r} is a link or a device")
            if info.flag_bits & 0x1:
                raise ValueError(f"{archive.name}: member {info.filename!r} is encrypted")
            yield info.filename, None if info.is_dir() else opened.open(info)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive) as opened:
        for info in opened:
            if not (info.isreg() or info.isdir()):
                raise ValueError(f"{archive.name}: member {info.name!r} is a link or a device")
            yield info.name, opened.extractfile(info)
        # A compressed stream is checked only where it is read to its end, and tar itself stops before the padding.
        rest = opened.fileobj
        if rest is not None and len(rest.read(_BLOCK)) == _BLOCK:
            raise ValueError(f"{archive.name}: there is more after the end of the archive")


def _safe_parts(name: str) -> tuple[str, ...]:
    """The parts of a relative path without ``.``; backslashes and drive letters are refused on every system."""
    path = PurePosixPath(name)
    parts = tuple(part for part in path.parts if part != ".")
    if path.is_absolute() or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        raise ValueError(f"member {name!r} would leave the folder it is unpacked into")
    return parts
