"""SHA256SUMS beside data that came by hand: pinned once, checked at every reading, in the format of sha256sum."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .digests import bytes_digest

__all__ = ["SUMS", "check_sums", "pin"]

SUMS = "SHA256SUMS"


def pin(folder: Path | str, files: Iterable[str] | None = None) -> Path:
    """Write the sha256 of a folder's files (None: all below it, hidden ones apart) to its SHA256SUMS; return that.

    `sha256sum --check SHA256SUMS` reads it too. Loaders of sets that are downloaded by hand hold files against it.
    Raises ValueError where there is no file.
    """
    root = Path(folder)
    if files is None:
        every = (found.relative_to(root) for found in root.rglob("*") if found.is_file() and found.name != SUMS)
        files = [found.as_posix() for found in every if not any(part.startswith(".") for part in found.parts)]
    lines = [f"{bytes_digest(root / name)}  {name}\n" for name in sorted(files)]
    if not lines:
        raise ValueError(f"there is no file below {root} to pin")
    (root / SUMS).write_text("".join(lines), encoding="utf-8")
    return root / SUMS


def check_sums(folder: Path | str, files: Iterable[str]) -> None:
    """Hold files of a folder against its SHA256SUMS; nothing happens where it has none.

    Raises ValueError for a file that differs, that SHA256SUMS does not list, or a line that is none.
    """
    root = Path(folder)
    if not (root / SUMS).is_file():
        return
    pinned: dict[str, str] = {}
    for number, line in enumerate((root / SUMS).read_text(encoding="utf-8").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise ValueError(f"{root / SUMS}, line {number}: expected a sha256, two spaces and a path, got {line!r}")
        pinned[name] = digest
    for name in files:
        if name not in pinned:
            raise ValueError(f"{name} is not in {root / SUMS}: pin it, or take the file of sums away")
        if bytes_digest(root / name) != pinned[name]:
            raise ValueError(f"{name} is not the file that {root / SUMS} pins: bring it again")
