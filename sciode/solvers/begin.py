"""From what the caller wrote to a problem and its first carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .adjoints.graph import bytes_behind, clock, leaves_behind, residual_bytes
from .brownian import BrownianTree, CounterNoise, Ending, GridNoise, levels_for, sample_seeds
from .checks import (
    Times,
    check_finite,
    check_first,
    check_independence,
    check_prior,
    check_state,
    check_times,
    check_tolerance,
    default_batch_dims,
    is_independent,
)
from .controllers import PID, Fixed
from .engines import readied, split_clock
from .fields import Field
from .methods import stepper_of, suited
from .moments import Moment, with_moment
from .outputs import Output, Save
from .problem import Carry, Problem
from .regularizers import Chosen, Local, as_regularizers
from .start import any_bad, fixed_steps, spans, start_carry
from .status import RUNNING, Status
from .steppers import SDEStepper, Stepper
from .terms import ODETerm, SDETerm
from .trajectory import Start
from .transforms import transforming
from .trees import Layout, filler_of, leaves_of

__all__ = ["Begun", "Laid", "Wish", "begin", "begin_again", "lay_out", "seeds_of"]

Term = ODETerm | SDETerm


class Wish(NamedTuple):
    """The keyword arguments of `solve` that shape the problem; dice: the seed of what regularizers draw."""

    method: Any
    dt: float | None
    rtol: Any
    atol: Any
    controller: PID | Fixed | None
    save: Save
    batch_dims: int | None
    coupled: bool
    noise: Tensor | None
    seed: Any
    regularize: Any
    dice: Any = None


class Laid(NamedTuple):
    """A problem laid out without a look at a value: no noise yet, because how much depends on the diffusion.

    ts, the output times as a tensor; steps, for fixed steps, their number and the length of the last one; local, what
    is to be measured once the solve is over, at the random time `moment`, if one is needed.
    """

    problem: Problem
    y0: Any
    y: Tensor
    ts: Tensor
    wish: Wish
    steps: Ending | None
    local: tuple[Local, ...] = ()
    moment: Moment | None = None

    @property
    def evaluations(self) -> int:
        """Evaluations of the field before the first step."""
        controller = self.problem.controller
        return 1 + (isinstance(controller, PID) and controller.first_step is None)


class Begun(NamedTuple):
    """A problem ready to run, and what its first evaluation taught.

    first: the values of that evaluation; since: the graph clock before it; residuals: bytes autograd kept of it. A
    solve like an earlier one has no first evaluation, but knows what a gradient of the field would reach: reached.
    """

    problem: Problem
    start: Start
    y0: Tensor
    ts: Tensor
    seed: Any
    evaluations: int
    first: tuple[Tensor, ...]
    since: int
    residuals: int
    reached: tuple[Tensor, ...] | None = None

    @property
    def carry(self) -> Carry:
        """The first carry, of a solve that did not begin without a look."""
        assert self.start.carry is not None
        return self.start.carry

    @property
    def requires_grad(self) -> bool:
        """Whether anything asks for a gradient."""
        values = self.first if self.reached is None else (*self.reached, *self.problem.field.arguments)
        return torch.is_grad_enabled() and any(x.requires_grad for x in (self.y0, *values))

    def captured(self) -> list[Tensor]:
        """Every leaf that requires grad and that the field reaches by itself (module, closure, global)."""
        if self.reached is not None:
            # A graph of two tensors serves where one is both of them: a leaf counts once.
            leaves = list({id(x): x for x in self.reached if x.requires_grad}.values())
            older = any(not x.is_leaf for x in leaves)
        else:
            leaves, older = leaves_behind(self.first, self.since, [self.y0, *self.problem.field.arguments])
        if older:
            raise ValueError(
                "field: it uses a tensor that requires grad and was computed before the solve (an encoder's output?): "
                "pass it through args=, so that its gradient is not lost"
            )
        return leaves


def lay_out(term: Term, y0: Any, ts: Any, args: Any, wish: Wish) -> Laid:
    """Validate what can be validated on the host, and lay out the state, the times and the method."""
    check_state(y0)
    layout = Layout.of(y0, default_batch_dims(y0, wish.batch_dims))
    y = layout.ravel(y0)
    stepper, controller = _method(term, wish)
    field = Field(term, layout, args)
    chosen = as_regularizers(wish.regularize, stepper, field.compares)
    given = times = check_times(ts, layout.batch, y.device)
    wish, moment = _settled(wish, chosen, layout), None
    if any(local.at == "uniform" for local in chosen.local):
        times, moment = with_moment(given, wish.dice)
    if isinstance(term, SDETerm) and term.one_clock and times.host.shape[0] > 1:
        raise ValueError("ts: this SDE takes one time for the whole batch, as torchsde's do; pass ts of shape [T]")
    lanes = _lanes(layout, times.rows, controller, wish.coupled)
    if isinstance(term, SDETerm) and term.one_clock and lanes > 1:
        raise ValueError(
            "coupled: this SDE takes one time for the whole batch, as torchsde's do; pass coupled=True, or dt="
        )
    s0, s1 = times.first.expand(lanes), times.last.expand(lanes)
    steps = fixed_steps(spans(times.host, lanes), controller.dt) if isinstance(controller, Fixed) else None
    eps = 10 * torch.finfo(y.dtype).eps
    problem = Problem(
        replace(field, sign=times.sign), stepper, controller, _output(times, wish.save, lanes), times.sign,
        s0, s1,
        rtol=check_tolerance("rtol", wish.rtol, y0, layout, eps if stepper.adaptive and not steps else 0.0),
        atol=check_tolerance("atol", wish.atol, y0, layout, 0.0),
        coupled=wish.coupled, steps=None if steps is None else steps.sent(y.device),
        regularizers=chosen.along, revisits=_revisits(term, controller),
    )  # fmt: skip
    return Laid(problem, y0, y, _as_given(ts, given), wish, steps, chosen.local, moment)


def _settled(wish: Wish, chosen: Chosen, layout: Layout) -> Wish:
    """With a seed for what the regularizers draw; an SDE's noise hangs on the same one."""
    if not chosen.draws:
        return wish
    if chosen.local and (wish.save.at != "ts" or wish.save.fn is not None):
        raise ValueError("regularize: a local regularizer starts from a state at ts; use save='ts' without fn")
    seed, _ = _seeds(wish.seed, layout, torch.device("cpu"))
    return wish._replace(seed=seed if wish.noise is None else wish.seed, dice=seed)


