"""Where diffusers' settings put the steps, in the schedule's own time and never rounded to whole time steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sciode.diffusion.diffusers.configs import is_flow
from sciode.diffusion.grids import GRIDS
from sciode.diffusion.schedules import Schedule
from sciode.solvers.suggest import choose

__all__ = ["SPACINGS", "Spaced", "given_sigmas", "given_timesteps", "spaced"]

Array = NDArray[np.float64]


class Spaced(NamedTuple):
    """Times [N] at which steps begin, and where the last one ends: a time, or None = the data (sigma 0)."""

    times: Array
    end: float | None


SPACINGS: Mapping[str, Callable[[int, int, float], Array]] = MappingProxyType(
    {
        "linspace": lambda steps, length, offset: (length - 1) * (1 - np.arange(steps) / steps),
        "leading": lambda steps, length, offset: np.arange(steps - 1, -1, -1) * length / steps + offset,
        "trailing": lambda steps, length, offset: length * (1 - np.arange(steps) / steps) - 1,
    }
)
"""timestep_spacing -> (steps, length T of the table, steps_offset) -> times [steps]. linspace ends before the data as
DPM-Solver's does; leading is DDIM's, and begins below T - 1: 951 for 20 steps."""

_FLAGS = {
    "use_karras_sigmas": "karras", "use_exponential_sigmas": "log-snr", "use_lu_lambdas": "log-snr",
    "use_beta_sigmas": "beta",
}  # fmt: skip


def spaced(config: Mapping[str, Any], schedule: Schedule, steps: int, mu: float | None = None) -> Spaced:
    """The steps that a completed config asks for.

    grid (a name of `GRIDS`) comes before the use_*_sigmas, these before timestep_spacing. Flows are uniform from 1 to
    1 / steps, then shifted, once. mu: the shift of this image size, where use_dynamic_shifting says so. Raises
    ValueError for fewer than one step and unknown names.
    """
    if steps < 1:
        raise ValueError(f"num_inference_steps: expected at least 1, got {steps}")
    grid = config.get("grid") or next((name for flag, name in _FLAGS.items() if config.get(flag)), None)
    flow = is_flow(config)
    if grid is None and flow:
        return _ended(config, _shifted(config, 1 - np.arange(steps) / steps, mu))
    if grid is None:
        length, spacing = config["num_train_timesteps"], config.get("timestep_spacing", "linspace")
        times = SPACINGS[choose("timestep_spacing", spacing, SPACINGS)](steps, length, config.get("steps_offset", 0))
        return _ended(config, np.minimum(times, length - 1))
    end = 1 / config["num_train_timesteps"] if flow else 0.0
    to_data = config.get("final_sigmas_type", "zero") == "zero"
    made = GRIDS[choose("grid", grid, GRIDS)]
    count = steps - 1 if to_data else steps
    times = made(schedule, count, schedule.t_max, end) if count else np.array([schedule.t_max])
    return Spaced(times, None) if to_data else Spaced(times[:-1], end)


def given_timesteps(config: Mapping[str, Any], timesteps: Sequence[float]) -> Spaced:
    """Steps that begin at these time steps of the network, exactly: flows are not shifted."""
    scale = config["num_train_timesteps"] if is_flow(config) else 1.0
    return _ended(config, np.asarray(timesteps, dtype=np.float64) / scale)


def given_sigmas(
    config: Mapping[str, Any], schedule: Schedule, sigmas: Sequence[float], mu: float | None = None
) -> Spaced:
    """Steps that begin at these noise levels, sigma / alpha, or sigma of a flow before its shift; a last 0 is the
    end."""
    levels = np.asarray(sigmas, dtype=np.float64)
    to_data = levels[-1] == 0
    levels = levels[:-1] if to_data else levels
    if levels.size == 0 or not (levels > 0).all():
        raise ValueError("sigmas: expected positive numbers, and 0 at most at the end")
    if is_flow(config):
        found = _ended(config, _shifted(config, levels, mu))
    else:
        found = _ended(config, schedule.t_of(torch.as_tensor(-np.log(levels))).numpy())
    return Spaced(found.times, None) if to_data else found


def _ended(config: Mapping[str, Any], times: Array) -> Spaced:
    """A grid that stands at the end of the table already goes on to the data."""
    if config.get("final_sigmas_type", "zero") == "zero":
        return Spaced(times, None)
    end = 1 / config["num_train_timesteps"] if is_flow(config) else 0.0
    return Spaced(times, end if times[-1] > end else None)


def _shifted(config: Mapping[str, Any], t: Array, mu: float | None) -> Array:
    """t -> s t / (1 + (s - 1) t), then stretched so that the last is shift_terminal."""
    shift = config.get("shift")
    shift = 1.0 if shift is None else float(shift)
    if config.get("use_dynamic_shifting"):
        if mu is None:
            raise ValueError("mu: use_dynamic_shifting needs the shift of this image size, set_timesteps(..., mu=...)")
        shift = math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
    t = shift * t / (1 + (shift - 1) * t)
    last = config.get("shift_terminal")
    return t if not last else 1 - (1 - t) * (1 - last) / (1 - t[-1])
