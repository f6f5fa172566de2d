"""Going on from where an earlier solve ended, as if it had not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .advance import select
from .begin import Begun, Term, Wish
from .brownian import BrownianTree, CounterNoise, GridNoise
from .checks import check_first, check_times
from .controllers import Fixed
from .outputs import Output
from .problem import Carry
from .regularizers import as_regularizers
from .solution import Solution
from .start import fixed_steps
from .status import RUNNING, Status
from .trajectory import Run, Start
from .trees import leaves_of, map_tree

__all__ = ["onward", "proceed"]


def onward(run: Run) -> Carry:
    """The carry to resume from."""
    return run.carry if run.origin is None else select(run.origin.marked, run.origin.kept, run.carry)


def proceed(term: Term, y0: Any, ts: Any, args: Any, wish: Wish, earlier: Solution) -> Begun:
    """The problem of an earlier solution over new times, from the carry before the step that ended it."""
    run = _check(y0, wish, earlier)
    old, carry = run.problem, onward(run)
    if isinstance(old.noise, BrownianTree):
        raise ValueError(
            "resume: adaptive steps, and methods that need Levy areas, walk a path laid over the interval of one "
            "solve, which another interval would lay anew; solve the whole interval at once, or take fixed steps "
            "(dt=) by a method without areas, such as euler, heun or milstein, whose noise goes on with the steps"
        )
    field = replace(old.field, term=term, args=args)
    chosen = as_regularizers(wish.regularize, old.stepper, field.compares)
    if chosen.draws:
        raise ValueError("regularize: a resumed solve draws nothing anew; solve the whole interval at once")
    times = check_times(ts, old.field.layout.batch, carry.y.device)
    ended = old.s1
    start = times.first.expand(ended.shape)
    if times.sign != old.sign or bool((start != ended).any()):
        raise ValueError("ts: a resumed solve starts at the earlier solution's last time and goes on in its direction")
    s1 = times.last.expand(ended.shape)
    t = old.forward(carry.t)
    end = _state_at_end(earlier)
    first = check_first(field, t, carry.y)
    if any(x.requires_grad for x in (*first, *field.arguments)) and torch.is_grad_enabled():
        raise _without_gradient()
    span = (s1 - old.s0).cpu().numpy()
    steps = fixed_steps(span, old.controller.dt) if isinstance(old.controller, Fixed) else None
    noise = old.noise
    if isinstance(noise, GridNoise) and steps is not None and int(steps.cells.max()) > noise.steps:
        raise ValueError(
            f"resume: the earlier solution was given increments of {noise.steps} steps, and there are none for those "
            "that follow; solve the whole interval at once, or pass seed= instead of noise="
        )
    if isinstance(noise, CounterNoise) and steps is not None:
        if ((steps.cells == noise.ending.cells) & (noise.ending.cut < noise.dt)).any():
            # Both ends would be bridged from the same draw, as if the path had not been seen in between.
            raise ValueError(
                f"ts: the earlier solve ended inside a step of dt={noise.dt:g}, and this one would end inside the same "
                "step; choose a later last time, or solve both times at once"
            )
        noise = replace(noise, ending=steps)
    host_times = tuple(times.host[0].tolist()) if ended.shape[0] == 1 else None
    problem = replace(
        old, field=field, output=Output(times.rows, wish.save, host_times), s1=s1, noise=noise,
        steps=None if steps is None else steps.sent(carry.y.device),
        regularizers=chosen.along, drawn=tuple(carry.y.new_empty(0) for _ in chosen.along),
    )  # fmt: skip
    zero = torch.zeros_like(carry.trials)
    going = torch.where(carry.status == int(Status.SUCCESS), RUNNING, carry.status).to(torch.int8)
    carry = carry._replace(status=going, trials=zero, accepted=zero)
    new_ts = torch.as_tensor(ts, dtype=torch.float64, device=carry.y.device)
    return Begun(problem, Start(end, carry), end, new_ts, earlier.seed, 1, first, 0, 0)


def _check(y0: Any, wish: Wish, earlier: Solution) -> Any:
    if earlier.state is None:
        raise ValueError("resume: the earlier solution kept no state; solve it with Save(state=True)")
    if y0 is not None:
        raise ValueError("y0: a resumed solve starts from the earlier solution; pass y0=None")
    given = {"method": None, "dt": None, "controller": None, "batch_dims": None, "noise": None, "seed": None}
    changed = [name for name, default in given.items() if getattr(wish, name) is not default]
    if changed or wish.coupled:
        raise ValueError(f"{(changed or ['coupled'])[0]}: a resumed solve keeps the earlier one's; leave it out")
    if any(isinstance(y, Tensor) and y.requires_grad for y in leaves_of(earlier.ys)):
        raise _without_gradient()
    return earlier.state


def _without_gradient() -> ValueError:
    return ValueError(
        "resume: no gradient flows back into the earlier solve; run both under torch.no_grad(), or solve the whole "
        "interval at once"
    )


def _state_at_end(earlier: Solution) -> Tensor:
    """y [B, D] at the earlier solution's last time: take its last step once more (it was not merged)."""
    run = earlier.state
    assert run is not None
    problem, carry = run.problem, run.carry
    succeeded = carry.status == int(Status.SUCCESS)
    with torch.no_grad():
        length = torch.where(succeeded, problem.s1 - carry.t, 0.0)
        noise = None
        if problem.noise is not None:
            noise = problem.noise.block(int(carry.n) if carry.n.shape[0] == 1 else carry.n, 1)[0]
        t = problem.forward(carry.t)
        step = problem.stepper.step(problem.field, noise, t, problem.forward(length), carry.y, carry.memory)
        # A sample that failed before its first step was handed a stand-in state; its own is what was shown.
        shown = problem.output.save.fn is None
        last = problem.field.layout.ravel(map_tree(lambda leaf: leaf[-1], earlier.ys)) if shown else carry.y
        return torch.where(succeeded.unsqueeze(-1), step.y1, last)
