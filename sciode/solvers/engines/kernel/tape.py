"""The tape of a solve in one launch: every lane writes the rows of its own accepted steps, at its own pace.

Rows are those of `turn`: what it takes to take a step again, and up to `width` outputs it made; a step with more of
them fills several rows, of which only the last is merged. A lane with fewer rows than others fills the rest with steps
of length 0 from a state it has been in, so that whoever walks back meets no number that is not one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...trajectory import Row
from .design import Design, Draft

__all__ = ["TAPE_POINTERS", "blank_rows", "put_rest", "put_row", "put_slot"]

TAPE_POINTERS = ("ROW_S", "ROW_DT", "ROW_N", "ROW_Y", "ROW_TAKEN", "ROW_MERGED", "ROW_THETA", "ROW_K")
"""Parameters of a kernel that keeps a tape; ROW_E0, ... for the essential memories follow."""


def blank_rows(design: Design, y: Tensor, rows: int, outputs: int) -> Row:
    """Columns of a tape; the kernel writes all but the outputs that a row does not have."""
    lanes, width = y.shape[0], design.tape
    flags = torch.zeros(2, rows, lanes, dtype=torch.bool, device=y.device)
    times = torch.empty(2, rows, lanes, dtype=torch.float64, device=y.device)
    return Row(
        s=times[0],
        dt=times[1],
        n=torch.empty(rows, lanes, dtype=torch.int64, device=y.device),
        y=y.new_empty(rows, *y.shape),
        essential=tuple(y.new_empty(rows, lanes, width) for width in design.widths[: design.essential]),
        taken=flags[0],
        merged=flags[1],
        theta=torch.ones(rows, width, lanes, dtype=torch.float64, device=y.device),
        k=torch.full((rows, width, lanes), outputs, dtype=torch.int64, device=y.device),
        penalties=(),
    )


def put_row(draft: Draft, mask: str, taken: str, merged: str, step: str = "step") -> None:
    """Lines that write row `line` of the lanes in `mask`, if there is room."""
    text = draft.text
    text.put(f"room = {mask} & (line < rows)", "place = line.to(tl.int64) * batch + lane")
    for pointer, name in (("S", "time"), ("DT", step), ("N", "n"), ("TAKEN", taken), ("MERGED", merged)):
        text.put(f"tl.store(ROW_{pointer} + place, {name}, mask=room)")
    pointers = ["ROW_Y", *(f"ROW_E{i}" for i in range(draft.design.essential))]
    for pointer, vector, width in zip(pointers, draft.kept, draft.widths, strict=False):
        draft.frame.store(text, vector, pointer, f"place * {width}", "room")


def put_slot(draft: Draft) -> None:
    """Lines that note an output of the lanes in `due`: in the next row where this one is full."""
    text, width = draft.text, draft.design.tape
    text.let("full", f"due & (slot == {width})")
    with text.block("if tl.max(full.to(tl.int32), 0) > 0:"):
        put_row(draft, "full", "0", "0")
    text.put(
        "line = line + full.to(tl.int32)",
        "slot = tl.where(full, 0, slot)",
        f"entry = (line.to(tl.int64) * {width} + slot) * batch + lane",
        "tl.store(ROW_THETA + entry, part, mask=due & (line < rows))",
        "tl.store(ROW_K + entry, cursor, mask=due & (line < rows))",
        "slot = slot + due.to(tl.int32)",
    )


def put_rest(draft: Draft) -> None:
    """Lines that fill a lane's remaining rows, after it has noted how many it needed."""
    text = draft.text
    text.put("nothing = tl.zeros_like(time)", "lacking = inside & (line < rows)")
    with text.block("while tl.max(lacking.to(tl.int32), 0) > 0:"):
        put_row(draft, "inside", "0", "0", "nothing")
        text.put("line = line + lacking.to(tl.int32)", "lacking = inside & (line < rows)")
