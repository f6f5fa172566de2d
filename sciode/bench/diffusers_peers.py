"""diffusers' schedulers on a grid of ours: its own steps, with its table of sigmas replaced by ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.path import Path

__all__ = ["PEERS", "DiffusersPeer", "available", "sample_with"]


@dataclass(frozen=True)
class DiffusersPeer:
    """A scheduler class of diffusers, its options, and our sampler that it should agree with (None: it should not)."""

    scheduler: str
    options: Mapping[str, Any] = field(default_factory=dict)
    ours: str | None = None


def _dpm(order: int, algorithm: str = "dpmsolver++", **more: Any) -> dict[str, Any]:
    # With "zero" as its final sigma it lowers the order of the last step, whatever it is told.
    settings = {"algorithm_type": algorithm, "solver_order": order, "lower_order_final": False}
    return settings | {"final_sigmas_type": "sigma_min"} | more


def _bh(order: int, kind: str) -> dict[str, Any]:
    return {"solver_order": order, "solver_type": kind, "lower_order_final": False, "final_sigmas_type": "sigma_min"}


_MULTI = "DPMSolverMultistepScheduler"
_UNIPC = "UniPCMultistepScheduler"

PEERS: Mapping[str, DiffusersPeer] = MappingProxyType(
    {
        "dpmsolver++ 1": DiffusersPeer(_MULTI, _dpm(1), "ddim"),
        "dpmsolver++ 2": DiffusersPeer(_MULTI, _dpm(2), "dpm++-2m"),
        "dpmsolver++ 2 heun": DiffusersPeer(_MULTI, _dpm(2, solver_type="heun"), "dpm++-2m-taylor"),
        "dpmsolver++ 3": DiffusersPeer(_MULTI, _dpm(3)),
        "sde-dpmsolver++ 1": DiffusersPeer(_MULTI, _dpm(1, "sde-dpmsolver++"), "dpm++-sde"),
        "sde-dpmsolver++ 2": DiffusersPeer(_MULTI, _dpm(2, "sde-dpmsolver++"), "dpm++-2m-sde"),
        "sde-dpmsolver++ 3": DiffusersPeer(_MULTI, _dpm(3, "sde-dpmsolver++")),
        "unipc 1 bh2": DiffusersPeer(_UNIPC, _bh(1, "bh2"), "unipc-1"),
        "unipc 2 bh2": DiffusersPeer(_UNIPC, _bh(2, "bh2"), "unipc-2"),
        "unipc 2 bh1": DiffusersPeer(_UNIPC, _bh(2, "bh1"), "unipc-2-bh1"),
        "unipc 3 bh2": DiffusersPeer(_UNIPC, _bh(3, "bh2"), "unipc-3"),
        "deis 2": DiffusersPeer("DEISMultistepScheduler", {"solver_order": 2, "lower_order_final": False}),
        "deis 3": DiffusersPeer("DEISMultistepScheduler", {"solver_order": 3, "lower_order_final": False}),
    }
)  # fmt: skip
"""What is compared; those without a sampler of ours have an error (3, sde 3) or another variable (deis)."""


def available() -> bool:
    """Whether diffusers is installed."""
    return find_spec("diffusers") is not None


def sample_with(
    peer: DiffusersPeer, model: Callable[..., Tensor], x: Tensor, path: Path, noise: bool = False
) -> Tensor:
    """x [B, ...] carried along the path by diffusers' scheduler; model(x, t) predicts eps.

    Its float32 table of sigma / alpha is replaced by our float64 one, and nothing is appended at its end. noise:
    whether SDE schedulers draw; False gives them zeros. Raises ImportError without diffusers.
    """
    try:
        import diffusers
    except ImportError as fault:
        raise ImportError('diffusers is missing: pip install "sciode[diffusion]"') from fault
    scheduler = getattr(diffusers, peer.scheduler)(**peer.options)
    scheduler.set_timesteps(path.steps)
    scheduler.sigmas = torch.tensor([node.rho for node in path.nodes], dtype=torch.float64)
    scheduler.timesteps = torch.arange(path.steps, 0, -1)
    scheduler.num_inference_steps = path.steps
    scheduler.set_begin_index(0)
    sde = str(peer.options.get("algorithm_type", "")).startswith("sde")
    more = {"variance_noise": torch.zeros_like(x)} if sde and not noise else {}
    for node, t in zip(path.nodes[:-1], scheduler.timesteps, strict=True):
        eps = model(x, torch.full((x.shape[0],), float(np.float64(node.t)), dtype=x.dtype))
        x = scheduler.step(eps, t, x, **more).prev_sample
    return x
