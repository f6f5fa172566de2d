"""The libraries agree on tiny problems, a table says so, and a library that is missing is said to be."""

from __future__ import annotations

import importlib
import json
import pkgutil
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from sciode import bench
from sciode.bench import BENCHMARKS, solvers
from sciode.bench.contestants import Peer
from sciode.bench.peers import PEERS, count_calls
from sciode.bench.problems import neural_ode, van_der_pol
from sciode.bench.reference import as_exact, reference
from sciode.bench.solvers import Case, Row, main, measure
from sciode.bench.timing import Timing

if find_spec("jax") is not None:
    # Draws from NumPy's global stream when first imported (jax._src.clusters.k8s_cluster): here, before any test.
    importlib.import_module("jax")

TINY = neural_ode(batch=3, dim=2, hidden=4, outputs=3, dtype=torch.float64)
OSCILLATORS = van_der_pol(batch=3, outputs=4, end=1.0)
INSTALLED = [peer for peer in PEERS if peer.version is not None]
EAGER, TORCHDIFFEQ = PEERS[1], next(peer for peer in PEERS if peer.library == "torchdiffeq")


@pytest.mark.parametrize("peer", INSTALLED, ids=lambda peer: f"{peer.library} {peer.joint}")
def test_every_library_solves_the_same_problems(peer: Peer) -> None:
    for problem, mode in ((TINY, "backward"), (OSCILLATORS, "forward")):
        contestant = peer.prepare(problem, mode)
        answer, exact = contestant.read(contestant.call()), reference(problem, mode)
        # 1e-5 a step, some twenty steps, and neighbouring solutions that part by a factor of ten at most.
        np.testing.assert_allclose(answer.ys, exact.ys, rtol=0, atol=2e-3)
        assert len(answer.gradients) == (5 if mode == "backward" else 0)
        for ours, true in zip(answer.gradients, exact.gradients, strict=True):
            assert np.linalg.norm(ours - true) < 1e-2 * np.linalg.norm(true)


def test_the_reference_gradient_is_the_derivative_of_the_loss() -> None:
    exact, eps = reference(TINY, "backward"), 1e-5
    bump = torch.zeros_like(TINY.y0)
    bump[1, 0] = eps
    up, down = (reference(replace(TINY, y0=TINY.y0 + sign * bump), "forward").ys for sign in (1, -1))
    slope = ((up**2).sum() - (down**2).sum()) / (2 * eps)
    assert exact.gradients[0][1, 0] == pytest.approx(slope, rel=1e-6)


def test_the_count_of_calls_is_what_our_solver_reports() -> None:
    # A coupled batch: for separate samples `solve` also probes once that they are independent, and Stats.calls leaves
    # that probe out; the benchmark counts it, as it is timed.
    out, _ = EAGER.prepare(TINY, "forward").call()
    assert [count_calls(ours, TINY, "forward") for ours in PEERS[:2]] == [out.stats.calls] * 2


def test_a_gradient_gives_torchdiffeqs_adjoint_a_row_without_a_bar() -> None:
    rows = measure(Case(TINY, "backward", repeats=1, bar=2.5), (EAGER, TORCHDIFFEQ), warmup=0)
    assert [(row.library, row.mode, row.bar) for row in rows] == [
        ("sciode", "backward", None),
        ("torchdiffeq", "backward", 2.5),
        ("torchdiffeq", "adjoint", None),
    ]
    ours = rows[0]
    assert (ours.ratio, ours.counts) == (1.0, True)
    for row in rows:
        assert row.error and row.gradient_error and row.evaluations
        assert row.seconds is not None and ours.seconds is not None
        assert row.ratio == pytest.approx(row.seconds / ours.seconds)


def test_a_ratio_counts_only_up_to_the_limit_of_error() -> None:
    assert as_exact(1.5, 1.0) and not as_exact(1.6, 1.0)
    assert as_exact(None, None)


def test_a_bar_is_judged_only_by_steady_timings() -> None:
    row = Row("p", "forward", "torchdiffeq", "joint", "1", counts=True)
    ours, slow = Timing(1.0, 0.95, 1.05), Timing(3.0, 2.9, 3.1)
    assert solvers._judge(row, 2.5, slow, ours).met is True
    assert solvers._judge(row, 3.5, slow, ours).met is False
    assert solvers._judge(replace(row, counts=False), 2.5, slow, ours).met is False
    for theirs, mine in ((Timing(3.0, 1.0, 9.0), ours), (slow, Timing(1.0, 0.6, 4.0))):
        assert solvers._judge(row, 2.5, theirs, mine).met is None


def test_a_missing_library_is_said_to_be_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    absent = replace(TORCHDIFFEQ, library="no_such_library")
    rows = measure(Case(OSCILLATORS, "forward", repeats=1, bar=3.0), (EAGER, absent), warmup=0)
    assert (rows[1].version, rows[1].seconds) == (None, None)
    solvers.show(solvers._table(Case(OSCILLATORS, "forward", 1, 3.0), rows, "here"))
    assert "not installed" in capsys.readouterr().out


def test_without_ourselves_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="installed"):
        measure(Case(OSCILLATORS, "forward", repeats=1, bar=3.0), ())


def test_main_prints_tables_and_writes_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (Case(TINY, "backward", 1, 2.5), Case(OSCILLATORS, "forward", 1, 3.0))
    monkeypatch.setattr(solvers, "cases", lambda: tiny)
    # That each library runs is tested above; here two of them, which compile nothing.
    monkeypatch.setattr(solvers, "measure", lambda case: measure(case, (EAGER, TORCHDIFFEQ), warmup=0))
    assert main(out=tmp_path / "new") == 0
    record = json.loads((tmp_path / "new" / "solvers.json").read_text())
    assert set(record) == {"machine", "rows"}
    assert {"processor", "cores", "torch_threads", "torch", "date"} <= set(record["machine"])
    assert [row["problem"] for row in record["rows"]] == ["neural_ode"] * 3 + ["van_der_pol"] * 2
    for row in record["rows"]:
        assert set(row) == {entry.name for entry in fields(Row)}
        assert asdict(Row(**row)) == row
    shown = capsys.readouterr().out
    assert all(peer.library in shown for peer in (EAGER, TORCHDIFFEQ))


def test_every_benchmark_named_has_a_main() -> None:
    modules = {m.name: importlib.import_module(f"sciode.bench.{m.name}") for m in pkgutil.iter_modules(bench.__path__)}
    assert sorted(BENCHMARKS) == sorted(name for name, module in modules.items() if hasattr(module, "main"))
    assert all(callable(modules[name].main) for name in BENCHMARKS)
