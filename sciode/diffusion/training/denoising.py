"""The denoising objective: what a network should say of a state, and by how much it errs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sciode.diffusion.networks.preconditioned import Preconditioned, network_target
from sciode.diffusion.predictions import PREDICTIONS, Level, level_at
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.training.distances import Distance, squared
from sciode.diffusion.training.times import TimeLaw, stratified
from sciode.solvers.suggest import choose

__all__ = ["denoise", "drop_labels", "level_of", "noised", "preconditioned_loss", "prediction_loss", "target_of"]


def level_of(schedule: Schedule, t: Tensor, like: Tensor) -> Level:
    """alpha, sigma and slopes at times [B], in the shape [B, 1, ...] and dtype of a state."""
    return Level(*(part.to(like).reshape(-1, *[1] * (like.ndim - 1)) for part in level_at(schedule, t.double())))


def noised(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """alpha x0 + sigma eps."""
    return level.alpha * x0 + level.sigma * eps


def target_of(prediction: str, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What a model of a prediction should say at alpha x0 + sigma eps."""
    return {
        "eps": lambda: eps,
        "x0": lambda: x0,
        "v": lambda: level.alpha * eps - level.sigma * x0,
        "score": lambda: -eps / level.sigma,
        "flow": lambda: level.alpha_slope * x0 + level.sigma_slope * eps,
    }[choose("prediction", prediction, PREDICTIONS)]()


def prediction_loss(
    model: Callable[..., Tensor], x0: Tensor, eps: Tensor, t: Tensor, schedule: Schedule, prediction: str = "eps",
    *, distance: Distance = squared, **cond: Any,
) -> Tensor:  # fmt: skip
    """The distance [B] of model(x_t, t) from its target, for data and noise [B, ...] and times [B].

    Its least value, over all functions, is reached by the mean of the target given x_t: the exact model.
    """
    level = level_of(schedule, t, x0)
    return distance(model(noised(x0, eps, level), t, **cond), target_of(prediction, x0, eps, level))


def preconditioned_loss(model: Preconditioned, x0: Tensor, eps: Tensor, t: Tensor, **cond: Any) -> Tensor:
    """EDM's loss [B]: the mean square of the network's own error, of size one at every noise level.

    In x0 that is the weight (sigma^2 + alpha^2 d^2) / (sigma d)^2. Source: Karras et al. (2022).
    """
    level = level_of(model.schedule, t, x0)
    found, _ = model.told(
        noised(x0, eps, level), model.schedule.half_log_snr(t.double()), level.alpha, level.sigma, **cond
    )
    return squared(found, network_target(x0, eps, level.alpha, level.sigma, model.deviation))


def denoise(law: TimeLaw, *, classes: int = 0, dropped: float = 0.1) -> Any:
    """The loss for `train` of a `Preconditioned` network: `preconditioned_loss` at times of a law.

    Rows are "x", and "label" where there are classes. x: real states, or bytes 0 to 255, which become -1 to 1. classes:
    of the labels, 0 for none; dropped: share of rows that are told no label, 0.1 for classifier-free guidance. In
    training it raises ValueError for other networks and missing rows. Source: Karras et al. (2022), EDM.
    """

    def loss(model: Any, average: Any, batch: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        if not hasattr(model, "told"):
            raise ValueError(f"network: got a {type(model).__name__}; train Preconditioned(network, schedule)")
        missing = [name for name in ("x", *(["label"] if classes else [])) if name not in batch]
        if missing:
            raise ValueError(f"data: {', '.join(missing)} missing; pass {{'x': states [n, ...], 'label': classes [n]}}")
        x = batch["x"]
        x0 = x if x.is_floating_point() else x.float() / 127.5 - 1
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        t = law(stratified(len(x0), generator))
        cond = {"label": drop_labels(batch["label"], classes, dropped, generator)} if classes else {}
        return preconditioned_loss(model, x0, eps, t, **cond).mean()

    return loss


def drop_labels(label: Tensor, classes: int, share: float, generator: torch.Generator) -> Tensor:
    """Labels [B] of which this share says "no class" (number `classes`), for classifier-free guidance; 0.1 is usual."""
    dropped = torch.rand(label.shape, generator=generator, device=label.device) < share
    return torch.where(dropped, torch.full_like(label, classes), label)
