"""Ways to repeat a graph until it says that there is nothing more to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import Any, Literal

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from .lift import CannotCompile, own_code

__all__ = ["Body", "Repeat", "Use", "in_one_loop", "look_at_cpu", "step_by_step"]

Body = Callable[..., Any]
"""body(*inputs) -> the next state; its last tensor, int64 [n], is a word to the host: whether to go on comes first."""

Use = Literal["read", "kept", "filled"]
"""What a body does with an input: it reads it; it writes to parts of it; it writes all of it that will be read."""

Repeat = Callable[[list[Tensor]], tuple[list[Tensor], list[int]]]
"""repeat(inputs) -> the state at the end, and its word; the inputs hold the first state, and what else a body takes."""


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


def step_by_step(body: Body, positions: list[int]) -> Repeat:
    """A loop in Python, one call of the body and one look at its flag a turn: where nothing better can be compiled."""

    def repeat(inputs: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        state = [x for _, x in sorted((p, x) for p, x in zip(positions, inputs, strict=True) if p >= 0)]
        while bool(state[-1][0]):
            state = list(body(*[state[p] if p >= 0 else x for p, x in zip(positions, inputs, strict=True)]))
        return state, state[-1].tolist()

    return repeat


def in_one_loop(body: Body, positions: list[int]) -> Repeat:
    """A whole loop in C++: `while_loop` under Inductor, one call from Python for any number of turns.

    positions: for every input of the body, which tensor of the state it is; -1 for what does not change.
    """
    size = max(positions) + 1

    def whole(inputs: list[Tensor]) -> Any:
        first: list[Any] = [None] * size
        for x, p in zip(inputs, positions, strict=True):
            if p >= 0:
                first[p] = x
        rest = [x for x, p in zip(inputs, positions, strict=True) if p < 0]

        def going(*state: Tensor) -> Tensor:
            return state[-1][0] > 0

        def once(*state: Tensor) -> tuple[Tensor, ...]:
            others = iter(rest)
            return tuple(body(*[state[p] if p >= 0 else next(others) for p in positions]))

        return torch.while_loop(going, once, tuple(first))  # type: ignore[attr-defined]

    compiled = torch.compile(own_code(whole), fullgraph=True, dynamic=False, options=_options())

    def repeat(inputs: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        try:
            state = list(compiled(_apart(inputs)))
        except TorchDynamoException as error:
            raise CannotCompile(f"Inductor could not compile it: {str(error).strip().splitlines()[0]}") from error
        return state, state[-1].tolist()

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