def _as_given(ts: Any, times: Times) -> Tensor:
    """The times as a tensor on the state's device; those that were sent there already are not sent again."""
    there = isinstance(ts, Tensor) and ts.device == times.rows.device
    if times.host.shape[0] == 1 and times.sign > 0 and not there and np.isfinite(times.host[0, -1]):
        return times.rows[0].clone()
    return torch.as_tensor(ts, dtype=torch.float64, device=times.rows.device)


def begin(laid: Laid) -> Begun:
    """Look at the state, evaluate the field once, and choose the first step."""
    problem, y, wish = laid.problem, laid.y, laid.wish
    check_finite(laid.y0)
    field, t0 = problem.field, problem.forward(problem.s0)
    first, since, residuals = _first(field, t0, y)
    _check_samples(wish, field, t0, y, first)
    channels = first[-1].shape[-1] if field.stochastic else 0
    problem, seed = _with_draws(laid, channels)
    problem, carry, fresh = _start(problem, y, first)
    if problem.field is not field:
        field, first = problem.field, problem.field.first(t0, y)
    known = (*first, *check_prior(field, t0, y))
    return Begun(problem, Start(y, carry, fresh), y, laid.ts, seed, laid.evaluations, known, since, residuals)


def begin_again(laid: Laid, engine: str) -> Begun | None:
    """A solve like an earlier one begins without a look at a value; None if there was none on this engine."""
    ready = readied(laid.problem, laid.y, engine)
    if ready is None or (_defaulted(laid.wish, laid.problem.field.layout) and not is_independent(laid.problem.field)):
        return None
    lifted, known = ready
    problem, seed = _with_draws(laid, known.channels)
    start, reached = Start(laid.y, None, True, lifted), tuple(lifted.inputs[i] for i in known.reached)
    return Begun(problem, start, laid.y, laid.ts, seed, laid.evaluations, (), 0, 0, reached)


