"""Workloads are data, failures are rows, and a ratio is only what it says it is."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciode.bench import engines, measuring, scaling, workloads
from sciode.bench.anatomy import Anatomy, anatomies
from sciode.bench.contestants import Answer, Contestant, Peer
from sciode.bench.diffrax_peers import prepare_diffrax, prepare_tuned_diffrax
from sciode.bench.engines import Row, Verdict, judge, main, measure
from sciode.bench.measuring import start, take_turns
from sciode.bench.problems import lorenz, neural_ode, van_der_pol
from sciode.bench.reference import errors, reference
from sciode.bench.scaling import AXES
from sciode.bench.stochastic import SDE_PEERS, law_distance, neural_sde, same_paths
from sciode.bench.timing import interleaved
from sciode.bench.workloads import BEST, ODE_PEERS, OURS, WORKLOADS, Bar, Workload, lineup
from sciode.cli import MISUSE
from sciode.cli import main as cli
from sciode.solvers.engines import ENGINES, choice

if find_spec("jax") is not None:
    # Draws from NumPy's global stream when first imported (jax._src.clusters.k8s_cluster): here, before any test.
    importlib.import_module("jax")

NEURAL = partial(neural_ode, batch=3, dim=2, hidden=4, outputs=3, dtype=torch.float64)
PATHS = partial(neural_sde, batch=200, dim=2, hidden=4, steps=20, outputs=3)
NOBODY = Peer("no_such_library", ODE_PEERS["eager"].prepare)


def workload(*contestants: str, bars: tuple[Bar, ...] = (), mode: str = "forward", problem: Any = NEURAL) -> Workload:
    return Workload("tiny", "cpu", problem, mode, contestants, bars, repeats=2)


def named(**contestants: Callable[[Any, str], Contestant] | Peer) -> dict[str, Peer]:
    return {name: p if isinstance(p, Peer) else Peer("torch", p) for name, p in contestants.items()}


@pytest.fixture
def also(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """More contestants at ODEs, for one test."""

    def enlist(**contestants: Any) -> None:
        for name, peer in named(**contestants).items():
            monkeypatch.setitem(workloads.ODE_PEERS, name, peer)

    return enlist


def failing(problem: Any, mode: str) -> Contestant:
    def call() -> None:
        raise MemoryError("out of memory:\nno card is that large")

    return Contestant(call, lambda found: Answer(np.zeros(1), (), None))


@pytest.mark.parametrize("case", WORKLOADS, ids=lambda case: f"{case.name} {case.mode}")
def test_workloads_name_contestants_that_exist(case: Workload) -> None:
    problem = lorenz(batch=2) if case.problem is lorenz else case.problem()
    known = lineup(problem)
    assert set(case.contestants) <= set(known)
    assert len(set(case.contestants)) == len(case.contestants)
    assert case.device in ("cpu", "cuda") and case.mode in ("forward", "backward") and case.bars
    libraries = {known[name].library for name in case.contestants}
    for bar in case.bars:
        assert bar.ours in case.contestants and bar.ours in OURS and bar.limits
        for peer, factor in (*bar.limits, *bar.memory):
            assert peer in {*case.contestants, *libraries, BEST, "states + outputs"} and factor > 0


def test_the_plan_is_covered_and_names_are_unique() -> None:
    names = [case.name for case in WORKLOADS]
    assert len(set(names)) == len(names)
    assert sum(len(case.bars) for case in WORKLOADS if case.device == "cuda") == 18
    assert sum(len(case.bars) for case in WORKLOADS if case.device == "cpu") == 3


def test_our_contestants_are_engines_and_adjoints() -> None:
    for name in OURS:
        engine, *adjoint = name.split()
        assert engine in (*ENGINES, "kernel") and adjoint in ([], ["direct"], ["recompute"])
        assert name in {**ODE_PEERS, **SDE_PEERS}


def test_a_missing_library_and_a_failing_contestant_are_rows_and_stop_nobody(also: Callable[..., None]) -> None:
    also(absent=NOBODY, failing=failing)
    rows, _ = measure(workload("eager", "absent", "failing", "torchdiffeq"), "cpu", warmup=0)
    assert [row.note for row in rows] == [None, "not installed", "failed: MemoryError: out of memory:", None]
    assert [row.seconds is not None for row in rows] == [True, False, False, True]
    assert all(row.error is not None and row.error < 1e-3 for row in rows if row.seconds)


def test_who_fails_while_being_timed_has_no_time(also: Callable[..., None]) -> None:
    calls = iter([np.zeros((3, 3, 2))])
    also(once=lambda problem, mode: Contestant(lambda: next(calls), lambda ys: Answer(ys, (), 1)))
    rows, _ = measure(workload("eager", "once"), "cpu", warmup=0)
    assert rows[1].seconds is None and rows[1].first_call is not None
    assert rows[1].note == "failed: StopIteration" and rows[0].seconds


def test_an_engine_that_falls_back_is_not_timed_as_itself() -> None:
    choice._past.clear()
    rows, verdicts = measure(
        workload("graph", "eager", "torchdiffeq", bars=(Bar("graph", "<= 1", (("torchdiffeq", 1.0),)),)), "cpu", 0
    )
    assert rows[0].seconds is None and rows[0].error is None
    assert rows[0].note is not None
    assert rows[0].note.startswith("n/a: fell back on eager: engine: the graph engine cannot run this")
    assert verdicts == [Verdict("tiny", "graph", "time", "torchdiffeq", 1.0, "torchdiffeq")]


def test_an_engine_that_falls_back_later_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # A stand-in for an engine: eager under the name "compiled", which from its second solve on says "eager".
    real, solves = importlib.import_module("sciode.bench.peers").solve, iter(["compiled"])

    def stub(*arguments: Any, engine: str, **options: Any) -> Any:
        found = real(*arguments, engine="eager", **options)
        return replace(found, stats=replace(found.stats, engine=next(solves, "eager")))

    monkeypatch.setattr("sciode.bench.peers.solve", stub)
    rows, _ = measure(workload("compiled"), "cpu", warmup=0)
    assert rows[0].seconds is None and rows[0].note == "n/a: fell back on eager"


def test_an_engine_that_does_not_exist_yet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "ENGINES", ("auto", "eager"))
    found = start("kernel", ODE_PEERS["kernel"], NEURAL(), "forward", lambda answer: None)
    assert found.note == "n/a: no engine is called 'kernel'" and found.contestant is None


def test_a_contestant_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="nobody is called 'eagr'"):
        measure(workload("eagr"), "cpu")


def test_gradients_are_compared_too() -> None:
    rows, _ = measure(workload("eager", "torchdiffeq", "torchdiffeq adjoint", "field", mode="backward"), "cpu", 0)
    assert all(row.gradient_error is not None and row.gradient_error < 1e-3 for row in rows[:3])
    assert rows[3].seconds is not None and rows[3].error is None, "the bare field solves nothing"


def test_errors_are_taken_where_they_are_still_errors() -> None:
    problem = lorenz(batch=3, outputs=11, end=4.0)
    exact = reference(problem, "forward")
    assert exact.ys.shape == (6, 3, 3)
    wild = Answer(np.concatenate([exact.ys, np.full((5, 3, 3), 1e9)]), (), None)
    assert errors(wild, exact)["error_max"] == 0


def test_a_reference_in_parts_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference(NEURAL(), "backward")
    monkeypatch.setattr("sciode.bench.reference._SAMPLES", 2)
    parts = reference(NEURAL(), "backward")
    for one, other in zip((whole.ys, *whole.gradients), (parts.ys, *parts.gradients), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-7, atol=1e-7)


def row(contestant: str, library: str = "sciode", seconds: float | None = 1.0, **more: Any) -> Row:
    spread = {} if seconds is None else {"low": 0.99 * seconds, "high": 1.01 * seconds}
    return Row("tiny", "forward", contestant, library, "1", seconds, **{**spread, **more})


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio", "counts", "met"),
    [
        ({}, {"seconds": 2.0}, 0.5, True, True),
        ({}, {"seconds": 1.25}, 0.8, True, False),
        ({"error": 1.4}, {"seconds": 2.0, "error": 1.0}, 0.5, True, True),
        ({"error": 1.6}, {"seconds": 2.0, "error": 1.0}, 0.5, False, False),
        ({"gradient_error": 1.6}, {"seconds": 2.0, "gradient_error": 1.0}, 0.5, False, False),
        ({}, {"seconds": 2.0, "law": 5.0}, 0.5, False, False),
        ({"high": 1.5}, {"seconds": 2.0}, 0.5, True, None),
        ({"seconds": None}, {"seconds": 2.0}, None, None, None),
        ({}, {"seconds": None}, None, None, None),
    ],
)
def test_a_ratio_counts_by_the_rules(ours: Any, theirs: Any, ratio: Any, counts: Any, met: Any) -> None:
    case = workload("graph", "diffrax", bars=(Bar("graph", "<= 0.6 of diffrax", (("diffrax", 0.6),)),))
    (verdict,) = judge(case, [row("graph", **ours), row("diffrax", "diffrax", **theirs)], 1)
    assert (verdict.ratio, verdict.counts, verdict.met) == (ratio, counts, met)
    said = engines._reached(verdict)
    assert ("no number" in said) == (ratio is None)
    assert ("(0.5)" in said) == (counts is False and ratio == 0.5)


def test_a_peer_is_a_contestant_a_library_or_the_best() -> None:
    rows = [
        row("graph"),
        row("graph direct", seconds=0.1),
        row("field", "torch", seconds=0.2),
        row("diffrax direct", "diffrax", seconds=3.0, memory=600),
        row("diffrax recursive", "diffrax", seconds=2.0, memory=400),
        row("torchdiffeq", "torchdiffeq", seconds=1.5, memory=300),
    ]
    limits = (("diffrax", 1.0), ("diffrax direct", 1.0), (BEST, 1.0), ("field", 1.0))
    memory = ((BEST, 0.5), ("states + outputs", 2.0))
    case = workload("graph", bars=(Bar("graph", "all of them", limits, memory),))
    rows[0] = replace(rows[0], memory=120)
    found = judge(case, rows, least_bytes=50)
    assert [v.against for v in found] == [
        "diffrax recursive", "diffrax direct", "torchdiffeq", "field", "torchdiffeq", "states + outputs",
    ]  # fmt: skip
    assert [v.ratio for v in found[4:]] == [0.4, 2.4] and [v.met for v in found[4:]] == [True, False]


def test_impatience_drops_who_is_slow_after_three_turns() -> None:
    counts = {"slow": 0, "quick": 0}

    def call(name: str) -> None:
        counts[name] += 1

    calls = {name: partial(call, name) for name in counts}
    interleaved(calls, repeats=7, warmup=0, patience=0.0)
    assert counts == {"slow": 3, "quick": 3}
    interleaved(calls, repeats=7, warmup=0)
    assert counts == {"slow": 10, "quick": 10}


def test_diffrax_finds_the_bound_that_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffrax")
    # Told that one step will do, it is taught better by the first call.
    monkeypatch.setattr("sciode.bench.diffrax_peers._steps", lambda problem: 1)
    monkeypatch.setattr("sciode.bench.diffrax_peers._BOUNDS", (2, 256))
    contestant = prepare_tuned_diffrax(NEURAL(), "forward")
    answer = contestant.read(contestant.call())
    assert answer.steps is not None and 2 < answer.steps <= 256
    error = errors(answer, reference(NEURAL(), "forward"))["error"]
    assert error is not None and error < 1e-3


def test_a_batch_in_pieces_is_the_batch() -> None:
    pytest.importorskip("diffrax")
    problem = van_der_pol(batch=4, outputs=3, end=0.5)
    whole, pieces = (prepare_diffrax(problem, "forward", pieces=count) for count in (1, 2))
    np.testing.assert_allclose(pieces.read(pieces.call()).ys, whole.read(whole.call()).ys, rtol=1e-10)


@pytest.mark.parametrize("method", ["euler", "reversibleheun"])
def test_every_library_draws_the_law_of_the_sde(method: str) -> None:
    problem = PATHS(method=method)
    exact = same_paths(problem, "forward")
    for name in ("eager", "diffrax unsafe", "diffrax tree", "scan", "torchsde"):
        peer = SDE_PEERS[name]
        if peer.version is None:
            continue
        contestant = peer.prepare(problem, "forward")
        answer = contestant.read(contestant.call())
        assert answer.ys.shape == (3, 200, 2)
        assert law_distance(answer, exact) < 3.0, name
        assert answer.ys[-1].std(0) == pytest.approx(exact.ys[-1].std(0), rel=0.25)
    shifted = replace(exact, ys=exact.ys + 0.2)
    assert law_distance(shifted, exact) > 3.0


def test_an_engines_own_paths_are_compared_path_by_path() -> None:
    rows, _ = measure(workload("eager", "torchsde", problem=PATHS, mode="backward"), "cpu", warmup=0)
    ours, theirs = rows
    assert ours.error is not None and 0 < ours.error < 1e-5 and ours.law is not None and ours.law < 1e-3
    assert ours.gradient_error is not None and ours.gradient_error < 1e-5
    assert theirs.error is None and theirs.law is not None and theirs.gradient_error is None


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small workloads in the place of the real ones."""
    bar = Bar("eager", "<= 100 of torchdiffeq", (("torchdiffeq", 100.0),))
    first = workload("eager", "graph", "torchdiffeq", bars=(bar,))
    others = (replace(first, name="other", contestants=("eager",)), replace(first, name="on a card", device="cuda"))
    monkeypatch.setattr(engines, "WORKLOADS", (first, *others))


