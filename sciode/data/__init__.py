"""Data sets by name, series on their own clocks, masks, splits and standardisation."""

from .archives import unpack
from .covariates import Covariates
from .densities import DENSITIES, Density
from .hopper_simulation import simulate_hopper, simulated_hopper
from .liver import Patients, pbc2
from .loading import load
from .masks import drop
from .physionet import Stays, stays
from .registry import Manifest, manifest, manifests
from .series import IrregularSeries
from .splits import Split, in_order, official, stratified
from .standardizer import Standardizer
from .store import get, path
from .windows import Windows, hopper, windows

__all__ = [
    "DENSITIES",
    "Covariates",
    "Density",
    "IrregularSeries",
    "Manifest",
    "Patients",
    "Split",
    "Standardizer",
    "Stays",
    "Windows",
    "drop",
    "get",
    "hopper",
    "in_order",
    "load",
    "manifest",
    "manifests",
    "official",
    "path",
    "pbc2",
    "simulate_hopper",
    "simulated_hopper",
    "stays",
    "stratified",
    "unpack",
    "windows",
]
