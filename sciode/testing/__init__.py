"""What a method of your own can be held to: contracts, measured orders, problems with exact solutions."""

from .contract import MethodReport, check_method
from .memory import PeakMemory
from .mixture import GaussianMixture
from .orders import convergence_order, dense_order, observed_order
from .problems import EXPONENTIAL, FORCED, HOPF, LOGISTIC, PROBLEMS, ROTATION, ODEProblem, noisy
from .purity import Impurity, Purity

__all__ = [
    "EXPONENTIAL",
    "FORCED",
    "HOPF",
    "LOGISTIC",
    "PROBLEMS",
    "ROTATION",
    "GaussianMixture",
    "Impurity",
    "MethodReport",
    "ODEProblem",
    "PeakMemory",
    "Purity",
    "check_method",
    "convergence_order",
    "dense_order",
    "noisy",
    "observed_order",
]
