"""Samplers whose steps follow their own error, per sample: a result never depends on who else is in the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser, noise_at
from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.run import run
from sciode.diffusion.samplers.base import Adaptive
from sciode.diffusion.samplers.runge_kutta import tableau_of
from sciode.diffusion.samplers.singlestep import ORDERS, step_through
from sciode.diffusion.weights import adams_weights, half_rule, keep
from sciode.solvers import Status, Tableau, methods, solve

__all__ = ["ADAPTIVE", "Walked", "runge_kutta_adaptive"]


_SHRINK, _GROW = 0.2, 5.0


class Walked(NamedTuple):
    """States [B, ...], evaluations [B] and statuses [B] (int64) at the end."""

    x: Tensor
    nfe: Tensor
    status: Tensor


def _walk_dpm(
    denoiser: Denoiser,
    path: Path,
    x: Tensor,
    kind: str,
    order: int,
    rtol: float,
    atol: float,
    first: float,
    safety: float,
    max_steps: int,
) -> Walked:
    """Steps of two orders that share evaluations; scaled difference E: accept if E <= 1, then h <- safety h
    E^(-1/order), by a factor of at most 5 either way.

    Without that bound the first steps, whose error is rounding, decide by the dtype how far the next one leaps, which
    is then rejected: as many evaluations, and errors two to four times as large. E is the root mean square over one
    sample of (high - low) / max(atol, rtol max(|low|, |before|)). The host lays out each trial for all samples at once,
    and looks at E once a trial.
    """
    batch, end = x.shape[0], path.nodes[-1].lam
    sign = float(np.sign(end - path.nodes[0].lam))
    lam, h = np.full(batch, path.nodes[0].lam), np.full(batch, sign * first)
    before, nfe, status = x, np.zeros(batch, dtype=np.int64), np.full(batch, int(Status.MAX_STEPS), dtype=np.int64)
    for _ in range(max_steps):
        active = status == Status.MAX_STEPS
        if not active.any():
            break
        last = np.abs(end - lam) <= np.abs(h)
        # Whoever has arrived takes empty steps that count for nothing; their length only must not be 0.
        reach = np.where(active, np.where(last, end, lam + h), lam - sign * first)
        high, low = _trial(denoiser, path, x, path.at(lam), path.at(reach), kind, order)
        error = _scaled(high, low, before, rtol, atol).cpu().double().numpy()
        bad = ~np.isfinite(error)
        accepted = active & (error <= 1)
        taken = torch.as_tensor(accepted, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
        x, before = torch.where(taken, high, x), torch.where(taken, low, before)
        nfe += order * active
        lam = np.where(accepted, reach, lam)
        status[active & bad] = int(Status.NONFINITE)
        status[accepted & last] = int(Status.SUCCESS)
        with np.errstate(divide="ignore", invalid="ignore"):
            h = np.where(bad, h, h * np.clip(safety * np.maximum(error, 1e-8) ** (-1 / order), _SHRINK, _GROW))
    return Walked(x, *(torch.as_tensor(v, device=x.device) for v in (nfe, status)))


def _trial(denoiser: Denoiser, path: Path, x: Tensor, s: Node, t: Node, kind: str, order: int) -> tuple[Tensor, Tensor]:
    """States of this order and of the one below; the lower uses the values of the higher, which costs it nothing."""
    plan, known = Plan(), []
    high = step_through(plan, path, kind, ORDERS[order], 0, s, t, known)
    if order == 2:
        low = step_through(plan, path, kind, ORDERS[1], 0, s, t, known)
    else:
        # The second order through the value at a third of the step.
        low = _second(plan, path, kind, s, t, known)
    plan.result, plan.memory = high, (low,)
    found, (lower,) = run(plan, denoiser, (x,), _silent, own_times=True)
    return found, lower


def _second(plan: Plan, path: Path, kind: str, s: Node, t: Node, known: list) -> int:
    total = adams_weights(path, kind, s, t, [s])[0]
    weights = half_rule(kind, total, s, t, known[1][0], "bh2")
    return plan.mix((0, keep(kind, s, t)), *((known[i][1], w) for i, w in enumerate(weights)))


def _silent(number: int) -> Tensor:
    raise AssertionError("an ODE draws nothing")


def _scaled(high: Tensor, low: Tensor, before: Tensor, rtol: float, atol: float) -> Tensor:
    scale = (rtol * torch.maximum(low.abs(), before.abs())).clamp(min=atol)
    return ((high - low) / scale).flatten(1).square().mean(1).sqrt()


def _walk_solve(
    denoiser: Denoiser, path: Path, x: Tensor, method: Any, rtol: float, atol: float, max_steps: int
) -> Walked:
    """`sciode.solve` on dy / dlambda = -e^-lambda eps(alpha y, t(lambda)) for y = x / alpha, each sample with its
    steps."""
    first, last = path.nodes[0], path.nodes[-1]
    batch, shape = x.shape[0], x.shape

    def slope(lam: Tensor, y: Tensor) -> Tensor:
        eps, _, rho = noise_at(denoiser, y.reshape(shape), lam.reshape(batch))
        return (-rho * eps).reshape(y.shape)

    solution = solve(
        slope, (x / first.alpha).flatten(1), [first.lam, last.lam], method=method, rtol=denoiser.tolerance(rtol),
        atol=denoiser.tolerance(atol), batch_dims=1, max_steps=max_steps, throw=False, engine="eager",
    )  # fmt: skip
    return Walked(solution.ys[-1].reshape(shape) * last.alpha, solution.stats.nfe, solution.status.long())


def runge_kutta_adaptive(method: str | Tableau = "tsit5", rtol: float = 1e-4, atol: float = 1e-5) -> Adaptive:
    """An adaptive sampler of any explicit method of `sciode.solve` with an error estimate, each sample with its steps.

        dy / dlambda = -(sigma / alpha) eps,   y = x / alpha.

    method: a name or a `Tableau`; rtol, atol: tolerances of y, 1e-3 to 1e-5 in float32; of a model in half precision
    an eighth of its rounding (1e-4, in bfloat16 1e-3) at least. Raises ValueError for methods
    without an error estimate.
    """
    table = tableau_of(method)
    if not table.adaptive:
        raise ValueError(f"method: {table.name!r} has no error estimate; use it with steps, as rk-{table.name}")
    options = {"method": method, "rtol": rtol, "atol": atol, "max_steps": 10_000}
    return Adaptive(f"adaptive-{table.name}", table.order, _walk_solve, options=options, source=table.reference)


def _table() -> list[Adaptive]:
    rows: list[Adaptive] = []
    for prefix, kind, paper in (("dpm", "noise", "DPM-Solver"), ("dpm++", "data", "DPM-Solver++")):
        for order in (2, 3):
            options = {"kind": kind, "order": order, "rtol": 0.05, "atol": 0.0078, "first": 0.05, "safety": 0.9,
                       "max_steps": 1000}  # fmt: skip
            source = f"Lu et al. (2022), {paper}, with an error of its own for every sample"
            rows.append(Adaptive(f"{prefix}-adaptive-{order}", order, _walk_dpm, options=options, source=source))
    rows += [runge_kutta_adaptive(name) for name, info in methods("ode").items() if info.adaptive]
    return rows


ADAPTIVE: tuple[Adaptive, ...] = tuple(_table())
"""dpm-adaptive-2 and -3 (DPM-Solver-12 and -23), the same with data prediction, and adaptive-* for every embedded
pair."""
