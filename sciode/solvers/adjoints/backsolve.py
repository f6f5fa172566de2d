"""Optimise, then discretise: the adjoint equation solved backward beside the solution, at constant memory.

    dy/dt = f,   da/dt = -a^T df/dy,   dtheta/dt = -a^T df/dtheta,   from the last time to the first.

The gradient is that of the exact flow, not of the discrete solution: its error is that of the backward solve. Chen et
al.: Neural ordinary differential equations (NeurIPS 2018); the seminorm: Kidger, Chen, Lyons: "Hey, that's not an
ODE" (ICML 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..controllers import Fixed
from ..engines import run as run_engine
from ..fields import Field
from ..outputs import Output, Save
from ..problem import Carry, Problem
from ..start import fixed_steps, start_carry
from ..steppers import Stepper
from ..terms import ODETerm
from ..trajectory import Run
from ..trees import Layout
from .graph import check_known, clock
from .results import Results, results

__all__ = ["Backsolve", "backsolve"]

Bind = Callable[[list[Tensor]], Field]


@dataclass(frozen=True)
class Backsolve:
    """Settings of `adjoint="backsolve"`.

    Arguments:
        rtol, atol: tolerances of the backward solve; None = those of the forward solve.
        seminorm: leave the parameters' integrals out of the error norm (fewer steps, same accuracy).
        max_steps: steps allowed between two output times.
    """

    rtol: float | None = None
    atol: float | None = None
    seminorm: bool = True
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"Backsolve: {name} must not be negative, got {value}")


def backsolve(
    settings: Backsolve, bind: Bind, forward: Callable[[], Run], y0: Tensor, args: list[Tensor], leaves: list[Tensor]
) -> Results:
    """Results whose gradient reaches y0, `args` and `leaves` through the adjoint equation."""
    with torch.no_grad():
        run = forward()
        plain = results(y0.detach(), run)
    (ys,) = _Backsolve.apply(settings, bind, plain, len(args), y0, *args, *leaves)  # type: ignore[misc]
    return plain.with_tensors([ys])


class _Interval(NamedTuple):
    """One stretch between two output times, walked backward as tau goes from 0 to 1."""

    field: Field
    late: Tensor
    early: Tensor
    sources: list[Tensor]


class _Backsolve(torch.autograd.Function):
    """Inputs y0, args, leaves; output ys [T, B, D]."""

    @staticmethod
    def forward(
        ctx: Any, settings: Backsolve, bind: Bind, plain: Results, n_args: int, y0: Tensor, *inputs: Tensor
    ) -> Any:
        ys = plain.ys[0]
        ctx.save_for_backward(ys, plain.ts, plain.valid, *inputs)
        ctx.settings, ctx.bind, ctx.n_args = settings, bind, n_args
        ctx.problem = plain.run.problem
        return (ys.view_as(ys),)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        ys, ts, valid, *inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[5:]
        args = [a.detach().requires_grad_(n) for a, n in zip(inputs[: ctx.n_args], needed, strict=False)]
        leaves = inputs[ctx.n_args :]
        sources = [a for a in args if a.requires_grad] + leaves
        totals = [torch.zeros_like(s) for s in sources]
        cotangent = torch.where(valid.unsqueeze(-1), cotangent, torch.zeros_like(cotangent))
        times = torch.where(torch.isfinite(ts), ts, -torch.inf).cummax(0).values
        a, field, well = cotangent[-1], ctx.bind(args), bool(valid.all())
        for i in range(ys.shape[0] - 1, 0, -1):
            y, late, early = ys[i], times[i], times[i - 1]
            if not well:
                y, late, early = _in_good_places(valid[i], y, late, early)
            if bool((late != early).any()):
                span = _Interval(field, ctx.problem.forward(late), ctx.problem.forward(early), sources)
                a, totals = _walk(ctx.settings, ctx.problem, span, y, a, totals)
            a = a + cotangent[i - 1]
        by_source = {id(s): g for s, g in zip(sources, totals, strict=True)}
        return (None, None, None, None, a, *(by_source.get(id(x)) for x in [*args, *leaves]))


def _in_good_places(valid: Tensor, y: Tensor, late: Tensor, early: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The interval without samples that have no value at its end: they stay where another one is.

    Where they are, the field may not be finite; their cotangents are 0, but 0 * NaN is NaN.
    """
    if not bool(valid.any()):
        return y, late, late
    one = valid.to(torch.int8).argmax(0, keepdim=True)
    late, early = late.expand(valid.shape), early.expand(valid.shape)
    stay = late.index_select(0, one)
    y = torch.where(valid.unsqueeze(-1), y, y.index_select(0, one))
    return y, torch.where(valid, late, stay), torch.where(valid, early, stay)


