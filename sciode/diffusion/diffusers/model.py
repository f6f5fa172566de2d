"""A network of diffusers as a model of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from sciode.diffusion.diffusers.configs import completed, is_flow, prediction_of, schedule_of
from sciode.diffusion.schedules import Schedule

__all__ = ["FromDiffusers", "Wrapped", "from_diffusers"]


@dataclass(frozen=True, eq=False)
class Wrapped:
    """model(x [B, ...], t [B], **cond): the network's own output, of x's shape.

    scale: its time step is scale x t. shift: what its scheduler shifts a uniform grid by, for `shifted`.
    """

    network: Callable[..., Any]
    scale: float = 1.0
    shift: float = 1.0

    def __call__(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        found = self.network(x, timestep=t * self.scale, **cond)
        found = getattr(found, "sample", found)
        found = found[0] if isinstance(found, tuple) else found
        # Networks with a learned variance say it in as many channels again.
        return found[:, : x.shape[1]] if found.shape[1] == 2 * x.shape[1] else found


class FromDiffusers(NamedTuple):
    """What `sample` takes: sample(model, x, schedule, prediction=prediction)."""

    model: Wrapped
    schedule: Schedule
    prediction: str


def from_diffusers(
    unet: Callable[..., Any], scheduler_config: Any, *, time_scale: float | None = None
) -> FromDiffusers:
    """A network of diffusers and its scheduler's config as (model, schedule, prediction), for `sample` and all others.

    - unet: any module called as unet(x, timestep=..., **cond): UNet2DModel, UNet2DConditionModel, DiT, SD3, ...
      What it is conditioned on goes through `cond`: sample(..., cond={"encoder_hidden_states": ...}).
    - scheduler_config: `pipe.scheduler.config`, the scheduler itself, or a dict with such entries. beta_schedule: a
      name of `BETAS`, or trained_betas; prediction_type: epsilon, v_prediction, sample, flow_prediction.
    - time_scale: the network's time step over our t: 1 for tables, num_train_timesteps for flows; 1 for FLUX, whose
      network multiplies by itself.

    The table becomes `Discrete`, continuous in t: a step that ends at 499.7 is evaluated at 499.7. A flow's `shift`
    belongs to its grid, not to its path: sample(..., grid=shifted(model.shift)). Raises ValueError for unknown settings
    and networks that do not take `timestep`.
    """
    config = completed(scheduler_config)
    if time_scale is None:
        time_scale = float(config["num_train_timesteps"]) if is_flow(config) else 1.0
    called = inspect.signature(getattr(unet, "forward", unet)).parameters.values()
    if not any(p.name == "timestep" or p.kind is inspect.Parameter.VAR_KEYWORD for p in called):
        raise ValueError("unet: expected a network that is called as unet(x, timestep=...); wrap it in a function")
    shift = config.get("shift")
    model = Wrapped(unet, time_scale, 1.0 if shift is None else float(shift))
    return FromDiffusers(model, schedule_of(config), prediction_of(config))
