"""Repeating a graph turn by turn: the host launches a compiled turn, and looks at its word as seldom as it can."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from .lift import CannotCompile, compiler_error
from .repeat import Part, Spare, Use, beginning
from .tuning import compiled

__all__ = ["Launches", "StepByStep"]

_LONGEST = 32
"""Most turns between two looks, beyond what was expected."""
_LONG = 3e-4
"""Seconds of a turn from which on a look after every turn costs less than turns too many."""


class _Past(NamedTuple):
    """How many turns the last loop took, how many before it took as many, and whether its turns were long."""

    turns: int
    alike: int
    long: bool


_NEW = _Past(0, 0, False)
_STEADY = 2
"""Loops alike after which the next one is taken to be like them."""


class Launches(ABC):
    """A loop whose turns the host launches, many between two looks: as many as the last solve of this kind took.

    uses: what a turn does with each of the other tensors; first: what makes the first state, if the loop does so
    itself; spare: what of the state need not come out.
    """

    def __init__(self, uses: list[Use], first: Part | None, spare: Spare | None) -> None:
        self.uses, self.first, self.spare = uses, first, spare
        self.past: dict[int, _Past] = {}
        self.host = torch.zeros(0)
        self.asked: Any = None

    def __call__(
        self, others: list[Tensor], state: list[Tensor] | None, nth: int, turns: int | None
    ) -> tuple[list[Tensor], list[int]]:
        """The state at the end, and its word."""
        try:
            self.load(others, state)
            if turns is None:
                return self._watched(others, state, nth)
            return self._counted(others, state, nth, turns), []
        finally:
            self.forget()

    def _counted(self, others: list[Tensor], state: list[Tensor] | None, nth: int, turns: int) -> list[Tensor]:
        """So many turns, which nobody waits for."""
        past = self.past.get(nth, _NEW)
        alike = past.alike + 1 if turns == past.turns else 0
        self.past[nth] = _Past(turns, alike, False)
        self.begin(state is None, turns, alike >= _STEADY)
        return self.unload(others, False)

    def _watched(self, others: list[Tensor], state: list[Tensor] | None, nth: int) -> tuple[list[Tensor], list[int]]:
        """Turns until the word says stop: as many as the last time, and more while they are needed."""
        began = time.monotonic()
        past = self.past.get(nth, _NEW)
        # A turn less where turns are long, unless their number stays: better one look more than a turn in vain.
        steady = past.alike >= _STEADY
        ahead = past.turns if steady else max(past.turns - past.long, 0)
        self.begin(state is None, ahead, steady)
        word, turns, found = [1], 0, None
        if ahead or state is None:
            self.ask()
            # What is most likely the end is put away while the device is still at work on it.
            found = self.unload(others, False) if steady else None
            word, turns = self.answer()
        k = 1 if past.long else max(ahead // 8, 1)
        while word[0]:
            found = None
            self.play(k)
            self.ask()
            word, turns = self.answer()
            k = 1 if past.long else min(2 * k, _LONGEST)
        same = turns == past.turns
        long = same and time.monotonic() - began > _LONG * max(turns, 1)
        self.past[nth] = _Past(turns, past.alike + 1 if same else 0, long)
        spare = self.spare is not None and bool(word[self.spare.flag])
        return found if found is not None and not spare else self.unload(others, spare), word

    def begin(self, fresh: bool, turns: int, steady: bool) -> None:
        """Launch the first state, if it is to be made, and so many turns; steady: as many as the last few times."""
        if fresh:
            self.start()
        self.play(turns)

    def ask(self) -> None:
        """Send for the word: what is launched later does not keep it waiting."""
        report = self.report()
        if not report.is_cuda:
            self.host = report
            return
        if self.asked is None:
            with torch.inference_mode(False):
                self.host = torch.zeros(report.shape, dtype=torch.int64, pin_memory=True)
            self.asked = torch.cuda.Event()
        self.host.copy_(report, non_blocking=True)
        self.asked.record()

    def answer(self) -> tuple[list[int], int]:
        """Wait for what was asked: the word, and how many turns were not in vain."""
        if self.asked is not None:
            self.asked.synchronize()
        *word, turns = self.host.tolist()
        return word, turns

    @abstractmethod
    def load(self, others: list[Tensor], state: list[Tensor] | None) -> None:
        """Make ready for this solve's tensors."""

    @abstractmethod
    def start(self) -> None:
        """Launch what makes the first state."""

    @abstractmethod
    def play(self, turns: int) -> None:
        """Launch so many turns; those after the last one change nothing."""

    @abstractmethod
    def report(self) -> Tensor:
        """The word, and after it how many turns were not in vain."""

    @abstractmethod
    def forget(self) -> None:
        """Let go of what is the caller's, however the loop ended."""

    @abstractmethod
    def unload(self, others: list[Tensor], spare: bool) -> list[Tensor]:
        """The state, for the caller to keep, and in `others` what was written; spare: what is spare, too."""


@final
class StepByStep(Launches):
    """The compiled turn on this solve's own tensors: nothing is copied, so nothing is held twice.

    flops: of a turn, if that is known (see `tuning`).
    """

    def __init__(
        self, once: Part, uses: list[Use], first: Part | None, spare: Spare | None = None, flops: float = 0.0
    ) -> None:
        super().__init__(uses, first, spare)
        self.others: list[Tensor] = []
        self.state: list[Tensor] = []
        self.said = torch.zeros(0)
        self._turn = compiled(after(once), flops)
        self._start = compiled(lambda others: beginning(first, others), flops)

    def load(self, others: list[Tensor], state: list[Tensor] | None) -> None:
        """Begin from a state, or from none."""
        self.others = others
        if state is not None:
            self._begin(state)

    def _begin(self, state: list[Tensor]) -> None:
        self.state = state
        self.said = torch.cat((state[-1], torch.zeros_like(state[-1][:1])))

    def start(self) -> None:
        """Make the first state."""
        self._begin(launched(self._start, self.others))

    def play(self, turns: int) -> None:
        """One turn after another; on a CPU none in vain."""
        for _ in range(turns):
            if not self.said.is_cuda and not bool(self.said[0]):
                return
            self.state, self.said = launched(self._turn, self.state, self.others, self.said)

    def report(self) -> Tensor:
        """Of the last turn."""
        return self.said

    def unload(self, others: list[Tensor], spare: bool) -> list[Tensor]:
        """The state is fresh, and what was written is where it should be."""
        return self.state

    def forget(self) -> None:
        """The tensors of one solve are no business of the next."""
        self.state, self.others = [], []


def after(once: Part) -> Any:
    """turn(state, others, said) -> (state, said): a turn too many changes nothing."""

    def turn(state: list[Tensor], others: list[Tensor], said: Tensor) -> tuple[list[Tensor], Tensor]:
        going = state[-1][0] > 0
        new = [torch.where(going, a, b) for a, b in zip(once(state, others), state, strict=True)]
        return new, torch.cat((new[-1], said[-1:] + going))

    return turn


def launched(part: Any, *tensors: Any) -> Any:
    """Call what was compiled; CannotCompile if it could not be."""
    try:
        return part(*tensors)
    except compiler_error() as error:
        raise CannotCompile(f"Inductor could not compile it: {str(error).strip().splitlines()[0]}") from error
