"""Library terms are data: strings whose value is the product they say."""

from __future__ import annotations

from math import comb

import pytest
import torch

from sciode.distill import evaluate, polynomials, products, trigonometric


def test_polynomials_are_all_monomials_up_to_the_degree_each_once() -> None:
    assert polynomials("xy", 2) == ("1", "x", "y", "x^2", "x*y", "y^2")
    for size, degree in ((1, 3), (2, 3), (3, 3), (4, 2)):
        terms = polynomials([f"y{k}" for k in range(size)], degree)
        assert len(set(terms)) == len(terms) == comb(size + degree, degree)


def test_products_leave_out_ones_and_repetitions() -> None:
    assert products(["1", "v"], ["1", "sin(x)"]) == ("1", "sin(x)", "v", "v*sin(x)")
    assert trigonometric(["x"]) == ("sin(x)", "cos(x)")


def test_a_terms_value_is_the_product_it_says() -> None:
    y = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, v = y.unbind(-1)
    for term, wanted in {
        "1": torch.ones_like(x),
        "x^2*v": x * x * v,
        "v*abs(v)": v * v.abs(),
        "sin(x)*cos(v)": x.sin() * v.cos(),
        " x * exp(v) ": x * v.exp(),
    }.items():
        torch.testing.assert_close(evaluate(term, y, ["x", "v"]), wanted)


@pytest.mark.parametrize("term", ["z", "x+v", "log(x)", "sin(z)", "x^-1", "", "sin(x", "2*x", "__import__(x)"])
def test_what_is_no_product_of_factors_is_refused(term: str) -> None:
    with pytest.raises(ValueError, match="is no factor of a term"):
        evaluate(term, torch.zeros(3, 2), ["x", "v"])
