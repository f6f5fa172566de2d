"""Repeating a graph until its word says stop: the whole loop in one compiled call, or a Python loop.

A loop has a state, which every turn makes anew, and other tensors, which stay: what a turn reads, and where it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from threading import Thread
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .lift import CannotCompile, compiler_error, own_code
from .straight import Straight

__all__ = ["Body", "Part", "Repeat", "Spare", "Use", "in_one_loop", "look_at_cpu", "step_by_step"]

Body = Callable[..., Any]
"""body(*inputs) -> a state; its last tensor, int64 [n], is a word to the host: whether to go on comes first."""

Use = Literal["own", "read", "kept", "filled", "scratch"]
"""What a loop does with a tensor: it reads it, and only the solver ever writes to it; it reads it; it writes to parts
of it; it writes all of it that will be read; the same, and it is always the same tensor, so that nothing is copied."""

Repeat = Callable[[list[Tensor], "list[Tensor] | None", int, "int | None"], tuple[list[Tensor], list[int]]]
"""repeat(others, state, nth, turns) -> the state at the end, and its word.

state None: the loop makes its first state itself; nth: a solve with a long tape runs the loop several times; turns: how
many it takes, where that is known: then a host that would have to wait for its word does not ask, and gets none.
"""


_CACHEABLE = "unsafe_marked_cacheable_functions"


def _options() -> dict[str, Any]:
    """Of Inductor, for loops on a CPU."""
    from torch._inductor import config

    options: dict[str, Any] = {"cpp_wrapper": True}
    if hasattr(config, _CACHEABLE):
        # The caches on disk know a graph by its code, its subgraphs' included, but refuse loops unless told they may.
        options[_CACHEABLE] = {"torch.ops.higher_order.while_loop": str(torch.__version__)}
    return options


@lru_cache(maxsize=1)
def look_at_cpu() -> None:
    """Start what Inductor does once a process: processes that try out which vector instructions this CPU has.

    They take a second, which passes while the field is traced; nobody has to wait for the end, or to start this at all.
    """
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    def look() -> None:
        # Where there is no compiler, the compilation itself will say so.
        with suppress(Exception):
            pick_vec_isa()

    Thread(target=look, daemon=True).start()


class Spare(NamedTuple):
    """Tensors of a state that matter at the end only if entry `flag` of the word is not 0."""

    tensors: frozenset[int]
    flag: int


@dataclass(frozen=True, eq=False)
class Part:
    """A graph as a loop calls it: its i-th input is state[w] if w = wiring[i] >= 0, else others[~w]."""

    body: Body
    wiring: tuple[int, ...]

    def __call__(self, state: Any, others: Any) -> list[Tensor]:
        """The next state."""
        return list(self.body(*[state[w] if w >= 0 else others[~w] for w in self.wiring]))


def step_by_step(once: Part, first: Part | None) -> Repeat:
    """A loop in Python, nothing compiled: one call of the body and one look at its flag a turn."""

    def repeat(
        others: list[Tensor], state: list[Tensor] | None, nth: int, turns: int | None
    ) -> tuple[list[Tensor], list[int]]:
        now = beginning(first, others) if state is None else state
        while bool(now[-1][0]):
            now = once(now, others)
        return now, now[-1].tolist()

    return repeat


def beginning(first: Part | None, others: Any) -> list[Tensor]:
    """The first state of a loop that makes it itself."""
    assert first is not None, "this loop has to be given its first state"
    return first((), others)


def in_one_loop(once: Part, first: Part | None) -> Repeat:
    """A whole loop in C++: `while_loop` under Inductor, one call from Python for any number of turns."""

    def whole(others: list[Tensor], state: list[Tensor] | None) -> Any:
        def going(*now: Tensor) -> Tensor:
            return now[-1][0] > 0

        def turn(*now: Tensor) -> tuple[Tensor, ...]:
            return tuple(once(now, others))

        start = beginning(first, others) if state is None else state
        return torch.while_loop(going, turn, tuple(start))  # type: ignore[attr-defined]

    compiled = Straight(own_code(whole), _options())

    def repeat(
        others: list[Tensor], state: list[Tensor] | None, nth: int, turns: int | None
    ) -> tuple[list[Tensor], list[int]]:
        tensors = _apart([*others, *(state or ())])
        given = None if state is None else tensors[len(others) :]
        try:
            found = compiled(tensors[: len(others)], given)
        except compiler_error() as error:
            raise CannotCompile(f"Inductor could not compile it: {str(error).strip().splitlines()[0]}") from error
        return found, found[-1].tolist()

    return repeat


def _apart(inputs: list[Tensor]) -> list[Tensor]:
    """The inputs, with copies of those that look into the memory of an earlier one: a loop refuses views of a kind."""
    seen: set[int] = set()
    apart = []
    for x in inputs:
        storage = x.untyped_storage()._cdata
        apart.append(x.clone(memory_format=torch.contiguous_format) if storage in seen else x)
        seen.add(storage)
    return apart
