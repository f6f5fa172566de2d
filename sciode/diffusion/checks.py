"""Arguments of the wrong kind, named before work starts, with what was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from sciode.diffusion.guidance import Guidance
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.statistics import ModelStatistics

__all__ = ["check_kinds", "check_mask", "check_one", "check_states"]


def check_states(x: Any) -> None:
    """Raise ValueError for what is no batch of real states."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x: got {_said(x)}; pass a tensor [B, ...] of reals, such as torch.as_tensor(...) gives")
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(f"x: expected real states [B, ...], got {x.dtype} of shape {tuple(x.shape)}")


def check_one(name: str, shape: Sequence[int], x: Tensor) -> None:
    """Raise ValueError for what does not broadcast to one sample of x [B, ...]."""
    sizes = zip(reversed(tuple(shape)), reversed(x.shape[1:]), strict=False)
    if len(shape) >= x.ndim or any(one not in (1, other) for one, other in sizes):
        raise ValueError(f"{name}: its shape {tuple(shape)} does not fit one sample of x, {tuple(x.shape[1:])}")


def check_mask(mask: Any, x: Tensor) -> None:
    """Raise ValueError for a mask that does not broadcast to the states x [B, ...]."""
    if not isinstance(mask, Tensor):
        raise ValueError(f"mask: got {_said(mask)}; pass a tensor that broadcasts against {tuple(x.shape)}")
    sizes = zip(reversed(mask.shape), reversed(x.shape), strict=False)
    if mask.ndim > x.ndim or any(one not in (1, other) for one, other in sizes):
        raise ValueError(f"mask: its shape {tuple(mask.shape)} does not broadcast to that of x, {tuple(x.shape)}")


def check_kinds(**given: Any) -> None:
    """Raise ValueError for an argument that is not of the kind of its name; only _NEEDED may not be None."""
    for name, value in given.items():
        kind, mend = _KINDS[name]
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        several = kind is _TIME and isinstance(value, Tensor) and value.numel() != 1
        if (value is not None or name in _NEEDED) and (wrong or several):
            raise ValueError(f"{name}: got {_said(value)}; {mend}")


_NEEDED = (
    "model", "schedule", "updates", "anneal", "repeats", "every", "probes", "t_end", "level", "objective", "energy",
    "denoise_last", "return_info",
)  # fmt: skip
_TIME = (Real, Tensor)

_KINDS: dict[str, tuple[Any, str]] = {
    "model": (Callable, "pass a function or a module, called as model(x [B, ...], t [B], **cond)"),
    "memory": (Tensor, "pass the `memory` of the SampleResult that sample(..., return_info=True) gives"),
    "schedule": (Schedule, "pass a schedule, such as VPLinear(), EDM(), RectifiedFlow() or Discrete(alphas_cumprod)"),
    "steps": (Integral, "pass a whole number"),
    "nfe": (Integral, "pass a whole number"),
    "updates": (Integral, "pass a whole number"),
    "anneal": (Integral, "pass a whole number"),
    "repeats": (Integral, "pass a whole number"),
    "every": (Integral, "pass a whole number"),
    "probes": (Integral, "pass a whole number"),
    "t_start": (_TIME, "pass a time, one number"),
    "t_end": (_TIME, "pass a time, one number"),
    "level": (_TIME, "pass a time, one number"),
    "denoise_last": (bool, "pass True or False"),
    "return_info": (bool, "pass True or False"),
    "objective": (Callable, "pass a function of a recipe, such as paired_error(model, x, schedule) gives"),
    "energy": (Callable, "pass a function energy(x0 [B, ...], t [B]) -> [B]"),
    "prior": (Callable, "pass a function prior(x [B, ...]) -> [B], a log density"),
    "guidance": (Guidance, "pass ClassifierFree(scale, unconditional={...}) or ClassifierGuidance(log_prob)"),
    "threshold": (Callable, "pass Threshold(), or Threshold(None) for clipping"),
    "cond": (Mapping, "pass the model's keyword arguments as a dict, cond={'y': ...}"),
    "ems": (ModelStatistics, "pass what estimate_ems(model, data, schedule) gives"),
}


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
