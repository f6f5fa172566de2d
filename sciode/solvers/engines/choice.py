"""Which engine runs a solve, and what happens where the one that was asked for cannot."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..problem import Problem
from ..trajectory import Request, Run, Start
from ..transforms import forward_mode, transforming
from . import compiled, eager, kernel, march
from .lift import CannotCompile, Lifted
from .turnstile import alone
from .witness import Known, key_of, known_of, witness

__all__ = ["ENGINES", "CompileNotice", "Engine", "engine_for", "readied"]

ENGINES = ("auto", "eager", "compiled", "graph", "kernel")
_LOOPS = ("compiled", "graph", "kernel")
Watch = Callable[[Tensor], None]
_SOLVES, _SECONDS = 3, 5.0
"""After so many solves of a kind, and as much time spent on them as compiling takes, `auto` compiles."""


class CompileNotice(UserWarning):
    """Says once that something is being compiled, or why it was not."""


@dataclass
class _Past:
    """What is known of the solves of one kind.

    refused: engines that cannot run its field; keeps: whether a tape keeps what derivatives need where nobody has said;
    told: what was said.
    """

    solves: int = 0
    seconds: float = 0.0
    refused: set[str] = field(default_factory=set)
    announced: bool = False
    keeps: bool | None = None
    told: set[str] = field(default_factory=set)


_past: dict[Hashable, _Past] = {}
"""Of the kinds of solves last met, the most recent last."""
_KEPT = 1024
"""So many of them: a kind is forgotten with what was learned and said of it when as many others have come since."""
_turning = Lock()


@dataclass(frozen=True)
class Engine:
    """An engine chosen for one problem: `run` never refuses, it falls back on others and says so once.

    loops: whether it is a loop on the device, which keeps a tape of its own and none of autograd's; instead: the engine
    to try where this one cannot; marches: see `march`.
    """

    name: str
    past: _Past
    instead: str = "eager"
    marches: bool = False

    @property
    def loops(self) -> bool:
        """Whether it repeats compiled code, without autograd's tape."""
        return self.name != "eager"

    def run(self, problem: Problem, start: Start, max_steps: int, watch: Watch | None, request: Request) -> Run:
        """Run the problem; request: what an adjoint will want. Raises Unsound where it has to begin with a look."""
        began = time.monotonic()
        try:
            return self._run(problem, start, max_steps, watch, request)
        except compiled.Unsound:
            if start.carry is None:
                raise
            # The look found nothing wrong: go on from what it saw.
            return self._run(problem, start._replace(fresh=False), max_steps, watch, request)
        finally:
            self.past.solves += 1
            self.past.seconds += time.monotonic() - began

    def _run(self, problem: Problem, start: Start, max_steps: int, watch: Watch | None, request: Request) -> Run:
        """By the engine itself, the one instead of it, or `eager`, whichever can first."""
        names = [name for name in dict.fromkeys((self.name, self.instead)) if name != "eager"]
        for name, other in pairwise((*names, "eager")):
            try:
                with alone(start.y.device):
                    if name == "kernel":
                        return kernel.run(problem, start, max_steps, watch, request.taped)
                    return self._loop(name, problem, start, max_steps, watch, request)
            except compiled.Unsound:
                raise
            except Exception as error:
                # Whatever it is: if the field itself is at fault, `eager` raises it, too.
                if not isinstance(error, torch.OutOfMemoryError):
                    self.past.refused.add(name)
                _say(f"engine: the {name} engine cannot run this field, {other!r} does instead: {_what(error)}")
        if start.carry is None:
            raise compiled.Unsound
        return eager.run(problem, start.carry, max_steps, watch)

    def keeps(self, y: Tensor, fits: Callable[[], bool] | None) -> bool:
        """Whether a tape should keep what derivatives need; fits: whether there is room, None if that is not known.

        On a CPU a step is taken again in less time than its residuals are written and read, but for marches that stay
        in a cache.
        """
        if not y.is_cuda or self.name == "kernel":
            return self.marches
        if self.past.keeps is None and fits is not None:
            self.past.keeps = fits()
        return bool(self.past.keeps)

    def _loop(
        self, name: str, problem: Problem, start: Start, max_steps: int, watch: Watch | None, request: Request
    ) -> Run:
        """By a loop; without what is optional where it cannot be had."""
        for wish in (request, Request(taped=True)) if request.optional and self.marches else (request,):
            request = wish
            found = march.marched(problem, start, max_steps, watch, request, name)
            if found is not None:
                return found
        if request.optional:
            try:
                return compiled.run(problem, start, max_steps, watch, request, name)
            except (CannotCompile, torch.OutOfMemoryError):
                self.past.keeps = False
                request = Request(taped=True)
        return compiled.run(problem, start, max_steps, watch, request, name)


