"""What a field reads, found anew at every call, and what is known of solves that read alike.

One evaluation of the field is traced once for each (code, shapes); at every later call Dynamo's guards find the same
graph and this call's tensors, and nothing is computed. Whatever was compiled for that graph can then run on them.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from ..brownian import block_size
from ..fields import Field
from ..problem import Problem
from ..terms import ODETerm, SDETerm
from ..trees import leaves_of
from .lift import Lift, Lifted, check_repeatable

__all__ = ["Known", "key_of", "known_of", "lift_of", "witness"]

_KEPT = 64
"""Graphs kept for later solves, the least recently used dropped first."""

_lifts: OrderedDict[Hashable, Lift] = OrderedDict()


class Known:
    """What was learned of a traced field, and what engines made for it.

    channels: of its noise, 0 for an ODE; reached: which of the tensors it reads a gradient of its value would reach;
    best: which engine suits it, without and with a gradient.
    """

    def __init__(self, channels: int, reached: tuple[int, ...]) -> None:
        self.channels, self.reached = channels, reached
        self.machines: dict[Hashable, Any] = {}
        self.best: dict[bool, str] = {}


def witness(problem: Problem, y: Tensor) -> Lifted:
    """The graph of one evaluation at (t0, y), and the tensors it reads. Raises CannotCompile.

    Traced as it would be differentiated: a field's own `no_grad` blocks end where they end in its code.
    """
    lift = lift_of(key_of("field", problem, y), _evaluate)
    with torch.enable_grad():
        return lift(problem.field, problem.s0, y, returns=1 + problem.field.stochastic + problem.field.compares)


def known_of(lifted: Lifted, problem: Problem) -> Known:
    """What is known of solves whose field has this graph. Raises CannotCompile."""
    if lifted.traced.made is None:
        check_repeatable(lifted.traced.graph, lifted.inputs, [])
        noise = problem.noise
        lifted.traced.made = Known(0 if noise is None else noise.channels, _reached(lifted))
    return lifted.traced.made


def _reached(lifted: Lifted) -> tuple[int, ...]:
    """Which inputs a gradient of the outputs reaches, whether or not they ask for one; found on fakes."""
    real = [i for i, x in enumerate(lifted.inputs) if x.is_floating_point() or x.is_complex()]
    plain = [x.detach() for x in lifted.inputs]
    with FakeTensorMode() as fakes, torch.enable_grad():
        inputs = [fakes.from_tensor(x) for x in plain]
        for i in real:
            inputs[i].requires_grad_()
        ends = [o for o in lifted.traced.graph(*inputs) if o.requires_grad]
        if not ends:
            return ()
        try:
            pulled = torch.autograd.grad(
                ends, [inputs[i] for i in real], [torch.ones_like(o) for o in ends], allow_unused=True
            )
        except RuntimeError:
            # An operation without a derivative: whoever asks for one is told, everybody else can go on.
            return tuple(real)
    return tuple(i for i, g in zip(real, pulled, strict=True) if g is not None)


def _evaluate(field: Field, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return field.everything(t, y)


def lift_of(key: Hashable, function: Callable[..., Any]) -> Lift:
    """The lift of a function for this key, made when first asked for."""
    lift = _lifts.get(key)
    if lift is None:
        lift = _lifts[key] = Lift(function)
        while len(_lifts) > _KEPT:
            _lifts.popitem(last=False)
    _lifts.move_to_end(key)
    return lift


def key_of(what: str, problem: Problem, y: Tensor, *more: Hashable) -> Hashable:
    """What solves have in common that one graph can serve: the field's code, the method, the shapes, what `args` is."""
    term = problem.field.term
    fields = (term.field,) if isinstance(term, ODETerm) else (term.drift, term.diffusion, term.prior_drift)
    kind = (term.noise, term.calculus) if isinstance(term, SDETerm) else ()
    drawn = block_size(problem.noise)
    shapes = (tuple(y.shape), problem.s0.shape[0], tuple(problem.output.times.shape), drawn, y.dtype, y.device)
    stepper = problem.stepper if type(problem.stepper).__hash__ is not None else type(problem.stepper)
    arranged = _arranged(problem.field.args)
    return (what, *map(_code, fields), type(term), kind, stepper, shapes, arranged, problem.coupled, *more)


def _arranged(args: Any) -> Hashable:
    """Which places in `args` hold a tensor, and which of them one that can carry a gradient.

    Loops know arguments by their number, and Dynamo does not look at what a field does not read: another order of a
    dict's entries, or one that is not read, would hand a graph the wrong ones.
    """
    if args is None:
        return None
    kinds = tuple(x.is_floating_point() or x.is_complex() if isinstance(x, Tensor) else None for x in leaves_of(args))
    return pytree.tree_structure(args), kinds


def _code(function: Any) -> Hashable:
    """The code of a function, however often the function is made again; the class of anything else."""
    if isinstance(function, types.MethodType):
        return function.__func__.__code__, type(function.__self__)
    if isinstance(function, types.FunctionType):
        return function.__code__
    return type(function), getattr(function, "training", None)