def _method(term: Term, wish: Wish) -> tuple[Stepper, PID | Fixed]:
    """The stepper and the controller, and whether they go with the term and with one another."""
    if isinstance(term, SDETerm):
        stepper = stepper_of(wish.method, "sde", "euler" if term.calculus == "ito" else "heun")
        _check_sde(term, stepper)
    else:
        stepper = stepper_of(wish.method, "ode", "tsit5")
    if wish.dt is not None and wish.controller is not None:
        raise ValueError("dt: fixed steps need no controller; for the first adaptive step use PID(first_step=...)")
    if wish.dt is not None:
        return stepper, Fixed(float(wish.dt))
    controller = wish.controller
    if controller is None and stepper.adaptive:
        controller = PID(pcoeff=0.1, icoeff=0.3, factormax=5.0) if isinstance(term, SDETerm) else PID()
    if controller is None or (isinstance(controller, PID) and not stepper.adaptive):
        others = suited(
            stepper.kind, *((term.noise, term.calculus) if isinstance(term, SDETerm) else ()), adaptive=True
        )
        raise ValueError(
            f"dt: {stepper.name!r} has no error estimate and takes fixed steps; pass dt=, or a method that has one"
            + (f": {others}" if others else " (none is known for such noise)")
        )
    if not isinstance(controller, PID | Fixed):
        raise ValueError(f"controller: expected PID(...) or Fixed(...), got {type(controller).__name__}")
    return stepper, controller


def _check_sde(term: SDETerm, stepper: Stepper) -> None:
    if not isinstance(stepper, SDEStepper):
        return
    if term.noise not in stepper.noises:
        raise ValueError(
            f"method: {stepper.name!r} needs {' or '.join(stepper.noises)} noise, the term has {term.noise} noise; "
            "use 'euler' (Ito) or 'heun' (Stratonovich)"
        )
    if term.calculus not in stepper.calculi and term.noise != "additive":
        raise ValueError(
            f"method: {stepper.name!r} converges to the {' or '.join(stepper.calculi)} solution, the term is "
            f"{term.calculus}; use one of {suited('sde', term.noise, term.calculus)}, or convert the drift"
        )


def _revisits(term: Term, controller: PID | Fixed) -> bool:
    """Whether steps end where rejected ones would have ended."""
    if not isinstance(controller, PID):
        return False
    return isinstance(term, SDETerm) and term.noise == "general" if controller.revisit is None else controller.revisit


def _lanes(layout: Layout, times: Tensor, controller: PID | Fixed, coupled: bool) -> int:
    """How many clocks: one if the samples share it, else one a sample."""
    if times.shape[0] == 1 and (coupled or layout.samples == 1 or isinstance(controller, Fixed)):
        return 1
    if coupled and times.shape[0] > 1:
        raise ValueError("coupled: samples with times of their own cannot share a step size; pass ts of shape [T]")
    return layout.samples


def _first(field: Field, t0: Tensor, y: Tensor) -> tuple[tuple[Tensor, ...], int, int]:
    """The first evaluation; on the tape if there is one, counting what the tape keeps."""
    if not torch.is_grad_enabled() or transforming():
        return check_first(field, t0, y), 0, 0
    since = clock()
    try:
        with residual_bytes() as kept:
            first = check_first(field, t0, y)
    except RuntimeError as error:
        # A field that differentiates by torch.func allows no hooks around it: its graph is looked through instead.
        if "saved tensor hooks" not in str(error):
            raise
        first = check_first(field, t0, y)
        return first, since, bytes_behind(first, since)
    return first, since, kept.total


