"""The loop of a kernel: a trial step, the decision, the outputs it passed, the merge.

The text follows `advance` and `turn` line by line.
"""

from __future__ import annotations

import math

from ...advance import _SNAP
from ...controllers import PID
from ...status import RUNNING, Status
from ...turn import _AT_END
from .carry import put_carry
from .design import Draft
from .expressions import names_of
from .frame import Names
from .noise import put_increments
from .stages import Stepped
from .tape import put_row, put_slot

__all__ = ["put_loop"]


def put_loop(draft: Draft) -> None:
    """Lines that step until every lane has ended."""
    with draft.text.block("while tl.max(active.to(tl.int32), 0) > 0:"):
        _body(draft)


def _body(draft: Draft) -> None:
    """One trial step of every lane that has not ended."""
    text, design = draft.text, draft.design
    sign = "" if design.sign > 0 else "-"
    y, *memory = draft.vectors
    text.let("left", "end - time")
    text.let("final", f"ahead * {_SNAP!r} >= left" if design.controller is not None else "n + 1 >= steps")
    text.put(
        "length = tl.where(active, tl.where(final, left, ahead), 0.0)",
        f"now = {sign}time",
        f"step = {sign}length",
        f"h = {draft.frame.wide('step')}.to({names_of(design.real)})",
    )
    stepped = draft.stages.step(text, y, memory, put_increments(draft))
    ends = [stepped.y1]
    if design.stepper.overlooks(adaptive=design.controller is not None):
        ends.append(stepped.memory[0])
    conditions = [draft.frame.every([f"tl.abs({v}) < float('inf')" for v in end]) for end in ends]
    text.let("finite", " & ".join(f"({c})" for c in conditions))
    if design.controller is not None:
        _control(draft, design.controller, y, stepped)
        text.let("reached", "tl.where(final, end, time + length)")
    else:
        text.put("accept = finite", "proposed = ahead")
        text.let("failure", f"tl.full([{draft.frame.samples}], {int(Status.NONFINITE)}, tl.int32)")
        text.let("reached", "tl.where(final, end, begin + (n + 1).to(tl.float64) * ahead)")
    text.put(
        "accept = accept & active",
        f"ended = tl.where(accept, tl.where(final, {int(Status.SUCCESS)}, {RUNNING}), failure)",
        "verdict = tl.where(active, ended, status)",
    )
    _outputs(draft, y, stepped)
    if design.resumable:
        text.let("cut_off", "final & (accept == 0) & active & (marked == 0)")
        with text.block("if tl.max(cut_off.to(tl.int32), 0) > 0:"):
            put_carry(draft, "FROM_", "cut_off")
        text.let("marked", "tl.where(cut_off, 1, marked)")
    text.let("keep", "accept & (final == 0)")
    if design.tape:
        put_row(draft, "accept", "1", "keep.to(tl.int8)")
        text.let("line", "line + accept.to(tl.int32)")
    _merge(draft, [y, *memory], [stepped.y1, *stepped.memory])


def _merge(draft: Draft, old: list[Names], new: list[Names]) -> None:
    """Lines of `advance.merge`, and of the limit on trial steps."""
    text = draft.text
    text.put("time = tl.where(keep, reached, time)", f"ahead = tl.where(verdict == {RUNNING}, proposed, ahead)")
    text.put("n = n + keep.to(tl.int64)", f"keep_ = {draft.frame.wide('keep')}")
    for before, after in zip(old, new, strict=True):
        text.put(*(f"{a} = tl.where(keep_, {b}, {a})" for a, b in zip(before, after, strict=True)))
    for i in range(draft.design.control):
        text.let(f"c_{i}", f"tl.where(keep, new_{i}, c_{i})")
    text.put(
        "trials = trials + active.to(tl.int32)",
        "accepted = accepted + accept.to(tl.int32)",
        f"status = tl.where((verdict == {RUNNING}) & (trials >= limit), {int(Status.MAX_STEPS)}, verdict)",
        f"active = status == {RUNNING}",
    )


