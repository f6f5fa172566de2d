"""`sciode bench solvers`: our adaptive ODE solves against torchdiffeq, torchode and diffrax, in one process.

A ratio counts where the method, the tolerances and the outputs are the same, the whole public call is timed, and our
error against a float64 reference is at most 1.5 times the peer's; rows where it does not are marked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from sciode.bench.peers import PEERS, Answer, Contestant, Peer, count_calls, reference
from sciode.bench.problems import Problem, neural_ode, van_der_pol
from sciode.bench.timing import Timing, interleaved, machine
from sciode.lab.tables import show, table

__all__ = ["CASES", "Case", "Row", "main", "measure"]

Errors = dict[str, float | None]
ERROR_LIMIT = 1.5
"""How many times the peer's error ours may be before a ratio stops counting."""


@dataclass(frozen=True)
class Case:
    """A problem in a mode ("forward" or "backward"), the repeats to time, and how much faster than torchdiffeq we mean to be."""

    problem: Problem
    mode: str
    repeats: int
    bar: float

    @property
    def title(self) -> str:
        """What is solved, in what precision, and what is timed."""
        precision = str(self.problem.y0.dtype).removeprefix("torch.")
        timed = "forward" if self.mode == "forward" else "forward + backward"
        tolerance = f"rtol {self.problem.rtol:g}, atol {self.problem.atol:g}"
        return f"{self.problem.title}; dopri5, {tolerance}, {precision}; {timed}"


@dataclass(frozen=True)
class Row:
    """One library at one case; None where it is not installed or says nothing.

    seconds (median), low, high (quartiles): of the whole public call. compile_seconds: of the first call, where it
    compiles. ratio: seconds over ours. error: root mean square of ys - reference; error_max: its largest entry;
    gradient_error: |g - reference| / |reference| over all gradients together. steps: the most of a sample;
    evaluations: batched calls of the field. counts: whether our errors are at most 1.5 times these. bar: the ratio we
    mean to reach, met: whether it counts and is reached.
    """

    problem: str
    mode: str
    library: str
    label: str
    version: str | None
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    compile_seconds: float | None = None
    ratio: float | None = None
    error: float | None = None
    error_max: float | None = None
    gradient_error: float | None = None
    steps: int | None = None
    evaluations: int | None = None
    counts: bool | None = None
    bar: float | None = None
    met: bool | None = None


def cases() -> tuple[Case, ...]:
    """The neural ODE forward and with its gradient, then van der Pol; the bars are against torchdiffeq's odeint."""
    neural, oscillators = neural_ode(), van_der_pol()
    return (
        Case(neural, "forward", repeats=41, bar=2.5),
        Case(neural, "backward", repeats=41, bar=2.5),
        Case(oscillators, "forward", repeats=9, bar=3.0),
    )


