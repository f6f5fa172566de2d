"""The tape of a solve in one launch: every lane writes the rows of its own accepted steps, at its own pace.

Rows are those of `turn`: what it takes to take a step again, and up to `width` outputs it made; a step with more of
them fills several rows, of which only the last is merged. A lane with fewer rows than others fills the rest with steps
of length 0 from a state it has been in, so that whoever walks back meets no number that is not one.
"""

from __future__ import annotations

import torch

from ...problem import Carry, Problem
from ...trajectory import Row
from .text import Text

__all__ = ["TAPE_POINTERS", "blank_rows", "put_rest", "put_row", "put_slot"]

TAPE_POINTERS = ("ROW_S", "ROW_DT", "ROW_N", "ROW_Y", "ROW_TAKEN", "ROW_MERGED", "ROW_THETA", "ROW_K")
"""Parameters of a kernel that keeps a tape; ROW_E0, ... for the essential memories follow."""


def blank_rows(problem: Problem, carry: Carry, rows: int, width: int) -> Row:
    """Columns of a tape; the kernel writes all but the outputs that a row does not have."""
    essential = problem.stepper.essential(carry.memory)
    lanes, count = carry.t.shape[0], problem.output.times.shape[1]
    flags = torch.zeros(2, rows, lanes, dtype=torch.bool, device=carry.y.device)
    return Row(
        s=carry.t.new_empty(rows, lanes),
        dt=carry.t.new_empty(rows, lanes),
        n=carry.n.new_empty(rows, lanes),
        y=carry.y.new_empty(rows, *carry.y.shape),
        essential=tuple(e.new_empty(rows, *e.shape) for e in essential),
        taken=flags[0],
        merged=flags[1],
        theta=carry.t.new_ones(rows, width, lanes),
        k=carry.n.new_full((rows, width, lanes), count),
        penalties=(),
    )


def put_row(text: Text, vectors: list[list[str]], mask: str, taken: str, merged: str, step: str = "step") -> None:
    """Lines that write row `line` of the lanes in `mask`, if there is room; vectors: the state, essential memories."""
    text.put(f"room = {mask} & (line < rows)", "place = line.to(tl.int64) * batch + lane")
    for pointer, name in (("S", "time"), ("DT", step), ("N", "n"), ("TAKEN", taken), ("MERGED", merged)):
        text.put(f"tl.store(ROW_{pointer} + place, {name}, mask=room)")
    for pointer, vector in zip(["ROW_Y", *(f"ROW_E{i}" for i in range(len(vectors) - 1))], vectors, strict=True):
        for j, name in enumerate(vector):
            text.put(f"tl.store({pointer} + place * {len(vector)} + {j}, {name}, mask=room)")


def put_slot(text: Text, vectors: list[list[str]], width: int) -> None:
    """Lines that note an output of the lanes in `due`: in the next row where this one is full."""
    text.let("full", f"due & (slot == {width})")
    with text.block("if tl.max(full.to(tl.int32), 0) > 0:"):
        put_row(text, vectors, "full", "0", "0")
    text.put(
        "line = line + full.to(tl.int32)",
        "slot = tl.where(full, 0, slot)",
        f"entry = (line.to(tl.int64) * {width} + slot) * batch + lane",
        "tl.store(ROW_THETA + entry, part, mask=due & (line < rows))",
        "tl.store(ROW_K + entry, cursor, mask=due & (line < rows))",
        "slot = slot + due.to(tl.int32)",
    )


def put_rest(text: Text, vectors: list[list[str]]) -> None:
    """Lines that fill a lane's remaining rows, after it has noted how many it needed."""
    text.put("nothing = tl.zeros_like(time)", "lacking = inside & (line < rows)")
    with text.block("while tl.max(lacking.to(tl.int32), 0) > 0:"):
        put_row(text, vectors, "inside", "0", "0", "nothing")
        text.put("line = line + lacking.to(tl.int32)", "lacking = inside & (line < rows)")
