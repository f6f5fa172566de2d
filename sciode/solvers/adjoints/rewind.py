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

from ..engines import (
    CannotCompile,
    Lifted,
    Part,
    Repeat,
    check_repeatable,
    feed,
    key_of,
    lift_of,
    loop_of,
    number,
    tensors_of,
)
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
    """A problem whose field reads `sources`, and the run that solved it."""

    problem: Problem
    run: Run
    sources: list[Tensor]


def rewind(pulled: Rewound, seeds: Seeds) -> Walk:
    """Cotangents at the start of the loop, and the gradients of the sources."""
    tape = pulled.run.tape
    assert tape is not None
    walk = None
    for block, penalties in zip(reversed(tape.blocks), reversed(seeds.penalties), strict=True):
        if block.count:
            problem = feed(pulled.problem, block.first)
            walk = _walk_back(pulled._replace(problem=problem), block, seeds.out, penalties, walk)
    return walk or _still(tape.blocks[0].rows, pulled.sources)


def _still(rows: Row, sources: list[Tensor]) -> Walk:
    """The walk before it has begun."""
    device = rows.y.device
    y, essential = torch.zeros_like(rows.y[0]), tuple(torch.zeros_like(e[0]) for e in rows.essential)
    totals = tuple(torch.zeros(x.shape, dtype=x.dtype, device=device) for x in sources)
    word = torch.ones(1, dtype=torch.int64, device=device)
    return Walk(y, essential, totals, torch.zeros((), dtype=torch.int64, device=device), word)


def _walk_back(part: Rewound, block: Block, out: Tensor, penalties: tuple[Tensor, ...], walk: Walk | None) -> Walk:
    """Through one block of the tape, by a loop on the device; walk None: it is the last block, the first to walk."""
    run, rows, machine = part.run, block.rows, part.run.machine
    others = [*tensors_of(part.problem), *run.reads]
    if machine is not None:
        places = {id(x): i for i, x in enumerate(others)}
        asked = tuple(places.get(id(x), -1) for x in part.sources)
        key = (rows.s.shape[0], tuple(a.requires_grad for a in others), asked)
        back = machine.backs.get(key)
        if back is None:
            lifted, line = _lifted(part, rows)
            back = machine.backs[key] = _Back(lifted, line, part.sources, others, run.engine)
    else:
        lifted, line = _lifted(part, rows)
        others = lifted.inputs
        if lifted.traced.made is None:
            lifted.traced.made = _Back(lifted, line, part.sources, others, run.engine)
        back = lifted.traced.made
    with torch.no_grad():
        return back(others, block, out, penalties, walk)


def _lifted(part: Rewound, rows: Row) -> tuple[Lifted, Row]:
    """The graph of one step retaken, and the row it was traced with."""
    line = pytree.tree_map(lambda c: c[0].clone(memory_format=torch.contiguous_format), rows)
    key = key_of("retake", part.problem, line.y, rows.k.shape, len(part.sources), part.run.engine)
    # Traced as it will be differentiated: a field's own `no_grad` blocks end where they end in its code.
    with torch.enable_grad():
        returns = 2 + len(line.essential) + len(line.penalties)
        return lift_of(key, _retake)(part.problem, line, returns=returns), line


def _retake(problem: Problem, row: Row) -> tuple[Tensor, ...]:
    """`retake`, its results as a flat tuple: Dynamo of torch 2.11 cannot return tuples with names."""
    return tuple(pytree.tree_leaves(retake(problem, row)))


class _Back:
    """The loop back over one graph: which of its inputs come from the row and which from what never changes."""

    def __init__(self, lifted: Lifted, line: Row, sources: list[Tensor], others: list[Tensor], engine: str) -> None:
        check_repeatable(lifted.traced.graph, lifted.inputs, [])
        self.columns = lifted.positions(pytree.tree_leaves(line))
        places = {id(x): i for i, x in reversed(list(enumerate(others)))}
        strange = any(p < 0 and id(x) not in places for x, p in zip(lifted.inputs, self.columns, strict=True))
        if strange:
            raise CannotCompile("a step taken again reads a tensor that the field's first evaluation does not")
        self.fixed = [places[id(x)] for x, p in zip(lifted.inputs, self.columns, strict=True) if p < 0]
        state = [line.y, *line.essential, *sources]
        with torch.no_grad():
            self.joint = _vjp(lifted, lifted.positions(state), state)
        self.like = [(x.shape, x.dtype) for x in state]
        self.essential, self.engine = len(line.essential), engine
        self.repeat: Any = None

    def __call__(
        self, others: list[Tensor], block: Block, out: Tensor, penalties: tuple[Tensor, ...], walk: Walk | None
    ) -> Walk:
        """Walk from the block's last row to its first."""
        last = number("last row", block.count - 1, out.device)
        given = (last, out, *penalties, *pytree.tree_leaves(block.rows), *(others[i] for i in self.fixed))
        if self.repeat is None:
            self.repeat = self._made(list(given), len(penalties), pytree.tree_structure(block.rows))
        state = None
        if walk is not None:
            state = pytree.tree_leaves(walk._replace(row=last.clone(), word=torch.ones_like(walk.word)))
        found, _ = self.repeat(list(given), state)
        return self._walk(found)

    def _made(self, given: list[Tensor], penalties: int, rows: Any) -> Repeat:
        size, device = len(self.like) + 2, given[0].device
        a = 2 + penalties
        b = a + rows.num_leaves

        def body(*tensors: Tensor) -> list[Tensor]:
            walk, more = self._walk(tensors[:size]), tensors[size:]
            return pytree.tree_leaves(self._once(walk, rows, more[b:], more[a:b], more[1], more[2:a]))

        def still(last: Tensor) -> list[Tensor]:
            zeros = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in self.like]
            return [*zeros, last.clone(), torch.ones(1, dtype=torch.int64, device=device)]

        once = Part(body, (*range(size), *(~i for i in range(len(given)))))
        return loop_of(self.engine, device, once, ["read"] * len(given), Part(still, (~0,)))

    def _walk(self, state: Any) -> Walk:
        a = 1 + self.essential
        return Walk(state[0], tuple(state[1:a]), tuple(state[a:-2]), state[-2], state[-1])

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
    if run.clean and len(cotangents) == 1 and cotangents[0] is not None:
        # Every row was written, so assembling is the identity; the row for waste gets none.
        out = cotangents[0]
        return Seeds(out[0], torch.nn.functional.pad(out, (0, 0, 0, 0, 0, 1)), ((),) * len(tape.blocks))
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