def main(out: Path | None = None) -> int:
    """Measure all cases, print a table for each, and with `out` write <out>/solvers.json: {machine, rows}.

    Threads are left as torch and JAX choose them (torch's count is printed). Takes about a minute on two cores.
    Returns 0 whatever the ratios are: a timing is news, not a fault. Raises ImportError without torchdiffeq.
    """
    host = machine()
    caption = (
        f"{host['processor']}, {host['cores']} cores, {host['torch_threads']} torch threads; {host['system']}; "
        f"Python {host['python']}, torch {host['torch']}; {host['date']}\n"
        f"ratio: time over ours; it counts where our errors are at most {ERROR_LIMIT:g} times the peer's."
    )
    rows: list[Row] = []
    for case in cases():
        measured = measure(case)
        show(_table(case, measured, caption))
        rows += measured
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record = {"machine": host, "rows": [asdict(row) for row in rows]}
        (out / "solvers.json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"numbers: {out / 'solvers.json'}")
    return 0


def measure(case: Case, peers: Sequence[Peer] = PEERS, warmup: int = 2) -> list[Row]:
    """One row a library, ours first; with a gradient, torchdiffeq's odeint_adjoint has a row of its own as well.

    Raises ValueError if the first of `peers` is not installed (ratios are against it).
    """
    if not peers or peers[0].version is None:
        raise ValueError("peers: the first one is what the others are compared with, and it must be installed")
    problem = case.problem
    wanted = [(peer, case.mode) for peer in peers]
    if case.mode == "backward":
        wanted += [(peer, "adjoint") for peer in peers if peer.library == "torchdiffeq"]
    present = [(peer, mode) for peer, mode in wanted if peer.version is not None]
    entries = {peer.label(problem, mode): _enter(problem, peer, mode) for peer, mode in present}
    timings = interleaved({label: entry.contestant.call for label, entry in entries.items()}, case.repeats, warmup)
    exact = reference(problem, case.mode)
    errors = {label: _errors(entry.answer, exact) for label, entry in entries.items()}
    ours = peers[0].label(problem, case.mode)
    rows = []
    for peer, mode in wanted:
        label = peer.label(problem, mode)
        row = Row(problem.name, mode, peer.library, label, peer.version)
        if label in entries:
            row = _fill(row, entries[label], timings[label], timings[ours].median, errors[label], errors[ours])
            row = replace(row, evaluations=count_calls(peer, problem, mode))
        if label in entries and peer.library == "torchdiffeq" and mode == case.mode:
            row = replace(row, bar=case.bar, met=bool(row.counts and row.ratio is not None and row.ratio >= case.bar))
        rows.append(row)
    return rows


@dataclass(frozen=True)
class _Entry:
    contestant: Contestant
    answer: Answer
    first_call: float


def _enter(problem: Problem, peer: Peer, mode: str) -> _Entry:
    contestant = peer.prepare(problem, mode)
    start = time.perf_counter()
    found = contestant.call()
    first_call = time.perf_counter() - start
    return _Entry(contestant, contestant.read(found), first_call)


def _errors(answer: Answer, exact: Answer) -> Errors:
    """The three errors of a row, by its names."""
    difference = np.abs(answer.ys - exact.ys)
    gradient = None
    if exact.gradients:
        flat, true = (np.concatenate([g.ravel() for g in found.gradients]) for found in (answer, exact))
        gradient = float(np.linalg.norm(flat - true) / np.linalg.norm(true))
    return {
        "error": float(np.sqrt(np.mean(difference**2))),
        "error_max": float(difference.max()),
        "gradient_error": gradient,
    }


def _fill(row: Row, entry: _Entry, timing: Timing, our_seconds: float, theirs: Errors, ours: Errors) -> Row:
    return replace(
        row,
        seconds=timing.median,
        low=timing.low,
        high=timing.high,
        compile_seconds=entry.first_call if entry.contestant.compiles else None,
        ratio=timing.median / our_seconds,
        error=theirs["error"],
        error_max=theirs["error_max"],
        gradient_error=theirs["gradient_error"],
        steps=entry.answer.steps,
        counts=_as_exact(ours["error"], theirs["error"])
        and _as_exact(ours["gradient_error"], theirs["gradient_error"]),
    )


def _as_exact(ours: float | None, theirs: float | None) -> bool:
    return ours is None or theirs is None or ours <= ERROR_LIMIT * theirs


def _table(case: Case, rows: Sequence[Row], caption: str) -> Table:
    """The rows as they are printed; the gradient's column only where there is one."""
    gradient = case.mode != "forward"
    columns = ["library", "version", "ms", "quartiles", "ratio", "counts", "bar", "rms error"]
    columns += ["gradient error"] * gradient + ["steps", "calls", "first call s"]
    cells = []
    for row in rows:
        if row.seconds is None:
            cells.append([row.label, "not installed", *[None] * (len(columns) - 2)])
            continue
        assert row.low is not None and row.high is not None and row.ratio is not None and row.error is not None
        line = [row.label, row.version, f"{1e3 * row.seconds:.2f}", f"{1e3 * row.low:.2f}-{1e3 * row.high:.2f}"]
        bar = None if row.bar is None else f"{row.bar:g} {'met' if row.met else 'missed'}"
        line += [f"{row.ratio:.2f}", "yes" if row.counts else "no", bar, f"{row.error:.1e}"]
        line += [f"{row.gradient_error:.1e}"] * gradient if row.gradient_error is not None else []
        first = None if row.compile_seconds is None else f"{row.compile_seconds:.1f}"
        cells.append([*line, row.steps, row.evaluations, first])
    return table(case.title, columns, cells, caption)
