"""Tables of implicit methods: every claim holds, is measured, and nothing wrong can be built."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import root

from sciode.solvers import methods
from sciode.solvers.tableaux import ImplicitTableau, MultistepTableau, implicit_method, implicit_methods
from sciode.solvers.tableaux.trees import order_residuals, trees_up_to

TABLES = implicit_methods()
RUNGE_KUTTA = [table for table in TABLES.values() if isinstance(table, ImplicitTableau)]
MULTISTEP = [table for table in TABLES.values() if isinstance(table, MultistepTableau)]

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
every_runge_kutta = pytest.mark.parametrize("table", RUNGE_KUTTA, ids=lambda table: table.name)
every_multistep = pytest.mark.parametrize("table", MULTISTEP, ids=lambda table: table.name)

SDIRK2 = 1.0 - np.sqrt(0.5)
# Tables a user might bring; Lobatto IIIC (Chipman 1971), SDIRK (Alexander 1977), and the theta method.
LOBATTO_IIIC_2 = ImplicitTableau("lobattoiiic2", 2, (0, 1), ((1 / 2, -1 / 2), (1 / 2, 1 / 2)), (1 / 2, 1 / 2))
ALEXANDER_2 = ImplicitTableau("alexander2", 2, (SDIRK2, 1), ((SDIRK2, 0), (1 - SDIRK2, SDIRK2)), (1 - SDIRK2, SDIRK2))


def theta_method(theta: float) -> ImplicitTableau:
    return ImplicitTableau("theta", 1, (0, 1), ((0, 0), (1 - theta, theta)), (1 - theta, theta))


# --- the catalogue


def test_the_library_has_the_promised_tables_under_their_names() -> None:
    runge_kutta = "impliciteuler implicitmidpoint cranknicolson gausslegendre4 gausslegendre6 radauiia3 radauiia5"
    assert list(TABLES) == [*runge_kutta.split(), "bdf2", "bdf3"]
    assert all(table.name == name and table.reference for name, table in TABLES.items())


def test_a_name_is_found_however_it_is_punctuated_and_a_wrong_one_gets_a_suggestion() -> None:
    assert implicit_method("Radau-IIA 5") is TABLES["radauiia5"]
    with pytest.raises(ValueError, match=r"method: unknown 'gauslegendre4'. Did you mean 'gausslegendre4'\? Known: "):
        implicit_method("gauslegendre4")


def test_no_implicit_method_is_offered_to_solve() -> None:
    assert not set(TABLES) & set(methods("ode"))


@every_table
def test_tables_are_frozen_hashable_and_equal_by_value(table: ImplicitTableau | MultistepTableau) -> None:
    twin = type(table)(**arguments(table))
    assert twin == table and hash(twin) == hash(table) and twin is not table
    with pytest.raises(FrozenInstanceError):
        table.order = 9  # type: ignore[misc]


# --- orders


@every_runge_kutta
def test_order_is_exactly_as_claimed(table: ImplicitTableau) -> None:
    residuals = np.abs(order_residuals(np.array(table.a), np.array(table.b), table.order + 1))
    known = len(trees_up_to(table.order))
    assert residuals[:known].max() < 1e-14 and residuals[known:].max() > 1e-4


@every_runge_kutta
def test_stages_integrate_polynomials_up_to_the_stage_order_and_no_further(table: ImplicitTableau) -> None:
    c, rng = np.array(table.c), np.random.default_rng(table.stages)
    slope = np.polynomial.Polynomial(rng.normal(size=table.stage_order))
    np.testing.assert_allclose(np.array(table.a) @ slope(c), slope.integ()(c), atol=1e-14)
    next_power = np.array(table.a) @ c**table.stage_order - c ** (table.stage_order + 1) / (table.stage_order + 1)
    assert np.abs(next_power).max() > 1e-3


@pytest.mark.parametrize("name", ["gausslegendre4", "gausslegendre6", "radauiia3", "radauiia5"])
def test_nodes_are_those_of_the_orthogonal_polynomial_and_stages_collocate(name: str) -> None:
    """Gauss: the zeros of P_s on [0, 1]; Radau IIA: of P_s - P_{s-1}; and the stage order is the number of stages."""
    table = implicit_method(name)
    assert isinstance(table, ImplicitTableau) and table.stage_order == table.stages
    coefficients = np.zeros(table.stages + 1)
    coefficients[-1] = 1.0
    if name.startswith("radau"):
        coefficients[-2] = -1.0
    zeros = np.asarray(np.polynomial.Legendre(coefficients).roots(), dtype=float)
    np.testing.assert_allclose(table.c, (np.sort(zeros) + 1.0) / 2.0, atol=1e-14)


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


def solved(residual: Any, guess: np.ndarray) -> np.ndarray:
    return np.asarray(root(residual, guess.ravel(), tol=1e-14).x)


def runge_kutta_step(table: ImplicitTableau, f: Any, t: float, dt: float, y: np.ndarray) -> np.ndarray:
    a, b, c = np.array(table.a), np.array(table.b), np.array(table.c)

    def slopes(stages: np.ndarray) -> np.ndarray:
        return np.stack([f(t + node * dt, stage) for node, stage in zip(c, stages.reshape(-1, len(y)), strict=True)])

    stages = solved(lambda g: (g.reshape(-1, len(y)) - y - dt * a @ slopes(g)).ravel(), np.tile(y, (table.stages, 1)))
    return y + dt * b @ slopes(stages)


def multistep_step(table: MultistepTableau, f: Any, t: float, dt: float, past: list[np.ndarray]) -> np.ndarray:
    known = sum((weight * y for weight, y in zip(table.alpha[1:], past, strict=True)), np.zeros_like(past[0]))
    return solved(lambda y: y + known - dt * table.beta * f(t + dt, y), past[0])


def error_at_one(table: ImplicitTableau | MultistepTableau, count: int) -> float:
    dt = 1.0 / count
    if isinstance(table, ImplicitTableau):
        y = solution(0.0)
        for n in range(count):
            y = runge_kutta_step(table, slope, n * dt, dt, y)
    else:
        past = [solution(-n * dt) for n in range(table.steps)]
        for n in range(count):
            past = [multistep_step(table, slope, n * dt, dt, past), *past[:-1]]
        y = past[0]
    return float(np.abs(y - solution(1.0)).max())


@every_table
def test_errors_of_a_nonlinear_problem_fall_at_the_claimed_order(table: ImplicitTableau | MultistepTableau) -> None:
    first = {1: 64, 2: 32, 3: 32, 4: 16, 5: 8, 6: 8}[table.order]
    rate = np.log2(error_at_one(table, first) / error_at_one(table, 2 * first))
    assert rate == pytest.approx(table.order, abs=0.25)


# --- stability


@every_runge_kutta
def test_the_stability_function_is_one_step_of_the_linear_problem(table: ImplicitTableau) -> None:
    rng = np.random.default_rng(1)
    points = (rng.normal(size=20) + 1j * rng.normal(size=20)) * 10.0 ** rng.integers(-2, 4, size=20)
    a, b, ones = np.array(table.a), np.array(table.b), np.ones(table.stages)
    direct = [1.0 + z * b @ np.linalg.solve(np.eye(table.stages) - z * a, ones) for z in points]
    np.testing.assert_allclose(table.stability(points), direct, rtol=1e-9, atol=1e-11)
    # And of a step as such, solved by Newton's method: the real 2 x 2 form of y' = lambda y.
    z = complex(-1.5, 2.0)
    rotation = np.array([[z.real, -z.imag], [z.imag, z.real]])
    y1 = runge_kutta_step(table, lambda t, y: rotation @ y, 0.0, 1.0, np.array([1.0, 0.0]))
    assert complex(*y1) == pytest.approx(complex(table.stability(z)), abs=1e-12)


@every_runge_kutta
def test_the_stability_function_approximates_exp_to_the_order(table: ImplicitTableau) -> None:
    z = 0.25 * np.exp(1j * np.linspace(0.0, np.pi, 9))
    errors = [np.abs(table.stability(z / k) - np.exp(z / k)).max() for k in (1.0, 2.0)]
    assert np.log2(errors[0] / errors[1]) > table.order + 1 - 0.25


PADE = {
    "impliciteuler": ([1], [1, -1]),
    "implicitmidpoint": ([1, 1 / 2], [1, -1 / 2]),
    "cranknicolson": ([1, 1 / 2], [1, -1 / 2]),
    "gausslegendre4": ([1, 1 / 2, 1 / 12], [1, -1 / 2, 1 / 12]),
    "gausslegendre6": ([1, 1 / 2, 1 / 10, 1 / 120], [1, -1 / 2, 1 / 10, -1 / 120]),
    "radauiia3": ([1, 1 / 3], [1, -2 / 3, 1 / 6]),
    "radauiia5": ([1, 2 / 5, 1 / 20], [1, -3 / 5, 3 / 20, -1 / 60]),
}


@pytest.mark.parametrize(("name", "pade"), PADE.items(), ids=PADE.keys())
def test_stability_functions_are_the_pade_approximants_of_the_literature(name: str, pade: Any) -> None:
    table = implicit_method(name)
    assert isinstance(table, ImplicitTableau)
    for found, expected in zip((table.numerator, table.denominator), pade, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_gauss_methods_conserve_on_the_imaginary_axis_and_radau_methods_damp_what_is_stiff() -> None:
    for table in RUNGE_KUTTA:
        along = np.abs(table.stability(1j * np.logspace(-2, 6, 200)))
        conserves = table.name.startswith("gauss") or table.name in ("implicitmidpoint", "cranknicolson")
        assert table.a_stable and table.l_stable != conserves
        assert table.stability(np.inf) == pytest.approx(table.limit, abs=1e-13)
        if conserves:
            np.testing.assert_allclose(along, 1.0, atol=1e-13)
            assert abs(table.limit) == pytest.approx(1.0, abs=1e-13)
        else:
            assert along.max() <= 1.0 and table.limit == 0.0 and table.stiffly_accurate


def test_a_stability_is_found_where_the_literature_puts_it() -> None:
    assert LOBATTO_IIIC_2.l_stable and LOBATTO_IIIC_2.limit == 0.0
    assert ALEXANDER_2.l_stable and ALEXANDER_2.stiffly_accurate
    assert [theta_method(theta).a_stable for theta in (0.25, 0.49, 0.51, 0.75, 1.0)] == [False, False, True, True, True]
    explicit_euler = ImplicitTableau("explicit", 1, (0,), ((0,),), (1,))
    assert not explicit_euler.a_stable and explicit_euler.limit == np.inf
    assert explicit_euler.stability(np.inf) == np.inf and explicit_euler.stability(-3.0) == -2.0


@every_table
def test_a_stable_tables_and_no_others_keep_the_left_half_plane(table: ImplicitTableau | MultistepTableau) -> None:
    radius, angle = np.meshgrid(np.logspace(-3, 4, 60), np.linspace(np.pi / 2, np.pi, 41))
    factors = np.abs(table.stability(radius * np.exp(1j * angle)))
    assert bool(factors.max() <= 1.0 + 1e-7) == table.a_stable
    assert table.a_stable == (table.name != "bdf3")


@every_multistep
def test_the_factor_of_a_multistep_table_is_that_of_long_runs(table: MultistepTableau) -> None:
    for z in (-0.7, -2.0 + 1.0j, 0.3 + 0.2j):
        past, sizes = [np.exp(-z * n) for n in range(table.steps)], []
        for _ in range(200):
            newest = -np.dot(table.alpha[1:], past) / (1.0 - z * table.beta)
            past = [newest, *past[:-1]]
            sizes.append(np.log(np.linalg.norm(past)))
        # All states that a step reads: a single one passes near zero where the roots are a conjugate pair.
        assert (sizes[-1] - sizes[40]) / (len(sizes) - 41) == pytest.approx(np.log(table.stability(z)), abs=0.02)
    assert table.stability(1.0 / table.beta) == np.inf and table.stability(-1e12) < 1e-3


# --- what is wrong is refused


def arguments(table: ImplicitTableau | MultistepTableau) -> dict[str, Any]:
    return {spec.name: getattr(table, spec.name) for spec in fields(table) if spec.init}


@every_runge_kutta
def test_a_table_with_any_one_coefficient_off_by_a_millionth_is_refused(table: ImplicitTableau, changes: Any) -> None:
    for name in ("c", "a", "b"):
        for _, changed in changes(getattr(table, name), 1e-6):
            with pytest.raises(ValueError, match=f"tableau '{table.name}': "):
                replace(table, **{name: changed})


@pytest.mark.parametrize("name", ["gausslegendre4", "gausslegendre6", "radauiia3", "radauiia5"])
def test_a_changed_coefficient_with_the_row_sum_kept_breaks_an_order_condition(name: str) -> None:
    table = implicit_method(name)
    assert isinstance(table, ImplicitTableau)
    for i, row in enumerate(table.a):
        for j in range(1, len(row)):
            changed = [*row]
            changed[0] += 1e-6
            changed[j] -= 1e-6
            with pytest.raises(ValueError, match="condition of the rooted tree"):
                replace(table, a=(*table.a[:i], tuple(changed), *table.a[i + 1 :]))


@every_multistep
def test_a_multistep_table_with_any_one_coefficient_off_by_a_millionth_is_refused(
    table: MultistepTableau, changes: Any
) -> None:
    for _, changed in changes(table.alpha, 1e-6):
        with pytest.raises(ValueError, match=f"tableau '{table.name}': "):
            replace(table, alpha=changed)
    with pytest.raises(ValueError, match="condition of power 1 fails"):
        replace(table, beta=table.beta + 1e-6)


@every_table
def test_a_claim_higher_than_the_truth_is_refused(table: ImplicitTableau | MultistepTableau) -> None:
    with pytest.raises(ValueError, match=f"order {table.order + 1} claimed, but the .*condition"):
        replace(table, order=table.order + 1)


def bdf(order: int) -> MultistepTableau:
    """The backward differentiation formula: sum_{m=1..k} (1/m) nabla^m y_{n+1} = dt f_{n+1}."""
    x = np.polynomial.Polynomial([1.0, -1.0])
    alpha = sum((x**m / m for m in range(2, order + 1)), x).coef
    return MultistepTableau(f"bdf{order}", order, tuple(alpha / alpha[0]), 1.0 / alpha[0])


def test_backward_differentiation_is_zero_stable_to_order_six_and_refused_at_seven() -> None:
    for order in range(1, 7):
        assert bdf(order).a_stable == (order <= 2)
    for order in (2, 3):
        np.testing.assert_allclose(bdf(order).alpha, implicit_method(f"bdf{order}").alpha, atol=1e-14)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="not zero-stable: rho has the root"):
        bdf(7)


EULER = {"name": "mine", "order": 1, "c": (1,), "a": ((1,),), "b": (1,)}
BDF1 = {"name": "mine", "order": 1, "alpha": (1, -1), "beta": 1}

MISTAKES = {
    "letters and digits": {"name": "My-Method"},
    "order 1 at least": {"order": 0},
    "b is empty": {"b": ()},
    "c has 2 entries": {"c": (0, 1)},
    "a has 2 rows": {"a": ((1,), (1,))},
    "row 0 of a has 2 entries; a is square": {"a": ((1, 0),)},
    "row 0 of a sums to 0.5 but": {"a": ((1 / 2,),)},
    "row 0 of a sums to nan": {"a": ((float("nan"),),)},
    "order-1 condition": {"b": (float("nan"),)},
}
MULTISTEP_MISTAKES = {
    "letters and digits": {"name": "bdf-1"},
    "order 1 at least": {"order": 0},
    "a step joins two states": {"alpha": (1,)},
    r"alpha\[0\] is 2.0; divide": {"alpha": (2, -2), "beta": 2},
    "leave it out": {"alpha": (1, -1, 0)},
    "condition of power 0 fails by nan": {"alpha": (1, float("nan"))},
    "condition of power 1 fails": {"beta": 2},
    "multiple root on the unit circle": {"alpha": (1, 1, -1, -1), "beta": 4},
    "outside the unit circle": {"alpha": (1, -3, 2), "beta": -1},
    "has a multiple root": {"alpha": (1, -2, 1), "beta": 0},
}


@pytest.mark.parametrize(("message", "mistake"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_mistake_is_named(message: str, mistake: dict[str, Any]) -> None:
    assert ImplicitTableau(**EULER).order == 1
    with pytest.raises(ValueError, match=message):
        ImplicitTableau(**{**EULER, **mistake})


@pytest.mark.parametrize(("message", "mistake"), MULTISTEP_MISTAKES.items(), ids=MULTISTEP_MISTAKES.keys())
def test_a_mistake_in_a_multistep_table_is_named(message: str, mistake: dict[str, Any]) -> None:
    assert MultistepTableau(**BDF1).a_stable
    with pytest.raises(ValueError, match=message):
        MultistepTableau(**{**BDF1, **mistake})


def test_tables_say_what_they_are() -> None:
    assert repr(TABLES["radauiia5"]) == "<ImplicitTableau radauiia5: order 5, 3 stages, L-stable>"
    assert repr(TABLES["bdf3"]) == "<MultistepTableau bdf3: order 3, 3 steps, not A-stable>"
