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

from rich.table import Table

from sciode.bench.contestants import Answer, Contestant, Peer
from sciode.bench.peers import PEERS, count_calls
from sciode.bench.problems import Problem, neural_ode, van_der_pol
from sciode.bench.reference import ERROR_LIMIT, Errors, as_exact, reference
from sciode.bench.reference import errors as error_of
from sciode.bench.timing import Timing, interleaved, machine
from sciode.lab.tables import show, table

__all__ = ["Case", "Row", "cases", "main", "measure"]


@dataclass(frozen=True)
class Case:
    """A problem, a mode ("forward", "backward"), how often to time it, the ratio to torchdiffeq we mean to reach."""

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
    mean to reach, met: whether it counts and is reached; None if either timing is unsteady, which proves nothing.
    """

    problem: str
    mode: str
    library: str
    how: str
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
        f"ratio: time over ours, in parentheses where it does not count (our error above {ERROR_LIMIT:g} times its). "
        "unsteady: quartiles too far apart to judge. compile s: the first call."
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
    """One row a peer, ours first; with a gradient, torchdiffeq's odeint_adjoint has a row of its own as well.

    Raises ValueError if the first of `peers` is not installed (ratios are against it).
    """
    if not peers or peers[0].version is None:
        raise ValueError("peers: the first one is what the others are compared with, and it must be installed")
    problem = case.problem
    wanted = [(peer, case.mode) for peer in peers]
    if case.mode == "backward":
        wanted += [(peer, "adjoint") for peer in peers if peer.library == "torchdiffeq"]
    present = [(peer, mode) for peer, mode in wanted if peer.version is not None]
    entries = {(peer, mode): _enter(problem, peer, mode) for peer, mode in present}
    timings = interleaved({key: entry.contestant.call for key, entry in entries.items()}, case.repeats, warmup)
    exact = reference(problem, case.mode)
    errors = {key: error_of(entry.answer, exact) for key, entry in entries.items()}
    ours = (peers[0], case.mode)
    rows = []
    for peer, mode in wanted:
        key = (peer, mode)
        row = Row(problem.name, mode, peer.library, peer.how(problem, mode), peer.version)
        if key in entries:
            row = _fill(row, entries[key], timings[key], timings[ours].median, errors[key], errors[ours])
            row = replace(row, evaluations=count_calls(peer, problem, mode))
        if key in entries and (peer.library, mode) == ("torchdiffeq", case.mode):
            row = _judge(row, case.bar, timings[key], timings[ours])
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
        counts=as_exact(ours["error"], theirs["error"]) and as_exact(ours["gradient_error"], theirs["gradient_error"]),
    )


def _judge(row: Row, bar: float, theirs: Timing, ours: Timing) -> Row:
    """Hold a row to the bar, unless the machine was too busy to say."""
    if not (theirs.steady and ours.steady):
        return replace(row, bar=bar, met=None)
    return replace(row, bar=bar, met=bool(row.counts) and theirs.median / ours.median >= bar)


def _table(case: Case, rows: Sequence[Row], caption: str) -> Table:
    """The rows as they are printed; the gradient's column only where there is one."""
    gradient = case.mode != "forward"
    columns = ["library", "batch", "ms", "ratio", "bar", "rms error", *["grad error"] * gradient]
    columns += ["steps", "calls", "compile s"]
    cells = []
    for row in rows:
        if row.seconds is None:
            cells.append([row.library, "not installed", *[None] * (len(columns) - 2)])
            continue
        ratio = f"{row.ratio:.2f}" if row.counts else f"({row.ratio:.2f})"
        verdict = {True: "met", False: "missed", None: "unsteady"}[row.met]
        bar = None if row.bar is None else f"{row.bar:g} {verdict}"
        errors = [f"{error:.1e}" for error in (row.error, row.gradient_error) if error is not None]
        numbers = [f"{1e3 * row.seconds:.2f}", ratio, bar, *errors]
        compiling = None if row.compile_seconds is None else f"{row.compile_seconds:.1f}"
        cells.append([f"{row.library} {row.version}", row.how, *numbers, row.steps, row.evaluations, compiling])
    return table(case.title, columns, cells, caption)
