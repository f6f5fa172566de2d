"""Seconds in the history: those of training, through interruptions, without those of looking at the error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sciode.pde import Box
from sciode.pinn import Face, Names, Network, Numbers, Problem, dirichlet, progress, solve, training
from sciode.training import LBFGS, Adam, Stopwatch


def ramp() -> Problem:
    """u' = 1 on [0, 1] from u(0) = 0."""
    told = dirichlet(Face("x", -1), lambda x: 0 * x, name="start")
    return Problem("ramp", Names(("x",), ("u",)), Box(0, 1), lambda d, p: d.u_x - 1, (told,), exact=lambda x: x)


@pytest.mark.parametrize("stage", [Adam(4, lr=1e-2), LBFGS(4)])
def test_the_history_tells_seconds_of_training_without_those_of_looking(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 1 s, a look at the error 100 s, by a clock that is made up."""
    now, step, error = [0.0], type(stage).step, training.relative_error
    monkeypatch.setattr(Stopwatch, "_now", lambda self: now[0])

    def stepped(self: Any, memory: Any, objective: Any, k: int) -> Any:
        now[0] += 1.0
        return step(self, memory, objective, k)

    def looked(*given: Any) -> Any:
        now[0] += 100.0
        return error(*given)

    monkeypatch.setattr(type(stage), "step", stepped)
    monkeypatch.setattr(training, "relative_error", looked)
    found = solve(ramp(), network=Network(4, 1), numbers=Numbers(16, 4, 4), stages=[stage], log=1)
    assert [entry.seconds for entry in found.history] == [1.0, 2.0, 3.0, 4.0, 4.0]


def test_seconds_of_an_interrupted_run_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    step, stops = Adam.step, [7]

    def stopping(self: Adam, memory: Any, objective: Any, k: int) -> Any:
        if k in stops:
            raise KeyboardInterrupt
        return step(self, memory, objective, k)

    monkeypatch.setattr(Adam, "step", stopping)
    same: dict[str, Any] = {
        "network": Network(4, 1),
        "numbers": Numbers(16, 4, 4),
        "stages": [Adam(10)],
        "folder": tmp_path,
        "log": 1,
    }
    with pytest.raises(KeyboardInterrupt):
        solve(ramp(), **same)
    stops.clear()
    seconds = [entry.seconds for entry in solve(ramp(), **same).history]
    assert len(seconds) == 11 and seconds == sorted(seconds)