def _control(draft: Draft, pid: PID, y: Names, stepped: Stepped) -> None:
    """Lines of `controllers.PID.next` and of what `advance` makes of it; in the state's dtype, as the error is."""
    text, design, order = draft.text, draft.design, draft.design.stepper.error_order
    real = names_of(design.real)
    assert stepped.error is not None and order is not None
    squares = []
    for j, (a, b, e) in enumerate(zip(y, stepped.y1, stepped.error, strict=True)):
        tol = 0 if design.uniform else j
        scaled = text.let(f"q_{j}", f"{e} / (tl.maximum(tl.abs({a}), tl.abs({b})) * rtol_{tol} + atol_{tol})")
        squares.append(f"{scaled} * {scaled}")
    text.let("ratio", f"{text.sqrt(draft.frame.total(squares))} * {1 / math.sqrt(design.size)!r}")
    text.let("finite", "finite & (ratio < float('inf'))")
    p, i, d = pid.pcoeff, pid.icoeff, pid.dcoeff
    text.put(
        "ratio = tl.where(finite, ratio, float('inf'))", "accept = ratio <= 1.0", "ratio = tl.maximum(ratio, 1e-30)"
    )
    text.let("factor", f"{_power('ratio', -(p + i + d) / order)} * {pid.safety!r}")
    if design.control:
        text.let("factor", f"factor * {_power(f'c_0.to({real})', -(p + 2 * d) / order)}")
        if d:
            text.let("factor", f"factor * {_power(f'c_1.to({real})', d / order)}")
            text.let("new_1", "c_0")
        text.let("new_0", "(1.0 / tl.maximum(ratio, 1e-12)).to(tl.float64)")
    text.put(
        f"grow = tl.minimum(tl.maximum(factor, 1.0), {pid.factormax!r})",
        f"shrink = tl.minimum(tl.maximum(factor, {pid.factormin!r}), {pid.safety!r})",
        "proposed = length * tl.where(accept, grow, shrink).to(tl.float64)",
    )
    if pid.force_dtmin:
        text.put("accept = accept | (finite & (length <= floor))", "proposed = tl.maximum(proposed, floor)")
    if pid.dtmax is not None:
        text.let("proposed", f"tl.minimum(proposed, {pid.dtmax!r})")
    stuck = f"tl.where(finite, {int(Status.DT_MIN)}, {int(Status.NONFINITE)})"
    text.let("failure", f"tl.where(proposed < floor, {stuck}, {RUNNING})")


def _power(x: str, exponent: float) -> str:
    return "1.0" if exponent == 0 else f"tl.exp2(tl.log2({x}) * {exponent!r})"


def _outputs(draft: Draft, y: Names, stepped: Stepped) -> None:
    """Lines that write the outputs a step passed; a lane with nothing due waits for those with much."""
    text, design = draft.text, draft.design
    if design.tape:
        text.let("slot", f"tl.zeros([{draft.frame.samples}], tl.int32)")
    text.put(f"slack = reached + {_AT_END!r} * length", "due = accept & (due_time <= slack)")
    with text.block("if tl.max(due.to(tl.int32), 0) > 0:"):
        k = draft.stages.prepare(text, y, stepped)
        with text.block("while tl.max(due.to(tl.int32), 0) > 0:"):
            text.put(
                "part = 1.0 - (reached - due_time) / tl.where(due, length, 1.0)",
                f"part = tl.where(due & (part <= {1 - _AT_END!r}), tl.maximum(part, 0.0), 1.0)",
                f"theta = {draft.frame.wide('part')}.to({names_of(design.real)})",
                f"whole = {draft.frame.wide('part >= 1.0')}",
            )
            weights = draft.stages.weights(text, len(k))
            values = []
            for j, (a, b) in enumerate(zip(y, stepped.y1, strict=True)):
                terms = [f"{w} * {v[j]}" for w, v in zip(weights, k, strict=True) if w]
                values.append(text.let(f"o_{j}", f"tl.where(whole, {b}, {' + '.join((a, *terms))})"))
            draft.frame.store(text, values, "OUT", f"(cursor.to(tl.int64) * batch + lane) * {design.size}", "due")
            if design.tape:
                put_slot(draft)
            text.put(
                "cursor = cursor + due.to(tl.int32)",
                "due_time = tl.load(TIMES + shelf + cursor, mask=inside & (cursor < outputs), other=float('inf'))",
                "due = accept & (due_time <= slack)",
            )
