"""The contract of a method: what every stepper, ours or yours, has to keep so that all engines and adjoints work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from sciode.solvers import ExplicitRK, ODETerm, Save, SDETerm, Step, Stepper, Tableau, solve
from sciode.solvers.advance import advance
from sciode.solvers.begin import Begun, Wish, begin, lay_out
from sciode.solvers.methods import methods, stepper_of
from sciode.solvers.steppers import SDEStepper, from_table

from .orders import convergence_order, dense_order
from .problems import HOPF
from .purity import Purity

__all__ = ["MethodReport", "check_method"]

_SLACK = 0.25
"""A measured slope may fall short of the claim by this much."""
_ROUNDING = 1e-14
"""Two ways to the same float64 number may differ by this much, relative to its size."""


@dataclass(frozen=True)
class MethodReport:
    """What `check_method` measured.

    order, dense_order: slopes; gradient_gap, difference_gap: the largest relative distance of the recomputed gradient
    from the direct one, and of the direct one from central differences; all None for an SDE method, whose strong order
    needs many paths. nfe: evaluations of the field that a step takes.
    """

    name: str
    kind: str
    order: float | None
    dense_order: float | None
    gradient_gap: float | None
    difference_gap: float | None
    nfe: int


def check_method(method: Any, kind: str | None = None) -> MethodReport:
    """Hold a method to its contract; AssertionError says, in a sentence, what it breaks.

    One step is checked for its shapes, the count of its evaluations, purity (no in-place write, no host sync, no
    draw), a step of length zero, `restore` of its memory, the independence of samples (a batch of one equals its row),
    and `advance` for being traced whole by torch.compile. An ODE method is then checked for its claimed order and that
    of its dense output (slope >= claim - 0.25, float64, a nonlinear problem; a `Stepper` without a table is asked for a
    dense output of one order less than its own), and its gradients: recompute = direct to 1e-12, direct = central
    differences to 1e-7. Takes seconds; resets torch.compile's cache.

    Arguments:
        method: a registered name, or a table or `Stepper` of your own, which needs no registration.
        kind: "ode" or "sde", where a name exists for both (euler, heun, ...); None = "ode" if it can be.
    """
    stepper = _stepper(method, kind)
    begun, noise = _begun(stepper, samples=slice(None))
    step = _check_fields(stepper, begun, noise)
    _check_purity(stepper, begun, noise)
    _check_zero_step(stepper, begun, noise)
    _check_restore(stepper, begun, step)
    _check_batch_of_one(stepper, step)
    _check_trace(stepper, begun, noise)
    if stepper.kind == "sde":
        return MethodReport(stepper.name, stepper.kind, None, None, None, None, step.nfe)
    gaps = _check_gradients(stepper)
    return MethodReport(stepper.name, stepper.kind, *_check_orders(stepper), *gaps, step.nfe)


def _fail(stepper: Stepper, sentence: str) -> NoReturn:
    raise AssertionError(f"method {stepper.name!r}: {sentence}")


def _stepper(method: Any, kind: str | None) -> Stepper:
    if isinstance(method, Tableau):
        return ExplicitRK(method)
    if isinstance(method, Stepper):
        return method
    if not isinstance(method, str):
        return from_table(method)
    if kind is None:
        kind = "sde" if method in methods("sde") and method not in methods("ode") else "ode"
    return stepper_of(method, kind, method)


def _reverting(t: Tensor, y: Tensor) -> Tensor:
    return torch.sin(t) - y


def _diffusion(t: Tensor, y: Tensor) -> Tensor:
    return 0.3 + 0.1 * torch.sin(y)


def _matrix_diffusion(t: Tensor, y: Tensor) -> Tensor:
    return _diffusion(t, y).unsqueeze(-1)


def _constant_diffusion(t: Tensor, y: Tensor) -> Tensor:
    return (0.3 + 0.1 * t + 0 * y).unsqueeze(-1)


def _begun(stepper: Stepper, samples: slice, field: Callable[..., Tensor] = HOPF.field) -> tuple[Begun, Tensor | None]:
    """A solve of the stepper that is about to take its first step, and the noise of that step."""
    term: ODETerm | SDETerm = ODETerm(field)
    if isinstance(stepper, SDEStepper):
        noise = stepper.noises[0]
        shapes = {"diagonal": _diffusion, "additive": _constant_diffusion}
        diffusion = shapes.get(noise, _matrix_diffusion)
        drift = _reverting if field is HOPF.field else field
        term = SDETerm(drift, diffusion, noise=noise, calculus=stepper.calculi[0])  # type: ignore[arg-type]
    elif stepper.kind != "ode":
        _fail(stepper, f"its kind is {stepper.kind!r}; steppers of ODEs say 'ode', those of SDEs extend SDEStepper")
    y0 = HOPF.y0[samples]
    seed = torch.arange(HOPF.y0.shape[0])[samples] if stepper.kind == "sde" else None
    dt = None if stepper.adaptive else 0.125
    wish = Wish(stepper, dt, 1e-4, 1e-6, None, Save(), 1, False, None, seed, ())
    begun = begin(lay_out(term, y0, [0.0, 1.0], None, wish))
    problem = begun.problem
    if problem.counted:
        return begun, problem.noise.block(0, 1)[0]
    return begun, problem.driven(None, problem.forward(begun.carry.t), torch.full_like(begun.carry.t, 0.125))


def _take(begun: Begun, noise: Tensor | None, dt: float = 0.125) -> Step:
    """The first step, of a given length, with time and length handed over once a sample."""
    problem, carry = begun.problem, begun.carry
    lengths = torch.full((carry.y.shape[0],), dt, dtype=torch.float64)
    with torch.no_grad():
        return problem.stepper.step(problem.field, noise, carry.t.expand_as(lengths), lengths, carry.y, carry.memory)


def _check_fields(stepper: Stepper, begun: Begun, noise: Tensor | None) -> Step:
    """Step(y1, error, memory, stages, ok, nfe) as the engines read it."""
    step, y = _take(begun, noise), begun.carry.y
    if not isinstance(step, Step):
        _fail(stepper, f"step returned {type(step).__name__}; return Step(y1, error, memory, stages, ok, nfe)")
    for name, value in (("y1", step.y1), ("error", step.error)):
        if value is not None and (value.shape != y.shape or value.dtype != y.dtype):
            _fail(stepper, f"{name} is {value.dtype} {[*value.shape]} for a state {y.dtype} {[*y.shape]}")
    if (step.error is not None) != stepper.adaptive or (stepper.error_order is not None) != stepper.adaptive:
        _fail(stepper, f"adaptive is {stepper.adaptive}; error and error_order are given just when it is True")
    new, old = [m.shape for m in step.memory], [m.shape for m in begun.carry.memory]
    if new != old:
        _fail(stepper, f"memory has shapes {new} after a step and {old} before it; every step hands on the same")
    if step.ok is not None and (step.ok.dtype != torch.bool or step.ok.shape != y.shape[:1]):
        _fail(stepper, f"ok is {step.ok.dtype} {[*step.ok.shape]}; expected bool [{y.shape[0]}], or None")
    calls = _count_calls(stepper)
    if step.nfe != calls:
        _fail(stepper, f"a step evaluates the field {calls} times and reports nfe={step.nfe}")
    if step.nfe != stepper.nfe:
        _fail(stepper, f"a step reports nfe={step.nfe}, the stepper {stepper.nfe}; let its property nfe say the same")
    return step


def _count_calls(stepper: Stepper) -> int:
    calls = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return _reverting(t, y)

    begun, noise = _begun(stepper, slice(None), counted)
    before = calls
    _take(begun, noise)
    return calls - before


def _check_purity(stepper: Stepper, begun: Begun, noise: Tensor | None) -> None:
    with Purity() as seen:
        _take_traced(begun, noise)
    if seen.found:
        _fail(stepper, f"its step is not pure: {seen.found[0]}; the engines repeat, trace and capture it")


def _take_traced(begun: Begun, noise: Tensor | None) -> None:
    with torch.no_grad():
        advance(begun.problem, begun.carry, noise)


def _check_zero_step(stepper: Stepper, begun: Begun, noise: Tensor | None) -> None:
    still = _take(begun, None if noise is None else torch.zeros_like(noise), dt=0.0)
    if not torch.equal(still.y1, begun.carry.y):
        _fail(stepper, "a step of length zero moves the state; samples that rest take such steps")


def _check_restore(stepper: Stepper, begun: Begun, step: Step) -> None:
    t1 = torch.full((step.y1.shape[0],), 0.125, dtype=torch.float64)
    with torch.no_grad():
        again = stepper.restore(begun.problem.field, t1, step.y1, stepper.essential(step.memory))
    if len(again) != len(step.memory) or any(_gap(a, b) > _ROUNDING for a, b in zip(again, step.memory, strict=True)):
        _fail(
            stepper,
            "restore(essential(memory)) is not the memory: recompute would differentiate other steps",
        )


def _check_batch_of_one(stepper: Stepper, step: Step) -> None:
    for i in range(step.y1.shape[0]):
        alone = _take(*_begun(stepper, slice(i, i + 1)))
        pairs = [(step.y1, alone.y1), *zip(step.memory, alone.memory, strict=True)]
        if step.error is not None and alone.error is not None:
            pairs.append((step.error, alone.error))
        if any(_gap(one, row[i : i + 1]) > _ROUNDING for row, one in pairs):
            _fail(stepper, f"sample {i} steps differently alone and in a batch; keep the samples apart")


def _check_trace(stepper: Stepper, begun: Begun, noise: Tensor | None) -> None:
    problem = begun.problem
    torch.compiler.reset()
    traced = torch.compile(lambda carry, dw: advance(problem, carry, dw), backend="eager", fullgraph=True)
    with torch.no_grad():
        plain = advance(problem, begun.carry, noise)
        try:
            compiled = traced(begun.carry, noise)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise AssertionError(
                f"method {stepper.name!r}: torch.compile cannot trace a step as one graph ({reason}); "
                "no Python branch on a tensor, no .item(), .tolist() or .numpy()"
            ) from error
    if _gap(compiled.y, plain.y) > _ROUNDING or not torch.equal(compiled.status, plain.status):
        _fail(stepper, "the traced step differs from the plain one; its step depends on more than its arguments")


def _check_orders(stepper: Stepper) -> tuple[float, float]:
    order = convergence_order(stepper)
    if order < stepper.order - _SLACK:
        _fail(stepper, f"it converges with order {order:.2f} on a nonlinear problem and claims {stepper.order:g}")
    # A stepper without a table has no claim of its own; with one order less, errors at and between steps match.
    claim = stepper.table.dense_order if isinstance(stepper, ExplicitRK) else stepper.order - 1
    assert claim is not None
    dense = dense_order(stepper)
    if dense < claim - _SLACK:
        _fail(stepper, f"its dense output has order {dense:.2f}; expected {claim:g}")
    return order, dense


def _check_gradients(stepper: Stepper) -> tuple[float, float]:
    """Gradients with respect to state and parameters: recompute against direct, direct against central differences."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(HOPF.y0.shape, dtype=torch.float64, generator=generator)
    scale = torch.tensor([0.9, 1.2], dtype=torch.float64)

    def loss(y0: Tensor, scale: Tensor, adjoint: str, **how: Any) -> Tensor:
        def field(t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
            return scale * HOPF.field(t, y)

        ts = [0.0, 0.33, 0.7]
        ys = solve(field, y0, ts, args=scale, method=stepper, batch_dims=1, adjoint=adjoint, **how).ys
        return (ys * weight).sum()

    def gradient(adjoint: str, **how: Any) -> Tensor:
        inputs = HOPF.y0.requires_grad_(), scale.clone().requires_grad_()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(*inputs, adjoint, **how), inputs)])

    gap = 0.0
    for how in [{"dt": 0.125}, *([{"rtol": 1e-5, "atol": 1e-7}] if stepper.adaptive else [])]:
        gap = max(gap, _gap(gradient("recompute", **how), gradient("direct", **how)))
    if not gap <= 1e-12:
        _fail(stepper, f"the recomputed gradient is {gap:.1e} away from the direct one (relative); expected 1e-12")
    direction = torch.randn(HOPF.y0.numel() + 2, dtype=torch.float64, generator=generator)
    dy, ds = 1e-5 * direction[:-2].reshape(HOPF.y0.shape), 1e-5 * direction[-2:]
    with torch.no_grad():
        ahead, behind = (loss(HOPF.y0 + k * dy, scale + k * ds, "direct", dt=0.125) for k in (1, -1))
    want = gradient("direct", dt=0.125) @ direction
    difference = _gap((ahead - behind) / 2e-5, want)
    if not difference <= 1e-7:
        _fail(stepper, f"its gradient is {difference:.1e} away from central differences (relative); expected 1e-7")
    return gap, difference


def _gap(got: Tensor, want: Tensor) -> float:
    """The largest distance, relative to the largest entry of `want`."""
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-300))
