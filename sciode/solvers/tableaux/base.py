"""The coefficient table of an explicit Runge-Kutta method, which refuses to exist if it is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from sciode.solvers.tableaux.dense import HIGHEST_DERIVED_ORDER, derive
from sciode.solvers.tableaux.trees import (
    Tree,
    dense_residuals,
    elementary_weights,
    order_of,
    order_residuals,
    trees_up_to,
)

Array = NDArray[np.float64]

# The conditions of order 9 and up outnumber those of orders 1 to 8 by far and would take longer than the import.
HIGHEST_CHECKED_ORDER = 8
# Residuals are relative to the size of their terms: published tables leave below 1e-14, a wrong digit far more.
_TOLERANCE = 1e-12


@dataclass(frozen=True, repr=False)
class Tableau:
    """Coefficients of an explicit Runge-Kutta method; a table that breaks a condition raises ValueError when built.

    One step from (t, y0) to (t + dt, y1):

        k_i = f(t + c_i dt, y0 + dt sum_j<i a_ij k_j),   y1 = y0 + dt sum_i b_i k_i,
        error = dt sum_i b_error_i k_i,   y(t + theta dt) = y0 + dt sum_i k_i sum_j dense_ij theta^(j+1).

    - `name`: lower-case letters and digits, such as "rk4".
    - `order`: the order of y1. Verified to order 8 by rooted trees, as all orders below are.
    - `c` [stages], `a` (row i has i entries), `b` [stages]: all dimensionless, `c[0] == 0`.
    - `b_error` [stages]: b minus the embedded weights; None means that the method has no error estimate.
    - `error_order`: k such that the estimate is O(dt^k); the controller's exponent is 1/k (dopri5: 5, heun: 2).
    - `extra_c` [extra], `extra_a` (row i has stages + i entries): stages evaluated for dense output only.
    - `dense` [stages + extra][powers]: omitted, it is derived (see `dense.py`), with its extra stages, to `dense_order`
      (default: `order`, at most 8), so that every table has dense output.
    - `reference`: paper or book.

    Attributes that follow from the coefficients:

    - `stages`, `adaptive`: the number of stages of a step (extra ones apart); whether there is an error estimate.
    - `fsal`: first same as last, the last stage is f(t1, y1), the first stage of the next step.
    - `end_slope`: the stage that is f(t1, y1), extra stages counted on, or None: the next step may start from it.
    - `stiffness_pair`: the last two stages (i, j), i < j, at the same node, or None. With g the states they start from,
      |k_j - k_i| / |g_j - g_i| estimates the dominant eigenvalue (Hairer & Wanner (1996), Solving ODEs II, IV.2).
    - `stability_polynomial`: r_k of R(z) = sum_k r_k z^k, where y1 = R(dt lambda) y0 for y' = lambda y.
    - `stability_extent`: the largest x with |R(-z)| <= 1 for all z in [0, x]; rk4 2.7853, dopri5 3.3066, tsit5 3.5068.

    Tables are immutable, hashable and equal by value. A method of one's own is one call, and no registration:
    `Tableau(name="mine", order=2, c=(0, 1), a=((), (1,)), b=(1/2, 1/2))`.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, II.1-II.6.
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    b_error: tuple[float, ...] | None = None
    error_order: int | None = None
    extra_c: tuple[float, ...] = ()
    extra_a: tuple[tuple[float, ...], ...] = ()
    dense: tuple[tuple[float, ...], ...] | None = None
    dense_order: int | None = None
    reference: str = ""
    # Plain attributes, not cached properties: torch.compile traces through the former only.
    fsal: bool = field(init=False, compare=False)
    end_slope: int | None = field(init=False, compare=False)
    stiffness_pair: tuple[int, int] | None = field(init=False, compare=False)
    stability_polynomial: tuple[float, ...] = field(init=False, compare=False)
    stability_extent: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _freeze_numbers(self)
        _check_claims(self)
        _check_shapes(self)
        _check_consistency(self)
        _check_order(self)
        _check_estimate(self)
        _set(self, fsal=_is_fsal(self))
        if self.dense is None:
            _derive_dense(self)
        _check_dense(self)
        _set(self, end_slope=_end_slope(self), stiffness_pair=_stiffness_pair(self.c))
        _set(self, stability_polynomial=_stability_polynomial(self))
        _set(self, stability_extent=_stability_extent(self.stability_polynomial))

    def __repr__(self) -> str:
        estimate = f"error estimate O(dt^{self.error_order})" if self.error_order else "no error estimate"
        parts = (f"order {self.order}", f"{self.stages} stages", estimate, f"dense output of order {self.dense_order}")
        return f"<Tableau {self.name}: {', '.join(parts)}>"

    @property
    def stages(self) -> int:
        """Stages of one step, without the extra ones of dense output."""
        return len(self.b)

    @property
    def adaptive(self) -> bool:
        """Whether the table has an error estimate."""
        return self.b_error is not None