def engine_for(
    asked: str, problem: Problem, y: Tensor, adjoint: Any, gradient: bool, lifted: Lifted | None = None
) -> Engine:
    """The engine for a problem; adjoint and gradient: what will be asked of its result; lifted: its field's graph."""
    past = _past_of(problem, y)
    reason = _obstacle(asked, problem, y, adjoint, gradient)
    instead = "eager"
    if asked == "kernel" and "graph" not in past.refused and _obstacle("graph", problem, y, adjoint, gradient) is None:
        # What the kernel engine refuses, CUDA graphs often can do.
        instead = "graph"
    if asked in _LOOPS:
        if reason is None and asked not in past.refused:
            return Engine(asked, past, instead, march.marches(problem, y))
        # Said once; not held against a later solve of this kind, which may ask for what the engine can do.
        if reason is not None and reason not in past.told and asked not in past.refused:
            past.told.add(reason)
            _say(f"engine: the {asked} engine cannot run this, {instead!r} does instead: {reason}")
        return Engine(instead, past)
    if asked == "auto" and reason is None and _worth_it(past, y):
        if not past.announced:
            past.announced = True
            _say(
                "engine: this solve repeats, so it is compiled now, once, for some seconds; SCIODE_COMPILE=0 forbids it"
            )
        best = _best(problem, y, gradient, lifted)
        name = "graph" if best in past.refused else best
        return Engine(name, past, "graph" if y.is_cuda else "eager", march.marches(problem, y))
    return Engine("eager", past)


def _best(problem: Problem, y: Tensor, gradient: bool, lifted: Lifted | None) -> str:
    """What to compile: a kernel for a field that is small and a compiler soon done with, else the loop.

    Known of a graph, not of a kind of solve: two networks of one class may differ in width.
    """
    if not y.is_cuda:
        return "compiled"
    with alone(y.device):
        try:
            known = known_of(lifted or witness(compiled.prepared(problem, y), y.detach()), problem)
        except Exception:
            # Whatever it is: the loop meets it again, and says what it was.
            return "graph"
        if gradient not in known.best:
            known.best[gradient] = "kernel" if kernel.suits(problem, y, gradient) else "graph"
        return known.best[gradient]


def readied(problem: Problem, y: Tensor, asked: str) -> tuple[Lifted, Known] | None:
    """What the field reads in this solve, and what is known of it, if an engine that loops knows such solves."""
    past = _past.get(_key(problem, y))
    if past is None or asked == "eager" or transforming() or forward_mode() or _hopeless(past, y):
        return None
    if asked == "auto" and not _worth_it(past, y):
        return None
    try:
        with alone(y.device):
            lifted = witness(compiled.prepared(problem, y), y.detach())
    except Exception:
        # Whatever it is: the engine, which begins with a look, meets it again and says what it was.
        return None
    known = lifted.traced.made
    return None if known is None or not known.machines else (lifted, known)


def _key(problem: Problem, y: Tensor) -> Hashable:
    return key_of("solve", problem, y)


def _past_of(problem: Problem, y: Tensor) -> _Past:
    key = _key(problem, y)
    with _turning:
        past = _past[key] = _past.pop(key, None) or _Past()
        while len(_past) > _KEPT:
            del _past[next(iter(_past))]
    return past


def _obstacle(asked: str, problem: Problem, y: Tensor, adjoint: Any, gradient: bool) -> str | None:
    """Why a loop on the device cannot do this, if it cannot."""
    if transforming():
        return "torch.func transforms need operations one by one"
    if forward_mode():
        return "a loop on the device does not carry the tangents of forward-mode derivatives"
    if gradient and adjoint == "direct" and asked == "kernel":
        return 'it keeps nothing of a step; adjoint="recompute" gives the same gradient'
    if y.device.type not in ("cpu", "cuda") or (asked == "graph" and not y.is_cuda):
        return f"the state is on {y.device}"
    if y.is_complex():
        return "complex states are not compiled"
    return kernel.why_not(problem, y, gradient) if asked == "kernel" else compiled.why_not(problem)


def _worth_it(past: _Past, y: Tensor) -> bool:
    allowed = os.environ.get("SCIODE_COMPILE", "1") != "0" and not _hopeless(past, y)
    return allowed and past.solves >= _SOLVES and past.seconds >= _SECONDS


def _hopeless(past: _Past, y: Tensor) -> bool:
    """Whether no engine that loops is left to run such solves."""
    return bool(past.refused - {"kernel"} if y.is_cuda else past.refused)


def _say(text: str) -> None:
    warnings.warn(text, CompileNotice, stacklevel=4)


def _what(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return str(error) if isinstance(error, CannotCompile) else f"{type(error).__name__}: {text[0] if text else ''}"