def _walk(
    settings: Backsolve, problem: Problem, span: _Interval, y: Tensor, a: Tensor, totals: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Adjoint and parameter gradients at the earlier end of an interval."""
    state = {"y": y, "a": a, "theta": totals}
    layout = Layout.of(state, 0)
    flat = layout.ravel(state)
    backward = _problem(settings, problem, span, Field(ODETerm(_augmented(span)), layout), flat)
    zero = backward.s0
    carry = start_carry(backward, flat, backward.field.first(zero, flat))
    done = run_engine(backward, carry, settings.max_steps)
    if int(done.carry.status.max()) != 0:
        raise RuntimeError(f"backsolve: the adjoint equation failed: {_why(done.carry)}; use adjoint='recompute'")
    end = layout.unravel(results(flat, done).ys[0][-1])
    return end["a"], end["theta"]


def _why(carry: Carry) -> str:
    from ..status import Status

    return Status(int(carry.status.max())).message


def _problem(settings: Backsolve, problem: Problem, span: _Interval, field: Field, flat: Tensor) -> Problem:
    """The adjoint equation over tau in [0, 1], one step size for everything."""
    zero = torch.zeros(1, dtype=torch.float64, device=flat.device)
    one = torch.ones_like(zero)
    controller, steps = problem.controller, None
    if isinstance(controller, Fixed):
        longest = (span.late - span.early).abs().max().reshape(1).cpu().numpy()
        count = max(int(fixed_steps(longest, controller.dt).cells[0]), 1)
        controller, steps = Fixed(1 / count), torch.full_like(zero, count, dtype=torch.int64)
    else:
        controller = replace(controller, first_step=None, dtmin=None, dtmax=None, force_dtmin=False)
    states = 2 * problem.field.layout.samples * sum(problem.field.layout.sizes)
    weight = torch.zeros(flat.shape[1], dtype=flat.dtype, device=flat.device)
    weight[: states if settings.seminorm else None] = 1
    rtol = settings.rtol if settings.rtol is not None else _number(problem.rtol)
    atol = settings.atol if settings.atol is not None else _number(problem.atol)
    output = Output(torch.stack((zero, one), dim=1), Save(), (0.0, 1.0))
    stepper: Stepper = problem.stepper
    return Problem(
        field, stepper, controller, output, 1, zero, one, rtol, atol, coupled=True,
        weight=weight if settings.seminorm else None, steps=steps,
    )  # fmt: skip


def _number(tolerance: float | Tensor) -> float:
    return tolerance if isinstance(tolerance, float | int) else float(tolerance.min())


def _augmented(span: _Interval) -> Callable[[Tensor, Any], Any]:
    """d(y, a, theta)/dtau; every sample walks its own stretch of time, so each has its own dt/dtau."""
    rate = span.early - span.late

    def rhs(tau: Tensor, state: Any) -> Any:
        t, since = span.late + tau.to(torch.float64) * rate, clock()
        scale = rate.to(state["a"].dtype).unsqueeze(-1)
        with torch.enable_grad():
            y = state["y"].detach().requires_grad_()
            f = span.field.drift(t, y)
        seed = -scale * state["a"]
        if not f.requires_grad:
            pulled: list[Tensor | None] = [None] * (1 + len(span.sources))
        else:
            check_known([f], [y, *span.sources], since, t, "backsolve")
            pulled = list(torch.autograd.grad(f, [y, *span.sources], seed, allow_unused=True))
        filled = [torch.zeros_like(x) if g is None else g for g, x in zip(pulled, [y, *span.sources], strict=True)]
        return {"y": scale * f.detach(), "a": filled[0], "theta": filled[1:]}

    return rhs