def _is_fsal(table: Tableau) -> bool:
    return table.stages > 1 and table.c[-1] == 1.0 and (*table.a[-1], 0.0) == table.b


def _end_slope(table: Tableau) -> int | None:
    if table.fsal:
        return table.stages - 1
    first_extra_is_end = bool(table.extra_c) and table.extra_c[0] == 1.0 and table.extra_a[0] == table.b
    return table.stages if first_extra_is_end else None


def _stiffness_pair(c: tuple[float, ...]) -> tuple[int, int] | None:
    pairs = ((i, j) for j in range(len(c) - 1, 0, -1) for i in range(j - 1, -1, -1) if c[i] == c[j])
    return next(pairs, None)


def _stability_polynomial(table: Tableau) -> tuple[float, ...]:
    """r_0 = 1 and r_k = b^T a^(k-1) 1, as y' = lambda y shows."""
    a = _square(table.a)
    coefficients, vector = [1.0], np.ones(table.stages)
    for _ in range(table.stages):
        coefficients.append(float(np.dot(table.b, vector)))
        vector = a @ vector
    return tuple(coefficients)


def _stability_extent(coefficients: tuple[float, ...]) -> float:
    signs = (-1.0) ** np.arange(len(coefficients))
    polynomial = Polynomial(np.array(coefficients) * signs)
    roots = np.concatenate([(polynomial - 1.0).roots(), (polynomial + 1.0).roots()])
    real = roots[np.abs(roots.imag) < 1e-6 * (1.0 + np.abs(roots))].real
    crossings = np.sort(real[real > 1e-6])
    # |R| = 1 may be touched and not crossed: the extent ends where |R| > 1 on the far side.
    beyond = np.append((crossings[1:] + crossings[:-1]) / 2.0, crossings[-1] + 1.0)
    return float(crossings[np.abs(polynomial(beyond)) > 1.0][0])


def _set(table: Tableau, **values: object) -> None:
    """Complete a frozen table while it is being built."""
    for name, value in values.items():
        object.__setattr__(table, name, value)


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _freeze_numbers(table: Tableau) -> None:
    """Turn lists, arrays and integers into tuples of floats, so that equal values make equal, hashable tables."""
    for name in ("c", "b", "extra_c", "b_error"):
        if getattr(table, name) is not None:
            _set(table, **{name: _floats(getattr(table, name))})
    for name in ("a", "extra_a", "dense"):
        if getattr(table, name) is not None:
            _set(table, **{name: tuple(_floats(row) for row in getattr(table, name))})


def _require(condition: bool, table: Tableau, message: str) -> None:
    if not condition:
        raise ValueError(f"tableau {table.name!r}: {message}")


def _require_zero(residual: float, scale: float, table: Tableau, message: str) -> None:
    # A comparison that NaN fails, so that a table with NaN or infinity is refused too.
    _require(bool(abs(residual) <= _TOLERANCE * max(1.0, scale)), table, message)


def _check_claims(table: Tableau) -> None:
    _require(
        re.fullmatch("[a-z][a-z0-9]*", table.name) is not None, table, "name it in lower-case letters and digits only"
    )
    _require(table.order >= 1, table, f"order is {table.order}; a method must have order 1 at least")
    _require(
        (table.b_error is None) == (table.error_order is None),
        table,
        "b_error and error_order come together: give both for an adaptive method, neither for fixed steps",
    )
    if table.error_order is not None:
        _require(
            2 <= table.error_order <= table.order + 1,
            table,
            f"error_order is {table.error_order}; the estimate of an order-{table.order} method is O(dt^k) with k "
            f"from 2 to {table.order + 1}",
        )
    _require(
        table.dense is not None or not table.extra_c,
        table,
        "extra stages without dense: give the weights too, or drop extra_c and extra_a to have dense output derived",
    )
    _require(table.dense is None or table.dense_order is not None, table, "dense needs dense_order, its order")
    if table.dense_order is not None:
        highest = table.order if table.dense is not None else min(table.order, HIGHEST_DERIVED_ORDER)
        _require(1 <= table.dense_order <= highest, table, f"dense_order must be from 1 to {highest}")


