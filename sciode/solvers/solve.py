"""`solve`: validation and assembly, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .adjoints import ADJOINTS, Backsolve, backsolve, choose_adjoint, recompute
from .adjoints.results import Results, results
from .begin import Begun, Laid, Wish, begin, begin_again, lay_out, seeds_of
from .controllers import PID, Fixed
from .engines import ENGINES, Engine, Unsound, engine_for
from .moments import Moment
from .outputs import SAVES, Save
from .probe import local_penalty
from .problem import Carry
from .proceed import proceed
from .progress import watcher
from .regularizers import Local, Regularizer
from .solution import DenseOutput, Solution, Stats
from .suggest import choose
from .terms import SDETerm, as_term
from .trajectory import Request, Run, Start
from .transforms import transforming
from .trees import map_tree

__all__ = ["solve"]


class How(NamedTuple):
    """The keyword arguments of `solve` that say how, not what."""

    adjoint: str | Backsolve
    engine: str
    max_steps: int
    progress: bool


def solve(
    field: Any,
    y0: Any,
    ts: Tensor | Sequence[float],
    *,
    args: Any = None,
    method: Any = None,
    dt: float | None = None,
    rtol: Any = 1e-5,
    atol: Any = 1e-6,
    controller: PID | Fixed | None = None,
    save: str | Save = "ts",
    batch_dims: int | None = None,
    coupled: bool = False,
    noise: Tensor | None = None,
    seed: Any = None,
    regularize: str | Regularizer | Local | Sequence[str | Regularizer | Local] = (),
    adjoint: str | Backsolve = "auto",
    engine: str = "auto",
    max_steps: int = 100_000,
    resume: Solution | None = None,
    throw: bool = True,
    progress: bool = False,
) -> Solution:
    """Solve dy/dt = f(t, y) or dy = f dt + g dW from y0 at ts[0]; `Solution.ys` are the states at ts.

    - field: f(t, y) or f(t, y, args), an `ODETerm`, an `SDETerm`, a torchsde object. t, in y's real dtype, broadcasts
      against y; for tuple and dict states it is [*batch] (`expand_time`). Tensors in `args` are differentiated.
    - y0: [*batch, *state], or a tuple or dict of such; batch_dims: how many leading axes are samples (None: 0 for
      vectors, else 1). Samples step by themselves; coupled=True gives them one step size, as torchdiffeq does.
    - ts: [T], or [T, *batch], all increasing or all decreasing; shorter series end in NaN.
    - method: a name (`methods`), `Tableau` or `Stepper`; None = tsit5, for SDEs euler (Ito) or heun. dt: fixed steps;
      without it they adapt to rtol, atol (numbers or trees; good: 1e-3 to 1e-6 in float32; SDEs, along a Brownian tree:
      1e-1 to 1e-4) by `controller`, a `PID`.
    - seed: int, int64 tensor [*batch] (a stream a sample), Generator, None; or noise: increments [steps, *batch, m].
    - save: "ts", "steps", "dense", `Save(fn=...)`. regularize: "error", "stiffness", "local", "kinetic", "jacobian",
      "taylor", or objects: `Solution.penalties`.
    - adjoint: "direct" (tape), "recompute" (one state a step), "backsolve" (constant memory, approximate), "auto".
    - max_steps: trial steps a sample may take. resume: an earlier solution to go on from, with y0=None.
    Raises ValueError for misuse, before any step; SolveError for failed samples, unless throw=False (see `status`).
    Source: Hairer, Norsett, Wanner (1993); Kloeden, Platen (1992). Example: `solve(lambda t, y: -y, y0, [0.0, 1.0])`.
    """
    wish = Wish(method, dt, rtol, atol, controller, _save(save), batch_dims, coupled, noise, seed, regularize)
    choose("engine", engine, ENGINES)
    term = as_term(field)
    _check_adjoint(adjoint, wish, isinstance(term, SDETerm) and term.prior_drift is not None)
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps: expected a positive integer, got {max_steps!r}")
    how = How(adjoint, engine, max_steps, progress)
    if resume is not None:
        begun = proceed(term, y0, ts, args, wish, resume)
        solution, clean = _solved(begun, how)
    else:
        solution, clean = _from_the_start(lay_out(term, y0, ts, args, wish), how)
    return solution.check() if throw and not clean else solution


def _from_the_start(laid: Laid, how: How) -> tuple[Solution, bool]:
    """Without a look at a value if an earlier solve was like this one; with the looks where that goes wrong."""
    begun = begin_again(laid, how.engine)
    if begun is not None:
        try:
            return _solved(begun, how, laid)
        except Unsound:
            # The seed may have been drawn: one solve, one draw.
            laid = laid._replace(wish=laid.wish._replace(seed=begun.seed))
    return _solved(begin(laid), how, laid)


def _solved(begun: Begun, how: How, laid: Laid | None = None) -> tuple[Solution, bool]:
    """The solution, and whether all of it is known to be well; laid: what was asked for beside the problem."""
    adjoint, local = how.adjoint, () if laid is None else laid.local
    looked_at = any(x.looks_back for x in local)
    with watcher(how.progress, begun.problem) as watch:
        lifted = begun.start.witness
        chosen = engine_for(how.engine, begun.problem, begun.y0, adjoint, begun.requires_grad, lifted)

        def run(start: Start, request: Request) -> Run:
            request = request._replace(taped=request.taped or looked_at)
            return chosen.run(begun.problem, start, how.max_steps, watch, request)

        found = _differentiate(begun, adjoint, run, chosen)
    if laid is None or not local:
        return _solution(begun, found, {}), found.run.clean
    seeds = seeds_of(laid)
    penalties = {x.name: local_penalty(x, begun.problem, found, laid.moment, seeds) for x in local}
    return _solution(begun, _without(found, laid.moment), penalties), found.run.clean


def _without(found: Results, moment: Moment | None) -> Results:
    """The results at the caller's own times."""
    if moment is None:
        return found
    ys = [moment.without(leaf) for leaf in found.ys]
    return found._replace(ys=ys, ts=moment.without(found.ts), valid=moment.without(found.valid))


