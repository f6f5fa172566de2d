"""What a scheduler's config of diffusers says about a network: its noise schedule and what it predicts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from sciode.diffusion.schedules import Discrete, RectifiedFlow, Schedule, zero_terminal_snr
from sciode.solvers.suggest import choose

__all__ = ["BETAS", "completed", "is_flow", "prediction_of", "schedule_of"]


def _linear(first: float, last: float, length: int) -> Tensor:
    return torch.linspace(first, last, length, dtype=torch.float64)


def _scaled_linear(first: float, last: float, length: int) -> Tensor:
    return _linear(math.sqrt(first), math.sqrt(last), length) ** 2


def _cosine(first: float, last: float, length: int) -> Tensor:
    """1 - a(i + 1) / a(i) with a = cos^2 of Nichol and Dhariwal's angle, at most 0.999."""
    angle = (torch.arange(length + 1, dtype=torch.float64) / length + 0.008) / 1.008 * (math.pi / 2)
    kept = torch.cos(angle) ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)


def _sigmoid(first: float, last: float, length: int) -> Tensor:
    return first + (last - first) * torch.sigmoid(_linear(-6, 6, length))


BETAS: Mapping[str, Callable[[float, float, int], Tensor]] = MappingProxyType(
    {"linear": _linear, "scaled_linear": _scaled_linear, "squaredcos_cap_v2": _cosine, "sigmoid": _sigmoid}
)
"""beta_schedule -> (beta_start, beta_end, num_train_timesteps) -> betas [T], float64. A new one is one entry."""

_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None,
    "rescale_betas_zero_snr": False, "prediction_type": "epsilon",
}  # fmt: skip
"""Where a config leaves it open; all classes of diffusers agree on these."""


def completed(config: Any) -> dict[str, Any]:
    """All settings of a config (or of a scheduler that has one), with the defaults of the class that it names.

    A file holds what was set; what was not is what the class of that time took for granted. Flow-matching classes do
    not say what their networks predict: it is the flow. Raises ValueError for classes whose networks see scaled inputs.
    """
    given = config if isinstance(config, Mapping) else getattr(config, "config", None)
    if not isinstance(given, Mapping):
        raise ValueError(f"scheduler_config: expected a scheduler of diffusers or its config, got {type(config)}")
    name = given.get("_class_name")
    name = name if isinstance(name, str) else ""
    known = _defaults_of(name)
    if "sigma_data" in given or "sigma_data" in known or "ScoreSdeVe" in name:
        raise ValueError(f"scheduler_config: networks for {name or 'EDM'} see scaled inputs; wrap them for `sample`")
    # The list of what was left at its defaults would make another class fill in its own.
    found = _DEFAULTS | known | {key: value for key, value in given.items() if key != "_use_default_values"}
    if "FlowMatch" in name or found.get("use_flow_sigmas") or _silent_flow(given):
        found["prediction_type"] = "flow_prediction"
    if found.get("set_alpha_to_one") is False and "final_sigmas_type" not in given:
        found["final_sigmas_type"] = "sigma_min"
    if found.get("flow_shift") is not None and "shift" not in given:
        found["shift"] = found["flow_shift"]
    return found


def _silent_flow(given: Mapping[str, Any]) -> bool:
    """A flow's scheduler that was made, not loaded: its config has no class name, a shift, and no table of betas."""
    return "shift" in given and "prediction_type" not in given and "beta_schedule" not in given


def _defaults_of(name: str) -> dict[str, Any]:
    """What a class of diffusers takes where nothing is said; nothing for unknown ones."""
    if not name or find_spec("diffusers") is None:
        return {}
    import diffusers

    made = getattr(getattr(diffusers, name, None), "__init__", None)
    if made is None:
        return {}
    parameters = inspect.signature(made).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether the network is one of flow matching."""
    return config["prediction_type"] == "flow_prediction"


def prediction_of(config: Mapping[str, Any]) -> str:
    """Our name of what the network predicts."""
    return _PREDICTIONS[choose("prediction_type", config["prediction_type"], _PREDICTIONS)]


def schedule_of(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a completed config: `RectifiedFlow`, or its table of betas as `Discrete`, in float64.

    With rescale_betas_zero_snr the last alpha is 0, not a small number that keeps quotients finite.
    """
    if is_flow(config):
        return RectifiedFlow(last=1 - 1 / config["num_train_timesteps"])
    betas = config["trained_betas"]
    if betas is None:
        made = BETAS[choose("beta_schedule", config["beta_schedule"], BETAS)]
        betas = made(config["beta_start"], config["beta_end"], config["num_train_timesteps"])
    table = torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float64), 0)
    return Discrete(zero_terminal_snr(table) if config["rescale_betas_zero_snr"] else table)
