"""Arguments of the wrong kind, named before work starts, with what was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

from sciode.diffusion.guidance import Guidance
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.statistics import ModelStatistics

__all__ = ["check_kinds"]


def check_kinds(**given: Any) -> None:
    """Raise ValueError for what is not of its kind: schedule, steps, nfe, guidance, threshold, cond, ems."""
    for name, value in given.items():
        kind, mend = _KINDS[name]
        optional = name != "schedule"
        if not (value is None and optional) and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"{name}: got {_said(value)}; {mend}")


_KINDS: dict[str, tuple[Any, str]] = {
    "schedule": (Schedule, "pass a schedule, such as VPLinear(), EDM(), RectifiedFlow() or Discrete(alphas_cumprod)"),
    "steps": (Integral, "pass a whole number"),
    "nfe": (Integral, "pass a whole number"),
    "guidance": (Guidance, "pass ClassifierFree(scale, unconditional={...}) or ClassifierGuidance(log_prob)"),
    "threshold": (Callable, "pass Threshold(), or Threshold(None) for clipping"),
    "cond": (Mapping, "pass the model's keyword arguments as a dict, cond={'y': ...}"),
    "ems": (ModelStatistics, "pass what estimate_ems(model, data, schedule) gives"),
}


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
