"""The whole solve of a trajectory as one Triton kernel: a lane a sample, every number of it in registers.

The text follows `advance` and `turn` line by line: a trial step, the decision, the outputs it passed, the merge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...advance import _SNAP
from ...controllers import PID
from ...status import RUNNING, Status
from ...steppers import Stepper
from ...turn import _AT_END
from ..lift import CannotCompile
from .expressions import Expr, Written, names_of, write, write_values
from .stages import Calls, Names, Stages, Stepped, stages_of
from .tape import TAPE_POINTERS, put_rest, put_row, put_slot
from .text import Text
from .trace import Formula

__all__ = ["Design", "Kernel", "kernel_source"]

_IN_REGISTERS = 96
"""More numbers than this are not kept in registers for the whole solve, but read (from cache) where they are used."""
_LONGEST = 20_000
"""Most operations of the field in a kernel: Triton's passes take about 4 ms for each (measured, triton 3.6)."""
_NUMBERS = ("samples", "outputs", "apart", "limit", "rows")
"""Samples; output times; how far apart those of two samples lie (0 if shared); most trial steps; rows of the tape."""
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Design:
    """What a kernel is made for, beside the field's formula.

    control: how many numbers the controller remembers; widths: components of the stepper's memories; uniform: whether
    all components have the same tolerances; noise: "" | "hashed" | "given"; native: for a GPU, not the interpreter;
    tape: outputs a row of the tape can note, 0 without one; essential: how many memories a row keeps, the first ones.
    """

    stepper: Stepper
    controller: PID | None
    control: int
    real: torch.dtype
    size: int
    channels: int
    kind: str
    calculus: str
    widths: tuple[int, ...]
    sign: int
    uniform: bool
    resumable: bool
    noise: str
    native: bool
    tape: int = 0
    essential: int = 0

    @property
    def dialect(self) -> str:
        """How operations are written."""
        return "native" if self.native else "interpreted"


@dataclass(frozen=True)
class Kernel:
    """Source text, and the inputs of the field's graph that it takes as pointers P0, P1, ..., in this order."""

    text: str
    inputs: tuple[int, ...]


def kernel_source(design: Design, formula: Formula) -> Kernel:
    """Write the kernel."""
    functions, calls, prologue, inputs = _field(design, formula)
    family = stages_of(design.stepper)
    assert family is not None
    stages = family(design.stepper, calls)
    _check_length(design, functions)
    text = Text(design.native)
    text.put('"""A solve of many trajectories, written by sciode: one lane a trajectory."""', "")
    text.put("import triton", "import triton.language as tl")
    if design.native:
        text.put("from triton.language.extra import libdevice")
    for function in functions:
        text.put("", "", *function.text.splitlines())
    if design.noise == "hashed":
        text.put("", "", *_gaussian(text).splitlines())
    text.put("", "", f"@triton.jit(do_not_specialize={[*_NUMBERS]})")
    with text.block(f"def solve({', '.join(_parameters(design, inputs))}):"):
        _load(text, design, prologue)
        with text.block("while tl.max(active.to(tl.int32), 0) > 0:"):
            _body(text, design, stages)
        _store(text, design)
    return Kernel(str(text) + "\n", inputs)


