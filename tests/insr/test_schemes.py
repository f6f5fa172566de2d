"""Every table's residual vanishes for the step that linear theory writes down, and for no other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from sciode.insr import scheme_of
from sciode.pde import FieldFunction, partial
from sciode.solvers.tableaux import ImplicitTableau, implicit_method, implicit_methods

SPEED, WAVE, DT = 0.7, 2.0, 0.3
Z = -1j * SPEED * WAVE * DT
"""Of a wave e^{i WAVE x} in u_t = -SPEED u_x."""


def rate(u: FieldFunction) -> FieldFunction:
    slope = partial(u, 0)
    return lambda x: -SPEED * slope(x)


def wave(*sizes: complex) -> Callable[[Tensor], Tensor]:
    """Re(size e^{i WAVE x}) for each size."""
    real = torch.tensor([complex(s).real for s in sizes], dtype=torch.float64)
    turned = torch.tensor([complex(s).imag for s in sizes], dtype=torch.float64)
    return lambda x: real * torch.cos(WAVE * x) - turned * torch.sin(WAVE * x)


def step(name: str) -> tuple[list[Any], list[Any]]:
    """(what the network tells at the end of the step, earlier states newest first), by linear theory."""
    table = implicit_method(name)
    if isinstance(table, ImplicitTableau):
        a, b = np.array(table.a), np.array(table.b)
        stages = np.linalg.solve(np.eye(len(b)) - Z * a, np.ones(len(b)))
        end = 1.0 + Z * b @ stages
        sought = [i for i in range(len(b)) if a[i].any()]
        if len(sought) == 1:
            return [end], [1.0]
        told = [stages[i] for i in sought]
        return told if table.stiffly_accurate else [*told, end], [1.0]
    past = [np.exp(-Z * j) for j in range(table.steps)]
    end = -sum(alpha * y for alpha, y in zip(table.alpha[1:], past, strict=True)) / (1.0 - Z * table.beta)
    return [end], past


X = torch.linspace(-1.0, 2.0, 13, dtype=torch.float64).unsqueeze(1)


def residual(name: str, told: list[complex], earlier: list[complex]) -> Tensor:
    scheme = scheme_of(name)
    past = [wave(size) for size in earlier]
    known = vmap(scheme.known(past, rate, DT))(X)
    return vmap(lambda x, k: scheme.residual(wave(*told), k, past, rate, DT)(x))(X, known)


@pytest.mark.parametrize("name", list(implicit_methods()))
def test_the_residual_of_the_right_step_is_zero(name: str) -> None:
    told, past = step(name)
    scheme = scheme_of(name)
    assert (scheme.told, scheme.past) == (len(told), len(past))
    assert float(residual(name, told, past).abs().max()) < 1e-13


@pytest.mark.parametrize("name", list(implicit_methods()))
def test_the_residual_of_a_wrong_step_is_not(name: str) -> None:
    told, past = step(name)
    for k in range(len(told)):
        wrong = [size * (1.01 if i == k else 1.0) for i, size in enumerate(told)]
        assert float(residual(name, wrong, past).abs().max()) > 1e-3


def test_the_trapezoidal_and_the_midpoint_rule_agree_on_a_linear_equation() -> None:
    told = [complex(math.cos(0.1), math.sin(0.2))]
    torch.testing.assert_close(residual("cranknicolson", told, [1.0]), residual("implicitmidpoint", told, [1.0]))


def test_an_unknown_scheme_is_refused_with_a_guess() -> None:
    with pytest.raises(ValueError, match="gausslegendre4"):
        scheme_of("gauslegendre4")
