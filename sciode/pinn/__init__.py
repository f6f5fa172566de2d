"""Physics-informed networks on a domain or its pieces, with interface conditions as data and arms as an axis."""

from sciode.pinn.adaptive import R3, RAD
from sciode.pinn.balance import NTK, Balance, GradientAnnealing, ReLoBRaLo, ResidualAttention, SelfAdaptive
from sciode.pinn.causal import Causal
from sciode.pinn.conditions import Condition, Edge, Face, Given, Periodic, Walls, dirichlet, neumann, observed, robin
from sciode.pinn.decomposition import Decomposition, grid, single, strips, windows
from sciode.pinn.derivatives import Derivatives, Names
from sciode.pinn.families import FAMILIES, Family
from sciode.pinn.interfaces import CONDITIONS, CPINN, XPINN, weights_of
from sciode.pinn.library import Library, muon, soap
from sciode.pinn.loss import Weights
from sciode.pinn.networks import Network
from sciode.pinn.problem import Hard, Problem, Reference, Unknown
from sciode.pinn.solution import Solution
from sciode.pinn.solve import solve
from sciode.pinn.terms import Numbers
from sciode.pinn.training import Redraw

__all__ = [
    "CONDITIONS",
    "CPINN",
    "FAMILIES",
    "NTK",
    "R3",
    "RAD",
    "XPINN",
    "Balance",
    "Causal",
    "Condition",
    "Decomposition",
    "Derivatives",
    "Edge",
    "Face",
    "Family",
    "Given",
    "GradientAnnealing",
    "Hard",
    "Library",
    "Names",
    "Network",
    "Numbers",
    "Periodic",
    "Problem",
    "ReLoBRaLo",
    "Redraw",
    "Reference",
    "ResidualAttention",
    "SelfAdaptive",
    "Solution",
    "Unknown",
    "Walls",
    "Weights",
    "dirichlet",
    "grid",
    "muon",
    "neumann",
    "observed",
    "robin",
    "single",
    "soap",
    "solve",
    "strips",
    "weights_of",
    "windows",
]
