"""`sample` and `invert`: validation and assembly, nothing else."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.diffusion.checks import check_kinds
from sciode.diffusion.gradients.carry import Carried, carry
from sciode.diffusion.gradients.settings import Gradient, checked
from sciode.diffusion.grids import Grid
from sciode.diffusion.guidance import Guidance
from sciode.diffusion.job import Chosen, Job, carried, first_step, job_of
from sciode.diffusion.noise import Seed, check_seed, normals_of, seeds_for
from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.run import no_draw, run
from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.samplers.registry import catalogue
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.thresholding import Threshold
from sciode.solvers import Status

__all__ = ["InversionResult", "RoundTrip", "SampleResult", "invert", "round_trip", "sample"]


class SampleResult(NamedTuple):
    """x [B, ...]; memory: what `invert` needs beside it to be exact, or None; nfe: calls of the model, an int, or [B]
    where steps are adaptive; status [B]: codes of `sciode.Status`, 0 = success; gradient: "direct", "checkpoint",
    "reversible" or "adjoint", which one was used; None where nothing behind x requires grad."""

    x: Tensor
    memory: Tensor | None
    nfe: int | Tensor
    status: Tensor
    gradient: str | None = None


class InversionResult(NamedTuple):
    """x [B, ...] at t_start; exact: whether rounding is the only error; growth: the most it can be multiplied by."""

    x: Tensor
    exact: bool
    growth: float
    nfe: int | Tensor
    status: Tensor


class RoundTrip(NamedTuple):
    """rmse [B]: of the start against what inversion of its sample gives; the sample; how it was inverted."""

    rmse: Tensor
    sampled: SampleResult
    inverted: InversionResult


def sample(
    model: Callable[..., Tensor],
    x: Tensor,
    schedule: Schedule,
    *,
    sampler: Chosen = "dpm++-3m",
    steps: int | None = None,
    nfe: int | None = None,
    prediction: str = "eps",
    grid: Grid = "log-snr",
    t_start: float | None = None,
    t_end: float = 1e-3,
    guidance: Guidance | None = None,
    threshold: Threshold | None = None,
    cond: Mapping[str, Any] | None = None,
    ems: Any = None,
    denoise_last: bool = False,
    seed: Seed = None,
    gradient: Gradient = "auto",
    return_info: bool = False,
) -> Any:
    """Carry `initial_noise` x [B, ...] at t_start to a sample at t_end: a tensor, or `SampleResult` (return_info=True).

    - model(x [B, ...], t [B], **cond) -> [B, ...], t in the schedule's own time, float32 at least; x in half precision
      is shown to it as it is, and carried in float32. prediction: "eps", "x0", "v", "score" or "flow".
    - sampler: a name of `samplers()`, what `sampler(name, **options)` gives, or a `Recipe`, which has its own grid.
    - steps: of the grid, 20 by default; or nfe: the most evaluations, `denoise_last` counted. Adaptive: neither.
    - grid: a name of `GRIDS`, a function, or the times themselves, which then say steps, t_start and t_end.
    - t_start: None = `schedule.t_max`. t_end > 0: sigma is never 0 within a sampler; `denoise_last=True` then replaces
      the state by its data prediction, one evaluation more.
    - seed (samplers that draw): an int, for which sample b has the stream b; or B of them, or generators.
    - ems: statistics by `estimate_ems`, for dpm-v3.
    - gradient: how x, `cond` and the weights get theirs. "direct": one tape, memory O(N), any derivative. "checkpoint"
      (or `Checkpoint(segment)`): exact, states alone are kept. "reversible" (bdia, belm, edict): exact, constant
      memory; at most rounding times the sampler's growth apart. "adjoint" (or `Adjoint(rtol, atol)`): that of the exact
      flow, constant memory. "auto": direct where it fits in a quarter of the free memory, else checkpoint. The last
      two routes are for first derivatives. `SampleResult.gradient` says which was used.

    Everything about the steps is computed on the host in float64 before the first one; within the loop nothing waits
    for the device. Raises ValueError for misuse; what becomes of a sample is its status.
    """
    check_kinds(return_info=return_info)
    job = job_of(model, x, schedule, sampler, steps, nfe, prediction, grid, t_start, t_end, guidance, threshold,
                      cond, ems, denoise_last)  # fmt: skip
    check_seed(seed, x.shape[0])
    gradient, dtype, x = checked(gradient, job.sampler), x.dtype, carried(x)
    if isinstance(job.sampler, Adaptive):
        walked = job.sampler.walk(job.denoiser, job.path, x, **job.sampler.options)
        found, memory, spent, status = walked.x, (), walked.nfe, walked.status
        used = "direct" if found.requires_grad else None
    else:
        (found, memory, used), spent, status = *_sampled(job, x, seed, gradient), None
    if denoise_last:
        last = Plan()
        last.result = last.call(0, job.path.nodes[-1], "data")
        found, spent = run(last, job.denoiser, (found,))[0], spent + 1
    found = found.to(dtype)
    if not return_info:
        return found
    return SampleResult(found, memory[0] if memory else None, spent, _status(found, status), used)


def invert(
    model: Callable[..., Tensor],
    x: Tensor,
    schedule: Schedule,
    *,
    memory: Tensor | None = None,
    sampler: Chosen = "bdia",
    steps: int | None = None,
    nfe: int | None = None,
    prediction: str = "eps",
    grid: Grid = "log-snr",
    t_start: float | None = None,
    t_end: float = 1e-3,
    guidance: Guidance | None = None,
    threshold: Threshold | None = None,
    cond: Mapping[str, Any] | None = None,
    ems: Any = None,
    return_info: bool = False,
) -> Any:
    """The noise at t_start whose sample is x [B, ...]: a tensor, or `InversionResult` with `return_info=True`.

    With bdia, edict or belm and the `memory` of their `SampleResult`, every step is undone in closed form, and
    rounding is the only error; it warns where rounding may grow beyond 1e-3. Without memory (x was not sampled) the
    same samplers begin with one approximate step (bdia, belm) or two equal states (edict), and all others run their
    own steps backwards along the grid: approximate, of their own order. Arguments: those of `sample`, the same values.

    Raises ValueError for samplers that draw noise, and for a memory that does not fit.
    """
    check_kinds(return_info=return_info)
    job = job_of(model, x, schedule, sampler, steps, nfe, prediction, grid, t_start, t_end, guidance, threshold,
                  cond, ems, False)  # fmt: skip
    if job.sampler.kind != "ode":
        raise ValueError(f"sampler: {job.sampler.name} draws noise, which no inversion knows; use an ODE sampler")
    if job.path.nodes[0].alpha == 0 and not (isinstance(job.sampler, Sampler) and job.sampler.in_time):
        raise ValueError(
            "t_start: alpha is 0 there, and no inversion reaches an infinite log-SNR; give an earlier t_start"
        )
    check_kinds(memory=memory)
    exact = memory is not None
    growth = math.inf
    dtype, x = x.dtype, carried(x)
    if isinstance(job.sampler, Adaptive) or job.sampler.inverse is None:
        if exact:
            raise ValueError(
                f"memory: {job.sampler.name} has no exact inversion; use bdia, edict or belm, or no memory"
            )
        found, spent, status = _backwards(job, x)
    else:
        beside = _begun(job, x) if memory is None else memory
        if beside.shape != x.shape or beside.dtype != x.dtype:
            ours, given = (f"{v.dtype} {tuple(v.shape)}" for v in (x, beside))
            raise ValueError(f"memory: expected that of x's own sample, {ours}, got {given}")
        growth = _growth(job, dtype)
        plan = job.sampler.backward(job.path)
        found, _ = run(plan, job.denoiser, (x, beside))
        spent, status = plan.calls + (memory is None and job.sampler.name != "edict"), None
    found = found.to(dtype)
    return InversionResult(found, exact, growth, spent, _status(found, status)) if return_info else found


def round_trip(model: Callable[..., Tensor], x: Tensor, schedule: Schedule, **options: Any) -> RoundTrip:
    """Sample from x [B, ...], invert, and measure the way back: root mean square error of every sample [B].

    options: those of `sample` (sampler="bdia" by default) but `denoise_last` and `return_info`; memory is used where
    there is any.
    """
    options = {"sampler": "bdia"} | options
    sampled = sample(model, x, schedule, return_info=True, **options)
    back = {name: value for name, value in options.items() if name != "seed"}
    inverted = invert(model, sampled.x, schedule, memory=sampled.memory, return_info=True, **back)
    rmse = (inverted.x - x).flatten(1).square().mean(1).sqrt()
    return RoundTrip(rmse, sampled, inverted)


def _sampled(job: Job, x: Tensor, seed: Seed, gradient: Gradient) -> tuple[Carried, int]:
    """The sample and the evaluations; from where alpha is 0 the first step is the data prediction's."""
    assert isinstance(job.sampler, Sampler)
    lead, path = first_step(job)
    if lead is not None:
        x, _ = run(lead, job.denoiser, (x,))
    spent = 0 if lead is None else 1
    if path.steps == 0:
        return Carried(x, (), "direct" if x.requires_grad else None), spent
    plan = job.sampler.program(path, **job.extra)
    draw = normals_of(seeds_for(seed, x.shape[0], x.device), x) if plan.draws else no_draw
    if gradient == "reversible" and torch.is_grad_enabled():
        _growth(Job(job.sampler, job.denoiser, path, job.extra), x.dtype)
    return carry(job.sampler, path, plan, job.denoiser, x, draw, gradient), spent + plan.calls


