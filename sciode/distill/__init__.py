"""Symbolic distillation: a learned field as a formula, by sparse regression on a library of terms or by PySR."""

from sciode.distill.distill import distill
from sciode.distill.formula import Distilled
from sciode.distill.library import evaluate, polynomials, products, trigonometric

__all__ = ["Distilled", "distill", "evaluate", "polynomials", "products", "trigonometric"]
