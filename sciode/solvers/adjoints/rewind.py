"""`recompute` for a loop on the device: its tape is walked back by another loop on the device.

Each row of the tape is taken again and differentiated in one graph (`retake` and its vector-Jacobian product); the
loop carries the cotangent of the state and the sums of the sources' gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..books import rows
from ..brownian import BlockNoise, block_size
from ..engines import (
    Lifted,
    Postponed,
    Stride,
    Walk,
    WayBack,
    check_repeatable,
    feed,
    key_of,
    lift_of,
    operations_of,
    postpone,
    restep,
    tensors_of,
    wiring_of,
)
from ..problem import Problem
from ..status import Status
from ..trajectory import Block, Row, Run, Tape, begun_at
from ..trees import leaves_of
from ..turn import outputs_at, places_of, retake
from .results import results

__all__ = ["JoinedLate", "Rewound", "Seeds", "pullback", "rewind", "seeds_of", "taken_again"]


class JoinedLate(RuntimeError):
    """A tensor that joins the field only later would lose its gradient."""


class Seeds(NamedTuple):
    """Cotangents of what the loop wrote: start, of y0 itself; out [T + 1, B, D]; penalties of every block."""

    start: Tensor
    out: Tensor
    penalties: tuple[tuple[Tensor, ...], ...]


class Rewound(NamedTuple):
    """A problem whose field reads `sources`, and the run that solved it."""

    problem: Problem
    run: Run
    sources: list[Tensor]


def rewind(pulled: Rewound, seeds: Seeds) -> Walk | None:
    """Cotangents at the start of the loop, and the gradients of the sources; None if no step was accepted."""
    tape, walk = pulled.run.tape, None
    assert tape is not None
    begun = None if pulled.run.clean else begun_at(pulled.run)
    for block, penalties in zip(reversed(tape.blocks), reversed(seeds.penalties), strict=True):
        if block.count:
            problem = _fed(pulled.problem, block)
            block = block if begun is None else block._replace(rows=_without_failures(pulled.run, block.rows, begun))
            walk = _walk_back(pulled._replace(problem=problem), block, seeds.out, penalties, walk)
    return walk


def _without_failures(run: Run, lines: Row, begun: Any) -> Row:
    """Rows of the tape [...], with samples that did not accept back where they began, and without lost outputs.

    Where they are the field may not be finite; what they do there is nobody's, but a NaN reaches shared parameters as
    0 * NaN.
    """
    took = lines.dt != 0
    s, y, *essential = (
        torch.where(took.reshape(*took.shape, *(1,) * (now.ndim - took.ndim)), now, first)
        for now, first in zip((lines.s, lines.y, *lines.essential), (begun.s, begun.y, *begun.essential), strict=True)
    )
    theta, k = _without_lost(run, lines)
    return lines._replace(s=s, y=y, essential=tuple(essential), theta=theta, k=k)


def _without_lost(run: Run, lines: Row) -> tuple[Tensor, Tensor]:
    """theta, k [..., m, L] of rows, without outputs that a failed sample's last step has where it cannot give them.

    It led to where the field is not finite, and dense output may ask for the slope there.
    """
    tape = run.tape
    assert tape is not None
    none, lanes = tape.ys.shape[0], lines.k.shape[-1]
    if not run.problem.stepper.basis_nfe:
        return lines.theta, lines.k
    failed = run.carry.status == int(Status.NONFINITE)
    lost = ~torch.isfinite(tape.ys.detach()).reshape(none, lanes, -1).all(-1) & failed
    lost = torch.cat((lost, torch.zeros_like(lost[:1])))
    # Rows that were not written hold anything.
    here = lost[lines.k.clamp(0, none), torch.arange(lanes, device=lost.device)] & (lines.theta < 1)
    return torch.where(here, 1.0, lines.theta), torch.where(here, none, lines.k)


def _fed(problem: Problem, block: Block) -> Problem:
    """The problem with the increments of a block's steps: those that its run has drawn, if they were kept."""
    if block.increments is None:
        return feed(problem, block.first)
    base = torch.full((), block.first, dtype=torch.int64, device=block.increments.device)
    return replace(problem, noise=BlockNoise(block.increments, base))