def _save(save: str | Save) -> Save:
    if isinstance(save, Save):
        choose("save.at", save.at, SAVES)
        return save
    return Save(choose("save", save, SAVES))  # type: ignore[arg-type]


def _check_adjoint(adjoint: str | Backsolve, wish: Wish, compares: bool) -> None:
    if not isinstance(adjoint, Backsolve):
        choose("adjoint", adjoint, ADJOINTS)
    if adjoint == "backsolve" or isinstance(adjoint, Backsolve):
        if compares or not _only_local(wish.regularize):
            raise ValueError(
                "adjoint: backsolve cannot differentiate regularizers, nor a prior's divergence: they are functions of "
                "the solver's own steps, which a continuous adjoint never sees; use adjoint='recompute', or a Local one"
            )
        if wish.save.at != "ts" or wish.save.fn is not None:
            raise ValueError(
                "adjoint: backsolve differentiates states at ts; use save='ts', and apply fn to solution.ys"
            )


def _only_local(regularize: Any) -> bool:
    items = regularize if isinstance(regularize, list | tuple) else (regularize,)
    return all(isinstance(item, Local) or item == "local" for item in items)


def _differentiate(
    begun: Begun, adjoint: str | Backsolve, run: Callable[[Start, Request], Run], engine: Engine
) -> Results:
    """Run the engine under the adjoint that was asked for, if anything asks for a gradient."""
    if not begun.requires_grad:
        with torch.no_grad():
            return results(begun.y0, run(begun.start, Request()))
    y0, field, optional = begun.y0, begun.problem.field, adjoint == "auto"
    if adjoint == "auto":
        adjoint = _auto(begun, engine)
    if adjoint == "direct" and not engine.loops:
        return results(y0, run(begun.start, Request()))
    if transforming():
        raise ValueError("adjoint: torch.func transforms need adjoint='direct' (or 'auto')")
    leaves = begun.captured()
    start = begun.start
    if start.carry is not None:
        start = start._replace(carry=_detached(start.carry))
    if adjoint in ("direct", "recompute"):
        args = tuple(i for i, a in enumerate(field.arguments) if a.requires_grad)
        request = Request(True, True, args, tuple(leaves), optional) if adjoint == "direct" else Request(True)
        return recompute(field.bind, lambda: run(start, request), y0, field.arguments, leaves)
    if field.stochastic:
        raise ValueError("adjoint: backsolve is for ODEs; SDEs have adjoint='recompute', exact at one state a step")
    settings = adjoint if isinstance(adjoint, Backsolve) else Backsolve()
    return backsolve(settings, field.bind, lambda: run(start, Request()), y0, field.arguments, leaves)


