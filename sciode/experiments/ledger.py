"""Rows of a result table that outlive an interruption: each is written when it is finished, and never made twice.

Rows may be made side by side, by processes of their own: then who makes them has to be something that can be pickled.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from sciode.lab.progress import progress, say
from sciode.training import append_json, read_json_lines
from sciode.training.checkpoint import write_atomically

__all__ = ["Built", "finished_groups", "finished_rows", "named", "stamped", "write_table"]


Key = dict[str, Any]
Made = Sequence[dict[str, Any]]
T = TypeVar("T")


class Built(Generic[T]):
    """kind(settings), built when it is first asked for; a process to which it is sent builds its own."""

    def __init__(self, kind: Callable[[Any], T], settings: Any) -> None:
        self.kind, self.settings = kind, settings

    @cached_property
    def value(self) -> T:
        """What was built."""
        return self.kind(self.settings)

    def __reduce__(self) -> Any:
        return Built, (self.kind, self.settings)


def named(field: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError where a setting names what there is not."""
    known = list(known)
    if unknown := set(given) - set(known):
        raise ValueError(f"{field}: {'; '.join(sorted(unknown))} is unknown; there are {'; '.join(known)}")


def stamped(settings: Any, *free: str, **more: Any) -> dict[str, Any]:
    """What of settings, a dataclass, a row hangs on, as JSON has it, and `more`.

    free: its fields that a row has of its own, so that it stays good beside others; "workers" is one.
    """
    stamp = {**asdict(settings), **more}
    for name in (*free, "workers"):
        del stamp[name]
    return json.loads(json.dumps(stamp))


def write_table(out: Path, record: Mapping[str, Any]) -> Path:
    """Write <out>/table.json, whole or not at all, and return where it is; settings as a dataclass are spelt out."""
    file = out / "table.json"
    payload = {name: asdict(value) if name == "settings" else value for name, value in record.items()}
    write_atomically(file, (json.dumps(payload, indent=1) + "\n").encode())
    return file


def finished_rows(
    out: Path, keys: Sequence[Key], settings: dict[str, Any], make: Callable[..., dict[str, Any]], workers: int = 1
) -> list[dict[str, Any]]:
    """One row for each key, in order; those in <out>/rows.jsonl that were made under the same settings are kept.

    make(**key) gives the rest of a row. settings: whatever else a row depends on (device, sizes); torch's version is
    added. workers: how many rows are made at a time, each in a process of its own; such a row says so under "workers",
    for its seconds are those of a shared machine. A row that cannot be made raises, and leaves the finished ones where
    they are.
    """
    return finished_groups(out, [[key] for key in keys], settings, _Single(make), workers)


def finished_groups(
    out: Path,
    groups: Sequence[Sequence[Key]],
    settings: dict[str, Any],
    make: Callable[[list[Key]], Made],
    workers: int = 1,
) -> list[dict[str, Any]]:
    """As `finished_rows`, for rows that are made in one go: make(keys) gives the rest of those a group still lacks.

    A group is written when all of it is finished.
    """
    stamp = {**settings, "torch": metadata.version("torch")}
    known = [row for row in read_json_lines(out / "rows.jsonl") if row.get("settings") == stamp]
    lacking = [[key for key in group if _row(known, key) is None] for group in groups]
    wanted = [keys for keys in lacking if keys]
    total, beside = sum(len(group) for group in groups), {"workers": workers} if workers > 1 else {}
    done = total - sum(len(keys) for keys in wanted)
    if done:
        print(f"{done} of {total} rows are finished already: {out / 'rows.jsonl'}", file=sys.stderr)
    with progress(total=total, description="rows", unit="row") as bar:
        bar.update(done)

        def begin(keys: list[Key]) -> None:
            say(f"row {done + 1} of {total}: {_said(keys[0])}")
            bar.set_postfix_str(_said(keys[0]))

        for keys, made in _one_by_one(wanted, make, begin) if workers == 1 else _side_by_side(wanted, make, workers):
            for key, rest in zip(keys, made, strict=True):
                known.append({**key, **rest, **beside, "settings": stamp})
                append_json(out / "rows.jsonl", known[-1])
            done += len(keys)
            bar.update(len(keys))
            if workers > 1:
                say(f"{done} of {total} rows are finished: {_said(keys[0])}")
    return [_row(known, key) for group in groups for key in group]


@dataclass(frozen=True)
class _Single:
    make: Callable[..., dict[str, Any]]

    def __call__(self, keys: list[Key]) -> Made:
        return [self.make(**key) for key in keys]


def _one_by_one(
    wanted: Sequence[list[Key]], make: Callable[[list[Key]], Made], begin: Callable[[list[Key]], None]
) -> Iterator[tuple[list[Key], Made]]:
    for keys in wanted:
        begin(keys)
        yield keys, make(keys)


def _side_by_side(
    wanted: Sequence[list[Key]], make: Callable[[list[Key]], Made], workers: int
) -> Iterator[tuple[list[Key], Made]]:
    """As they are finished. What fails is raised when all that had begun is finished, and nothing else is begun."""
    count = min(workers, len(wanted))
    if not count:
        return
    spawn = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    threads = max(1, (os.cpu_count() or 1) // count)
    with ProcessPoolExecutor(count, spawn, _begin, (make, threads)) as pool:
        asked = {pool.submit(_make, keys): keys for keys in wanted}
        try:
            for done in as_completed(asked):
                yield asked[done], done.result()
        finally:
            for each in asked:
                each.cancel()


_maker: Callable[[list[Key]], Made]
"""Of this process, where it is one of several."""


def _begin(make: Callable[[list[Key]], Made], threads: int) -> None:
    global _maker
    _maker = make
    torch.set_num_threads(threads)


def _make(keys: list[Key]) -> Made:
    return _maker(keys)


def _said(key: Key) -> str:
    """A row's key in a few words: its names and numbers."""
    return ", ".join(
        f"{value:g}" if isinstance(value, float) else str(value)
        for value in key.values()
        if isinstance(value, str | int | float)
    )


def _row(known: Sequence[dict[str, Any]], key: Key) -> Any:
    return next((row for row in known if all(row.get(name) == value for name, value in key.items())), None)