def _field(design: Design, formula: Formula) -> tuple[list[Written], Calls, list[str], tuple[int, ...]]:
    """The field's functions, how they are called, and the lines before the loop that their arguments need."""
    columns = 1 if design.kind == "diagonal" else design.channels
    matrix = [g for row in formula.diffusion or () for g in row]
    assert len(formula.drift) == design.size and len(matrix) == (design.size * columns if design.channels else 0)
    leaves = _leaves([*formula.drift, *matrix])
    inputs = tuple(sorted({formula.sources[name].index for name in leaves}))
    pointer = {index: f"P{i}" for i, index in enumerate(inputs)}

    def spell(name: str) -> str:
        source = formula.sources[name]
        if source.apart:
            return f"tl.load({pointer[source.index]} + lane * {source.size} + {source.offset}, mask=inside, other=0)"
        return f"tl.load({pointer[source.index]} + {source.offset})"

    shared = [name for name in leaves if not formula.sources[name].apart]
    pointers = {name: spell(name) for name in shared} if len(shared) > _IN_REGISTERS else {}
    given = ("t64", *(f"y_{j}" for j in range(design.size)))
    functions = [write("first", given, [*formula.drift, *matrix], design.dialect, pointers)]
    if design.channels:
        functions.append(write("diffusion", given, matrix, design.dialect, pointers))
    known: dict[int, str] = {}
    prologue = []
    ends = []
    for function in functions:
        values = [e for e in function.arguments if e.dtype != torch.int64 or e.args[0] not in pointer.values()]
        prologue += write_values(values, known, design.dialect, "c", lambda leaf: spell(leaf.args[0]))
        names = [known.get(id(e), e.args[0]) for e in function.arguments]
        ends.append("".join(f", {name}" for name in names))
    calls = Calls(design.size, design.channels, design.kind, design.calculus, ends[0], ends[-1])
    return functions, calls, prologue, inputs


def _check_length(design: Design, functions: list[Written]) -> None:
    """CannotCompile if the compiler would be busy for minutes."""
    evaluations = design.stepper.nstages + design.stepper.basis_nfe
    length = evaluations * max(function.text.count("\n") for function in functions)
    if length > _LONGEST:
        raise CannotCompile(
            f"the kernel engine writes every evaluation out, and {length:,} operations take minutes to compile"
        )


def _leaves(roots: Sequence[Expr]) -> list[str]:
    """Names of the inputs' entries that are needed."""
    seen: set[int] = set()
    names: list[str] = []
    stack = list(roots)
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op == "leaf" and node.args[0].startswith("p"):
            names.append(node.args[0])
        elif node.op not in ("leaf", "const"):
            stack.extend(node.args)
    return names


def _gaussian(text: Text) -> str:
    """Four normals of (seed, cell, column, purpose), as `brownian.philox.normals` makes them."""
    log, sin, cos = (f"libdevice.{f}" if text.native else f"tl.{f}" for f in ("log", "sin", "cos"))
    root = text.sqrt(f"-2.0 * {log}({{}})")
    return "\n".join(
        (
            "@triton.jit",
            "def gaussian(seed, cell, column: tl.constexpr, purpose: tl.constexpr, REAL: tl.constexpr):",
            "    low, high = cell.to(tl.uint32), (cell >> 32).to(tl.uint32)",
            "    rest = tl.zeros_like(low)",
            "    w0, w1, w2, w3 = tl.philox(seed, low, high, rest + column, rest + purpose)",
            "    u0, u1 = (w0.to(REAL) + 0.5) * 2.3283064365386963e-10, (w1.to(REAL) + 0.5) * 2.3283064365386963e-10",
            "    u2, u3 = (w2.to(REAL) + 0.5) * 2.3283064365386963e-10, (w3.to(REAL) + 0.5) * 2.3283064365386963e-10",
            f"    r0, r1 = {root.format('u0')}, {root.format('u2')}",
            f"    a0, a1 = {2 * math.pi!r} * u1, {2 * math.pi!r} * u3",
            f"    return r0 * {cos}(a0), r0 * {sin}(a0), r1 * {cos}(a1), r1 * {sin}(a1)",
        )
    )


def _parameters(design: Design, inputs: Sequence[int]) -> list[str]:
    """Parameters of the kernel; `run` passes them in this order."""
    names = ["OUT", "BOOKS", "COUNTS", "STATES", "T", "H", "N", "Y", "S0", "S1", "STATUS", "TRIALS"]
    names += ["ACCEPTED", "TIMES"]
    names += ["TOLERANCES"] if design.controller is not None else ["STEPS"]
    names += [f"M{i}" for i in range(len(design.widths))] + [f"C{i}" for i in range(design.control)]
    names += {"": [], "hashed": ["SEEDS", "CELLS", "CUT", "ANCHOR"], "given": ["NOISE"]}[design.noise]
    names += [f"P{i}" for i in range(len(inputs))]
    if design.tape:
        names += [*TAPE_POINTERS, *(f"ROW_E{i}" for i in range(design.essential))]
    return [*names, *_NUMBERS, "BLOCK: tl.constexpr"]