def _check_samples(wish: Wish, field: Field, t0: Tensor, y: Tensor, first: tuple[Tensor, ...]) -> None:
    if _defaulted(wish, field.layout) and not transforming():
        check_independence(field, t0, y, first)


def _defaulted(wish: Wish, layout: Layout) -> bool:
    """Whether nobody has said that the samples are samples."""
    return wish.batch_dims is None and layout.samples > 1 and not wish.coupled


def _output(times: Times, save: Save, lanes: int) -> Output:
    return Output(times.rows, save, tuple(times.host[0].tolist()) if lanes == 1 else None)


def _start(problem: Problem, y: Tensor, first: tuple[Tensor, ...]) -> tuple[Problem, Carry, bool]:
    """The first carry, and whether it is simply that of y and `first`.

    A sample whose field is not finite at the start fails at once, with a healthy stand-in state, and stand-in arguments
    where its own are to blame.
    """
    bad = None if transforming() else any_bad(first)
    if bad is None or not bool(bad.any()):
        return problem, start_carry(problem, y, first), True
    if not problem.coupled and not bool(bad.all()):
        t0, well = problem.forward(problem.s0), int((~bad).nonzero()[0])
        y = torch.where(bad.unsqueeze(-1), y[well], y)
        first = problem.field.first(t0, y)
        if bool(any_bad(first).any()):
            problem = replace(problem, field=_with_stand_ins(problem.field, t0, y, first, well))
            first = problem.field.first(t0, y)
    problem, carry = split_clock(problem, start_carry(problem, y, first))
    failed = bad.any().reshape(1) if problem.coupled else bad
    status = torch.where(failed & (carry.status == RUNNING), int(Status.NONFINITE), carry.status).to(torch.int8)
    return problem, carry._replace(status=status), False


def _with_stand_ins(field: Field, t0: Tensor, y: Tensor, first: tuple[Tensor, ...], well: int) -> Field:
    """The field with the arguments of sample `well` for samples that are bad (`first`) in whatever state.

    Else their NaN would reach shared parameters as 0 * NaN in every step that the others take. A tensor whose first
    axes are the batch's is taken for one row a sample if other rows for the bad ones change nothing for the rest.
    """
    batch = field.layout.batch
    leaves = leaves_of(field.args)
    for i, leaf in enumerate(leaves):
        bad = any_bad(first)
        if not bool(bad.any()):
            break
        if not isinstance(leaf, Tensor) or not batch or tuple(leaf.shape[: len(batch)]) != batch:
            continue
        flat = leaf.reshape(len(bad), *leaf.shape[len(batch) :])
        moved = torch.where(bad.reshape(-1, *(1,) * (flat.ndim - 1)), flat[well].detach(), flat).reshape(leaf.shape)
        tried = replace(field, args=filler_of(field.args)(iter([*leaves[:i], moved, *leaves[i + 1 :]])))
        with torch.no_grad():
            again = tried.first(t0, y)
        if all(torch.equal(a[~bad], b[~bad]) for a, b in zip(again, first, strict=True)):
            field, leaves, first = tried, [*leaves[:i], moved, *leaves[i + 1 :]], again
    return field


def _with_draws(laid: Laid, channels: int) -> tuple[Problem, Any]:
    """The problem with all that is random about it, and the seed that hangs on."""
    problem, seed = _with_noise(laid, channels)
    if not problem.regularizers:
        return problem, seed
    seeds = laid.y.new_empty(0)
    if any(r.draws for r in problem.regularizers):
        seeds = seeds_of(laid)
    return replace(problem, drawn=tuple(r.draw(seeds, laid.y) for r in problem.regularizers)), seed


def seeds_of(laid: Laid) -> Tensor:
    """The seed of every sample [B] for what regularizers draw."""
    return _seeds(laid.wish.dice, laid.problem.field.layout, laid.y.device)[1]