def _check_shapes(table: Tableau) -> None:
    stages, total = len(table.b), len(table.b) + len(table.extra_c)
    _require(stages >= 1, table, "b is empty; a method has one stage at least")
    _require(len(table.c) == stages, table, f"c has {len(table.c)} entries for the {stages} stages of b")
    _require(len(table.a) == stages, table, f"a has {len(table.a)} rows for the {stages} stages of b")
    for i, row in enumerate(table.a):
        _require(len(row) == i, table, f"row {i} of a has {len(row)} entries; explicit methods have i in row i")
    if table.b_error is not None:
        _require(len(table.b_error) == stages, table, f"b_error has {len(table.b_error)} entries for {stages} stages")
    _require(len(table.extra_a) == len(table.extra_c), table, "extra_a needs one row for each entry of extra_c")
    for i, row in enumerate(table.extra_a):
        _require(len(row) == stages + i, table, f"row {i} of extra_a has {len(row)} entries instead of {stages + i}")
    if table.dense is not None:
        _require(len(table.dense) == total, table, f"dense has {len(table.dense)} rows for {total} stages")
        powers = {len(row) for row in table.dense}
        _require(len(powers) == 1 and min(powers) >= 1, table, "the rows of dense must have the same length, 1 or more")


def _check_consistency(table: Tableau) -> None:
    _require(table.c[0] == 0.0, table, f"c[0] is {table.c[0]}; the first stage of an explicit method is at 0")
    for matrix, nodes in (("a", "c"), ("extra_a", "extra_c")):
        for i, (row, node) in enumerate(zip(getattr(table, matrix), getattr(table, nodes), strict=True)):
            message = f"row {i} of {matrix} sums to {sum(row)!r} but {nodes}[{i}] is {node!r}: one of them is wrong"
            _require_zero(sum(row) - node, sum(map(abs, row)), table, message)
    _require_zero(
        sum(table.b) - 1.0, sum(map(abs, table.b)), table, f"b sums to {sum(table.b)!r}; the weights must sum to 1"
    )
    if table.b_error is not None:
        message = f"b_error sums to {sum(table.b_error)!r}; b minus the embedded weights must sum to 0"
        _require_zero(sum(table.b_error), sum(map(abs, table.b_error)), table, message)


def _check_order(table: Tableau) -> None:
    order = min(table.order, HIGHEST_CHECKED_ORDER)
    residuals = order_residuals(_square(table.a), np.array(table.b), order)
    _require_conditions(residuals, order, table, f"order {table.order} claimed", "b")


def _check_estimate(table: Tableau) -> None:
    if table.b_error is None or table.error_order is None:
        return
    a, b_error = _square(table.a), np.array(table.b_error)
    order = min(table.error_order - 1, HIGHEST_CHECKED_ORDER)
    residuals = order_residuals(a, np.array(table.b) - b_error, order)
    _require_conditions(residuals, order, table, f"error_order {table.error_order} claimed", "b - b_error")
    if table.error_order <= HIGHEST_CHECKED_ORDER:
        leading = elementary_weights(a, table.error_order)[len(trees_up_to(order)) :] @ b_error
        message = f"the error estimate is smaller than O(dt^{table.error_order}): raise error_order, or b_error is zero"
        _require(bool(np.abs(leading).max() > _TOLERANCE), table, message)


def _check_dense(table: Tableau) -> None:
    assert table.dense is not None and table.dense_order is not None
    dense, b = np.array(table.dense), np.pad(table.b, (0, len(table.extra_c)))
    for i, (row, weight) in enumerate(zip(dense, b, strict=True)):
        message = (
            f"row {i} of dense sums to {float(row.sum())!r}, its weight at theta = 1, instead of {float(weight)!r}"
        )
        _require_zero(row.sum() - weight, np.abs(row).sum(), table, message)
    order = min(table.dense_order, HIGHEST_CHECKED_ORDER)
    residuals = np.abs(dense_residuals(_square(table.a, table.extra_a), dense, order)).max(axis=1)
    _require_conditions(residuals, order, table, f"dense_order {table.dense_order} claimed", "dense")


def _require_conditions(residuals: Array, order: int, table: Tableau, claim: str, weights: str) -> None:
    failed = np.flatnonzero(~(np.abs(residuals) <= _TOLERANCE))
    if len(failed):
        tree: Tree = trees_up_to(order)[failed[0]]
        _require(
            False,
            table,
            f"{claim}, but {weights} fails the order-{order_of(tree)} condition of the rooted tree {tree} by "
            f"{residuals[failed[0]]:.1e}: correct a coefficient or lower the claim",
        )


def _derive_dense(table: Tableau) -> None:
    order = table.dense_order or min(table.order, HIGHEST_DERIVED_ORDER)
    _set(table, **derive(table.b, table.fsal, order)._asdict(), dense_order=order)


def _square(a: tuple[tuple[float, ...], ...], extra_a: tuple[tuple[float, ...], ...] = ()) -> Array:
    rows = (*a, *extra_a)
    return np.array([(*row, *(0.0,) * (len(rows) - len(row))) for row in rows])
