"""`recompute` for a loop on the device: its tape is walked back by another loop on the device.

Each row of the tape is taken again and differentiated in one graph (`retake` and its vector-Jacobian product); the
loop carries the cotangent of the state and the sums of the sources' gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ..engines import Lifted, check_repeatable, feed, key_of, lift_of, loop_of
from ..problem import Problem
from ..trajectory import Block, Row, Run, Tape
from ..turn import retake
from .results import results

__all__ = ["JoinedLate", "Rewound", "Seeds", "rewind", "seeds_of", "taken_again"]


class JoinedLate(RuntimeError):
    """A tensor that joins the field only later would lose its gradient."""


class Seeds(NamedTuple):
    """Cotangents of what the loop wrote: start, of y0 itself; out [T + 1, B, D]; penalties of every block."""

    start: Tensor
    out: Tensor
    penalties: tuple[tuple[Tensor, ...], ...]


class Walk(NamedTuple):
    """The state of the loop back: cotangents of y and of the essential memory, gradients so far, the row, its word."""

    y: Tensor
    essential: tuple[Tensor, ...]
    totals: tuple[Tensor, ...]
    row: Tensor
    word: Tensor


class Rewound(NamedTuple):
    """A problem whose field reads `sources`, and the tape of a loop that solved it."""

    problem: Problem
    blocks: tuple[Block, ...]
    sources: list[Tensor]
    engine: str


def rewind(pulled: Rewound, seeds: Seeds) -> Walk:
    """Cotangents at the start of the loop, and the gradients of the sources."""
    rows = pulled.blocks[0].rows
    walk = Walk(
        torch.zeros_like(rows.y[0]), tuple(torch.zeros_like(e[0]) for e in rows.essential),
        tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in pulled.sources),
        torch.zeros((), dtype=torch.int64, device=rows.y.device),
        torch.ones(1, dtype=torch.int64, device=rows.y.device),
    )  # fmt: skip
    for block, penalties in zip(reversed(pulled.blocks), reversed(seeds.penalties), strict=True):
        if block.count:
            walk = walk._replace(row=torch.full_like(walk.row, block.count - 1), word=torch.ones_like(walk.word))
            part = pulled._replace(problem=feed(pulled.problem, block.first), blocks=(block,))
            walk = _walk_back(part, seeds.out, penalties, walk)
    return walk


def _walk_back(part: Rewound, out: Tensor, penalties: tuple[Tensor, ...], walk: Walk) -> Walk:
    """Through one block of the tape, by a loop on the device."""
    rows, sources = part.blocks[0].rows, part.sources
    line = pytree.tree_map(lambda c: c[0].clone(memory_format=torch.contiguous_format), rows)
    key = key_of("retake", part.problem, line.y, rows.k.shape, len(sources), part.engine)
    # Traced as it will be differentiated: a field's own `no_grad` blocks end where they end in its code.
    with torch.enable_grad():
        lifted = lift_of(key, _retake)(part.problem, line, returns=2 + len(line.essential) + len(line.penalties))
    with torch.no_grad():
        if lifted.traced.made is None:
            lifted.traced.made = _Back(lifted, line, sources, part.engine)
        return lifted.traced.made(lifted.inputs, rows, out, penalties, walk)


def _retake(problem: Problem, row: Row) -> tuple[Tensor, ...]:
    """`retake`, its results as a flat tuple: Dynamo of torch 2.11 cannot return tuples with names."""
    return tuple(pytree.tree_leaves(retake(problem, row)))


class _Back:
    """The loop back over one graph: which of its inputs come from the row and which from sources never changes."""

    def __init__(self, lifted: Lifted, line: Row, sources: list[Tensor], engine: str) -> None:
        self.engine = engine
        self.columns = lifted.positions(pytree.tree_leaves(line))
        check_repeatable(lifted.traced.graph, lifted.inputs, [])
        state = [line.y, *line.essential]
        self.wanted = lifted.positions([*state, *sources])
        self.joint = _vjp(lifted, self.wanted, [*state, *sources])
        self.repeat: Any = None

    def __call__(self, inputs: list[Tensor], rows: Row, out: Tensor, penalties: Any, walk: Walk) -> Walk:
        """Walk from walk.row to the first row."""
        fixed = [x for x, p in zip(inputs, self.columns, strict=True) if p < 0]
        state, spec = pytree.tree_flatten(walk)
        others, shape = pytree.tree_flatten((fixed, pytree.tree_leaves(rows), out, penalties))
        if self.repeat is None:
            size, column_spec = len(state), pytree.tree_structure(rows)

            def body(*tensors: Tensor) -> list[Tensor]:
                now = pytree.tree_unflatten(tensors[:size], spec)
                return pytree.tree_leaves(self._once(now, column_spec, *pytree.tree_unflatten(tensors[size:], shape)))

            positions = [*range(len(state)), *[-1] * len(others)]
            self.repeat = loop_of(self.engine, out.device, body, positions)
        found, _ = self.repeat([*state, *others])
        return pytree.tree_unflatten(found, spec)

    def _once(self, walk: Walk, columns_as: Any, fixed: Any, columns: Any, out: Tensor, penalties: Any) -> Walk:
        index = walk.row.clamp(min=0).reshape(1)
        line = [c.index_select(0, index).squeeze(0) for c in columns]
        rest = iter(fixed)
        flat = [line[p] if p >= 0 else next(rest) for p in self.columns]
        k = pytree.tree_unflatten(line, columns_as).k
        seeds = [walk.y, *walk.essential, _rows_of(out, k), *(p.index_select(0, index).squeeze(0) for p in penalties)]
        gradients = list(self.joint(*flat, *seeds))
        a = 1 + len(walk.essential)
        totals = tuple(t + g for t, g in zip(walk.totals, gradients[a:], strict=True))
        return Walk(
            gradients[0], tuple(gradients[1:a]), totals, walk.row - 1, (walk.row > 0).to(torch.int64).reshape(1)
        )


def _rows_of(out: Tensor, k: Tensor) -> Tensor:
    """out [T + 1, B, D] at k [m, L]: [m, B, D]."""
    samples, size = out.shape[1:]
    shape, flat = _places(out, k)
    return out.view(shape).index_select(0, flat).view(k.shape[0], samples, size)


def _vjp(lifted: Lifted, wanted: list[int], like: list[Tensor]) -> fx.GraphModule:
    """The graph of (inputs, cotangents of the outputs) -> gradients shaped like `like`; 0 for what the step ignores."""
    graph, size = lifted.traced.graph, len(lifted.inputs)
    others = [x.requires_grad and p < 0 for x, p in zip(lifted.inputs, wanted, strict=True)]

    def pull(*tensors: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            marks = [p >= 0 or other for p, other in zip(wanted, others, strict=True)]
            inputs = [x.detach().requires_grad_(m) for x, m in zip(tensors[:size], marks, strict=True)]
            pairs = [(o, c) for o, c in zip(graph(*inputs), tensors[size:], strict=True) if o.requires_grad]
        places = [p for p in wanted if p >= 0]
        asked = [x for x, p in zip(inputs, wanted, strict=True) if p >= 0]
        strangers = [x for x, other in zip(inputs, others, strict=True) if other]
        outputs, seeds = zip(*pairs, strict=True)
        pulled = torch.autograd.grad(outputs, [*asked, *strangers], seeds, allow_unused=True)
        if any(g is not None for g in pulled[len(asked) :]):
            raise JoinedLate(
                "the field uses a tensor that requires grad and that it did not use at the first time, so "
                'adjoint="recompute" cannot give its gradient; pass the tensor through args='
            )
        found = dict(zip(places, pulled, strict=False))
        return [torch.zeros_like(x) if found.get(i) is None else found[i] for i, x in enumerate(like)]

    with torch.no_grad():
        outputs = graph(*lifted.inputs)
    return make_fx(pull)(*lifted.inputs, *outputs)


def seeds_of(run: Run, y0: Tensor, cotangents: tuple[Tensor | None, ...]) -> Seeds:
    """Pull the cotangents of the results back to y0 and to what the loop wrote: assembling is a function of both."""
    tape = run.tape
    assert tape is not None
    start, ys = y0.detach().requires_grad_(), tape.ys.detach().requires_grad_()
    penalties = [tuple(p.detach().requires_grad_() for p in block.rows.penalties) for block in tape.blocks]
    blocks = [b._replace(rows=b.rows._replace(penalties=p)) for b, p in zip(tape.blocks, penalties, strict=True)]
    with torch.enable_grad():
        tensors = results(start, run._replace(tape=tape._replace(ys=ys, blocks=tuple(blocks)))).tensors()
    pairs = [(t, c) for t, c in zip(tensors, cotangents, strict=True) if c is not None and t.requires_grad]
    sources, spec = pytree.tree_flatten((start, ys, tuple(penalties)))
    pulled: Any = [None] * len(sources)
    if pairs:
        outputs, given = zip(*pairs, strict=True)
        pulled = torch.autograd.grad(outputs, sources, given, allow_unused=True)
    filled = [torch.zeros_like(s) if g is None else g for g, s in zip(pulled, sources, strict=True)]
    first, out, measured = pytree.tree_unflatten(filled, spec)
    return Seeds(first, torch.cat((out, torch.zeros_like(out[:1]))), measured)


def taken_again(problem: Problem, y: Tensor, essential: tuple[Tensor, ...], tape: Tape) -> Tape:
    """The tape with its states at ts and penalties on autograd's tape, as functions of the first state and memory."""
    out = torch.cat((tape.ys.detach(), torch.zeros_like(tape.ys[:1])))
    blocks = []
    for block in tape.blocks:
        fed, penalties = feed(problem, block.first), []
        for i in range(block.count):
            line = pytree.tree_map(lambda c, i=i: c[i], block.rows)._replace(y=y, essential=essential)
            y, essential, values, measured = retake(fed, line)
            flat, k = _places(out, line.k)
            out = out.reshape(flat).index_copy(0, k, values.reshape(-1, *flat[1:])).reshape(out.shape)
            penalties.append(measured)
        stacked = tuple(torch.stack(column) for column in zip(*penalties, strict=True))
        blocks.append(block._replace(rows=block.rows._replace(penalties=stacked)))
    return tape._replace(ys=out[:-1], blocks=tuple(blocks))


def _places(out: Tensor, k: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """A shape of out [T + 1, B, D] and the rows of it that outputs k [m, L] fill."""
    if k.shape[1] == 1:
        return tuple(out.shape), k.flatten()
    samples, size = out.shape[1:]
    return (-1, size), (k * samples + torch.arange(samples, device=k.device)).flatten()
