"""Rectified flow by the improved recipe, and reflow: pairs of noise and what a model makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sciode.diffusion.noise import initial_noise
from sciode.diffusion.sample import sample
from sciode.diffusion.schedules import Schedule
from sciode.diffusion.training.distances import Distance, pseudo_huber
from sciode.diffusion.training.times import TimeLaw, stratified, u_shaped

__all__ = ["flow_loss", "reflow_pairs", "straighten"]


def flow_loss(
    model: Callable[..., Tensor], x0: Tensor, eps: Tensor, t: Tensor, *, distance: Distance | None = None,
    premetric: Distance | None = None, divide: bool = False, **cond: Any,
) -> Tensor:  # fmt: skip
    """The loss [B] of a model of the flow at x_t = (1 - t) x0 + t eps, whose target is v = eps - x0.

        distance(v_hat, v)   or   (1 - t) distance(v_hat, v) + premetric(x_hat, x0) [/ t],   x_hat = x_t - t v_hat

    - eps: fresh noise, or the other half of a pair of `reflow_pairs`; t [B], best drawn by `u_shaped`.
    - distance: `pseudo_huber()` by default; premetric: how far pictures are from one another to an eye, e.g.
      `pyramid()` or features of a classifier. LPIPS, which the published results have, needs trained weights and is
      not included.

    Zero for exact straight flows. Source: Liu et al. (2023); Lee et al. (2024), improving the training of rectified
    flows.
    """
    at = t.to(x0).reshape(-1, *[1] * (x0.ndim - 1))
    x = (1 - at) * x0 + at * eps
    v = model(x, t, **cond)
    far = (distance or pseudo_huber())(v, eps - x0)
    if premetric is None:
        return far
    seen = premetric(x - at * v, x0)
    return (1 - t.to(x0)) * far + (seen / t.to(x0) if divide else seen)


def reflow_pairs(
    model: Callable[..., Tensor], schedule: Schedule, shape: tuple[int, ...], *, seed: int = 0, batch: int = 1024,
    cond: Mapping[str, Tensor] | None = None, device: torch.device | str = "cpu", **options: Any,
) -> dict[str, Tensor]:  # fmt: skip
    """Pairs {"eps", "x0", and the conditions} of noise and the model's samples from it, `shape` [n, ...] of each.

    cond: tensors [n, ...], one a pair; options: of `sample` (sampler="unipc-3", nfe=20, prediction, ...). The noise of
    pair i, of its start and of samplers that draw, is a function of (seed, i). Raises ValueError for conditions of
    another length. Source: Liu et al. (2023), rectified flow.
    """
    wrong = [name for name, value in (cond or {}).items() if len(value) != shape[0]]
    if wrong:
        raise ValueError(f"cond: expected {shape[0]} of {', '.join(wrong)}, one a pair")
    seeds = torch.arange(shape[0], dtype=torch.int64) + seed * 2**32
    given, made = [], []
    start = float(schedule.sigma(options.get("t_start") or schedule.t_max))
    for rows in torch.arange(shape[0]).split(batch):
        # Drawn on the host, so that it is the same on every device.
        drawn = initial_noise(schedule, (len(rows), *shape[1:]), t_start=options.get("t_start"), seed=seeds[rows])
        noise = drawn.to(device)
        told = {name: value[rows.to(value.device)].to(device) for name, value in (cond or {}).items()}
        with torch.no_grad():
            made.append(sample(model, noise, schedule, cond=told, seed=seeds[rows], **options))
        given.append(noise / start)
    conditions = {name: value.to(device) for name, value in (cond or {}).items()}
    return {"eps": torch.cat(given), "x0": torch.cat(made), **conditions}


def straighten(law: TimeLaw | None = None, *, premetric: Distance | None = None) -> Any:
    """The loss for `train` of a flow between pairs: `flow_loss` at times of a law, `u_shaped` by default.

    Rows are those of `reflow_pairs`: "eps", "x0", and whatever else the network is told. premetric: see `flow_loss`.
    """
    law = law or u_shaped()

    def loss(model: Any, average: Any, batch: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        told: dict[str, Any] = {name: value for name, value in batch.items() if name not in ("eps", "x0")}
        t = law(stratified(len(batch["x0"]), generator))
        return flow_loss(model, batch["x0"], batch["eps"], t, premetric=premetric, **told).mean()

    return loss