def _walk_back(part: Rewound, block: Block, out: Tensor, penalties: tuple[Tensor, ...], walk: Walk | None) -> Walk:
    """Through one block of the tape, by a loop on the device; walk None: it is the last block, the first to walk."""
    others = [*tensors_of(part.problem), *part.run.reads]
    places = {id(x): i for i, x in enumerate(others)}
    asked = tuple(places.get(id(x), -1) for x in part.sources)
    # The size of the noise's block: one kernel serves solves of few and of many steps.
    key = (block.rows.s.shape[0], block_size(part.problem.noise), tuple(a.requires_grad for a in others), asked)
    backs = part.run.machine.backs
    if key not in backs:
        lifted = _stride if block.strides else _lifted
        backs[key] = _Back(lifted(part, block.rows), part.sources, others, part.run.engine)
    with torch.no_grad():
        return backs[key](others, block, out, penalties, walk)


class _Pulling(NamedTuple):
    """What one step is, going back: the graph of its results, and the row it was traced with.

    columns(rows) -> those of the tape that `line` is a row of, and perhaps more; k: which of them says what outputs it
    made; like: what of the line has a cotangent; cotangents(walk, values, rows of penalties) -> those of the results;
    cached: see `postpone`.
    """

    lifted: Lifted
    line: Any
    like: list[Tensor]
    columns: Callable[[Row], list[Tensor]]
    k: int
    cotangents: Callable[[Walk, Tensor, list[Tensor]], list[Tensor]]
    cached: bool


def _lifted(part: Rewound, rows: Row) -> _Pulling:
    """A turn taken again."""
    line = pytree.tree_map(lambda c: c[0].clone(memory_format=torch.contiguous_format), rows)
    key = key_of("retake", part.problem, line.y, rows.k.shape, len(part.sources), part.run.engine)
    # Traced as it will be differentiated: a field's own `no_grad` blocks end where they end in its code.
    with torch.enable_grad():
        returns = 2 + len(line.essential) + len(line.penalties)
        lifted = lift_of(key, _retake)(part.problem, line, returns=returns)

    def cotangents(walk: Walk, values: Tensor, penalties: list[Tensor]) -> list[Tensor]:
        return [walk.y, *walk.memory, values, *penalties]

    k = next(i for i, x in enumerate(pytree.tree_leaves(line)) if x is line.k)
    return _Pulling(lifted, line, [line.y, *line.essential], leaves_of, k, cotangents, False)


def _stride(part: Rewound, rows: Row) -> _Pulling:
    """A step of a march taken again: its end is the next state, and an output if one lies there."""
    line = Stride(*(c[0].clone() for c in _stride_of(rows)[:-1]))
    key = key_of("stride", part.problem, line.y, rows.k.shape, len(part.sources), part.run.engine)
    with torch.enable_grad():
        lifted = lift_of(key, restep)(part.problem, line, returns=1)

    def cotangents(walk: Walk, values: Tensor, penalties: list[Tensor]) -> list[Tensor]:
        return [walk.y + values[0]]

    return _Pulling(lifted, line, [line.y], _stride_of, -1, cotangents, True)


def _stride_of(rows: Row) -> list[Tensor]:
    return [rows.s, rows.dt, rows.n, rows.y, rows.k]


def _retake(problem: Problem, row: Row) -> tuple[Tensor, ...]:
    """`retake`, its results as a flat tuple: Dynamo of torch 2.11 cannot return tuples with names."""
    return tuple(pytree.tree_leaves(retake(problem, row)))


