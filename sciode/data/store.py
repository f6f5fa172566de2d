"""Where the files of a data set are on this machine, and how they come here."""

from __future__ import annotations

import importlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from .archives import unpack
from .digests import DIGESTS, bytes_digest
from .registry import File, Manifest, folder, manifest
from .ts_format import read_ts

ARCHIVES = (".zip", ".whl")
MAKERS = {"hopper": ("hopper_simulation", "write_hopper"), "flows": ("flow_recipes", "write_flows")}
"""What makes a file on this machine: module of this package and function, called with where to write and, for a
manifest that has a recipe, with that and whether to show progress."""


@dataclass(frozen=True)
class Place:
    """Where a set lies: root / file.path for each file of the manifest, or the one file of the shipped sample."""

    root: Path
    sample: bool = False


def path(name: str) -> Path:
    """Where a data set lies on this machine; downloads nothing.

    Looked for in the folder SCIODE_DATA, among the samples shipped with sciode, in the cache (SCIODE_CACHE, or the
    operating system's place for caches), in this order.

    Returns:
        The file of a set of one file, the folder of a set of several, the .npz of a shipped sample.

    Raises:
        ValueError: unknown name (with the nearest names), or SCIODE_DATA is not a folder.
        FileNotFoundError: the set is not here; the message says how to get it.
    """
    wanted = manifest(name)
    place = locate(wanted)
    if place is None:
        raise FileNotFoundError(f"{wanted.name} is not on this machine: run `sciode data get {wanted.name}`")
    return _visible(place, wanted)


def get(name: str, progress: bool = False) -> Path:
    """:func:`path` of a data set, after downloading it into the cache if it is not on this machine.

    A download goes to a temporary file, is checked against the manifest, and only then takes its place.
    SCIODE_OFFLINE=1 forbids downloads. A simulated set is made instead, once.

    Args:
        name: of the set, see :func:`manifests`.
        progress: show a progress bar for each file.

    Raises:
        ValueError: unknown name, or what came is not what the manifest pins.
        ConnectionError: no source answered, or SCIODE_OFFLINE is set.
        ImportError: a set that is simulated, without the extra that simulates it.
    """
    wanted = manifest(name)
    return _visible(locate(wanted) or fetch(wanted, cache_folder(), progress), wanted)


def cache_folder() -> Path:
    """The folder of downloads: SCIODE_CACHE, or the operating system's place for caches."""
    if os.environ.get("SCIODE_CACHE"):
        return Path(os.environ["SCIODE_CACHE"]).expanduser()
    import pooch

    return Path(pooch.os_cache("sciode"))


def locate(wanted: Manifest) -> Place | None:
    """The place of a set that is on this machine, in the order of :func:`path`; None if it is nowhere."""
    own = os.environ.get("SCIODE_DATA")
    if own:
        root = Path(own).expanduser()
        if not root.is_dir():
            raise ValueError(f"SCIODE_DATA is {own!r}, which is not a folder: correct it or unset it")
        if _complete(wanted, root):
            return Place(root)
    if wanted.sample is not None:
        return Place(folder() / wanted.sample.file, sample=True)
    return Place(cache_folder()) if _complete(wanted, cache_folder()) else None


def _complete(wanted: Manifest, root: Path) -> bool:
    return all(_current(root / file.path, wanted) for file in wanted.files)


def _current(found: Path, wanted: Manifest) -> bool:
    """Whether a file is there, and made by the manifest's recipe if it has one."""
    if not wanted.recipe:
        return found.is_file()
    from .flow_files import made_by_recipe

    return made_by_recipe(found, wanted.recipe)


def _visible(place: Place, wanted: Manifest) -> Path:
    if place.sample:
        return place.root
    files = [place.root / file.path for file in wanted.files]
    return files[0] if len(files) == 1 else Path(os.path.commonpath(files))


