"""How the k-th coefficient of a result follows from the coefficients up to k of what it was computed from.

A series is the list of its normalised Taylor coefficients so far. Every function here returns a `Step`: called with
k = 1, 2, ... in this order, once all series it reads know their coefficient k and the result knows k - 1.
Source: Griewank, Walther: Evaluating Derivatives (2nd ed. 2008), chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Series", "Step", "integral", "linear", "pair", "power", "product", "quotient", "riccati", "square"]

Series = list[Tensor]
Step = Callable[[int], Tensor]


def linear(op: Callable[[Tensor], Tensor], u: Series) -> Step:
    """g = op(u) for a linear op: g_k = op(u_k)."""
    return lambda k: op(u[k])


def product(op: Callable[[Tensor, Tensor], Tensor], a: Series, b: Series) -> Step:
    """g = op(a, b) for a bilinear op: g_k = sum_{i=0..k} op(a_i, b_{k-i})."""

    def step(k: int) -> Tensor:
        total = op(a[0], b[k])
        for i in range(1, k + 1):
            total = total + op(a[i], b[k - i])
        return total

    return step


def square(u: Series) -> Step:
    """g = u^2 in half the multiplications: g_k = 2 sum_{i<k/2} u_i u_{k-i} + u_{k/2}^2 (k even)."""
    return lambda k: _square_at(u, k)


def quotient(a: Series | None, b: Series, g: Series) -> Step:
    """g = a / b: g_k = (a_k - sum_{j=1..k} b_j g_{k-j}) / b_0; without `a` the numerator is constant."""

    def step(k: int) -> Tensor:
        rest = _convolve(b, g, k)
        return (-rest if a is None else a[k] - rest) / b[0]

    return step


def power(u: Series, exponent: Any, g: Series) -> Step:
    """g = u^p, from u g' = p g u': g_k = sum_{j=1..k} (p j - (k - j)) u_j g_{k-j} / (k u_0)."""

    def step(k: int) -> Tensor:
        total = k * exponent * u[k] * g[0]
        for j in range(1, k):
            total = total + (exponent * j - (k - j)) * u[j] * g[k - j]
        return total / (k * u[0])

    return step


def integral(u: Series, slope: Series) -> Step:
    """g' = d u': g_k = (1/k) sum_{j=1..k} j u_j d_{k-j}."""
    rates = u[:1]

    def step(k: int) -> Tensor:
        rates.append(k * u[k])
        return _convolve(rates, slope, k) / k

    return step


def riccati(u: Series, g: Series, constant: float, first: float, second: float) -> Step:
    """g' = (a + b g + c g^2) u': the slope's coefficients follow from those of g, one order behind."""
    slope: Series = []
    grown = integral(u, slope)

    def step(k: int) -> Tensor:
        slope.append(_quadratic_at(g, k - 1, constant, first, second))
        return grown(k)

    return step


def pair(u: Series, g: Series, partner: Series, sign: int, back: int) -> Step:
    """g' = sign h u' and h' = back g u', as for (sin, cos): h is kept one order behind g."""
    rates = u[:1]

    def step(k: int) -> Tensor:
        rates.append(k * u[k])
        if k > 1:
            partner.append(_convolve(rates, g, k - 1) * (back / (k - 1)))
        return _convolve(rates, partner, k) * (sign / k)

    return step


def _convolve(a: Series, b: Series, k: int) -> Tensor:
    """sum_{j=1..k} a_j b_{k-j}."""
    total = a[k] * b[0]
    for j in range(1, k):
        total = torch.addcmul(total, a[j], b[k - j])
    return total


def _square_at(u: Series, k: int) -> Tensor:
    if k == 0:
        return u[0] * u[0]
    total = u[0] * u[k]
    for i in range(1, (k + 1) // 2):
        total = torch.addcmul(total, u[i], u[k - i])
    return 2 * total if k % 2 else torch.addcmul(2 * total, u[k // 2], u[k // 2])


def _quadratic_at(g: Series, k: int, constant: float, first: float, second: float) -> Tensor:
    """The k-th coefficient of a + b g + c g^2, without the terms that are zero."""
    if second:
        value = second * _square_at(g, k)
        if first:
            value = value + first * g[k]
    else:
        value = g[k] if first == 1 else first * g[k]
    return value + constant if constant and k == 0 else value