def _vectors(design: Design) -> list[Names]:
    """Names of the state and of the memories, flat."""
    memories = [[f"m{i}_{j}" for j in range(width)] for i, width in enumerate(design.widths)]
    return [[f"y_{j}" for j in range(design.size)], *memories]


def _kept(design: Design) -> list[Names]:
    """Names of what a row of the tape keeps: the state and the essential memories."""
    return _vectors(design)[: 1 + design.essential]


def _load(text: Text, design: Design, prologue: list[str]) -> None:
    """The carry, the cursor, and what does not change."""
    text.put(
        "lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
        "inside = lane < samples",
        "batch = samples.to(tl.int64)",
    )
    for name, pointer in (("time", "T"), ("ahead", "H"), ("begin", "S0"), ("end", "S1")):
        text.let(name, f"tl.load({pointer} + lane, mask=inside, other=0.0)")
    text.let("n", "tl.load(N + lane, mask=inside, other=0)")
    for name in ("status", "trials", "accepted"):
        text.let(name, f"tl.load({name.upper()} + lane, mask=inside, other=0).to(tl.int32)")
    for pointer, vector in zip(["Y", *(f"M{i}" for i in range(len(design.widths)))], _vectors(design), strict=True):
        for j, name in enumerate(vector):
            text.let(name, f"tl.load({pointer} + lane * {len(vector)} + {j}, mask=inside, other=0.0)")
    for i in range(design.control):
        text.let(f"c_{i}", f"tl.load(C{i} + lane, mask=inside, other=1.0)")
    if design.controller is None:
        text.let("steps", "tl.load(STEPS + lane, mask=inside, other=0)")
    else:
        for j in range(1 if design.uniform else design.size):
            width = 1 if design.uniform else design.size
            text.put(f"rtol_{j} = tl.load(TOLERANCES + {j})", f"atol_{j} = tl.load(TOLERANCES + {width + j})")
        text.let("floor", f"{16 * _EPS!r} * tl.maximum(tl.abs(begin), tl.abs(end))")
        if design.controller.dtmin is not None:
            text.let("floor", f"tl.maximum(floor, {design.controller.dtmin!r})")
    if design.noise == "hashed":
        real = names_of(design.real)
        text.put(
            "seed = tl.load(SEEDS + lane, mask=inside, other=0)",
            "cells = tl.load(CELLS + lane, mask=inside, other=0)",
            "cut = tl.load(CUT + lane, mask=inside, other=0.0)",
            "anchor = tl.load(ANCHOR + lane, mask=inside, other=0)",
            "share = tl.minimum(cut / ahead, 1.0)",
            f"spread = {text.sqrt('cut * (1.0 - share)')}.to({real})",
            f"scale = {text.sqrt('ahead')}.to({real})",
        )
    text.put(*prologue)
    text.put(
        "shelf = lane * apart",
        "line = tl.zeros([BLOCK], tl.int32)",
        "cursor = tl.full([BLOCK], 1, tl.int32)",
        "due_time = tl.load(TIMES + shelf + cursor, mask=inside & (cursor < outputs), other=float('inf'))",
        "marked = tl.zeros([BLOCK], tl.int32)",
        f"active = status == {RUNNING}",
    )


