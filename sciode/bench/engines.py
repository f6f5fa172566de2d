"""`sciode bench engines`: our engines against their peers at their best settings, in one process, and held to bars.

A ratio (our seconds over the peer's) counts where the method, the tolerances, the step mode and the outputs are the
same, the whole public call is timed, and our error against float64 is at most 1.5 times the peer's; else it stands in
parentheses. The workloads and their bars are data: see `workloads`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from sciode.bench.anatomy import anatomies
from sciode.bench.contestants import Answer
from sciode.bench.measuring import Started, start_all, take_turns
from sciode.bench.reference import ERROR_LIMIT, as_exact, errors, reference
from sciode.bench.scaling import curves, draw
from sciode.bench.stochastic import StochasticProblem, law_distance, same_paths
from sciode.bench.timing import Timing, machine
from sciode.bench.workloads import BEST, ODE_PEERS, OURS, WORKLOADS, Bar, Workload
from sciode.lab.tables import show, table

__all__ = ["Row", "Verdict", "judge", "main", "measure"]

_LAW = 3.0
"""Standard errors at which two laws are no longer the same to chance; the root mean square of many is near 1."""
_PATIENCE = 20.0
"""Seconds after which a slow peer has been timed often enough."""
_SMALL = 100_000
"""Numbers in a state below which the CPU finds a float64 reference sooner than a GPU."""


@dataclass(frozen=True)
class Row:
    """One contestant at one workload; `note` says why it has no time.

    seconds (median), low, high (quartiles): of the whole public call, the device waited for. first_call: seconds of
    the first one, compilation included. error (rms), error_max, gradient_error (relative): against float64. law: of
    SDE paths, root mean square distance of means in standard errors (1 = chance). memory: bytes beside the arguments.
    """

    workload: str
    mode: str
    contestant: str
    library: str
    version: str | None
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    first_call: float | None = None
    error: float | None = None
    error_max: float | None = None
    gradient_error: float | None = None
    law: float | None = None
    steps: int | None = None
    memory: int | None = None
    note: str | None = None

    @property
    def steady(self) -> bool:
        """Whether the quartiles lie close enough together to judge by."""
        if self.seconds is None or self.low is None or self.high is None:
            return False
        return Timing(self.seconds, self.low, self.high).steady


@dataclass(frozen=True)
class Verdict:
    """A contestant of ours held against one number of a bar.

    ratio: ours over `against`, the contestant that stands for `peer`; what: "time" or "memory". counts: whether our
    errors allow it. met: None where a time is missing or unsteady, which proves nothing.
    """

    workload: str
    ours: str
    what: str
    peer: str
    factor: float
    against: str | None = None
    ratio: float | None = None
    counts: bool | None = None
    met: bool | None = None


def measure(workload: Workload, device: str, warmup: int = 2) -> tuple[list[Row], list[Verdict]]:
    """Rows in the order of the contestants, and the verdicts on the bars. Failing contestants are rows, too."""
    fresh = workload.problem()
    problem = fresh.to(device)
    exact, fault = _exact(fresh if fresh.y0.numel() <= _SMALL else problem, workload.mode)

    def look(answer: Answer) -> dict[str, Any]:
        if exact is None:
            return {}
        if isinstance(problem, StochasticProblem):
            return {"law": law_distance(answer, exact), "answer": answer}
        return dict(errors(answer, exact))

    started = start_all(workload.contestants, problem, workload.mode, look)
    timings, faults = take_turns(started, workload.repeats, warmup, _PATIENCE)
    rows = [_row(workload, found, timings.get(found.name), faults.get(found.name), exact) for found in started]
    if fault is not None:
        print(f"{workload.name}: no reference ({fault}); errors are not compared")
    return rows, judge(workload, rows, problem.least_bytes)


def _exact(problem: Any, mode: str) -> tuple[Answer | None, str | None]:
    """What answers are compared with, or why there is nothing."""
    try:
        if isinstance(problem, StochasticProblem):
            return same_paths(problem, mode), None
        return reference(problem, mode), None
    except Exception as fault:
        return None, f"{type(fault).__name__}: {fault}"


def _row(workload: Workload, found: Started, timing: Timing | None, fault: str | None, exact: Answer | None) -> Row:
    known = dict(found.read or {})
    answer = known.pop("answer", None)
    if answer is not None and exact is not None and found.name in OURS:
        known |= errors(answer, exact)
    times = {} if timing is None else timing._asdict()
    return Row(
        workload=workload.name,
        mode=workload.mode,
        contestant=found.name,
        library=found.peer.library,
        version=found.peer.version,
        seconds=times.get("median"),
        low=times.get("low"),
        high=times.get("high"),
        first_call=found.first_call,
        steps=found.steps,
        memory=found.memory,
        note=found.note or fault,
        **known,
    )


def judge(workload: Workload, rows: Sequence[Row], least_bytes: int) -> list[Verdict]:
    """Hold our rows against every number of the workload's bars; least_bytes: of the states and the outputs."""
    verdicts = []
    for bar in workload.bars:
        ours = next((row for row in rows if row.contestant == bar.ours), None)
        for peer, factor in bar.limits:
            verdicts.append(_timed(workload.name, bar, ours, _fastest(rows, peer), peer, factor))
        for peer, factor in bar.memory:
            verdicts.append(_sized(workload.name, bar, ours, _fastest(rows, peer), peer, factor, least_bytes))
    return verdicts


