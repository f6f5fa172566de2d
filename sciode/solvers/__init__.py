"""The backend: explicit Runge-Kutta and SDE methods, their control, noise, gradients and dense output."""

from .adjoints import Backsolve
from .brownian import sample_seeds
from .controllers import PID, Fixed
from .interpolants import ControlPath, HermitePath, LinearPath, NaturalCubicPath, RectilinearPath
from .methods import MethodInfo, methods
from .outputs import Save
from .regularizers import Error, Jacobian, Kinetic, Local, Regularizer, Stiffness, Taylor, steer
from .solution import Solution, SolveError, Stats
from .solve import solve
from .status import Status
from .steppers import ExplicitRK, Step, Stepper
from .tableaux import Tableau
from .terms import CDETerm, ODETerm, SDETerm
from .trees import expand_time

__all__ = [
    "PID",
    "Backsolve",
    "CDETerm",
    "ControlPath",
    "Error",
    "ExplicitRK",
    "Fixed",
    "HermitePath",
    "Jacobian",
    "Kinetic",
    "LinearPath",
    "Local",
    "MethodInfo",
    "NaturalCubicPath",
    "ODETerm",
    "RectilinearPath",
    "Regularizer",
    "SDETerm",
    "Save",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "Step",
    "Stepper",
    "Stiffness",
    "Tableau",
    "Taylor",
    "expand_time",
    "methods",
    "sample_seeds",
    "solve",
    "steer",
]
