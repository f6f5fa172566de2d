"""Empirical model statistics of DPM-Solver-v3: per component l, s and b as smooth functions of the half log-SNR.

With y = x / alpha the ODE is dy / dlambda = -l y - f, f = e^-lambda eps - l y, for any l(lambda). The statistics
choose l so that f depends on the state least, and s, b so that df / dlambda = s f + b holds best; see
`samplers/dpm_v3.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from sciode.diffusion.predictions import PREDICTIONS, Level, level_at
from sciode.diffusion.schedules.base import Schedule
from sciode.solvers.suggest import choose

__all__ = ["ModelStatistics", "estimate_ems"]

Array = NDArray[Any]

_RESOLVED = 96
"""Chebyshev coefficients of l: about what rounding allows over 10 units of lambda."""
_RIDGE = 1e-2
"""Share of the mean of Var f over the components below which a component's own counts for little: a pixel that is
always black has an f that only the network's errors move, and s would be what they make of it."""
_ROUNDING = 1e-10
"""Share of E f^2 below which Var f counts for nothing: what rounding makes of 0 / 0."""
_EXACT = 1e-6
"""A standard error as small as none."""
_NARROWEST = 1e-2
"""Share of the mean variance of the data below which a component's own is not resolved."""


@dataclass(frozen=True, eq=False)
class ModelStatistics:
    """l, s, b [degree + 1, *shape] each: Chebyshev coefficients over [low, high] in lambda, per component of a sample.

    They are polynomials, so that integrals of l and s are exact, at any lambda: no grid, and no rounding onto one.
    """

    low: float
    high: float
    l: Array  # noqa: E741 - the paper's letter
    s: Array
    b: Array

    @staticmethod
    def constant(
        low: float,
        high: float,
        *,
        l: float,  # noqa: E741
        s: float,
        b: float = 0.0,
        shape: tuple[int, ...] = (),
    ) -> ModelStatistics:
        """The same everywhere: l = 1, s = b = 0 makes dpm-v3 a data prediction, l = 0, s = -1, b = 0 a noise
        prediction."""
        return ModelStatistics(low, high, *(np.full((1, *shape), float(v)) for v in (l, s, b)))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.l.shape[1:]

    def value(self, name: str, lam: Any) -> Array:
        """One of "l", "s", "b" at lambda [n]: [n, *shape]."""
        return self._evaluate(getattr(self, name), lam)

    def integral(self, name: str, lam: Any) -> Array:
        """The integral of "l" or "s" from `low` to lambda [n]: [n, *shape]."""
        return self._evaluate(self._integrals[name], lam)

    def slope(self, name: str, lam: Any) -> Array:
        """d / dlambda of one of them at lambda [n]: [n, *shape]."""
        return self._evaluate(chebyshev.chebder(getattr(self, name), scl=2 / (self.high - self.low)), lam)

    def _evaluate(self, coefficients: Array, lam: Any) -> Array:
        place = (2 * np.asarray(lam, dtype=np.float64) - self.low - self.high) / (self.high - self.low)
        if (np.abs(place) > 1 + 1e-9).any():
            raise ValueError(
                f"ems: the statistics cover lambda in [{self.low:.3f}, {self.high:.3f}], the grid leaves it; estimate "
                "them with the t_start and t_end of sampling"
            )
        return np.tensordot(chebyshev.chebvander(place, len(coefficients) - 1), coefficients, 1)

    @cached_property
    def _integrals(self) -> dict[str, Array]:
        half = 0.5 * (self.high - self.low)
        return {name: chebyshev.chebint(getattr(self, name), lbnd=-1, scl=half) for name in ("l", "s")}


class _Ask(NamedTuple):
    """The model as eps(x [B, ...], lambda [B]), differentiable in both."""

    model: Callable[..., Tensor]
    schedule: Schedule
    prediction: str
    cond: Mapping[str, Any]

    def __call__(self, x: Tensor, lam: Tensor) -> Tensor:
        t = self.schedule.t_of(lam)
        into = PREDICTIONS[self.prediction](Level(*(_wide(v, x) for v in level_at(self.schedule, t))))
        m = self.model(x, t.to(x), **self.cond)
        if m.shape != x.shape:
            raise ValueError(f"model: the output has shape {tuple(m.shape)}, the state {tuple(x.shape)}")
        return into.eps_x * x + into.eps_m * m


def _wide(v: Tensor, like: Tensor) -> Tensor:
    return v.to(like).reshape(-1, *[1] * (like.ndim - 1))


