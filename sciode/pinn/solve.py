"""`solve`: a boundary-value problem by networks on the pieces of its domain, any number of arms at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from sciode.pinn.arguments import check_kinds, several
from sciode.pinn.balance import Balance, ReLoBRaLo
from sciode.pinn.causal import Causal
from sciode.pinn.decomposition import Decomposition, single
from sciode.pinn.distributed import Share
from sciode.pinn.engines import engine_of
from sciode.pinn.interfaces import CONDITIONS, XPINN, weights_of
from sciode.pinn.library import Apart, Library
from sciode.pinn.loss import Loss, Measured, Weights
from sciode.pinn.networks import Network
from sciode.pinn.problem import Problem
from sciode.pinn.progress import Clock, Kept, bar
from sciode.pinn.representation import Representation, representation_of
from sciode.pinn.solution import Solution, relative_error, test_points
from sciode.pinn.terms import EQUATION, Numbers, Sample, groups_of
from sciode.pinn.training import Redraw, Run, Target
from sciode.training import (
    Adam,
    Block,
    Following,
    LevenbergMarquardt,
    Minimiser,
    Minimum,
    choose_device,
    derive_seed,
    minimise,
)
from sciode.training.blocks import Draw
from sciode.training.side_by_side import CONVERGED, GOING, NONFINITE, STUCK

__all__ = ["Stage", "solve"]

Stage = Minimiser | LevenbergMarquardt | Library
_ADAM: tuple[Stage, ...] = (Adam(),)
_TESTS, _TEST_SEED = 4096, 3


def solve(
    problem: Problem,
    decomposition: Decomposition | None = None,
    *,
    network: Network | None = None,
    conditions: str | Sequence[str] | Sequence[Sequence[str]] | Tensor = XPINN,
    stages: Stage | Sequence[Stage] = _ADAM,
    numbers: Numbers | None = None,
    redraw: Redraw | None = None,
    weights: Weights | None = None,
    balance: Balance | None = None,
    causal: Causal | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    chunk: int | None = None,
    engine: str = "auto",
    log: int = 100,
    folder: str | Path | None = None,
    limits: float | Sequence[float] | None = None,
    share: Share | None = None,
    progress: bool = False,
) -> Solution:
    """Solve R(u) = 0 by networks whose loss is sum_t weight_t mean |residual_t|^2, stage after stage.

    An arm is one choice of interface conditions with its networks, the axis before everything. All arms are trained in
    one batch, each as if alone. (Levenberg-Marquardt and library stages take them one by one.)

    Parameters
    ----------
    decomposition: None is one network. conditions: names of `CONDITIONS`, a list of names for each arm, or weights
        [arms, 9]; `XPINN` (default) and `CPINN` are the literature's.
    stages: `Adam`, `LBFGS`, `Broyden`, `NewtonCG`, `LevenbergMarquardt` (all of `sciode.training`), `muon()`, `soap()`.
    numbers: of points; redraw: when they are drawn anew and whether adaptively. Levenberg-Marquardt draws new uniform
        ones at every iteration, for it would fit fixed ones alone, and leaves weights of points aside.
    weights: at first; balance: a scheme that moves them; causal: by time, in Adam's stages. chunk: see `Loss`.
    engine: see `sciode.pinn.engines`; "auto" is a CUDA graph on a card, "compile" pays in long runs. seed: of points
        and weights; seeds: one an arm, for weights; start: weights [arms, P] of a `Solution`.
    log: iterations between entries of the history; folder: where the run is kept, to be gone on with; limits: seconds
        for each stage, on a CPU those of this process; share: of processes, see `sciode.pinn.distributed`.

    Raises ValueError for what does not fit. A loss that is not finite stops its arm, with good weights; see `status`.
    """
    points = {"numbers": numbers, "redraw": redraw, "weights": weights, "balance": balance, "causal": causal}
    check_kinds(problem=problem, decomposition=decomposition, network=network, **points)
    cut, steps, arms = decomposition or single(problem.domain), several("stages", stages, Stage), weights_of(conditions)
    _check(problem, cut, steps, causal, balance, redraw, log, share)
    like = _like(dtype, device)
    clocks = _clocks(limits, steps, like.device.type, share)
    representation = representation_of(problem, cut, network or Network(), like)
    loss = _loss(representation, arms, chunk, causal, share, engine)
    base = _base(loss, weights or Weights(), arms if cut.meetings else arms * 0).to(like)
    drawn = [derive_seed(one, 1) for one in _seeds(seeds, seed, len(arms))]
    known = test_points(problem, _TESTS, derive_seed(seed, _TEST_SEED) % 2**31)
    theta = _checked(start, representation.initial(drawn, like))
    run = Run(representation, loss, base, numbers or Numbers(), redraw, balance, seed, known, log, theta, share)
    kept = Kept.opened(folder, _identity(run, steps, clocks, drawn, start), run)
    return _staged(run, list(zip(steps, clocks, strict=True)), kept, progress)


def _loss(
    of: Representation, arms: Tensor, chunk: int | None, causal: Causal | None, share: Share | None, engine: str
) -> Loss:
    """The terms that any arm uses. Processes talk to one another in between, which nothing can record."""
    used = [name for place, name in enumerate(CONDITIONS) if bool((arms[:, place] > 0).any())]
    summed = share.summed if share and share.same else None
    runs = engine_of("eager" if share else engine, of.scaling.centre.device)
    return Loss(groups_of(of, used), chunk, causal, runs, summed)


def _staged(run: Run, stages: Sequence[tuple[Stage, Clock]], kept: Kept, progress: bool) -> Solution:
    """All stages that are left."""
    first = run.share is None or run.share.rank == 0
    for place in range(kept.stage, len(stages)):
        stage, clock = stages[place]
        clock.start(kept.spent)
        with bar(stage.iterations, f"stage {place + 1} of {len(stages)}", progress and first) as (tick, run.tell):
            if isinstance(stage, Minimiser):
                states = _minimised(run, stage, place, kept, tick, clock)
            elif isinstance(stage, Library):
                states = _moved(run, stage, place, tick, clock)
            else:
                states = _fitted(run, stage, place, tick, clock)
        kept.ended(run, place, states, clock.spent())
    error = relative_error(run.representation, run.theta, run.known)
    status = tuple(run.faults.get(arm, kept.states[arm]) for arm in range(len(run.theta)))
    return Solution(
        run.representation, run.theta, run.loss.names, tuple(run.history), status, error, tuple(kept.seconds)
    )


_SAYS = {GOING: "budget", CONVERGED: "converged", STUCK: "stuck", NONFINITE: "non-finite"}


def _minimised(run: Run, stage: Minimiser, place: int, kept: Kept, tick: Callable[[], None], clock: Clock) -> list[str]:
    """A stage of all arms at once."""
    every = None if run.redraw is None or stage.still else run.redraw.every
    begin = kept.iteration
    if begin:
        memory = kept.memory
        run.back(place, 0 if every is None else (begin - 1) // every)
    else:
        run.draw(place, 0)
        memory = stage.begin(run.theta)
        memory["state"] = torch.where(run.fine, GOING, NONFINITE)
    loss = run.loss.without_causal() if stage.still else run.loss
    k = begin - 1
    for k in range(begin, stage.iterations):
        if every and k and k % every == 0:
            run.draw(place, k // every)
        target = Target(loss, run.samples, *run.balanced(), share=run.share)
        before, memory = memory, target.advanced(stage, memory, k)
        broke = (memory["state"] == NONFINITE) & (before["state"] == GOING)
        # What the host has to know, in one word from the device.
        some_broke, some_go = torch.stack((broke.any(), (memory["state"] == GOING).any())).tolist()
        if target.measured is not None:
            if some_broke:
                run.fault(broke, target.measured, place, k)
            if k % run.log == 0:
                # A line search leaves what it tried last; the history is that of the weights.
                run.note(place, k, run.measure(loss) if stage.still else target.measured)
            if not stage.still:
                run.rebalance(target.measured, place, k)
        run.theta = memory["theta"]
        tick()
        if clock.over() or not some_go:
            break
        kept.passed(run, place, k + 1, memory, clock.spent())
    _ended(run, run.measure(loss), memory["good"], place, k + 1)
    return [_SAYS[state] for state in memory["state"].tolist()]


def _ended(run: Run, final: Measured, good: Tensor, place: int, done: int) -> None:
    """Look at the weights of a stage's last step, which no later one does; broken arms get the good ones before."""
    broke = run.fine & ~final.loss.isfinite()
    run.fault(broke, final, place, done)
    run.theta = torch.where(broke[:, None], good, run.theta)
    run.note(place, done, final)


