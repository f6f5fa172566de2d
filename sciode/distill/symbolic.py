"""PySR, an evolutionary search over expressions, behind the same result; loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Found", "search"]

OPTIONS: dict[str, Any] = {
    "niterations": 40,
    "binary_operators": ["+", "-", "*", "/"],
    "unary_operators": ["sin", "cos", "abs"],
    "model_selection": "best",
    "deterministic": True,
    "parallelism": "serial",
    "progress": False,
    "verbosity": 0,
}
"""What is passed to `PySRRegressor`; one process, so that a seed gives one result."""


class Found(NamedTuple):
    """One component's expression and its function, y [*batch, D] -> [*batch]."""

    expression: str
    function: Callable[[Tensor], Tensor]


def search(y: Tensor, target: Tensor, names: Sequence[str], seed: int, options: Mapping[str, Any]) -> Found:
    """Search an expression of y [N, D] for target [N] by PySR.

    Raises ImportError, naming the extra, where PySR is missing.
    Source: Cranmer: Interpretable Machine Learning for Science with PySR and SymbolicRegression.jl (2023).
    """
    try:
        from pysr import PySRRegressor  # type: ignore[import-not-found]
    except ImportError as missing:
        raise ImportError(
            'backend="pysr" needs PySR, which brings Julia: pip install "sciode[symbolic]", or use backend="sparse"'
        ) from missing
    model = PySRRegressor(**{**OPTIONS, "random_state": seed, **options})
    model.fit(y.cpu().numpy(), target.cpu().numpy(), variable_names=list(names))
    module = model.pytorch()

    def function(state: Tensor) -> Tensor:
        # PySR's modules read rows, and a constant comes back as one number.
        rows = state.reshape(-1, state.shape[-1])
        return module.to(state)(rows).expand(len(rows)).reshape(state.shape[:-1])

    return Found(str(model.sympy()), function)
