"""The carry of a kernel: how it comes in, how it goes out, and the word that tells the host how it went."""

from __future__ import annotations

import torch

from ...status import RUNNING, Status
from .design import Design, Draft
from .expressions import names_of
from .ignition import put_ignition
from .noise import put_grid
from .tape import TAPE_POINTERS, put_rest

__all__ = ["NUMBERS", "WORD", "parameters", "put_carry", "put_end", "put_start"]

NUMBERS = ("samples", "outputs", "apart", "clock", "grid", "limit", "rows")
"""Samples; output times; how far apart lie those of two samples, their clocks, their grids of steps (0 where all share
one); most trial steps; rows of the tape."""
WORD = ("unwell", "trials", "rows", "stillborn", "marked")
"""The word, int32: has any sample failed or an output missing; trial steps of the sample that took most; rows of the
tape it needed; was any field not finite at the start; has any sample an origin of its own."""
_EPS = torch.finfo(torch.float64).eps


def parameters(design: Design, inputs: int) -> list[str]:
    """Parameters of the kernel; `launch` passes them in this order."""
    names = ["OUT", "BOOKS", "COUNTS", "STATES", "STATUSES", "WORD"]
    names += ["FROM_BOOKS", "FROM_COUNTS", "FROM_STATES"] if design.resumable else []
    names += ["Y", "S0", "S1", "TIMES", "SETTINGS"]
    names += ["STEPS"] if design.controller is None else []
    if not design.ignites:
        names += ["T", "H", "N", "STATUS"]
        names += [f"M{i}" for i in range(len(design.widths))] + [f"C{i}" for i in range(design.control)]
    names += {"": [], "hashed": ["SEEDS", "CELLS", "CUT", "ANCHOR"], "given": ["NOISE"]}[design.noise]
    names += [f"P{i}" for i in range(inputs)]
    if design.tape:
        names += [*TAPE_POINTERS, *(f"ROW_E{i}" for i in range(design.essential))]
    return [*names, *NUMBERS]


def put_start(draft: Draft, prologue: list[str]) -> None:
    """Lines before the loop: the carry, the cursor, and what does not change."""
    text, design, frame = draft.text, draft.design, draft.frame
    text.put(
        f"lane = tl.program_id(0).to(tl.int64) * {frame.samples} + tl.arange(0, {frame.samples})",
        "inside = lane < samples",
        "batch = samples.to(tl.int64)",
    )
    frame.head(text)
    for name, pointer in (("begin", "S0"), ("end", "S1")):
        text.let(name, f"tl.load({pointer} + lane * clock, mask=inside, other=0.0)")
    frame.load(text, draft.vectors[0], "Y", f"lane * {design.size}", "inside")
    _put_settings(draft)
    if not design.ignites:
        _put_carried(draft)
    put_grid(draft)
    text.put(*prologue)
    if design.ignites:
        put_ignition(draft)
    text.put(
        "shelf = lane * apart",
        f"line = tl.zeros([{frame.samples}], tl.int32)",
        f"cursor = tl.full([{frame.samples}], 1, tl.int32)",
        "due_time = tl.load(TIMES + shelf + cursor, mask=inside & (cursor < outputs), other=float('inf'))",
        f"marked = tl.zeros([{frame.samples}], tl.int32)",
        f"status = tl.where((status == {RUNNING}) & (trials >= limit), {int(Status.MAX_STEPS)}, status)",
        f"active = status == {RUNNING}",
    )


def _put_settings(draft: Draft) -> None:
    """Lines that load the tolerances, or the step and how many of them there are."""
    text, design = draft.text, draft.design
    if design.controller is None:
        text.let("steps", "tl.load(STEPS + lane * grid, mask=inside, other=0)")
        if design.ignites:
            text.let("ahead", f"tl.load(SETTINGS) + tl.zeros([{draft.frame.samples}], tl.float64)")
        return
    if design.uniform:
        real = names_of(design.real)
        text.put(*(f"{name}_0 = tl.load(SETTINGS + {i}).to({real})" for i, name in enumerate(("rtol", "atol"))))
    else:
        draft.frame.shared(text, "rtol_", "SETTINGS", design.size)
        draft.frame.shared(text, "atol_", f"SETTINGS + {design.size}", design.size)
    text.let("floor", f"{16 * _EPS!r} * tl.maximum(tl.abs(begin), tl.abs(end))")
    if design.controller.dtmin is not None:
        text.let("floor", f"tl.maximum(floor, {design.controller.dtmin!r})")


def _put_carried(draft: Draft) -> None:
    """Lines that load a carry from an earlier solve."""
    text, design = draft.text, draft.design
    text.put(
        "time = tl.load(T + lane, mask=inside, other=0.0)",
        "ahead = tl.load(H + lane, mask=inside, other=0.0)",
        "n = tl.load(N + lane, mask=inside, other=0)",
        "status = tl.load(STATUS + lane, mask=inside, other=0).to(tl.int32)",
        "trials = tl.zeros_like(status)",
        "accepted = tl.zeros_like(status)",
    )
    for i, (vector, width) in enumerate(zip(draft.vectors[1:], design.widths, strict=True)):
        draft.frame.load(text, vector, f"M{i}", f"lane * {width}", "inside")
    text.put(*(f"c_{i} = tl.load(C{i} + lane, mask=inside, other=1.0)" for i in range(design.control)))


def put_end(draft: Draft) -> None:
    """Lines after the loop: the carry before each lane's last step, and the word."""
    text, design = draft.text, draft.design
    put_carry(draft, "", "inside")
    for i, name in enumerate(("trials", "accepted", "cursor"), 1):
        text.put(f"tl.store(COUNTS + {i} * batch + lane, {name}, mask=inside)")
    text.put("tl.store(STATUSES + lane, status, mask=inside)")
    text.let("unwell", f"inside & ((status != {int(Status.SUCCESS)}) | (cursor < outputs))")
    flags = ["unwell"]
    if design.ignites:
        text.let("stillborn", f"inside & (status == {int(Status.NONFINITE)}) & (trials == 0)")
        flags.append("stillborn")
    if design.resumable:
        text.put("tl.store(STATUSES + batch + lane, marked, mask=inside)")
        text.let("marked", "marked > 0")
        flags.append("marked")
    for flag in flags:
        with text.block(f"if tl.max({flag}.to(tl.int32), 0) > 0:"):
            text.put(f"tl.atomic_max(WORD + {WORD.index(flag)}, 1)")
    text.put(f"tl.atomic_max(WORD + {WORD.index('trials')}, tl.max(tl.where(inside, trials, 0), 0))")
    if design.tape:
        text.put(f"tl.atomic_max(WORD + {WORD.index('rows')}, tl.max(tl.where(inside, line, 0), 0))")
        put_rest(draft)


def put_carry(draft: Draft, which: str, mask: str) -> None:
    """Lines that write a carry into one set of buffers: "" or "FROM_", the origin's."""
    text = draft.text
    books = ["time", "ahead", *(f"c_{i}" for i in range(draft.design.control))]
    text.put(*(f"tl.store({which}BOOKS + {i} * batch + lane, {name}, mask={mask})" for i, name in enumerate(books)))
    text.put(f"tl.store({which}COUNTS + lane, n, mask={mask})")
    offset = 0
    for vector, width in zip(draft.vectors, draft.widths, strict=True):
        draft.frame.store(text, vector, f"{which}STATES", f"{offset} * batch + lane * {width}", mask)
        offset += width