def estimate_ems(
    model: Callable[..., Tensor], data: Tensor, schedule: Schedule, *, prediction: str = "eps",
    t_start: float | None = None, t_end: float = 1e-3, points: int = 64, degree: int = 16, batch: int = 1024,
    seed: int = 0, derivative: str = "forward", cond: Mapping[str, Any] | None = None,
) -> ModelStatistics:  # fmt: skip
    """Estimate l, s, b from samples of the data [K, *shape], for `sample(sampler="dpm-v3", ems=...)`.

        l = E[diag(sigma grad eps)],   s = Cov(f, f') / Var(f),   b = E f' - s E f   per component,

    with x = alpha x_0 + sigma z at `points` Chebyshev nodes of lambda between t_start and t_end, the same x_0, z and
    signs at all of them, and a polynomial of `degree` through what comes out, by least squares: noise of the estimate
    must not make them rough in lambda. Costs about 5 K x points evaluations, once a model.

    - points, degree: 64 and 16 (a higher degree follows more of the noise); K: 1,000 to 4,000.
    - derivative: "forward" (exact, forward-mode; the model must support it) or "difference" (central differences).
    - cond: keyword arguments of the model, the same for every batch: tensors [1, ...].

    Raises ValueError for misuse and for a model that refuses forward mode. Source: Zheng et al. (2023), DPM-Solver-v3;
    the estimation is re-derived.
    """
    choose("prediction", prediction, PREDICTIONS)
    choose("derivative", derivative, ("forward", "difference"))
    if not isinstance(schedule, Schedule):
        raise ValueError(f"schedule: got {schedule!r}; pass a schedule, such as VPLinear()")
    if not 1 <= degree < points:
        raise ValueError(f"degree: expected 1 <= degree < points, got {degree} and {points}")
    if not isinstance(data, Tensor) or not callable(model):
        said = type(model).__name__, type(data).__name__
        raise ValueError(f"model, data: expected a function and a tensor [K, *shape], got a {said[0]} and a {said[1]}")
    if data.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            "data: half precision is too coarse for derivatives of the model; pass data.float(), and a model that "
            "takes it"
        )
    if batch < 1 or data.ndim < 2 or not len(data) or not data.is_floating_point():
        raise ValueError(
            f"data, batch: expected data [K >= 1, *shape] of reals and batch >= 1, got {tuple(data.shape)}, {batch}"
        )
    ask = _Ask(model, schedule, prediction, dict(cond or {}))
    ends = [float(schedule.half_log_snr(t)) for t in (schedule.t_max if t_start is None else t_start, t_end)]
    if not np.isfinite(ends).all():
        raise ValueError("t_start, t_end: the log-SNR must be finite at both")
    place = np.cos(np.pi * (np.arange(points) + 0.5) / points)
    lam = 0.5 * (ends[0] + ends[1]) + 0.5 * (ends[1] - ends[0]) * place
    push = _forward if derivative == "forward" else _difference
    fit = np.linalg.pinv(chebyshev.chebvander(place, degree))

    def smooth(values: list[Array]) -> Array:
        return np.tensordot(fit, np.stack(values), 1)

    with torch.no_grad():
        traces = [_trace(ask, push, at, data, batch, seed) for at in lam]
        l = _spread(ends, lam, traces, degree, _log_variance(data))  # noqa: E741
        first = ModelStatistics(ends[0], ends[1], l, 0 * l, 0 * l)
        fits = [_regression(ask, push, at, data, batch, seed, first) for at in lam]
    return ModelStatistics(ends[0], ends[1], l, smooth([s for s, _ in fits]), smooth([b for _, b in fits]))


def _log_variance(data: Tensor) -> Array:
    """Of every component, in natural logarithm."""
    variance = data.double().var(0, unbiased=False).cpu().numpy()
    return np.log(np.maximum(variance, _NARROWEST * variance.mean() + np.finfo(np.float64).tiny))


def _spread(ends: list[float], lam: Array, traces: list[Array], degree: int, spread: Array) -> Array:
    """l = p + p (1 - p) c with p = 1 / (1 + v e^2 lambda) and c smoothed, as Chebyshev coefficients that resolve p.

    p is the l of Gaussian data of variance v; spread: log v of every component. 1 - l falls like e^2 lambda towards the
    noise, where it multiplies states x / alpha that are as large as that is small, and l like e^-2 lambda towards the
    data, from where lambda passes -log(v) / 2: in c both ends are of size 1, and errors of the fit as small as they
    need be. With v = 1 for all, the l of a component that hardly varies would be an exponential in c. A level counts in
    the fit by its standard error: towards the noise that of a network falls like e^lambda only, which is without bound
    in c, and would swamp the rest; that of exact scores falls as l does.
    """
    ones = (slice(None), *[None] * (traces[0].ndim - 1))
    mean, error = np.stack(traces).swapaxes(0, 1)
    p = expit(-2 * lam[ones] - spread)
    wanted, noise = ((part / (p * (1 - p))).reshape(len(lam), -1) for part in (mean - p, error))
    weight = 1 / (noise + np.median(noise, 0) + _EXACT)
    nodes = chebyshev.chebvander((2 * lam - ends[0] - ends[1]) / (ends[1] - ends[0]), degree)
    fit = np.linalg.pinv(weight.T[:, :, None] * nodes)
    coefficients = np.einsum("cdn,nc->dc", fit, weight * wanted).reshape(degree + 1, *mean.shape[1:])
    place = np.cos(np.pi * (np.arange(_RESOLVED) + 0.5) / _RESOLVED)
    at = 0.5 * (ends[0] + ends[1]) + 0.5 * (ends[1] - ends[0]) * place
    p = expit(-2 * at[ones] - spread)
    values = p + p * (1 - p) * np.tensordot(chebyshev.chebvander(place, len(coefficients) - 1), coefficients, 1)
    fit = chebyshev.chebvander(place, _RESOLVED - 1).T * (2 / _RESOLVED)
    fit[0] *= 0.5
    return np.tensordot(fit, values, 1)


