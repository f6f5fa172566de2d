"""A sampling loop prepared once and repeated: coefficients where the state is, on CUDA captured into one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciode.diffusion.checks import check_states
from sciode.diffusion.job import Job, carried, first_step, job_of
from sciode.diffusion.noise import Seed, normals_of, seeds_for
from sciode.diffusion.plan import Plan
from sciode.diffusion.run import Program, no_draw
from sciode.diffusion.samplers.base import Adaptive
from sciode.diffusion.schedules.base import Schedule
from sciode.solvers.engines.recording import recording

__all__ = ["Prepared", "prepare"]

_ARGUMENTS: dict[str, Any] = {
    "sampler": "dpm++-3m", "steps": None, "nfe": None, "prediction": "eps", "grid": "log-snr", "t_start": None,
    "t_end": 1e-3, "guidance": None, "threshold": None, "cond": None, "ems": None, "denoise_last": False,
}  # fmt: skip
_WARM_UP = 2


def prepare(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, *, graph: bool | None = None, **options: Any
) -> Prepared:
    """`sample` for many starts like x [B, ...], without gradients: `loop = prepare(...)`, then `loop(noise, seed=0)`.

    - options: those of `sample` but seed, gradient, return_info. Tensors in `cond` are places that `loop(x, cond=)`
      fills.
    - graph: whether to capture all evaluations into one CUDA graph; None = on CUDA. The model must then run without a
      look at a value, and with fixed shapes.

    The plan, its coefficients and times are made and sent here, once. Raises ValueError for misuse and for adaptive
    samplers, RuntimeError where the model cannot be captured.
    """
    for name in options:
        if name not in _ARGUMENTS:
            raise ValueError(f"prepare: {name!r} is none of its options: {', '.join(_ARGUMENTS)}")
    check_states(x)
    captured = x.is_cuda if graph is None else graph
    if captured and not x.is_cuda:
        raise ValueError(f"graph: CUDA graphs need a state on a CUDA device, got {x.device}; use graph=False")
    return Prepared(job_of(model, x, schedule, **(_ARGUMENTS | options)), x, captured)


@final
class Prepared:
    """A loop made by `prepare`; nfe: its evaluations."""

    def __init__(self, job: Job, x: Tensor, captured: bool) -> None:
        if isinstance(job.sampler, Adaptive):
            raise ValueError(f"sampler: {job.sampler.name} looks at its error; only samplers on a grid are prepared")
        plan = _whole(job)
        self.nfe = plan.calls
        self._dtype, self._x = x.dtype, carried(x).detach().clone()
        self._cond = _own(job.denoiser.cond)
        self._seeds = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        self._normals = normals_of(self._seeds, self._x) if plan.draws else no_draw
        self._program = Program(plan, replace(job.denoiser, cond=self._cond), self._x)
        self._graph, self._out = self._captured() if captured else (None, self._x)

    def __call__(self, x: Tensor, *, seed: Seed = None, cond: Mapping[str, Any] | None = None) -> Tensor:
        """The samples [B, ...] of starts of the prepared shape, dtype and device; the same as those of `sample`."""
        if x.shape != self._x.shape or x.dtype != self._dtype or x.device != self._x.device:
            raise ValueError(
                f"x: prepared for {self._dtype} {tuple(self._x.shape)} on {self._x.device}, got {x.dtype} "
                f"{tuple(x.shape)} on {x.device}"
            )
        with torch.no_grad():
            self._x.copy_(x)
            if self._program.plan.draws:
                self._seeds.copy_(seeds_for(seed, x.shape[0], x.device))
            if cond is not None:
                _fill(self._cond, cond)
            if self._graph is None:
                return self._run().to(self._dtype, copy=True)
            self._graph.replay()
            return self._out.to(self._dtype, copy=True)

    def _run(self) -> Tensor:
        return self._program((self._x,), self._normals)[0]

    def _captured(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        side = torch.cuda.Stream(self._x.device)
        side.wait_stream(torch.cuda.current_stream(self._x.device))
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._run()
        torch.cuda.current_stream(self._x.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.no_grad(), recording(graph):
                out = self._run()
        except RuntimeError as fault:
            raise RuntimeError(
                f"prepare: the model cannot be captured into a CUDA graph ({fault}); use graph=False"
            ) from fault
        return graph, out


def _whole(job: Job) -> Plan:
    """The first step from pure noise, the sampler's plan and the last denoise as one program."""
    assert not isinstance(job.sampler, Adaptive)
    lead, path = first_step(job)
    plan, x = Plan(), 0
    if lead is not None:
        x, _ = plan.follow(lead, x)
    if path.steps:
        x, _ = plan.follow(job.sampler.program(path, **job.extra), x)
    plan.result = plan.call(x, path.nodes[-1], "data") if job.denoise_last else x
    return plan


def _own(cond: Mapping[str, Any]) -> dict[str, Any]:
    return pytree.tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, dict(cond))


def _fill(places: dict[str, Any], cond: Mapping[str, Any]) -> None:
    own, spec = pytree.tree_flatten(places)
    given, other = pytree.tree_flatten(dict(cond))
    if spec != other:
        raise ValueError(f"cond: prepared with {sorted(places)}, got {sorted(cond)} of another structure")
    for place, value in zip(own, given, strict=True):
        if isinstance(place, Tensor):
            try:
                place.copy_(value)
            except (RuntimeError, TypeError) as fault:
                raise ValueError(f"cond: prepared with a tensor {tuple(place.shape)}, got another ({fault})") from fault
        elif place != value:
            raise ValueError("cond: only tensors can change after the loop was prepared")