def _body(text: Text, design: Design, stages: Stages) -> None:
    """One trial step of every lane that has not ended."""
    real, size = names_of(design.real), design.size
    sign = "" if design.sign > 0 else "-"
    y, *memory = _vectors(design)
    text.let("left", "end - time")
    text.let("final", f"ahead * {_SNAP!r} >= left" if design.controller is not None else "n + 1 >= steps")
    text.put(
        "length = tl.where(active, tl.where(final, left, ahead), 0.0)",
        f"now = {sign}time",
        f"step = {sign}length",
        f"h = step.to({real})",
    )
    dw = _increments(text, design)
    stepped = stages.step(text, y, memory, dw)
    text.let("finite", " & ".join(f"(tl.abs({v}) < float('inf'))" for v in stepped.y1))
    if design.controller is not None:
        assert stepped.error is not None
        _control(text, design, design.controller, y, stepped)
        text.let("reached", "tl.where(final, end, time + length)")
    else:
        text.put("accept = finite", "proposed = ahead", "failure = tl.full([BLOCK], 3, tl.int32)")
        text.let("reached", "tl.where(final, end, begin + (n + 1).to(tl.float64) * ahead)")
    text.put(
        "accept = accept & active",
        f"ended = tl.where(accept, tl.where(final, {int(Status.SUCCESS)}, {RUNNING}), failure)",
        "verdict = tl.where(active, ended, status)",
    )
    _outputs(text, design, stages, y, stepped)
    if design.resumable:
        text.let("cut_off", "final & (accept == 0) & active & (marked == 0)")
        with text.block("if tl.max(cut_off.to(tl.int32), 0) > 0:"):
            _store_carry(text, design, 1, "cut_off")
        text.let("marked", "tl.where(cut_off, 1, marked)")
    text.let("keep", "accept & (final == 0)")
    if design.tape:
        put_row(text, _kept(design), "accept", "1", "keep.to(tl.int8)")
        text.let("line", "line + accept.to(tl.int32)")
    text.put("time = tl.where(keep, reached, time)", f"ahead = tl.where(verdict == {RUNNING}, proposed, ahead)")
    text.put("n = n + keep.to(tl.int64)")
    for old, new in zip([y, *memory], [stepped.y1, *stepped.memory], strict=True):
        text.put(*(f"{a} = tl.where(keep, {b}, {a})" for a, b in zip(old, new, strict=True)))
    for i in range(design.control):
        text.let(f"c_{i}", f"tl.where(keep, new_{i}, c_{i})")
    text.put(
        "trials = trials + active.to(tl.int32)",
        "accepted = accepted + accept.to(tl.int32)",
        f"status = tl.where((verdict == {RUNNING}) & (trials >= limit), {int(Status.MAX_STEPS)}, verdict)",
        f"active = status == {RUNNING}",
    )
    assert size == len(y)


def _increments(text: Text, design: Design) -> Names:
    """Lines of the Brownian increments of this step."""
    names = [f"dw_{j}" for j in range(design.channels)]
    if design.noise == "given":
        for j, name in enumerate(names):
            text.let(name, f"tl.load(NOISE + (n * batch + lane) * {design.channels} + {j}, mask=active, other=0.0)")
    if design.noise == "hashed":
        real, sign = names_of(design.real), "" if design.sign > 0 else "-"
        text.let("cell", "n" if design.sign > 0 else "anchor - 1 - n")
        _draw(text, design, "z", 0)
        text.put(*(f"{name} = {sign}(z_{j} * scale)" for j, name in enumerate(names)))
        if design.sign > 0:
            text.let("ragged", "(n == cells - 1) & (cut < ahead) & active")
            with text.block("if tl.max(ragged.to(tl.int32), 0) > 0:"):
                _draw(text, design, "b", 1)
                for j, name in enumerate(names):
                    text.let(name, f"tl.where(ragged, share.to({real}) * {name} + spread * b_{j}, {name})")
    return names


