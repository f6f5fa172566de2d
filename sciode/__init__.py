"""Scientific machine learning for notebooks: differential equations and deep learning on one PyTorch backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciode.solvers import (
        PID,
        Backsolve,
        CDETerm,
        Error,
        Fixed,
        HermitePath,
        Jacobian,
        Kinetic,
        LinearPath,
        Local,
        NaturalCubicPath,
        ODETerm,
        RectilinearPath,
        Save,
        SDETerm,
        Solution,
        SolveError,
        Status,
        Stiffness,
        Tableau,
        Taylor,
        expand_time,
        methods,
        sample_seeds,
        solve,
        steer,
    )

__all__ = [
    "PID",
    "Backsolve",
    "CDETerm",
    "Error",
    "Fixed",
    "HermitePath",
    "Jacobian",
    "Kinetic",
    "LinearPath",
    "Local",
    "NaturalCubicPath",
    "ODETerm",
    "RectilinearPath",
    "SDETerm",
    "Save",
    "Solution",
    "SolveError",
    "Status",
    "Stiffness",
    "Tableau",
    "Taylor",
    "expand_time",
    "methods",
    "sample_seeds",
    "solve",
    "steer",
]


def __getattr__(name: str) -> Any:
    """Import torch and the backend when they are first asked for, so that `sciode --help` answers at once."""
    if name not in __all__:
        raise AttributeError(f"module 'sciode' has no attribute {name!r}")
    import importlib

    module = importlib.import_module("sciode.solvers")
    globals().update({public: getattr(module, public) for public in __all__})
    return globals()[name]
