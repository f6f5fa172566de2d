"""Weights of exponential integrators: integrals of an interpolating polynomial against the exponential of lambda.

In the half log-SNR lambda the probability-flow ODE is d(x / sigma) = D d(e^lambda) = D e^lambda dlambda in the data
prediction D, and d(x / alpha) = eps d(e^-lambda) = -eps e^-lambda dlambda in the noise prediction eps. With the model's
past and new values interpolated by a polynomial, a step is

    x_t = c x_s + sum_j w_j m_j,   w_j = integral over [lambda_s, lambda_t] of kernel(lambda) l_j(u(lambda)) dlambda,

with Lagrange's polynomials l_j in u = lambda, rho = e^-lambda, t, or asinh(1 / rho). DPM-Solver, DPM-Solver++, UniPC,
DEIS and SA-Solver differ in the kernel, in u and in which nodes they take, and in nothing else. Integrals are taken by
Gauss and Legendre's rule: closed forms lose digits where steps are short, sums over fine grids everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss, legvander
from numpy.typing import NDArray

from sciode.diffusion.path import Node, Path
from sciode.solvers.suggest import choose

__all__ = [
    "adams_weights",
    "derivative_basis",
    "half_rule",
    "keep",
    "kernel_between",
    "lagrange",
    "points_between",
    "running_between",
    "variable_of",
]

Array = NDArray[np.float64]

_POINTS = 32
_NODES, _WEIGHTS = leggauss(_POINTS)


def points_between(low: Any, high: Any) -> tuple[Array, Array]:
    """Gauss-Legendre points and weights of [low, high], numbers or [B]: [points] or [points, B] each."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    column = (slice(None), *[None] * middle.ndim)
    return middle + half * _NODES[column], half * _WEIGHTS[column]


def _running() -> Array:
    # Legendre coefficients of the values by the rule, and the integrals of Legendre's polynomials in closed form.
    values = legvander(_NODES, _POINTS)
    degrees = np.arange(_POINTS)
    integrals = np.empty((_POINTS, _POINTS))
    integrals[:, 0] = 1 + _NODES
    integrals[:, 1:] = (values[:, 2:] - values[:, :-2]) / (2 * degrees[1:] + 1)
    return integrals @ ((degrees + 0.5) * values[:, :-1] * _WEIGHTS[:, None]).T


_RUNNING = _running()


def running_between(low: float, high: float) -> Array:
    """[points, points]: what makes of a function's values at `points_between` its integrals from `low` to each."""
    return 0.5 * (high - low) * _RUNNING


def lagrange(at: Array, nodes: Sequence[Any], j: int) -> Array:
    """The polynomial that is 1 at node j and 0 at the others, at points `at`."""
    out = np.ones_like(at)
    for k, node in enumerate(nodes):
        if k != j:
            out = out * (at - node) / (nodes[j] - node)
    return out


def keep(kind: str, s: Node, t: Node, eta: float = 0.0) -> Any:
    """What a step from s to t keeps of the state: sigma_t / sigma_s e^(-eta h) for data, alpha_t / alpha_s for
    noise."""
    if kind == "noise":
        return t.alpha / s.alpha
    return t.sigma / s.sigma * (np.exp(-eta * (t.lam - s.lam)) if eta else 1.0)


def adams_weights(
    path: Path, kind: str, s: Node, t: Node, nodes: Sequence[Node], variable: str = "lambda", eta: float = 0.0
) -> list[Any]:
    """The weights w_j of model values at `nodes` in a step from s to t, numbers, or [B] for nodes that are.

    kind: "data" or "noise"; eta (data only): the reverse SDE dx with noise eta, whose mean this is. With n nodes a step
    of size h is wrong by O(h^(n+1)).
    """
    at, kernel = kernel_between(kind, s, t, eta)
    if len(nodes) == 1:
        return [_host(kernel.sum(0))]
    u = variable_of(path, variable)
    places, coordinates = u(at), [u(node.lam) for node in nodes]
    return [_host((kernel * lagrange(places, coordinates, j)).sum(0)) for j in range(len(nodes))]


def variable_of(path: Path, name: str) -> Callable[[Any], Any]:
    """The variable u(lambda) in which values are interpolated: "lambda", "rho", "t" or "asinh".

    asinh(alpha / sigma) is alpha / sigma where there is little data, in which noise predictions are straight lines, and
    lambda + log 2 where there is little noise.
    """
    known: dict[str, Callable[[Any], Any]] = {
        "lambda": lambda lam: lam,
        "rho": lambda lam: np.exp(-lam),
        "t": path.time,
        "asinh": lambda lam: np.arcsinh(np.exp(lam)),
    }
    return known[choose("variable", name, known)]


def kernel_between(kind: str, s: Node, t: Node, eta: float = 0.0) -> tuple[Array, Array]:
    """Points of lambda between s and t, and the kernel there times the weights of the quadrature."""
    at, weights = points_between(s.lam, t.lam)
    data = kind == "data"
    kernel = (1 + eta) * t.alpha * np.exp((1 + eta) * (at - t.lam)) if data else -t.sigma * np.exp(t.lam - at)
    return at, kernel * weights


def derivative_basis(at: Array, lams: Sequence[float], nearest: bool, relax: float = 0.0) -> list[Array]:
    """By how much each value counts at points `at`, in a Taylor sum about lams[0] with estimated derivatives.

    nearest: derivative k is k! times the divided difference of the k + 1 first values, a pseudo-order; else all are
    those of the polynomial through all values, whose basis is Lagrange's. relax: the first is multiplied by 1 + relax.
    """
    gaps = np.asarray(lams, dtype=np.float64) - lams[0]
    estimates = _divided(lams) if nearest else np.linalg.inv(np.vander(gaps, increasing=True))
    if len(lams) > 1:
        estimates[1] *= 1 + relax
    powers = np.stack([(at - lams[0]) ** k for k in range(len(lams))])
    return list(np.tensordot(estimates.T, powers, 1))


def _divided(lams: Sequence[float]) -> Array:
    """Row k: the divided difference of the values 0 to k."""
    count = len(lams)
    table = np.eye(count)
    rows = [table[0]]
    for k in range(1, count):
        gaps = np.array([lams[i + k] - lams[i] for i in range(count - k)])
        table = (table[1:] - table[:-1]) / gaps[:, None]
        rows.append(table[0])
    return np.stack(rows)


def half_rule(kind: str, total: Any, s: Node, t: Node, other: Node, lead: str, eta: float = 0.0) -> list[Any]:
    """Two values, at s and at another node, joined by half the weight of their difference.

    The weight w of one value alone becomes (w - B / 2r, B / 2r), r = (lambda_other - lambda_s) / h, with B = w ("bh2",
    also called midpoint) or B = its limit for small h ("bh1"). Of second order, as the exact weights are, with another
    error.
    """
    h = t.lam - s.lam
    limit = (1 + eta) * t.alpha * h if kind == "data" else -t.sigma * h
    share = (total if lead == "bh2" else limit) * h / (2 * (other.lam - s.lam))
    return [total - share, share]


def _host(x: Any) -> Any:
    return float(x) if np.ndim(x) == 0 else x