def fetch(wanted: Manifest, root: Path, progress: bool = False) -> Place:
    """Download, check and place the files of a set that are not below ``root`` yet; errors as in :func:`get`."""
    offline = os.environ.get("SCIODE_OFFLINE", "0") not in ("", "0")
    if offline and any(file.sources for file in wanted.files):
        raise ConnectionError(f"{wanted.name} is not on this machine and SCIODE_OFFLINE forbids downloads")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as scratch:
        for file in wanted.files:
            target = root / file.path
            if not _current(target, wanted):
                bring = _from_any_source if file.made_by is None else _made
                found = bring(file, wanted, Path(scratch), progress)
                target.parent.mkdir(parents=True, exist_ok=True)
                found.replace(target)
    return Place(root)


def _made(file: File, wanted: Manifest, scratch: Path, progress: bool) -> Path:
    """The file as its maker makes it."""
    module, function = MAKERS[file.made_by or ""]
    found = scratch / PurePosixPath(file.path).name
    make = getattr(importlib.import_module(f".{module}", __package__), function)
    make(*((found, wanted.recipe, progress) if wanted.recipe else (found,)))
    return found


def _from_any_source(file: File, wanted: Manifest, scratch: Path, progress: bool) -> Path:
    """The first source that gives what the manifest pins. A false answer outweighs a missing one in the error."""
    silent: list[str] = []
    false: list[str] = []
    for number, source in enumerate(file.sources):
        try:
            found = _from_source(file, source, scratch, progress)
            verify(found, file, wanted, file.source_sha256 if number == 0 else None)
            return found
        except ValueError as error:
            false.append(f"{source}: {error}")
        except OSError as error:
            silent.append(f"{source}: {_reason(error)}")
    problems = "\n  ".join(false + silent)
    if false:
        raise ValueError(f"{wanted.name}: no source gave the file {file.path} that the manifest pins:\n  {problems}")
    raise ConnectionError(
        f"{wanted.name}: no source of {file.path} answered:\n  {problems}\n"
        f"try again where the network reaches one of them, or put the file by hand where it is looked for: at "
        f"{file.path} below a folder that SCIODE_DATA names, or below {cache_folder()}"
    )


def _reason(error: OSError) -> str:
    """What went wrong, without the layers of the HTTP library around it."""
    text = str(error)
    for name, words in {"NameResolutionError": "no such host (no network?)", "ConnectTimeout": "no answer"}.items():
        if name in text:
            return words
    return text


def _from_source(file: File, source: str, scratch: Path, progress: bool) -> Path:
    """Download one source, once for all files that share it; take the file out if the source is an archive."""
    here = scratch / urlsplit(source).netloc.replace(":", "_") / PurePosixPath(urlsplit(source).path).name
    if not here.is_file():
        _download(source, here, progress)
    if here.suffix not in ARCHIVES or file.path.endswith(ARCHIVES):
        return here
    content = here.with_suffix("")
    if not content.is_dir():
        unpack(here, content)
    name = PurePosixPath(file.path).name
    matches = sorted(content.rglob(name))
    if len({bytes_digest(match) for match in matches}) != 1:
        raise ValueError(f"the archive holds {len(matches)} files named {name}")
    return matches[0]


def _download(source: str, target: Path, progress: bool) -> None:
    import pooch

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    pooch.HTTPDownloader(progressbar=progress, timeout=60)(source, str(partial), None)
    partial.replace(target)


def verify(found: Path, file: File, wanted: Manifest, source_sha256: str | None = None) -> None:
    """Check a file against the manifest: bytes of the source if pinned, else its hash, else its shape.

    Raises ValueError saying what was found and what the manifest pins.
    """
    if source_sha256 is not None:
        actual, pinned, what = bytes_digest(found), source_sha256, "bytes"
    elif file.sha256 is not None:
        actual, pinned, what = DIGESTS[file.hash_of](found), file.sha256, file.hash_of
    else:
        cases = read_ts(found)
        actual = f"{len(cases.values)} cases, {cases.values[0].shape[1]} channels"
        number = wanted.shape.train if file.split == "train" else wanted.shape.test
        pinned, what = f"{number} cases, {wanted.shape.channels} channels", "shape"
    if actual != pinned:
        raise ValueError(f"{what}: found {actual}, the manifest pins {pinned}")
