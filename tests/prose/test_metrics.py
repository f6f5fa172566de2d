"""Terms, right-hand sides and solutions of equations, against what they must be."""

from __future__ import annotations

import math

import pytest
import torch

from sciode.prose import SYSTEMS, Expression, constant, cos, sin, variables
from sciode.prose.metrics import Terms, coefficient_error, coefficients_of, right_hand_error, solved, start_of, terms_of

U, V, W = variables(3)


def test_terms_are_those_of_the_sum_multiplied_out_without_numbers() -> None:
    (one,) = terms_of([2.0 * U * (V - 28.0) - U + 3.0 * U])
    (other,) = terms_of([U * V + 5.0 * U])
    assert one == other
    assert terms_of([sin(2.0 * U)]) == terms_of([3.0 * sin(U)]) != terms_of([cos(U)])
    assert terms_of([sin(U - V)]) != terms_of([sin(U + V)])
    assert terms_of([sin(U) / (3.0 - cos(2.0 * V))]) == terms_of([2.0 * sin(U) / (3.1 - 0.9 * cos(1.9 * V))])
    assert terms_of([sin(U) / (cos(2.0 * V) - 3.0)]) == terms_of([-sin(U) / (3.0 - cos(2.0 * V))])
    assert terms_of([U / (2.0 + U)]) == terms_of([U / (5.0 + 3.0 * U)]) != terms_of([constant(1.0)])
    for one, other in ((U / (1.0 + V), U / V), (U * V / (1.0 + V), U), (U / (1.0 - V), U / (1.0 + V))):
        assert terms_of([one]) != terms_of([other])
    assert terms_of([U / (3.0 * cos(2.0 * V) - cos(V))]) != terms_of([U])
    assert terms_of([constant(2.0) + 1e-5 * U], least=1e-3) == terms_of([constant(1.0)])


def test_coefficients_know_the_signs_of_what_they_stand_before() -> None:
    one, other = 2.0 / (U - V) + sin(U - V), -2.0 / (V - U) - sin(V - U)
    assert coefficients_of([one]) == coefficients_of([other])
    assert coefficient_error([sin(U) / (3.0 - cos(V))], [-sin(U) / (cos(V) - 3.0)]) == 0.0
    assert coefficient_error([sin(U) / (cos(V) - 3.0)], [sin(U) / (3.0 - cos(V))]) == 2.0
    assert sorted(coefficients_of([3.0 * U / (U - V) ** 2 - 0.5 * W])[0].values()) == [-0.5, 3.0]


def test_recovery_is_exact_only_without_a_term_too_many_or_too_few() -> None:
    true = terms_of([U + V, U * V])
    assert Terms.between(terms_of([3.0 * V - U, 2.0 * U * V]), true).exact
    more, less = (Terms.between(terms_of(one), true) for one in ([U + V + W, U * V], [U, U * V]))
    assert (more.found, more.written, more.true) == (3, 4, 3) and not more.exact
    assert (less.found, less.written) == (2, 2) and not less.exact


def test_the_error_of_a_right_hand_side_is_relative_and_infinite_where_it_is_no_number() -> None:
    points = torch.rand(3, 20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    true = [(U, V)] * 3
    found = right_hand_error([(1.1 * U, 1.1 * V), (U, V), (U / (V - V), V)], true, points)
    assert float(found[0]) == pytest.approx(0.1) and float(found[1]) == 0.0 and math.isinf(float(found[2]))


def test_solutions_are_exact_ones_and_what_blows_up_is_said_and_holds_up_nobody() -> None:
    """du = -u, and du = u^2 from 2, which ends at t = 1/2."""
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    start = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    found = solved([(-1.0 * U,), (U**2,)], start, times)
    torch.testing.assert_close(found.values[0, :, 0], torch.exp(-times), rtol=1e-4, atol=1e-6)
    assert found.status.tolist()[0] == 0 and found.status.tolist()[1] != 0
    assert bool(found.values[1].isnan().all())


def test_a_smoothed_start_is_the_last_state_and_less_noisy_than_it() -> None:
    system: tuple[Expression, ...] = tuple(e.bound(SYSTEMS["thomas"].nominal) for e in SYSTEMS["thomas"].equations)
    times = torch.linspace(0, 2, 64, dtype=torch.float64)
    start = torch.tensor([[1.0, -0.5, 0.3]], dtype=torch.float64)
    path = solved([system], start, times).values
    torch.testing.assert_close(start_of([system], times, path), path[:, -1], rtol=1e-5, atol=1e-6)
    many = path.expand(200, -1, -1)
    noisy = many + 0.05 * torch.randn(many.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smooth = start_of([system] * 200, times, noisy, frames=9)
    ratio = (smooth - path[:, -1]).square().mean() / (noisy[:, -1] - path[:, -1]).square().mean()
    # Nine frames that are carried along are nine readings of one state, but for what the flow stretches.
    assert float(ratio) == pytest.approx(1 / 9, rel=0.3)


def test_a_start_that_cannot_be_smoothed_is_the_last_frame() -> None:
    times = torch.linspace(0, 2, 20, dtype=torch.float64)
    values = torch.full((1, 20, 1), 3.0, dtype=torch.float64)
    assert torch.equal(start_of([(1e8 * U**2,)], times, values), values[:, -1])