def _fastest(rows: Sequence[Row], peer: str) -> Row | None:
    """The row that stands for a peer: a contestant of that name, a library's fastest, or the best of them all."""

    def stands(row: Row) -> bool:
        if peer == BEST:
            return row.contestant not in OURS and row.contestant != "field"
        return peer in (row.contestant, row.library) and row.contestant not in OURS

    timed = [row for row in rows if row.seconds is not None and stands(row)]
    return min(timed, key=lambda row: row.seconds or 0.0, default=None)


def _timed(name: str, bar: Bar, ours: Row | None, theirs: Row | None, peer: str, factor: float) -> Verdict:
    verdict = Verdict(name, bar.ours, "time", peer, factor, None if theirs is None else theirs.contestant)
    if ours is None or theirs is None or ours.seconds is None or theirs.seconds is None:
        return verdict
    ratio, counts = ours.seconds / theirs.seconds, _counts(ours, theirs)
    met = counts and ratio <= factor if ours.steady and theirs.steady else None
    return Verdict(name, bar.ours, "time", peer, factor, theirs.contestant, ratio, counts, met)


def _sized(
    name: str, bar: Bar, ours: Row | None, theirs: Row | None, peer: str, factor: float, least_bytes: int
) -> Verdict:
    floor = peer == "states + outputs"
    against = peer if floor else None if theirs is None else theirs.contestant
    size = least_bytes if floor else None if theirs is None else theirs.memory
    verdict = Verdict(name, bar.ours, "memory", peer, factor, against)
    if ours is None or ours.memory is None or not size:
        return verdict
    ratio = ours.memory / size
    return Verdict(name, bar.ours, "memory", peer, factor, against, ratio, True, ratio <= factor)


def _counts(ours: Row, theirs: Row) -> bool:
    lawful = all(row.law is None or row.law <= _LAW for row in (ours, theirs))
    return lawful and as_exact(ours.error, theirs.error) and as_exact(ours.gradient_error, theirs.gradient_error)


def main(
    out: Path | None = None,
    device: str | None = None,
    only: str | None = None,
    profile: bool = False,
    scaling: bool = False,
) -> int:
    """Measure the workloads of a device, print tables and verdicts; with `out` write <out>/engines.json as it grows.

    device: "cpu" or "cuda" (None: CUDA where there is one); each has workloads of its own. only: those whose name (or
    the curves whose axis) contains it. profile: also what a step is made of. scaling: the curves instead. Returns 0
    whatever the ratios are. Raises ValueError for another device, or where `only` selects nothing.
    """
    device = _device(device)
    if device == "cuda":
        # JAX would take three quarters of the card at its first call, and never give any back.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    record: dict[str, Any] = {"machine": _host(device), "rows": [], "verdicts": [], "profile": [], "scaling": []}
    print(_caption(record["machine"]))
    if scaling:
        for points in curves(device, only):
            record["scaling"] += points
            _write(record, out)
        if out is not None:
            draw(record["scaling"], out)
        return 0
    chosen = [w for w in WORKLOADS if w.device == device and (only or "").lower() in w.name.lower()]
    if not chosen:
        names = ", ".join(workload.name for workload in WORKLOADS if workload.device == device)
        raise ValueError(f"only: no workload on {device} has {only!r} in its name; there are: {names}")
    for workload in chosen:
        rows, verdicts = measure(workload, device)
        record["rows"] += map(asdict, rows)
        record["verdicts"] += map(asdict, verdicts)
        show(_table(workload, rows))
        print(_spoken(workload, verdicts))
        if profile:
            found = anatomies(workload, device)
            record["profile"] += map(asdict, found)
            for anatomy in found:
                print(anatomy)
        _write(record, out)
    if out is not None:
        print(f"numbers: {out / 'engines.json'}")
    return 0


