"""Scientific machine learning for notebooks: differential equations and deep learning on one PyTorch backend."""

from sciode.solvers import (
    PID,
    Backsolve,
    Error,
    Fixed,
    ODETerm,
    Save,
    SDETerm,
    Solution,
    SolveError,
    Status,
    Stiffness,
    Tableau,
    expand_time,
    methods,
    sample_seeds,
    solve,
)

__all__ = [
    "PID",
    "Backsolve",
    "Error",
    "Fixed",
    "ODETerm",
    "SDETerm",
    "Save",
    "Solution",
    "SolveError",
    "Status",
    "Stiffness",
    "Tableau",
    "expand_time",
    "methods",
    "sample_seeds",
    "solve",
]
