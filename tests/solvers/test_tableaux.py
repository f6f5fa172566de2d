"""Explicit Runge-Kutta tables: every claim holds, and nothing wrong can be built."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from sciode.solvers.tableaux import Tableau, explicit
from sciode.solvers.tableaux.dense import hermite_birkhoff
from sciode.solvers.tableaux.trees import (
    Tree,
    dense_residuals,
    density,
    elementary_weights,
    order_of,
    order_residuals,
    rooted_trees,
    trees_up_to,
)

TABLES = explicit()
NAMES = {"euler", "midpoint", "heun", "ralston", "heun3", "bosh3", "rk4", "rk38", "fehlberg2", "tsit5", "dopri5"}
NAMES |= {"dopri8", "vern7"}
ROUNDING = 1e-13

# Tables a user might bring: none of them in the library, none with dense output of its own.
SSPRK3 = Tableau(
    name="ssprk3", order=3, c=(0, 1, 1 / 2), a=((), (1,), (1 / 4, 1 / 4)), b=(1 / 6, 1 / 6, 2 / 3)
)  # Shu & Osher (1988)
RKF45 = Tableau(
    name="rkf45",
    order=4,
    c=(0, 1 / 4, 3 / 8, 12 / 13, 1, 1 / 2),
    a=(
        (),
        (1 / 4,),
        (3 / 32, 9 / 32),
        (1932 / 2197, -7200 / 2197, 7296 / 2197),
        (439 / 216, -8, 3680 / 513, -845 / 4104),
        (-8 / 27, 2, -3544 / 2565, 1859 / 4104, -11 / 40),
    ),
    b=(25 / 216, 0, 1408 / 2565, 2197 / 4104, -1 / 5, 0),
    b_error=(-1 / 360, 0, 128 / 4275, 2197 / 75240, -1 / 50, -2 / 55),
    error_order=5,
)  # Fehlberg (1969)
BUTCHER6 = Tableau(
    name="butcher6",
    order=6,
    c=(0, 1 / 3, 2 / 3, 1 / 3, 1 / 2, 1 / 2, 1),
    a=(
        (),
        (1 / 3,),
        (0, 2 / 3),
        (1 / 12, 1 / 3, -1 / 12),
        (-1 / 16, 9 / 8, -3 / 16, -3 / 8),
        (0, 9 / 8, -3 / 8, -3 / 4, 1 / 2),
        (9 / 44, -9 / 11, 63 / 44, 18 / 11, 0, -16 / 11),
    ),
    b=(11 / 120, 0, 27 / 40, 27 / 40, -4 / 15, -4 / 15, 11 / 120),
)  # Butcher (1964)


def without_dense(table: Tableau, dense_order: int | None = None) -> Tableau:
    return replace(table, dense=None, dense_order=dense_order, extra_c=(), extra_a=())


USER_TABLES = [SSPRK3, RKF45, BUTCHER6, *(without_dense(TABLES[name]) for name in ("dopri5", "vern7", "dopri8"))]

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
every_adaptive = pytest.mark.parametrize(
    "table", [table for table in TABLES.values() if table.adaptive], ids=lambda table: table.name
)


def matrix(table: Tableau, extra: bool = False) -> np.ndarray:
    rows = (*table.a, *table.extra_a) if extra else table.a
    return np.array([(*row, *(0.0,) * (len(rows) - len(row))) for row in rows])


def of_order(residuals: np.ndarray, order: int) -> np.ndarray:
    return residuals[len(trees_up_to(order - 1)) : len(trees_up_to(order))]


# --- rooted trees


def test_rooted_trees_are_counted_as_in_the_literature() -> None:
    assert [len(rooted_trees(order)) for order in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]
    assert all(order_of(tree) == 7 for tree in rooted_trees(7)) and len(set(rooted_trees(7))) == 48


@pytest.mark.parametrize("order", range(1, 9))
def test_monotone_labellings_of_all_trees_number_the_factorial(order: int) -> None:
    """sum n!/(sigma(t) gamma(t)) = (n-1)!: each tree of n nodes grows from smaller ones by adding a last node."""

    def symmetry(tree: Tree) -> int:
        return math.prod(math.factorial(copies) * symmetry(sub) ** copies for sub, copies in Counter(tree).items())

    labellings = (math.factorial(order) // (symmetry(tree) * density(tree)) for tree in rooted_trees(order))
    assert sum(labellings) == math.factorial(order - 1)


@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6), st.integers(2, 6))
def test_bushy_and_tall_trees_have_the_weights_of_quadrature_and_of_the_linear_problem(
    values: list[float], order: int
) -> None:
    a = np.zeros((4, 4))
    a[np.tril_indices(4, -1)] = values
    weights = dict(zip(trees_up_to(order), elementary_weights(a, order), strict=True))
    bushy: Tree = ((),) * (order - 1)
    tall: Tree = ()
    for _ in range(order - 1):
        tall = (tall,)
    np.testing.assert_allclose(weights[bushy], a.sum(axis=1) ** (order - 1), atol=ROUNDING)
    np.testing.assert_allclose(weights[tall], np.linalg.matrix_power(a, order - 1).sum(axis=1), atol=ROUNDING)
    assert density(bushy) == order and density(tall) == math.factorial(order)


# --- the claims of the library's tables


def test_the_library_has_the_promised_tables_under_their_names() -> None:
    assert set(TABLES) == NAMES and all(table.name == name for name, table in TABLES.items())
    assert all(table.reference for table in TABLES.values())


@every_table
def test_order_is_exactly_as_claimed(table: Tableau) -> None:
    residuals = order_residuals(matrix(table), np.array(table.b), table.order + 1)
    assert all(np.abs(of_order(residuals, order)).max() < ROUNDING for order in range(1, table.order + 1))
    assert np.abs(of_order(residuals, table.order + 1)).max() > 1e-6


@every_adaptive
def test_error_estimate_has_exactly_the_claimed_order(table: Tableau) -> None:
    assert table.b_error is not None and table.error_order is not None
    embedded = np.array(table.b) - table.b_error
    residuals = order_residuals(matrix(table), embedded, table.error_order)
    assert all(np.abs(of_order(residuals, order)).max() < ROUNDING for order in range(1, table.error_order))
    assert np.abs(of_order(residuals, table.error_order)).max() > 1e-6


@pytest.mark.parametrize(
    "table", [*TABLES.values(), *USER_TABLES], ids=lambda table: f"{table.name}-{table.dense_order}"
)
def test_dense_output_has_its_order_at_every_theta_and_joins_smoothly(table: Tableau) -> None:
    assert table.dense is not None and table.dense_order is not None
    dense = np.array(table.dense)
    residuals = np.abs(dense_residuals(matrix(table, extra=True), dense, table.dense_order + 1)).max(axis=1)
    assert all(of_order(residuals, order).max() < ROUNDING for order in range(1, table.dense_order + 1))
    assert of_order(residuals, table.dense_order + 1).max() > 1e-6
    start, at_end, end = np.zeros((3, len(dense)))
    at_end[: table.stages] = table.b
    powers = np.arange(1, dense.shape[1] + 1)
    assert (np.abs(dense.sum(axis=1) - at_end) <= ROUNDING * (1.0 + np.abs(dense).sum(axis=1))).all()
    if table.end_slope is not None:
        start[0] = end[table.end_slope] = 1.0
        assert (np.abs(dense[:, 0] - start) <= ROUNDING).all()
        assert (np.abs(dense @ powers - end) <= ROUNDING * (1.0 + np.abs(dense) @ powers)).all()


@pytest.mark.parametrize("table", USER_TABLES, ids=lambda table: table.name)
def test_a_users_table_gets_dense_output_of_its_own_order(table: Tableau) -> None:
    assert table.dense_order == table.order


def test_dense_output_of_a_lower_order_than_the_method_can_be_asked_for() -> None:
    cheap = without_dense(TABLES["dopri8"], dense_order=3)
    assert cheap.dense_order == 3 and cheap.extra_c == ()


@given(st.floats(0.1, 0.95), st.integers(0, 3))
def test_the_two_stage_family_of_order_two_is_accepted_with_dense_output(node: float, digits: int) -> None:
    table = Tableau(name=f"two{digits}", order=2, c=(0, node), a=((), (node,)), b=(1 - 1 / (2 * node), 1 / (2 * node)))
    assert table.dense_order == 2 and table.end_slope == 2
    with pytest.raises(ValueError, match="order 3 claimed"):
        replace(without_dense(table), order=3)


# --- measured in float64 on a nonlinear problem with a known solution


def solution(t: np.ndarray | float) -> np.ndarray:
    return np.stack([np.sin(2.0 * np.asarray(t)) + 1.5, np.exp(-np.asarray(t)) * np.cos(3.0 * np.asarray(t))], axis=-1)


def slope(t: float, y: np.ndarray) -> np.ndarray:
    """y' = g'(t) + h(y) - h(g(t)), whose solution is g; h couples the components and is not polynomial."""
    exact = solution(t)
    decay = np.exp(-t)
    exact_slope = np.array([2 * np.cos(2 * t), -decay * (np.cos(3 * t) + 3 * np.sin(3 * t))])

    def coupling(y: np.ndarray) -> np.ndarray:
        return np.array([np.sin(2 * y[1]) * y[0], y[0] ** 2 - np.exp(y[1])])

    return exact_slope + coupling(y) - coupling(exact)


def step(table: Tableau, f: Callable[[float, np.ndarray], np.ndarray], t: float, dt: float, y: np.ndarray) -> Any:
    """One step: y1, the error estimate and dense output at 9 interior points, in plain numpy."""
    stages: list[np.ndarray] = []
    for node, row in zip((*table.c, *table.extra_c), (*table.a, *table.extra_a), strict=True):
        state = y + dt * sum((weight * k for weight, k in zip(row, stages, strict=True)), np.zeros_like(y))
        stages.append(f(t + node * dt, state))
    k = np.array(stages)
    theta = np.linspace(0.1, 0.9, 9)
    powers = theta[:, None] ** np.arange(1, len(table.dense[0]) + 1)  # type: ignore[index]
    y1 = y + dt * np.array(table.b) @ k[: table.stages]
    error = None if table.b_error is None else dt * np.array(table.b_error) @ k[: table.stages]
    return y1, error, theta, y + dt * (powers @ np.array(table.dense).T) @ k


def best_slope(errors: list[float]) -> float:
    """Of log2 of successive errors under halving, as far as they stand clear of rounding."""
    clear = [error for error in errors if error > 2e-14]
    return max(np.log2(np.array(clear[:-1]) / clear[1:]))


@pytest.mark.parametrize(
    "table", [*TABLES.values(), *USER_TABLES], ids=lambda table: f"{table.name}-{table.dense_order}"
)
def test_one_step_errors_shrink_at_the_claimed_rates(table: Tableau) -> None:
    ends, estimates, interiors = [], [], []
    t = 0.3
    for halving in range(1, 9):
        dt = 0.8 / 2**halving
        y1, estimate, theta, interior = step(table, slope, t, dt, solution(t))
        ends.append(float(np.abs(y1 - solution(t + dt)).max()))
        interiors.append(float(np.abs(interior - solution(t + theta * dt)).max()))
        estimates.append(0.0 if estimate is None else float(np.abs(estimate).max()))
    assert best_slope(ends) > table.order + 1 - 0.25
    assert best_slope(interiors) > table.dense_order + 1 - 0.25  # type: ignore[operator]
    if table.error_order is not None:
        assert best_slope(estimates) > table.error_order - 0.25


# --- derived attributes

LITERATURE_EXTENTS = {"euler": 2.0, "heun": 2.0, "bosh3": 2.5127, "rk4": 2.7853, "dopri5": 3.3066, "tsit5": 3.5068}


@pytest.mark.parametrize(("name", "extent"), LITERATURE_EXTENTS.items())
def test_stability_extents_are_those_of_the_literature(name: str, extent: float) -> None:
    assert TABLES[name].stability_extent == pytest.approx(extent, abs=1e-4)


@every_table
def test_a_decaying_mode_is_stable_up_to_the_extent_and_not_beyond(table: Tableau) -> None:
    def amplification(z: float) -> float:
        y1, *_ = step(table, lambda t, y: -z * y, 0.0, 1.0, np.ones(1))
        return abs(float(y1[0]))

    inside = np.linspace(0.0, table.stability_extent - 1e-6, 300)
    assert max(amplification(z) for z in inside) <= 1.0 + 1e-9
    assert amplification(table.stability_extent + 1e-3) > 1.0


@every_table
def test_stability_polynomial_agrees_with_the_exponential_up_to_the_order(table: Tableau) -> None:
    taylor = [1.0 / math.factorial(k) for k in range(table.order + 1)]
    np.testing.assert_allclose(table.stability_polynomial[: table.order + 1], taylor, rtol=1e-12)


def test_structure_follows_from_the_coefficients() -> None:
    assert {name for name, table in TABLES.items() if table.fsal} == {"bosh3", "tsit5", "dopri5", "dopri8"}
    assert {name for name, table in TABLES.items() if not table.adaptive} == {"euler", "heun3", "rk4", "rk38"}
    pairs = {name: table.stiffness_pair for name, table in TABLES.items() if table.stiffness_pair}
    assert pairs == {"rk4": (1, 2), "tsit5": (5, 6), "dopri5": (5, 6), "dopri8": (12, 13), "vern7": (8, 9)}


@every_table
def test_the_end_slope_stage_is_evaluated_at_the_end_of_the_step(table: Tableau) -> None:
    if table.end_slope is None:
        assert table.order == 1
        return
    row = (*table.a, *table.extra_a)[table.end_slope]
    assert (*table.c, *table.extra_c)[table.end_slope] == 1.0
    np.testing.assert_array_equal(row, table.b[: len(row)])


def test_tables_are_equal_by_value_hashable_and_survive_copying() -> None:
    as_lists = Tableau(name="heun", order=2, c=[0, 1], a=[[], [1]], b=np.array([0.5, 0.5]))  # type: ignore[arg-type]
    as_tuples = Tableau(name="heun", order=2, c=(0.0, 1.0), a=((), (1.0,)), b=(1 / 2, 1 / 2))
    assert as_lists == as_tuples and hash(as_lists) == hash(as_tuples)
    assert as_tuples != TABLES["heun"]
    assert copy.deepcopy(TABLES["vern7"]) == TABLES["vern7"]


def test_dense_output_of_polynomials_within_its_degree_is_exact() -> None:
    for nodes in ((), (0.2,), (0.2, 0.8), (0.1, 0.3, 0.7, 0.9)):
        degree = 3 + len(nodes)
        poly = Polynomial(np.random.default_rng(degree).normal(size=degree + 1))
        data = [poly(1.0) - poly(0.0), *(poly.deriv()(point) for point in (0.0, 1.0, *nodes))]
        np.testing.assert_allclose(
            np.array(data) @ np.array(hermite_birkhoff(nodes)), np.asarray(poly.coef[1:], float), rtol=1e-9
        )


# --- what is wrong is refused


def arguments(table: Tableau) -> dict[str, Any]:
    return {spec.name: getattr(table, spec.name) for spec in fields(table) if spec.init}


def is_refused(table: dict[str, Any]) -> bool:
    try:
        Tableau(**table)
    except ValueError as error:
        assert str(error).startswith(f"tableau {table['name']!r}: ")
        return True
    return False


@every_table
def test_a_table_with_any_one_coefficient_off_by_a_millionth_is_refused(table: Tableau, changes: Any) -> None:
    accepted = []
    for complete, names in (
        (arguments(without_dense(table)), ("c", "a", "b", "b_error")),
        (arguments(table), ("extra_c", "extra_a", "dense")),
    ):
        for name in names:
            for where, value in changes(complete[name], 1e-6):
                if not is_refused({**complete, name: value}):
                    accepted.append(f"{name}{where}")
    assert accepted == []


@pytest.mark.parametrize("name", ["heun3", "rk4", "rk38", "bosh3", "tsit5", "dopri5"])
def test_a_table_with_a_changed_coefficient_and_the_row_sum_kept_is_refused_by_the_order_conditions(name: str) -> None:
    table = arguments(without_dense(TABLES[name]))
    for i, row in enumerate(table["a"]):
        for j in range(1, len(row)):
            changed = [*row]
            changed[0] += 1e-6
            changed[j] -= 1e-6
            a = (*table["a"][:i], tuple(changed), *table["a"][i + 1 :])
            with pytest.raises(ValueError, match="condition of the rooted tree"):
                Tableau(**{**table, "a": a})


@every_table
def test_claims_higher_than_the_truth_are_refused(table: Tableau) -> None:
    if table.order < 8:  # the check goes to order 8
        with pytest.raises(ValueError, match=f"order {table.order + 1} claimed, but b fails"):
            replace(without_dense(table), order=table.order + 1, error_order=table.error_order)
    if table.error_order is not None and table.error_order < 8:
        with pytest.raises(ValueError, match=f"error_order {table.error_order + 1} claimed"):
            replace(without_dense(table), error_order=table.error_order + 1)
    if table.error_order is not None and table.error_order > 2:
        with pytest.raises(ValueError, match="raise error_order"):
            replace(without_dense(table), error_order=table.error_order - 1)
    if table.dense_order is not None and table.dense_order < table.order:
        with pytest.raises(ValueError, match=f"dense_order {table.dense_order + 1} claimed, but dense fails"):
            replace(table, dense_order=table.dense_order + 1)


def test_the_parabola_through_y0_f0_and_y1_has_order_two_and_may_not_claim_three() -> None:
    b = SSPRK3.b
    dense = tuple((float(i == 0), weight - float(i == 0)) for i, weight in enumerate(b))
    assert replace(SSPRK3, dense=dense, dense_order=2, extra_c=(), extra_a=()).dense_order == 2
    with pytest.raises(ValueError, match="dense_order 3 claimed, but dense fails the order-3 condition"):
        replace(SSPRK3, dense=dense, dense_order=3, extra_c=(), extra_a=())


HEUN = {"name": "mine", "order": 2, "c": (0, 1), "a": ((), (1,)), "b": (1 / 2, 1 / 2)}

MISTAKES = {
    "letters and digits": {"name": "My-Method"},
    "order 1 at least": {"order": 0},
    "first stage of an explicit method is at 0": {"c": (0.5, 1), "a": ((), (1,))},
    "row 1 of a sums to nan": {"a": ((), (float("nan"),))},
    "row 1 of a sums to 1.0 but c": {"c": (0, 1 / 2)},
    "row 0 of a has 1 entries": {"a": ((0,), (1,))},
    "row 1 of a has 2 entries": {"a": ((), (1, 0))},
    "a has 1 rows": {"a": ((),)},
    "c has 1 entries": {"c": (0,)},
    "b is empty": {"b": ()},
    "b sums to 1.1": {"b": (1 / 2, 0.6)},
    "b sums to nan": {"b": (1 / 2, float("nan"))},
    "come together": {"b_error": (-1 / 2, 1 / 2)},
    "b_error has 1 entries": {"b_error": (0,), "error_order": 2},
    "b_error sums to 1.0": {"b_error": (1 / 2, 1 / 2), "error_order": 2},
    "or b_error is zero": {"b_error": (0, 0), "error_order": 2},
    "with k from 2 to 3": {"b_error": (-1 / 2, 1 / 2), "error_order": 4},
    "extra stages without dense": {"extra_c": (1,), "extra_a": ((1 / 2, 1 / 2),)},
    "dense needs dense_order": {"dense": ((1, -1 / 2), (0, 1 / 2))},
    "dense_order must be from 1 to 2": {"dense": ((1, -1 / 2), (0, 1 / 2)), "dense_order": 3},
    "dense has 1 rows": {"dense": ((1, -1 / 2),), "dense_order": 2},
    "same length": {"dense": ((1, -1 / 2), (1 / 2,)), "dense_order": 2},
    "row 1 of dense sums to 0.4": {"dense": ((1, -1 / 2), (0, 0.4)), "dense_order": 2},
    "dense_order 2 claimed": {"dense": ((1 / 2, 0), (1 / 2, 0)), "dense_order": 2},
    "extra_a needs one row": {"dense": ((1, -1 / 2), (0, 1 / 2), (0, 0)), "dense_order": 2, "extra_c": (1,)},
}


def test_the_table_of_the_mistakes_is_right_without_them() -> None:
    assert Tableau(**HEUN).dense_order == 2


@pytest.mark.parametrize(("message", "mistake"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_mistake_is_named(message: str, mistake: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        Tableau(**{**HEUN, **mistake})