class _Back:
    """The loop back over one graph: which of its inputs come from the row and which from what never changes."""

    def __init__(self, pulling: _Pulling, sources: list[Tensor], others: list[Tensor], engine: str) -> None:
        lifted = pulling.lifted
        check_repeatable(lifted.traced.graph, lifted.inputs, [])
        leaves = pytree.tree_leaves(pulling.line)
        wiring = wiring_of(lifted, leaves, others)
        self.columns = [w if w >= 0 else -1 for w in wiring]
        self.fixed = [~w for w in wiring if w < 0]
        like = [*pulling.like, *sources]
        with torch.no_grad():
            self.joint = pullback(lifted, lifted.positions(like), like)
        self.memory, same = len(pulling.like) - 1, frozenset(i for i, w in enumerate(wiring) if w < 0)
        # The tensors that `_undo` takes begin with the outputs' cotangents.
        held = {i: 1 + w for i, w in enumerate(wiring) if w >= 0} if pulling.cached else {}
        rest = (self.joint, 1 + self.memory, same, held, like[0].device)
        self.later = [postpone(*rest, cached=cached) for cached in dict.fromkeys((pulling.cached, False))]
        # Shapes only, as in `WayBack`.
        self.like = [torch.empty_like(x, device="meta") for x in like]
        self.engine, self.row, self.k, self.cotangents = engine, pulling.columns, pulling.k, pulling.cotangents
        self.width = 0
        self.ways: dict[int, WayBack] = {}

    def _way(self, count: int) -> WayBack:
        """How so many rows are undone, made at the first such stretch."""
        later = next((x for x in self.later if x.fits(count)), Postponed.none(self.joint))
        many = len(later.products)
        if many not in self.ways:
            undo = partial(self._undo, later.graph)
            self.ways[many] = WayBack(self.engine, undo, self.like, self.memory, later)
        return self.ways[many]

    def __call__(
        self, others: list[Tensor], block: Block, out: Tensor, penalties: tuple[Tensor, ...], walk: Walk | None
    ) -> Walk:
        """Walk from the block's last row to its first."""
        fixed = [others[i] for i in self.fixed]
        columns = self.row(block.rows)
        self.width = len(columns)
        tensors = [out, *columns, *fixed, *penalties]
        return self._way(block.count)(block.count, tensors, walk, out.device)

    def _undo(self, graph: fx.GraphModule, index: Tensor, walk: Walk, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Take the row's step again and pull the cotangents through it."""
        a = 1 + self.width
        b = a + len(self.fixed)
        line = [c.index_select(0, index).squeeze(0) for c in tensors[1:a]]
        fixed = iter(tensors[a:b])
        flat = [line[p] if p >= 0 else next(fixed) for p in self.columns]
        penalties = [p.index_select(0, index).squeeze(0) for p in tensors[b:]]
        return list(graph(*flat, *self.cotangents(walk, outputs_at(tensors[0], line[self.k]), penalties)))


def pullback(lifted: Lifted, wanted: list[int], like: list[Tensor]) -> fx.GraphModule:
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
        outputs, seeds = zip(*pairs, strict=True) if pairs else ((), ())
        pulled = torch.autograd.grad(outputs, [*asked, *strangers], seeds, allow_unused=True) if pairs else ()
        if any(g is not None for g in pulled[len(asked) :]):
            raise JoinedLate(
                "the field uses a tensor that requires grad and that it did not use at the first time, so "
                'adjoint="recompute" cannot give its gradient; pass the tensor through args='
            )
        found: dict[int, Tensor] = {}
        for place, g in zip(places, pulled, strict=False):
            # A tensor may be several inputs of a graph that was traced when they were several tensors.
            if g is not None:
                found[place] = found[place] + g if place in found else g
        return [found[i] if i in found else torch.zeros_like(x) for i, x in enumerate(like)]

    with torch.no_grad():
        outputs = graph(*lifted.inputs)
    joint = operations_of(pull, *lifted.inputs, *outputs)
    # Forward-mode derivatives leave questions behind (are two shapes alike?) whose answers Dynamo would refuse.
    joint.graph.eliminate_dead_code()
    joint.recompile()
    return joint


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


def taken_again(problem: Problem, y: Tensor, essential: tuple[Tensor, ...], run: Run) -> Tape:
    """The tape with its states at ts and penalties on autograd's tape, as functions of the first state and memory."""
    tape, begun = run.tape, begun_at(run)
    assert tape is not None
    if begun is None:
        return tape
    out = torch.cat((tape.ys.detach(), torch.zeros_like(tape.ys[:1])))
    blocks = []
    for block in tape.blocks:
        fed, penalties = feed(problem, block.first), []
        for i in range(block.count):
            line = _without_failures(run, pytree.tree_map(lambda c, i=i: c[i], block.rows), begun)
            took = line.dt != 0
            at, *kept = (rows(took, a, b) for a, b in zip((y, *essential), (line.y, *line.essential), strict=True))
            end, after, values, measured = retake(fed, line._replace(y=at, essential=tuple(kept)))
            y, *kept = (rows(took, a, b) for a, b in zip((end, *after), (y, *essential), strict=True))
            essential = tuple(kept)
            flat, k = places_of(out, line.k)
            out = out.reshape(flat).index_copy(0, k, values.reshape(-1, *flat[1:])).reshape(out.shape)
            penalties.append(measured)
        stacked = tuple(torch.stack(column) for column in zip(*penalties, strict=True))
        blocks.append(block._replace(rows=block.rows._replace(penalties=stacked)))
    return tape._replace(ys=out[:-1], blocks=tuple(blocks))
