"""Fits of equations of fields: numbers come back from clean frames, no fit raises the error, faults have names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.prose import FAMILIES, RefinedField, draw_fields, equations_of_family, noisy, refine_field, variable
from sciode.prose.metrics import coefficient_error
from sciode.prose.trees import Expression, constant, parameter

X, T, READ = np.arange(32) / 16, np.linspace(0, 1, 32), 10
U, SLOPE, CURVE = variable(0), variable(1), variable(2)


def drawn(name: str, noise: float, seed: int = 0) -> tuple[Tensor, Tensor, tuple[Expression, ...]]:
    """Readings [10, 32], the true field [32, 32], and the true equations."""
    family = FAMILIES[name]
    found = draw_fields(family, 1, 1, seed, part="test")
    field = found.values[0, :, 0, ::4]
    numbers = dict(zip(family.nominal, found.numbers[0].tolist(), strict=True))
    true = tuple(one.bound(numbers) for one in equations_of_family(family))
    return noisy(field[None, :READ], noise, seed)[0], field, true


def fitted(name: str, readings: Tensor, **how: Any) -> RefinedField:
    return refine_field(written(name), X, T[:READ], readings, T[[READ, 20]], **how)


def written(name: str) -> tuple[Expression, ...]:
    return tuple(one.bound(FAMILIES[name].nominal) for one in equations_of_family(FAMILIES[name]))


@pytest.mark.parametrize("name", ["bistable_reaction", "burgers", "cahn_hilliard", "sine_gordon"])
def test_numbers_and_later_fields_come_back_from_clean_frames(name: str) -> None:
    """What is left is the solver's error, 1e-5 or less of the readings: numbers tell to 1e-3 what hardly shows."""
    readings, field, true = drawn(name, 0.0)
    found = fitted(name, readings)
    assert found.solved and found.after < 1e-5 < found.before
    assert coefficient_error(found.equations, true) < 1e-3 < 0.05 < coefficient_error(written(name), true)
    torch.testing.assert_close(torch.tensor(found.values[:, 0]), field[[READ, 20]], rtol=0, atol=1e-4)


def test_numbers_far_off_come_back_where_the_prior_lets_them() -> None:
    readings, _, true = drawn("burgers", 0.0)
    far = (0.03 * CURVE - 0.6 * U * SLOPE,)
    found = refine_field(far, X, T[:READ], readings, spread=1.0)
    assert coefficient_error(found.equations, true) < 1e-3
    assert found.values.shape == (0, 1, 32) and found.solved