def _device(device: str | None) -> str:
    here = torch.cuda.is_available()
    if device is None:
        return "cuda" if here else "cpu"
    if device not in ("cpu", "cuda") or (device == "cuda" and not here):
        known = "'cpu' or 'cuda'" if here else "'cpu'"
        raise ValueError(f"device: {device!r} has no workloads or is not here; use {known}")
    return device


def _host(device: str) -> dict[str, Any]:
    card = torch.cuda.get_device_name() if device == "cuda" else "none"
    libraries = {peer.library: peer.version for peer in ODE_PEERS.values()}
    return machine() | {"device": device, "card": card, "libraries": libraries}


def _caption(host: dict[str, Any]) -> str:
    return (
        f"{host['processor']}, {host['cores']} cores, {host['torch_threads']} torch threads; card: {host['card']}; "
        f"Python {host['python']}, torch {host['torch']}; {host['date']}\n"
        f"ratio: our time over the peer's, in parentheses where it does not count (our error above {ERROR_LIMIT:g} "
        "times its). unsteady: quartiles too far apart to judge."
    )


def _write(record: dict[str, Any], out: Path | None) -> None:
    """Written after every workload: a session on a rented GPU may end early."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "engines.json").write_text(json.dumps(record, indent=2) + "\n")


def _table(workload: Workload, rows: Sequence[Row]) -> Table:
    """The rows as they are printed; columns that nobody fills are left out."""
    filled = {
        "contestant": [row.contestant for row in rows],
        "library": [f"{row.library} {row.version or ''}".strip() for row in rows],
        "ms": [None if row.seconds is None else f"{1e3 * row.seconds:.3f}" for row in rows],
        "rms error": [_short(row.error) for row in rows],
        "grad error": [_short(row.gradient_error) for row in rows],
        "law": [None if row.law is None else f"{row.law:.2f}" for row in rows],
        "steps": [row.steps for row in rows],
        "MB": [None if row.memory is None else f"{row.memory / 1e6:.1f}" for row in rows],
        "first s": [None if row.first_call is None else f"{row.first_call:.1f}" for row in rows],
        "note": [row.note for row in rows],
    }
    columns = [name for name, cells in filled.items() if any(cell is not None for cell in cells)]
    return table(f"{workload.name}, {workload.mode}", columns, list(zip(*(filled[c] for c in columns), strict=True)))


def _short(error: float | None) -> str | None:
    return None if error is None else f"{error:.1e}"


def _spoken(workload: Workload, verdicts: Sequence[Verdict]) -> str:
    """The bars in words, and beneath each what was reached."""
    lines = []
    for bar in workload.bars:
        lines.append(f"  {bar.ours}: {bar.text}")
        lines += [f"    {_reached(verdict)}" for verdict in verdicts if verdict.ours == bar.ours]
    return "\n".join(lines)


def _reached(verdict: Verdict) -> str:
    against = verdict.peer if verdict.against in (None, verdict.peer) else f"{verdict.peer} ({verdict.against})"
    if verdict.ratio is None:
        return f"{verdict.what} / {against}: no number"
    ratio = f"{verdict.ratio:.3g}" if verdict.counts else f"({verdict.ratio:.3g})"
    word = {True: "met", False: "missed", None: "unsteady"}[verdict.met]
    return f"{verdict.what} / {against}: {ratio}, bar {verdict.factor:.3g}: {word}"
