"""A run on the disk: an interrupted one goes on where it was, to the same numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sciode.pinn.solution import Moment
from sciode.pinn.training import Run
from sciode.training import load_checkpoint, save_checkpoint
from sciode.training.checkpoint import flatten, unflatten

__all__ = ["Bar", "Clock", "Kept", "bar"]

_FILE, _SECONDS, _ASKED = "pinn.safetensors", 20.0, 16
"""Written at the end of a stage, and within one so often; after so many iterations ranks ask the first one for it."""
_DIGITS = 11
"""Hexadecimal digits of a hash, so few that the sum over 512 ranks is exact in float64."""


@final
@dataclass
class Clock:
    """Seconds since it was started: of this process on a CPU, for others may share it; of the wall elsewhere."""

    limit: float
    device: str = "cpu"
    began: float = 0.0

    def start(self, spent: float = 0.0) -> None:
        """Begin, with these seconds spent before an interruption."""
        self.began = self._now() - spent

    def spent(self) -> float:
        """Seconds."""
        return self._now() - self.began

    def over(self) -> bool:
        """Whether the limit is passed."""
        return self.spent() >= self.limit

    def _now(self) -> float:
        return time.process_time() if self.device == "cpu" else time.perf_counter()


@final
@dataclass
class Kept:
    """How far a run is: its stage, the iteration within, the minimiser's memory there, how stages ended and what they
    took; spent: seconds of the stage that was interrupted.
    """

    identity: Mapping[str, Any]
    path: Path | None = None
    stage: int = 0
    iteration: int = 0
    memory: dict[str, Tensor] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    spent: float = 0.0
    written: float = field(default_factory=time.monotonic)

    @classmethod
    def opened(cls, folder: str | Path | None, identity: Mapping[str, Any], run: Run) -> Kept:
        """What a folder holds, put into the run. ValueError if that is another run's, or ranks were told otherwise."""
        if run.share is not None:
            identity = {**identity, "share": f"{type(run.share).__name__} over {run.share.size}"}
            told = int(sha256(f"{folder is None} {identity}".encode()).hexdigest()[:_DIGITS], 16)
            if float(run.share.summed(run.theta.new_full((), told, dtype=torch.float64))) != run.share.size * told:
                raise ValueError("share: ranks were given different arguments, or some a folder and some none")
        if folder is None:
            return cls(identity)
        path = Path(folder) / _FILE
        if not path.is_file():
            return cls(identity, path)
        tensors, record = load_checkpoint(path)
        if differs := [name for name, value in identity.items() if record["identity"].get(name) != value]:
            raise ValueError(f"folder: {path} holds a run that differs in {', '.join(differs)}: give another folder")
        run.theta = tensors["theta"].to(run.theta.device)
        run.inside = tensors.get("inside")
        if run.inside is not None and run.share is not None and not run.share.same:
            run.inside = run.inside[run.share.rank]
        run.memory = {name: value.to(run.theta.device) for name, value in unflatten("balance", tensors).items()}
        run.go_on([Moment(*entry) for entry in record["history"]])
        run.faults = {int(arm): said for arm, said in record["faults"].items()}
        memory = {name: value.to(run.theta.device) for name, value in unflatten("memory", tensors).items()}
        far = (record["stage"], record["iteration"], memory, record["states"], record["seconds"], record["spent"])
        return cls(identity, path, *far)

    def passed(self, run: Run, stage: int, iteration: int, memory: Mapping[str, Tensor], spent: float) -> None:
        """An iteration is over; now and then it is written down."""
        if self.path is not None and self._due(run, iteration):
            self.stage, self.iteration, self.memory, self.spent = stage, iteration, dict(memory), spent
            self._save(run)

    def ended(self, run: Run, stage: int, states: list[str], seconds: float) -> None:
        """A stage is over."""
        self.stage, self.iteration, self.memory, self.spent = stage + 1, 0, {}, 0.0
        self.states = states
        self.seconds.append(seconds)
        if self.path is not None:
            self._save(run)

    def _due(self, run: Run, iteration: int) -> bool:
        """Whether it is time to write; ranks look at the first one's clock, now and then."""
        late = time.monotonic() - self.written >= _SECONDS
        if run.share is None:
            return late
        return iteration % _ASKED == 0 and bool(run.share.of_first(late, run.theta))

    def _save(self, run: Run) -> None:
        """All that ranks do not share is brought to the first, which writes."""
        assert self.path is not None
        self.written = time.monotonic()
        tensors = {"theta": run.theta, **flatten("memory", self.memory), **flatten("balance", run.memory)}
        if run.inside is not None:
            apart = run.share if run.share is not None and not run.share.same else None
            tensors["inside"] = run.inside if apart is None else apart.gathered(run.inside, run.theta)
        if run.share is not None and run.share.rank:
            return
        record = {
            "identity": dict(self.identity),
            "stage": self.stage,
            "iteration": self.iteration,
            "states": self.states,
            "seconds": self.seconds,
            "spent": self.spent,
            "faults": {str(arm): said for arm, said in run.faults.items()},
            "history": [list(entry) for entry in run.history],
        }
        # Copies: some are one tensor under two names, which the format refuses.
        save_checkpoint(self.path, {name: value.clone() for name, value in tensors.items()}, record)


class Bar(NamedTuple):
    """Of a stage: tick() after each iteration, tell(losses) when they were looked at."""

    tick: Callable[[], None]
    tell: Callable[[Sequence[float]], None]


@contextmanager
def bar(iterations: int, said: str, wanted: bool) -> Iterator[Bar]:
    """A bar over a stage's iterations with the least loss of an arm, where one is wanted and a terminal shows it."""
    if not wanted:
        yield Bar(lambda: None, lambda losses: None)
        return
    from tqdm.auto import tqdm

    with tqdm(total=iterations, desc=said, leave=False, disable=None) as shown:

        def tell(losses: Sequence[float]) -> None:
            shown.set_postfix_str(f"loss {min((one for one in losses if one == one), default=math.nan):.2e}", False)

        yield Bar(lambda: (shown.update(), None)[1], tell)