def _fitted(run: Run, stage: LevenbergMarquardt, place: int, tick: Callable[[], None], clock: Clock) -> list[str]:
    """A stage of least squares, arm after arm, on points that are drawn at every iteration."""
    run.draw(place, 0)
    weights, _ = run.balanced()
    theta, states, done = run.theta.clone(), [], [0] * len(run.theta)
    for arm in range(len(theta)):
        last: list[tuple[Sequence[Sample], Tensor]] = []

        def draw(k: int, at: Tensor, arm: int = arm, last: list = last) -> Sequence[Block]:
            done[arm] = k
            samples = run.fresh(place, k)
            last[:] = [(samples, at)]
            tick()
            return run.loss.blocks(samples, weights, arm)

        if arm in run.faults:
            states.append("non-finite")
            continue
        found = _within(run, clock, len(theta) - arm, Following(draw), theta[arm], stage)
        states.append(found.status)
        if found.status == "non-finite":
            # Named where it happened: by those points and weights.
            samples, at = last[0]
            alone = torch.arange(len(theta), device=theta.device) == arm
            met = torch.where(alone[:, None], at, theta)
            measured = run.loss.measure(met, samples, weights)
            run.fault(alone, measured if run.share is None else run.share(measured), place, done[arm])
        theta[arm] = found.theta
    run.theta = theta
    run.note(place, max(done), run.measure())
    return states


