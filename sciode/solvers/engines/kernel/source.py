"""The whole solve of a trajectory as one Triton kernel, written out: field, start, loop, end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..lift import CannotCompile
from .carry import NUMBERS, parameters, put_end, put_start
from .design import Design, Draft
from .expressions import Expr, Written, write, write_values
from .frame import Components, Frame, Tile
from .loop import put_loop
from .noise import noise_functions
from .stages import Calls, stages_of
from .text import Text
from .trace import Formula

__all__ = ["Kernel", "kernel_source"]

_IN_REGISTERS = 96
"""More numbers than this are not kept in registers for the whole solve, but read (from cache) where they are used."""
_BYTES_IN_REGISTERS = 64 * 1024
"""The same for the matrices of tiles: a quarter of a multiprocessor's registers."""
_LONGEST = 20_000
"""Most operations of the field in a kernel: Triton's passes take about 4 ms for each (measured, triton 3.6)."""


@dataclass(frozen=True)
class Kernel:
    """Source text, and the inputs of the field's graph that it takes as pointers P0, P1, ..., in this order.

    samples: how many a program solves, by how many warps; length: operations of the field that it writes out; tiled:
    whether vectors are tiles.
    """

    text: str
    inputs: tuple[int, ...]
    samples: int
    warps: int
    length: int
    tiled: bool


def kernel_source(design: Design, formula: Formula) -> Kernel:
    """Write the kernel. Raises CannotCompile."""
    frame: Frame = Components()
    if formula.tiled:
        frame = Tile(design.size, sum(piece.bytes for piece in formula.sources.values()))
    if formula.tiled and design.channels and design.kind != "diagonal":
        raise CannotCompile(f"the kernel engine's tiles know diagonal noise, not {design.kind}")
    functions, calls, prologue, inputs = _field(design, formula, frame)
    family = stages_of(design.stepper)
    assert family is not None
    length = _length(design, functions)
    text = Text(design.native)
    text.put('"""A solve of many trajectories, written by sciode."""', "")
    text.put("import triton", "import triton.language as tl")
    if design.native:
        text.put("from triton.language.extra import libdevice")
    for function in functions:
        text.put("", "", *function.text.splitlines())
    if design.noise == "hashed":
        text.put("", "", *noise_functions(text, formula.tiled).splitlines())
    names = parameters(design, len(inputs))
    # One compiled kernel for all launches, whatever the numbers are and wherever the tensors begin.
    pointers = [name for name in names if name not in NUMBERS]
    text.put("", "", f"@triton.jit(do_not_specialize={[*NUMBERS]}, do_not_specialize_on_alignment={pointers})")
    draft = Draft(text, design, frame, family(design.stepper, calls))
    with text.block(f"def solve({', '.join(names)}):"):
        put_start(draft, prologue)
        put_loop(draft)
        put_end(draft)
    return Kernel(str(text) + "\n", inputs, frame.samples, frame.warps, length, formula.tiled)


def _field(design: Design, formula: Formula, frame: Frame) -> tuple[list[Written], Calls, list[str], tuple[int, ...]]:
    """The field's functions, how they are called, and the lines before the loop that their arguments need."""
    matrix = [g for row in formula.diffusion or () for g in row]
    leaves = _leaves([*formula.drift, *matrix])
    inputs = tuple(sorted({formula.sources[name].index for name in leaves}))
    texts = {name: formula.sources[name].spell(f"P{inputs.index(formula.sources[name].index)}") for name in leaves}
    pointers = _read_where_used(formula, leaves, texts)
    state = frame.names("y_", design.size)
    functions = [write("first", ("t64", *state), [*formula.drift, *matrix], design.dialect, pointers)]
    if design.channels:
        functions.append(write("diffusion", ("t64", *state), matrix, design.dialect, pointers))
    known: dict[int, str] = {}
    prologue: list[str] = []
    ends = []
    for function in functions:
        prologue += write_values(function.values, known, design.dialect, "c", lambda leaf: texts[leaf.args[0]])
        names = [*(known[id(e)] for e in function.values), *function.pointers]
        ends.append("".join(f", {name}" for name in names))
    channels = len(frame.names("", design.channels)) if design.channels else 0
    calls = Calls(frame, len(state), channels, design.kind, design.calculus, ends[0], ends[-1])
    return functions, calls, prologue, inputs


def _read_where_used(formula: Formula, leaves: Sequence[str], texts: dict[str, str]) -> dict[str, str]:
    """The leaves that are too many to be kept in registers, as texts."""
    shared = [name for name in leaves if not formula.sources[name].apart]
    if formula.tiled:
        many = sum(formula.sources[name].bytes for name in shared) > _BYTES_IN_REGISTERS
    else:
        many = len(shared) > _IN_REGISTERS
    return {name: texts[name] for name in shared} if many else {}


def _length(design: Design, functions: list[Written]) -> int:
    """Operations of the field written out. CannotCompile if the compiler would be busy for minutes."""
    evaluations = design.stepper.nstages + design.stepper.basis_nfe + 2 * design.ignites
    length = evaluations * max(function.text.count("\n") for function in functions)
    if length > _LONGEST:
        raise CannotCompile(
            f"the kernel engine writes every evaluation out, and {length:,} operations take minutes to compile"
        )
    return length


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