@pytest.mark.usefixtures("tiny")
def test_what_is_printed_is_written_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(out=tmp_path / "new", device="cpu", profile=True) == 0
    record = json.loads((tmp_path / "new" / "engines.json").read_text())
    assert set(record) == {"machine", "rows", "verdicts", "profile", "scaling"}
    assert {"card", "processor", "libraries", "torch", "date"} <= set(record["machine"])
    assert [(r["workload"], r["contestant"]) for r in record["rows"]] == [
        ("tiny", "eager"), ("tiny", "graph"), ("tiny", "torchdiffeq"), ("other", "eager"),
    ]  # fmt: skip
    assert all(asdict(Row(**r)) == r and set(r) == {f.name for f in fields(Row)} for r in record["rows"])
    assert all(asdict(Verdict(**v)) == v for v in record["verdicts"])
    assert [Anatomy(**a).contestant for a in record["profile"]] == ["eager", "eager"]
    shown = capsys.readouterr().out
    assert "<= 100 of torchdiffeq" in shown and "fell back" in shown and "field's share" in shown


@pytest.mark.usefixtures("tiny")
def test_only_selects_by_name(tmp_path: Path) -> None:
    assert main(out=tmp_path, device="cpu", only="OTH") == 0
    record = json.loads((tmp_path / "engines.json").read_text())
    assert {r["workload"] for r in record["rows"]} == {"other"}
    with pytest.raises(ValueError, match="tiny, other"):
        main(device="cpu", only="Lorenz")


