"""What distillation returns: formulas that can be read, compared and solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciode.distill.library import evaluate

__all__ = ["Distilled", "Sum", "written"]


@final
@dataclass(frozen=True)
class Sum:
    """A linear combination of library terms as a function of states, [*batch, D] -> [*batch]."""

    weights: Mapping[str, float]
    names: tuple[str, ...]

    def __call__(self, y: Tensor) -> Tensor:
        """Return the sum of weight × term; zeros where there is none."""
        total = torch.zeros_like(y[..., 0])
        for term, weight in self.weights.items():
            total = total + weight * evaluate(term, y, self.names)
        return total


@final
@dataclass(frozen=True)
class Distilled:
    """A learned field as formulas; itself a field: `solve(distilled, y0, ts)`.

    Attributes
    ----------
    expressions: one string a component, e.g. "1.1*x - 0.4*x*y"; "0" for none.
    coefficients: for each component its terms' coefficients, {term: number}; empty with backend="pysr", whose
        expressions are no linear combinations.
    score: R^2 of each component on held-out samples, 1 - mean squared error / variance: no coefficient has seen them,
        but they chose how many terms. For a component that is constant there 1 if it is met to rounding, else 0.
    names: of the D components it reads.
    functions: one function a component, y [*batch, D] -> [*batch].
    """

    expressions: tuple[str, ...]
    coefficients: tuple[Mapping[str, float], ...]
    score: tuple[float, ...]
    names: tuple[str, ...]
    functions: tuple[Callable[[Tensor], Tensor], ...]

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the formulas' values, [*batch, D] -> [*batch, number of expressions]; t is not looked at."""
        if y.ndim < 1 or y.shape[-1] != len(self.names):
            raise ValueError(f"y must be [*batch, {len(self.names)}] ({', '.join(self.names)}), got {tuple(y.shape)}")
        return torch.stack([function(y) for function in self.functions], -1)

    def __str__(self) -> str:
        return "\n".join(
            f"[{place}] {text}   (R² {score:.4f})"
            for place, (text, score) in enumerate(zip(self.expressions, self.score, strict=True))
        )


def written(weights: Mapping[str, float], digits: int = 3) -> str:
    """Return a sum as text, numbers to `digits` significant digits: {"x": 1.1, "x*y": -0.4} -> "1.1*x - 0.4*x*y"."""
    text = "".join(
        f" {'-' if weight < 0 else '+'} {abs(weight):.{digits}g}{'' if term == '1' else f'*{term}'}"
        for term, weight in weights.items()
    )
    return ("-" + text[3:] if text.startswith(" -") else text[3:]) or "0"
