"""Log-densities by the probability-flow ODE and the divergence along it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.diffusion.checks import check_kinds, check_states
from sciode.diffusion.denoiser import Denoiser, noise_at
from sciode.diffusion.grids import check_ends
from sciode.diffusion.guidance import Guidance, followed, one_each
from sciode.diffusion.job import carried, seen
from sciode.diffusion.noise import Seed, normals_of, seeds_for
from sciode.diffusion.path import Path
from sciode.diffusion.predictions import PREDICTIONS
from sciode.diffusion.schedules.base import Schedule
from sciode.solvers import solve
from sciode.solvers.suggest import choose

__all__ = ["Likelihood", "log_likelihood"]

_PROBES = 43
"""Purpose of the hash, beside those of `noise.py`."""


class Likelihood(NamedTuple):
    """log_prob [B] in nats; noise [B, ...] that x came from; nfe [B], evaluations of the model along the path, each
    with its derivatives; status [B]: codes of `sciode.Status`, 0 = success."""

    log_prob: Tensor
    noise: Tensor
    nfe: Tensor
    status: Tensor


def log_likelihood(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, *, divergence: str = "exact", probes: int = 1,
    prior: Callable[[Tensor], Tensor] | None = None, prediction: str = "eps", t_start: float | None = None,
    t_end: float = 1e-3, guidance: Guidance | None = None, cond: Mapping[str, Any] | None = None,
    method: str = "tsit5", rtol: float = 1e-5, atol: float = 1e-6, max_steps: int = 10_000, seed: Seed = 0,
) -> Likelihood:  # fmt: skip
    """log density of x [B, ...] at noise level t_end under the model.

        y = x / alpha:   dy / dlambda = -rho eps,   d log p / dlambda = sigma tr(d eps / dx),   rho = sigma / alpha,

    from x at t_end to noise at t_start, each sample with steps of its own; log p there is the prior's.

    - divergence: "exact", D products with the transposed Jacobian an evaluation; or "hutchinson", one each of `probes`
      vectors of random signs, the same along a path: unbiased, for large D.
    - prior(x [B, ...]) -> [B]: log density at t_start; None = N(0, sigma(t_start)^2), from which `initial_noise` draws.
    - rtol, atol: of y and log p. x in half precision is shown to the model as it is and carried in float32, log_prob
      too; both are then an eighth of its rounding at least (1e-4, in bfloat16 1e-3).
    - t_end: data are discrete or on a manifold at 0; 1e-3 to 1e-5. Divide by -D log 2 for bits per dimension.

    Raises ValueError for misuse, and where alpha is 0 at t_start or sigma at t_end; what becomes of a sample is its
    status. Source: Song et al. (2021), score-based generative modeling through SDEs; Grathwohl et al. (2019), FFJORD.
    """
    _check(x, divergence, probes, prediction)
    check_kinds(model=model, schedule=schedule, guidance=guidance, cond=cond, t_start=t_start, t_end=t_end, prior=prior)
    start_at = float(schedule.t_max if t_start is None else t_start)
    check_ends(schedule, start_at, float(t_end))
    path = Path.of(schedule, [t_end, start_at])
    (first, last), batch = path.nodes, x.shape[0]
    if not (first.alpha > 0 and last.alpha > 0):
        raise ValueError("t_start: alpha is 0 there, where no density of x / alpha is; start a little earlier")
    if not first.sigma > 0:
        raise ValueError("t_end: sigma is 0 there, and lambda infinite; give 1e-5 to 1e-3")
    denoiser = Denoiser(_followed(model), schedule, prediction, dict(cond or {}), guidance, seen=seen(x))
    dtype, x, within = x.dtype, carried(x), denoiser.tolerance
    vectors = _vectors(x, divergence, probes, seed)
    trace = _exact if divergence == "exact" else _estimated

    def slope(lam: Tensor, state: Any) -> Any:
        lam = lam.reshape(batch)
        with torch.enable_grad():
            y = state["y"].detach().reshape(x.shape).requires_grad_()
            eps, _, rho = noise_at(denoiser, y, lam)
            spread = trace(eps, y, vectors)
        return {"y": (-rho * eps.detach()).flatten(1), "log": rho.reshape(-1, 1) * spread[:, None]}

    with torch.no_grad():
        start = {"y": (x / first.alpha).flatten(1), "log": x.new_zeros(batch, 1)}
        found = solve(
            slope, start, [first.lam, last.lam], method=method, rtol=within(rtol), atol=within(atol),
            max_steps=max_steps, batch_dims=1, engine="eager", throw=False,
        )  # fmt: skip
        noise = found.ys["y"][-1].reshape(x.shape) * last.alpha
        at_start = _normal(noise, last.sigma) if prior is None else one_each("prior", prior(noise), noise)
        size = x[0].numel()
        # Densities of x and of x / alpha differ by D log alpha, at both ends; the integral runs against the flow.
        scales = size * (math.log(last.alpha) - math.log(first.alpha))
        log_prob = at_start + scales - found.ys["log"][-1][:, 0]
    return Likelihood(log_prob, noise.to(dtype), found.stats.nfe, found.status.long())


def _check(x: Tensor, divergence: str, probes: int, prediction: str) -> None:
    choose("divergence", divergence, ("exact", "hutchinson"))
    choose("prediction", prediction, PREDICTIONS)
    check_states(x)
    check_kinds(probes=probes)
    if not len(x):
        raise ValueError("x: the batch is empty; pass at least one state")
    if probes < 1:
        raise ValueError(f"probes: expected at least 1, got {probes}")


def _followed(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The model, if autograd can follow it: of a value that has no gradient the divergence would silently be 0."""

    def ask(x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        m = model(x, t, **cond)
        return followed("model", m) if isinstance(m, Tensor) else m

    return ask


def _normal(x: Tensor, sigma: float) -> Tensor:
    """log density of N(0, sigma^2) [B]."""
    return -0.5 * ((x.flatten(1) / sigma).square() + math.log(2 * math.pi * sigma**2)).sum(1)


def _vectors(x: Tensor, divergence: str, probes: int, seed: Seed) -> list[Tensor]:
    """One tensor of x's shape for every product with the Jacobian."""
    if divergence == "exact":
        size = x[0].numel()
        return [row.reshape(x.shape[1:]).expand(x.shape) for row in torch.eye(size, dtype=x.dtype, device=x.device)]
    draw = normals_of(seeds_for(seed, x.shape[0], x.device), x, _PROBES)
    return [torch.where(draw(n) < 0, -1.0, 1.0).to(x) for n in range(probes)]


def _exact(eps: Tensor, y: Tensor, vectors: list[Tensor]) -> Tensor:
    """tr(d eps / dy) [B]."""
    total = torch.zeros_like(eps[:, :1].flatten(1)[:, 0])
    for n, vector in enumerate(vectors):
        (pulled,) = torch.autograd.grad(eps, y, vector, retain_graph=n + 1 < len(vectors))
        total = total + (pulled * vector).flatten(1).sum(1)
    return total


def _estimated(eps: Tensor, y: Tensor, vectors: list[Tensor]) -> Tensor:
    return _exact(eps, y, vectors) / len(vectors)