def _backwards(job: Job, x: Tensor) -> tuple[Tensor, int | Tensor, Tensor | None]:
    path = job.path.reversed()
    if isinstance(job.sampler, Adaptive):
        walked = job.sampler.walk(job.denoiser, path, x, **job.sampler.options)
        return walked.x, walked.nfe, walked.status
    if job.sampler.program(job.path, **job.extra).draws:
        raise ValueError(f"sampler: {job.sampler.name} with these options draws noise, which no inversion knows")
    plan = job.sampler.program(path, **job.extra)
    return run(plan, job.denoiser, (x,))[0], plan.calls, None


def _begun(job: Job, x: Tensor) -> Tensor:
    """A state beside x for an inversion without memory: DDIM's step backwards, or x itself for coupled states."""
    if job.sampler.name == "edict":
        return x
    last = Path(job.path.schedule, job.path.nodes[-1:-3:-1])
    return run(catalogue()["ddim"].program(last), job.denoiser, (x,))[0]  # type: ignore[union-attr]


def _growth(job: Job, dtype: torch.dtype) -> float:
    """How far rounding to `dtype` may grow; warns where that is more than a thousandth."""
    assert isinstance(job.sampler, Sampler) and job.sampler.growth is not None
    growth = job.sampler.growth(job.path, **job.sampler.options)
    if growth > 1 and growth * torch.finfo(dtype).eps > 1e-3:
        warnings.warn(
            f"{job.sampler.name}: the way back multiplies rounding by up to {growth:.1e} in {dtype}; take fewer "
            "steps, float64, or bdia with gamma=1, which multiplies it by 1",
            stacklevel=3,
        )
    return growth


def _status(x: Tensor, status: Tensor | None) -> Tensor:
    finite = x.flatten(1).isfinite().all(1)
    known = torch.zeros_like(finite, dtype=torch.int64) if status is None else status
    return torch.where(finite | (known != 0), known, int(Status.NONFINITE))
