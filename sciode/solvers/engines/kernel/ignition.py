"""The beginning of a solve inside a kernel: the first evaluation, the first step's length, the first memory.

The text follows `start.start_carry`. A sample that is not finite at the start, or whose field is not, does not begin:
the word says so, and the solve begins again with a look, in `begin`.
"""

from __future__ import annotations

import math

from ...status import RUNNING, Status
from .design import Draft
from .expressions import names_of
from .frame import Names

__all__ = ["put_ignition"]


def put_ignition(draft: Draft) -> None:
    """Lines that make the first carry from the state."""
    text, design, frame = draft.text, draft.design, draft.frame
    y, *memory = draft.vectors
    sign = "" if design.sign > 0 else "-"
    text.put(
        "time = begin",
        "n = tl.zeros_like(lane)",
        f"status = tl.where(inside & (end > begin), {RUNNING}, {int(Status.SUCCESS)})",
        "trials = tl.zeros_like(status)",
        "accepted = tl.zeros_like(status)",
    )
    f, g = draft.stages.calls.evaluate(text, "start_", f"{sign}begin", y)
    conditions = [frame.every([f"tl.abs({x}) < float('inf')" for x in row]) for row in (y, f, *g)]
    text.put(*(f"healthy_{i} = {condition}" for i, condition in enumerate(conditions)))
    text.let("healthy", " & ".join(f"healthy_{i}" for i in range(len(conditions))))
    if design.controller is not None:
        _put_first_step(draft, y, f)
    text.let("status", f"tl.where(inside & (healthy == 0), {int(Status.NONFINITE)}, status)")
    for old, new in zip(memory, draft.stages.start(y, f, g), strict=True):
        text.put(*(f"{a} = {b}" for a, b in zip(old, new, strict=True)))
    text.put(*(f"c_{i} = tl.full([{frame.samples}], 1.0, tl.float64)" for i in range(design.control)))


def _put_first_step(draft: Draft, y: Names, f: Names) -> None:
    """Lines of `start.initial_step`; what follows in float64 where that does."""
    text, pid, order = draft.text, draft.design.controller, draft.design.stepper.error_order
    assert pid is not None and order is not None
    if pid.first_step is not None:
        first = min(pid.first_step, pid.dtmax or pid.first_step)
        text.let("ahead", f"tl.full([{draft.frame.samples}], {first!r}, tl.float64)")
        return
    sign = "" if draft.design.sign > 0 else "-"
    for j, name in enumerate(y):
        tol = 0 if draft.design.uniform else j
        text.let(f"u_{j}", f"tl.abs({name}) * rtol_{tol} + atol_{tol}")
    _put_norm(draft, "d0", y)
    _put_norm(draft, "d1", f)
    text.put(
        "h0 = tl.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / tl.maximum(d1, 1e-5))",
        "h0 = tl.minimum(h0, end - begin)",
        f"h = {draft.frame.wide(f'{sign}h0')}.to({names_of(draft.design.real)})",
    )
    ahead = [text.let(f"ahead_{j}", f"{a} + h * {b}") for j, (a, b) in enumerate(zip(y, f, strict=True))]
    slope, _ = draft.stages.calls.evaluate(text, "ahead_", f"{sign}(begin + h0)", ahead)
    _put_norm(draft, "d2", [f"({a} - {b})" for a, b in zip(slope, f, strict=True)])
    text.put(
        "bend = d2 / tl.maximum(h0, 1e-300)",
        "steepest = tl.where(bend == bend, tl.maximum(d1, bend), bend)",
        "least = tl.maximum(h0 * 1e-3, 1e-6)",
        f"h1 = tl.where(steepest <= 1e-15, least, tl.exp2(tl.log2(0.01 / steepest) * {1 / order!r}))",
        "ahead = tl.where(h1 == h1, tl.minimum(100.0 * h0, h1), h1)",
        "ahead = tl.where((ahead < float('inf')) & (ahead > 0.0), ahead, least)",
    )
    if pid.dtmax is not None:
        text.let("ahead", f"tl.minimum(ahead, {pid.dtmax!r})")


def _put_norm(draft: Draft, name: str, x: Names) -> None:
    """Lines of rms(x / (atol + rtol |y0|)), in float64."""
    text = draft.text
    scaled = [text.let(f"{name}_{j}", f"{e} / u_{j}") for j, e in enumerate(x)]
    root = text.sqrt(draft.frame.total([f"{q} * {q}" for q in scaled]))
    text.let(name, f"({root} * {1 / math.sqrt(draft.design.size)!r}).to(tl.float64)")