def test_the_command_line_hands_its_options_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: None, tmp_path: Path
) -> None:
    # Under pytest alone, tyro's cache checks itself at random, with Python's global stream.
    state = random.getstate()
    try:
        assert cli(["bench", "engines", "--device", "cpu", "--only", "other", "--out", str(tmp_path)]) == 0
        assert (tmp_path / "engines.json").exists()
        assert cli(["bench", "solvers", "--only", "other"]) == MISUSE
        assert "bench solvers has no --only" in capsys.readouterr().err
        assert cli(["bench", "engines", "--device", "tpu"]) == MISUSE
    finally:
        random.setstate(state)


def test_a_profile_on_a_cpu_is_the_fields_share() -> None:
    (found,) = anatomies(workload("eager", "torchdiffeq"), "cpu")
    assert found.contestant == "eager" and found.kernels is None
    assert found.field_share is not None and 0 < found.field_share < 1
    assert "field's share" in str(found)


def test_curves_have_points_and_a_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [axis.name for axis in AXES] == ["batch", "dim", "tolerance", "steps"]
    assert all(axis.cpu_end in axis.values and axis.on("cuda") == axis.values for axis in AXES)
    small = replace(AXES[0], values=(1, 2, 3), cpu_end=2, contestants={"cpu": ("eager", "graph")})
    monkeypatch.setattr(scaling, "AXES", (small,))
    points = [point for points in scaling.curves("cpu", repeats=1) for point in points]
    assert [(p["value"], p["contestant"], p["seconds"] is not None) for p in points] == [
        (1, "eager", True), (1, "graph", False), (2, "eager", True), (2, "graph", False),
    ]  # fmt: skip
    assert json.loads(json.dumps(points)) == points
    with pytest.raises(ValueError, match="batch"):
        list(scaling.curves("cpu", only="width"))
    if find_spec("matplotlib") is not None:
        picture = scaling.draw(points, tmp_path)
        assert picture is not None and picture.stat().st_size > 1000


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_every_axis_makes_problems(axis: scaling.Axis) -> None:
    problem = axis.problem(axis.values[0])
    assert problem.bound(problem.ts[0], problem.y0).shape == problem.y0.shape
    if axis.name == "steps":
        found = start("eager", ODE_PEERS["eager"], problem, "forward", lambda answer: None)
        assert found.steps == axis.values[0]


def test_taking_turns_without_anybody_is_no_time() -> None:
    assert take_turns([], repeats=1) == ({}, {})