def _forward(f: Callable[..., Tensor], x: Tensor, lam: Tensor, dx: Tensor, dlam: Tensor) -> Tensor:
    try:
        return torch.func.jvp(f, (x, lam), (dx, dlam))[1]
    except (RuntimeError, NotImplementedError) as fault:
        raise ValueError(
            f"derivative: the model refuses forward mode ({fault}); use derivative='difference'"
        ) from fault


def _difference(f: Callable[..., Tensor], x: Tensor, lam: Tensor, dx: Tensor, dlam: Tensor) -> Tensor:
    width = torch.finfo(x.dtype).eps ** (1 / 3)
    return (f(x + width * dx, lam + width * dlam) - f(x - width * dx, lam - width * dlam)) / (2 * width)


def _batches(at: float, schedule: Schedule, data: Tensor, batch: int, seed: int) -> Any:
    """(x [B, ...], lambda [B], signs [B, ...]) at one lambda; the draws are the same at every lambda."""
    generator = torch.Generator().manual_seed(seed)
    t = schedule.t_of(at)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    for part in data.split(batch):
        z = torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part)
        signs = torch.randint(0, 2, part.shape, generator=generator).to(part) * 2 - 1
        lam = torch.full((part.shape[0],), at, dtype=torch.float64, device=part.device)
        yield alpha * part + sigma * z, lam, signs


def _trace(ask: _Ask, push: Any, at: float, data: Tensor, batch: int, seed: int) -> Array:
    """The diagonal of sigma grad eps, by random signs, averaged over the samples; and its standard error."""
    sigma, count = float(ask.schedule.sigma(ask.schedule.t_of(at))), data.shape[0]
    total: Any = 0.0
    square: Any = 0.0
    for x, lam, signs in _batches(at, ask.schedule, data, batch, seed):
        part = (signs * push(ask, x, lam, signs, torch.zeros_like(lam))).double()
        total, square = total + part.sum(0), square + part.square().sum(0)
    mean, spread = total / count, (square / count - (total / count).square()).clamp_min(0) / count
    return sigma * torch.stack((mean, spread.sqrt())).cpu().numpy()


def _regression(
    ask: _Ask, push: Any, at: float, data: Tensor, batch: int, seed: int, ems: ModelStatistics
) -> tuple[Array, Array]:
    """s and b of the least squares of df / dlambda on f, along the ODE.

    df / dlambda = e^-lambda ((l - 1) eps + d eps / dlambda) - l' y, where d / dlambda follows dx / dlambda = a x -
    sigma eps, a = dlog alpha / dlambda.
    """
    level = level_at(ask.schedule, ask.schedule.t_of(at))
    alpha, sigma, down, up = (float(v) for v in level)
    a, shrink = down * sigma / (down * sigma - up * alpha), float(np.exp(-at))
    l, l_slope = (torch.as_tensor(v[0]).to(data) for v in (ems.value("l", [at]), ems.slope("l", [at])))  # noqa: E741
    sums: list[Any] = [0.0] * 4
    for x, lam, _ in _batches(at, ask.schedule, data, batch, seed):
        eps, y = ask(x, lam), x / alpha
        along = push(ask, x, lam, a * x - sigma * eps, torch.ones_like(lam))
        f = (shrink * eps - l * y).double()
        slope = (shrink * ((l - 1) * eps + along) - l_slope * y).double()
        sums = [total + part.sum(0) for total, part in zip(sums, (f, slope, f * f, f * slope), strict=True)]
    mean, slope, square, cross = ((part / data.shape[0]).cpu().numpy() for part in sums)
    variance = np.maximum(square - mean**2, 0)
    floor = _RIDGE * variance.mean() + _ROUNDING * square + np.finfo(np.float64).tiny
    s = (cross - mean * slope) / (variance + floor)
    return s, slope - s * mean