def _draw(text: Text, design: Design, prefix: str, purpose: int) -> None:
    """Lines of standard normals, four at a time."""
    for column in range(-(-design.channels // 4)):
        four = ", ".join(f"{prefix}_{4 * column + i}" for i in range(4))
        text.put(f"{four} = gaussian(seed, cell, {column}, {purpose}, {names_of(design.real)})")


def _control(text: Text, design: Design, pid: PID, y: Names, stepped: Stepped) -> None:
    """Lines of `controllers.PID.next` and of what `advance` makes of it; in the state's dtype, as the error is."""
    real, order = names_of(design.real), design.stepper.error_order
    assert stepped.error is not None and order is not None
    squares = []
    for j, (a, b, e) in enumerate(zip(y, stepped.y1, stepped.error, strict=True)):
        tol = 0 if design.uniform else j
        scaled = text.let(f"q_{j}", f"{e} / (tl.maximum(tl.abs({a}), tl.abs({b})) * rtol_{tol} + atol_{tol})")
        squares.append(f"{scaled} * {scaled}")
    text.let("ratio", f"{text.sqrt(' + '.join(squares))} * {1 / math.sqrt(design.size)!r}")
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


def _outputs(text: Text, design: Design, stages: Stages, y: Names, stepped: Stepped) -> None:
    """Lines that write the outputs a step passed; a lane with nothing due waits for those with much."""
    real = names_of(design.real)
    if design.tape:
        text.let("slot", "tl.zeros([BLOCK], tl.int32)")
    text.put(f"slack = reached + {_AT_END!r} * length", "due = accept & (due_time <= slack)")
    with text.block("if tl.max(due.to(tl.int32), 0) > 0:"):
        k = stages.prepare(text, y, stepped)
        with text.block("while tl.max(due.to(tl.int32), 0) > 0:"):
            text.put(
                "part = 1.0 - (reached - due_time) / tl.where(due, length, 1.0)",
                f"part = tl.where(due & (part <= {1 - _AT_END!r}), tl.maximum(part, 0.0), 1.0)",
                f"theta = part.to({real})",
            )
            weights = stages.weights(text, len(k))
            text.let("place", f"(cursor.to(tl.int64) * batch + lane) * {design.size}")
            for j in range(design.size):
                terms = [f"{w} * {v[j]}" for w, v in zip(weights, k, strict=True) if w]
                value = f"tl.where(part >= 1.0, {stepped.y1[j]}, {' + '.join((y[j], *terms))})"
                text.put(f"tl.store(OUT + place + {j}, {value}, mask=due)")
            if design.tape:
                put_slot(text, _kept(design), design.tape)
            text.put(
                "cursor = cursor + due.to(tl.int32)",
                "due_time = tl.load(TIMES + shelf + cursor, mask=inside & (cursor < outputs), other=float('inf'))",
                "due = accept & (due_time <= slack)",
            )


def _store(text: Text, design: Design) -> None:
    """The carry before each lane's last step; where there is no other origin, that is the origin, too."""
    _store_carry(text, design, 0, "inside")
    text.put("tl.store(COUNTS + 3 * batch + lane, status, mask=inside)")
    text.put("tl.store(COUNTS + 4 * batch + lane, cursor, mask=inside)")
    if design.tape:
        text.put("tl.store(COUNTS + 5 * batch + lane, line, mask=inside)")
        put_rest(text, _kept(design))
    if design.resumable:
        text.let("rest", "inside & (marked == 0)")
        _store_carry(text, design, 1, "rest")


def _store_carry(text: Text, design: Design, half: int, mask: str) -> None:
    """Lines that write a carry into one half of the buffers."""
    books = ["time", "ahead", *(f"c_{i}" for i in range(design.control))]
    for i, name in enumerate(books, half * len(books)):
        text.put(f"tl.store(BOOKS + {i} * batch + lane, {name}, mask={mask})")
    for i, name in enumerate(("n", "trials", "accepted"), half * 6):
        text.put(f"tl.store(COUNTS + {i} * batch + lane, {name}, mask={mask})")
    vectors = _vectors(design)
    offset = half * sum(map(len, vectors))
    for vector in vectors:
        for j, name in enumerate(vector):
            place = f"STATES + {offset} * batch + lane * {len(vector)} + {j}"
            text.put(f"tl.store({place}, {name}, mask={mask})")
        offset += len(vector)