def test_a_term_too_many_is_fitted_away_where_it_may_have_a_number() -> None:
    readings, field, true = drawn("heat", 0.0)
    asked = (0.004 * CURVE - U * SLOPE, X, T[:READ], readings, T[[READ, 20]])
    tight, loose = refine_field(*asked), refine_field(*asked, loose=True)
    assert loose.after < 1e-5 < tight.after and coefficient_error(loose.equations, true) < 1e-3
    torch.testing.assert_close(torch.tensor(loose.values[:, 0]), field[[READ, 20]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["heat", "burgers", "wave"])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_a_fit_never_raises_the_error_of_the_readings_and_tells_the_noise(name: str, noise: float) -> None:
    readings, field, _ = drawn(name, noise, 1)
    found = fitted(name, readings, rounds=1)
    assert found.after <= found.before
    size = float((readings - field[:READ]).std())
    assert 0.8 * size < found.noise < 1.25 * size and 0.6 < found.excess < 1.4


def test_deviations_are_those_of_least_squares() -> None:
    """u' = c at all points with a start a wave: the only number is c, sum of t as the covariance of a line has it."""
    t = torch.linspace(0, 1, 16, dtype=torch.float64)
    wave = torch.cos(math.pi * torch.tensor(X))
    white = torch.randn(16, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    readings = wave + 0.7 * t[:, None] + 0.05 * white
    found = refine_field(constant(0.5), X, t, readings, spread=1e3)
    level = readings.mean(1)
    slope = float(((t - t.mean()) * level).sum() / (t - t.mean()).square().sum())
    assert found.numbers[0] == pytest.approx(slope, rel=1e-4)
    own = found.noise * max(found.excess, 1.0) ** 0.5 / math.sqrt(32 * float((t - t.mean()).square().sum()))
    assert found.deviation[0] == pytest.approx(own, rel=1e-3)


def test_a_velocity_that_is_not_read_is_fitted_with_the_numbers() -> None:
    """A wave that travels to the right begins with a velocity of its own."""
    t = torch.linspace(0, 0.5, 16, dtype=torch.float64)
    x = torch.tensor(X)
    readings = torch.sin(2 * math.pi * (x - 0.8 * t[:, None]))
    found = refine_field((1.0 * variable(5), 0.7 * CURVE), X, t, readings, [1.0], spread=0.2)
    assert found.numbers == pytest.approx([1.0, 0.64], rel=0.3)
    assert found.numbers.prod() == pytest.approx(0.64, rel=1e-5)
    np.testing.assert_allclose(found.values[0, 0], np.sin(2 * np.pi * (X - 0.8)), rtol=0, atol=1e-5)
    both = torch.stack((readings, -1.6 * math.pi * torch.cos(2 * math.pi * (x - 0.8 * t[:, None]))), 1)
    found = refine_field((1.0 * variable(5), 0.7 * CURVE), X, t, both, spread=0.2)
    assert found.numbers == pytest.approx([1.0, 0.64], rel=1e-5)


@pytest.mark.parametrize("system", [-1.0 * CURVE, 50.0 * U * U * U, 1.0 / (U - U)])
def test_equations_that_blow_up_are_reported_and_kept(system: Expression) -> None:
    readings, _, _ = drawn("heat", 0.0)
    found = refine_field(system, X, T[:READ], readings, T[[3, READ, 31]])
    assert not found.solved and "infinite" in found.status and found.equations == (system,)
    assert found.before == found.after == math.inf and bool(np.isnan(found.values[-1]).all())


def test_what_blows_up_beyond_the_readings_is_fitted_and_says_so() -> None:
    """u' = u^2 from 1 to 1.2: 1 / (1 / u(0) - t), read up to t = 0.3, has no value beyond t = 0.83."""
    t, start = torch.linspace(0, 0.3, READ, dtype=torch.float64), 1.1 + 0.1 * torch.cos(math.pi * torch.tensor(X))
    found = refine_field(0.9 * U * U, X, t, 1 / (1 / start - t[:, None]), [0.5, 2.0])
    assert not found.solved and found.numbers == pytest.approx([1.0], rel=1e-4)
    np.testing.assert_allclose(found.values[0, 0], 1 / (1 / start - 0.5), rtol=1e-3)
    assert bool(np.isnan(found.values[1]).all())


def test_without_rounds_what_is_written_is_solved_at_any_later_times() -> None:
    readings, field, true = drawn("klein_gordon", 0.0)
    found = refine_field(true, X, T[:READ], readings, [0.0, T[3], T[20], 1.0], rounds=0)
    assert found.equations == true
    torch.testing.assert_close(torch.tensor(found.values[:, 0]), field[[0, 3, 20, 31]], rtol=0, atol=1e-5)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no expression": ({"equations": "u_xx"}, "an equation is an Expression"),
    "parameters": ({"equations": parameter("nu") * CURVE}, "parameters without numbers: nu"),
    "a field too many": ({"values": np.zeros((16, 2, 32))}, "1 equations, 2 fields"),
    "shapes": ({"values": np.zeros((16, 31))}, "expected x"),
    "few frames": ({"times": T[:4], "values": np.zeros((4, 32))}, "8 times"),
    "NaN": ({"values": np.full((16, 32), np.nan)}, "finite"),
    "uneven times": ({"times": T[:16] ** 2}, "times must increase evenly"),
    "uneven points": ({"x": X**2}, "x must increase evenly"),
    "an earlier query": ({"query_times": [-1.0]}, "query_times"),
    "queries that fall": ({"query_times": [0.9, 0.8]}, "query_times"),
    "a point twice": ({"x": X[:17], "values": np.exp(-T[:16, None]) * np.sin(2 * np.pi * X[:17])}, "leave the last"),
    "queries without end": ({"query_times": [1e4]}, "are units the same"),
    "a number for equations": ({"equations": 3}, "an equation is an Expression"),
    "words for a spread": ({"spread": "wide"}, "spread"),
    "no spread": ({"spread": 0.0}, "spread"),
    "a field that there is not": ({"equations": variable(5)}, "read u_5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_misuse_is_named(fault: str) -> None:
    changed, said = FAULTS[fault]
    given = {"equations": 0.1 * CURVE, "x": X, "times": T[:16], "values": np.zeros((16, 32)), **changed}
    with pytest.raises(ValueError, match=said):
        refine_field(**given)