def _within(run: Run, clock: Clock, left: int, draw: Draw, theta: Tensor, stage: LevenbergMarquardt) -> Minimum:
    """One arm's least squares in its part of what is left of the time, or on all processes."""
    if run.share is not None:
        return minimise(draw, theta, stage, summed=run.share.total)
    if clock.limit == math.inf:
        return minimise(draw, theta, stage)
    until = clock.spent() + (clock.limit - clock.spent()) / left
    return minimise(draw, theta, stage, lambda: clock.spent() >= until)


def _moved(run: Run, stage: Library, place: int, tick: Callable[[], None], clock: Clock) -> list[str]:
    """A stage of optimisers that know no arms."""
    run.draw(place, 0)
    apart = Apart.of(run.representation, run.theta)
    pairs = list(zip(apart.parts, apart.hidden, strict=True))
    optimisers = stage.make([part for part, inner in pairs if inner], [part for part, inner in pairs if not inner])
    fine, good, done = run.fine, run.theta, 0
    for k in range(stage.iterations):
        if run.redraw is not None and k and k % run.redraw.every == 0:
            run.draw(place, k // run.redraw.every)
        run.theta = apart.theta()
        measured = run.measure()
        broke = fine & ~(measured.loss.isfinite() & measured.gradient.isfinite().all(1))
        if bool(broke.any()):
            run.fault(broke, measured, place, k)
            fine = run.fine
            if not bool(fine.any()):
                break
        good = torch.where(fine[:, None], run.theta, good)
        apart.give(torch.where(fine[:, None], measured.gradient, 0.0))
        for one in optimisers:
            one.step()
        done = k + 1
        if k % run.log == 0:
            run.note(place, k, measured)
        run.rebalance(measured, place, k)
        tick()
        if clock.over():
            break
    run.theta = torch.where(fine[:, None], apart.theta(), good)
    _ended(run, run.measure(), good, place, done)
    return ["budget"] * len(run.theta)


def _base(loss: Loss, weights: Weights, arms: Tensor) -> Tensor:
    """Each arm's weight of each term at first, [arms, T]."""
    own, columns = dict(weights.own), []
    if unknown := set(own) - set(loss.names):
        raise ValueError(f"weights: there is no term {', '.join(sorted(unknown))}; there are {', '.join(loss.names)}")
    joints = list(CONDITIONS)
    for name in loss.names:
        if name in CONDITIONS:
            columns.append(arms[:, joints.index(name)] * own.get(name, weights.interface))
        else:
            value = own.get(name, weights.equation if name == EQUATION else weights.data)
            columns.append(torch.full_like(arms[:, 0], value))
    found = torch.stack(columns, 1)
    if not bool((found > 0).any(1).all()):
        raise ValueError("weights: an arm has none above 0, and nothing to be trained by")
    return found


def _check(
    problem: Problem,
    cut: Decomposition,
    stages: Sequence[Stage],
    causal: Causal | None,
    balance: Balance | None,
    redraw: Redraw | None,
    log: int,
    share: Share | None,
) -> None:
    """Raise ValueError for parts that do not go together, or cannot be spread over processes."""
    if not stages:
        raise ValueError("stages: give at least one")
    for one in stages:
        if not isinstance(one, Stage):
            raise ValueError(
                f"stages: {one!r} is none; there are Adam, LBFGS, Broyden, NewtonCG, LevenbergMarquardt, Library"
            )
    if log < 1:
        raise ValueError(f"log must be at least 1, got {log}")
    if cut.domain != problem.domain:
        raise ValueError("the decomposition is that of another domain: make it from problem.domain")
    if causal is not None and problem.time is None:
        raise ValueError("causal weights need the problem's time= coordinate")
    if balance is not None and balance.pointwise and redraw is not None and redraw.adaptive is not None:
        raise ValueError("weights of points need points that stay: leave out `balance` or redraw=Redraw(adaptive=...)")
    if share is None:
        return
    if not isinstance(share, Share):
        raise ValueError(f"share: {share!r} is none: give averaged() or divided() of sciode.pinn.distributed")
    share.check(cut.size, bool(cut.overlap))
    if not (balance is None or isinstance(balance, ReLoBRaLo)):
        raise ValueError("share: balances but ReLoBRaLo look at one rank's points alone: leave them out")
    if any(isinstance(one, LevenbergMarquardt) and one.form == "woodbury" for one in stages):
        raise ValueError('share: form="woodbury" needs all rows in one process: take "normal" or "free"')


def _like(dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """A number of this kind, in this place. ValueError for what is neither a kind of real numbers nor a place here."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype!r}")
    return torch.zeros((), dtype=dtype, device=choose_device(device))


def _said(value: object) -> str:
    """In words that are the same in another process: without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _seeds(seeds: Sequence[int] | None, seed: int, arms: int) -> Sequence[int]:
    """A seed for each arm. ValueError for another number of them."""
    found = [seed] * arms if seeds is None else several("seeds", seeds, int)
    if len(found) != arms:
        raise ValueError(f"seeds must be one for each of {arms} arms, got {len(found)}")
    return found


def _clocks(
    limits: float | Sequence[float] | None, stages: Sequence[Stage], device: str, share: Share | None
) -> list[Clock]:
    """One a stage. ValueError for limits that are none, or of a run on several processes."""
    if limits is None:
        return [Clock(math.inf, device) for _ in stages]
    if share is not None:
        raise ValueError(
            "share: ranks would run out of time at different iterations and wait for ever: leave out limits"
        )
    found = several("limits", limits, int | float)
    if len(found) != len(stages) or not all(one > 0 for one in found):
        raise ValueError(f"limits must be positive seconds, one for each of {len(stages)} stages, got {found}")
    return [Clock(one, device) for one in found]


def _checked(start: Tensor | None, initial: Tensor) -> Tensor:
    """Weights to begin with. ValueError for a start that is none, or of another shape."""
    if start is None:
        return initial
    if not isinstance(start, Tensor):
        raise ValueError(f"start: give weights [arms, P], as those of a solution, solution.theta; got {start!r}")
    if start.shape != initial.shape:
        raise ValueError(f"start must be {tuple(initial.shape)}, got {tuple(start.shape)}")
    return start.detach().to(initial)


def _identity(
    run: Run, stages: Sequence[Stage], clocks: Sequence[Clock], drawn: Sequence[int], start: Tensor | None
) -> dict[str, str]:
    """What a run hangs on, in words: a checkpoint of another run is not taken for this one's."""
    of, problem = run.representation, run.problem
    parts = {
        "problem": (problem.name, dict(problem.parameters), problem.names, problem.conditions, problem.hard),
        "functions": problem.digits,
        "unknowns": (dict(problem.unknowns), dict(problem.scale)),
        "pieces": of.decomposition,
        "network": of.network,
        "weights": run.base.tolist(),
        "stages": list(stages),
        "numbers": run.numbers,
        "redraw": run.redraw,
        "balance": run.balance,
        "causal": run.loss.causal,
        "seeds": (run.seed, list(drawn)),
        "dtype": run.theta.dtype,
        "limits": [one.limit for one in clocks],
    }
    if start is not None:
        parts["start"] = sha256(run.theta.cpu().numpy().tobytes()).hexdigest()
    return {name: _said(value) for name, value in parts.items()}