def _auto(begun: Begun, engine: Engine) -> str:
    """The adjoint that suits the engine, and the memory there is."""
    problem, y0 = begun.problem, begun.y0

    def suited() -> str:
        steps = None if problem.steps is None else int(problem.steps.max())
        state_bytes = y0.numel() * y0.element_size()
        return choose_adjoint(begun.residuals, state_bytes, problem.stepper.nstages, steps, y0.device)

    if not engine.loops:
        return suited()
    # A solve that began without a look does not know what an evaluation keeps.
    fits = (lambda: suited() == "direct") if begun.reached is None else None
    return "direct" if engine.keeps(y0, fits) else "recompute"


def _solution(begun: Begun, found: Results, local: dict[str, Tensor]) -> Solution:
    """Give everything the caller's shapes; local: penalties measured after the solve."""
    run = found.run
    problem, carry, layout = run.problem, run.carry, run.problem.field.layout
    batch = layout.batch

    def per_sample(x: Tensor) -> Tensor:
        return x.expand(*x.shape[:-1], layout.samples).reshape((*x.shape[:-1], *batch))

    save, ts = problem.output.save, begun.ts
    if save.at == "steps":
        ts = problem.forward(found.ts)
        ts = ts.squeeze(-1) if ts.shape[1] == 1 else ts.reshape(ts.shape[0], *batch)
    dense_nfe = problem.stepper.basis_nfe
    stats = Stats(
        steps=per_sample(carry.trials),
        accepted=per_sample(carry.accepted),
        before=begun.evaluations,
        each=run.step_nfe,
        calls=begun.evaluations + run.iterations * run.step_nfe + run.interpolated * dense_nfe,
        engine=run.engine,
    )
    kept = run._replace(
        tape=None, machine=None, reads=(), emissions=[], records=run.records if save.at == "dense" else []
    )
    along = {r.name: p for r, p in zip(problem.regularizers, found.penalties, strict=True)}
    return Solution(
        ts=ts,
        ys=_states(begun, found),
        valid=per_sample(found.valid),
        stats=stats,
        status=per_sample(carry.status),
        penalties={name: per_sample(p) for name, p in (along | local).items()},
        seed=begun.seed,
        state=_without_tape(kept) if save.state else None,
        dense=None if found.dense is None else DenseOutput(problem, kept, found.dense),
    )


def _without_tape(run: Run) -> Run:
    """The run, its carries off autograd's tape; a loop on the device never puts them there."""
    if run.engine != "eager":
        return run
    origin = None if run.origin is None else run.origin._replace(kept=_detached(run.origin.kept))
    return run._replace(carry=_detached(run.carry), origin=origin)


def _detached(carry: Carry) -> Carry:
    return map_tree(lambda x: x.detach() if x.requires_grad else x, carry)


def _states(begun: Begun, found: Results) -> Any:
    """ys in the caller's nesting; what `Save(fn=)` makes of them, where the engine has not applied it."""
    problem = found.run.problem
    field, fn = problem.field, problem.output.save.fn
    if fn is None:
        return field.layout.unravel(found.ys[0])
    with torch.no_grad():
        spec = pytree.tree_structure(field.call(fn, problem.forward(problem.s0), begun.y0))
    if problem.s0.shape[0] == 1 and problem.output.save.at != "steps" and found.run.tape is None:
        return pytree.tree_unflatten(found.ys, spec)
    times = torch.where(torch.isfinite(found.ts), found.ts, -torch.inf).cummax(0).values
    rows = [field.call(fn, problem.forward(s), y) for s, y in zip(times, found.ys[0], strict=True)]
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *rows)