def _with_noise(laid: Laid, channels: int) -> tuple[Problem, Any]:
    """The problem with what drives it, if it is an SDE, and the seed that hangs on."""
    problem, y, wish = laid.problem, laid.y, laid.wish
    if not problem.field.stochastic:
        if wish.noise is not None:
            raise ValueError("noise: an ODE has none; pass an SDETerm")
        return problem, wish.seed
    if y.is_complex():
        raise ValueError("y0: complex SDE states are not supported; split them into real and imaginary parts")
    layout, stepper = problem.field.layout, problem.stepper
    areas = isinstance(stepper, SDEStepper) and stepper.area
    if wish.noise is not None:
        if wish.seed is not None:
            raise ValueError("noise: pass either noise= or seed=, not both")
        if areas or laid.steps is None:
            why = f"{stepper.name!r} also asks for its Levy areas" if areas else "adaptive steps ask for others"
            raise ValueError(f"noise: increments of given steps do not tell the path, and {why}; pass seed=")
        return replace(problem, noise=_given(wish.noise, layout, channels, int(laid.steps.cells.max()), y)), None
    seed, seeds = _seeds(wish.seed, layout, y.device)
    if areas or laid.steps is None:
        return replace(problem, noise=_tree(laid, seeds, channels, areas)), seed
    assert isinstance(problem.controller, Fixed)
    dt, sign = problem.controller.dt, problem.sign
    return replace(problem, noise=CounterNoise(seeds, channels, dt, sign, laid.steps, laid.steps, y.dtype)), seed


def _tree(laid: Laid, seeds: Tensor, channels: int, areas: bool) -> BrownianTree:
    """The path over the interval of the solve, the same forward and backward, whatever the steps."""
    problem, dtype = laid.problem, laid.y.dtype
    controller, span = problem.controller, problem.s1 - problem.s0
    # A series of one time takes no step, but a path over nothing would be 0 / 0, and spoil the gradients of the others.
    span = torch.where(span > 0, span, 1.0)
    levels = levels_for(dtype)
    if laid.steps is not None:
        # In steps, which the host has counted.
        levels = levels_for(dtype, max(float(laid.steps.cells.max()), 1.0), 1.0)
    elif isinstance(controller, PID) and controller.dtmin is not None:
        levels = levels_for(dtype, float(span.max()), controller.dtmin)
    low = problem.s0 if problem.sign > 0 else -problem.s1
    return BrownianTree(seeds, channels, low, span, levels, areas, dtype)


def _given(noise: Tensor, layout: Layout, channels: int, steps: int, y: Tensor) -> GridNoise:
    want = (steps, *layout.batch)
    if tuple(noise.shape[: len(want)]) != want or noise[0].numel() != layout.samples * channels:
        raise ValueError(f"noise: expected increments [{', '.join(map(str, (*want, channels)))}], got {[*noise.shape]}")
    return GridNoise(noise.reshape(steps, layout.samples, channels).to(y))


def _seeds(seed: Any, layout: Layout, device: torch.device) -> tuple[Any, Tensor]:
    """(what to report, one int64 seed a sample [B])."""
    if isinstance(seed, Tensor) and seed.ndim > 0:
        if seed.dtype != torch.int64 or tuple(seed.shape) != layout.batch:
            raise ValueError(f"seed: expected an int64 tensor {list(layout.batch)}, got {seed.dtype} {[*seed.shape]}")
        return seed, seed.reshape(layout.samples).to(device)
    if seed is None or isinstance(seed, torch.Generator):
        where = None if seed is None else seed.device
        seed = int(torch.randint(0, 2**63 - 1, (), dtype=torch.int64, generator=seed, device=where))
    if isinstance(seed, bool) or not isinstance(seed, int | Tensor):
        raise ValueError(
            f"seed: expected an int, an int64 tensor, a torch.Generator or None, got {type(seed).__name__}"
        )
    return seed, sample_seeds(int(seed), layout.samples, device)
