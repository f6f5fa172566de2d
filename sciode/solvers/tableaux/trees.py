"""Rooted trees and the order conditions they index.

A Runge-Kutta method with coefficients (a, b, c) has order p exactly if, for every rooted tree t of at most p nodes,

    sum_i b_i Phi_i(t) = 1 / gamma(t),

and its dense output b_i(theta) is accurate to order p at every point of the step exactly if

    sum_i b_i(theta) Phi_i(t) = theta^|t| / gamma(t).

The conditions are generated here, never typed in. Source: Butcher (2016), Numerical Methods for Ordinary Differential
Equations, 3rd ed., sections 300-315; Hairer, Norsett & Wanner (1993), Solving ODEs I, II.2 and II.6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

Tree = tuple["Tree", ...]
"""A rooted tree is the sorted tuple of the subtrees hanging from its root: () is the single node."""


@cache
def rooted_trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with exactly `order` nodes, each once: 1, 1, 2, 4, 9, 20, 48, 115 of them for orders 1 to 8."""
    return tuple(tuple(sorted(forest)) for forest in _forests(order - 1, order - 1))


def _forests(nodes: int, largest: int) -> Iterator[tuple[Tree, ...]]:
    """Multisets of trees with `nodes` nodes in all and at most `largest` nodes in each."""
    if nodes == 0:
        yield ()
        return
    for size in range(min(nodes, largest), 0, -1):
        trees = rooted_trees(size)
        yield from _forests_led_by(trees, nodes, size)


def _forests_led_by(trees: tuple[Tree, ...], nodes: int, size: int) -> Iterator[tuple[Tree, ...]]:
    """Forests whose first tree is taken from `trees` (all of `size` nodes) and whose later trees do not precede it."""
    for index, tree in enumerate(trees):
        left = nodes - size
        yield from ((tree, *rest) for rest in _forests(left, min(left, size - 1)))
        if left >= size:
            yield from ((tree, *rest) for rest in _forests_led_by(trees[index:], left, size))


@cache
def order_of(tree: Tree) -> int:
    """|t|, the number of nodes."""
    return 1 + sum(order_of(subtree) for subtree in tree)


@cache
def density(tree: Tree) -> int:
    """gamma(t) = |t| times the product of the subtrees' densities."""
    return order_of(tree) * math.prod(density(subtree) for subtree in tree)


@cache
def trees_up_to(order: int) -> tuple[Tree, ...]:
    """All rooted trees with 1 to `order` nodes, smaller ones first."""
    return tuple(tree for nodes in range(1, order + 1) for tree in rooted_trees(nodes))


def elementary_weights(a: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Phi_i(t) for every tree of at most `order` nodes: shape [trees, stages], rows in the order of `trees_up_to`.

    Phi_i(()) = 1 and Phi_i([t_1 ... t_m]) = prod_k sum_j a_ij Phi_j(t_k), with `a` the square coefficient matrix.
    """
    rows: dict[Tree, NDArray[np.float64]] = {}
    slopes: dict[Tree, NDArray[np.float64]] = {}
    for tree in trees_up_to(order):
        row = np.ones(len(a))
        for subtree in tree:
            row = row * slopes[subtree]
        rows[tree] = row
        slopes[tree] = a @ row
    return np.stack(list(rows.values()))


def order_residuals(a: NDArray[np.float64], b: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """sum_i b_i Phi_i(t) - 1/gamma(t), shape [trees]: all zero exactly if (a, b) has the order.

    Each residual is divided by max(1, sum_i |b_i Phi_i(t)|), so that what is left of a satisfied condition is a few
    units of rounding however large the coefficients are.
    """
    terms = elementary_weights(a, order) * b
    targets = np.array([1.0 / density(tree) for tree in trees_up_to(order)])
    return (terms.sum(axis=1) - targets) / np.maximum(1.0, np.abs(terms).sum(axis=1))


def dense_residuals(a: NDArray[np.float64], dense: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Coefficients of theta^(j+1) in sum_i b_i(theta) Phi_i(t) - theta^|t|/gamma(t), shape [trees, powers].

    `dense` has shape [stages, powers]: b_i(theta) = sum_j dense[i, j] theta^(j+1). Scaled as in `order_residuals`.
    Powers that `dense` lacks are there with coefficient zero, so that a degree below the order is a failure.
    """
    dense = np.pad(dense, ((0, 0), (0, max(0, order - dense.shape[1]))))
    weights = elementary_weights(a, order)
    values = weights @ dense
    targets = np.zeros_like(values)
    for row, tree in enumerate(trees_up_to(order)):
        targets[row, order_of(tree) - 1] = 1.0 / density(tree)
    return (values - targets) / np.maximum(1.0, np.abs(weights) @ np.abs(dense))
