"""Data sets by name, series on their own clocks, flows on points, masks, splits and standardisation."""

from .archives import unpack
from .covariates import Covariates
from .densities import DENSITIES, Density
from .flow import Flow, FlowSet, Space
from .flow_files import read_flows, write_flow_sets
from .flow_sets import flows
from .hopper_simulation import simulate_hopper, simulated_hopper
from .liver import Patients, pbc2
from .loading import load
from .masks import drop
from .original_flows import dino_shallow_water, eagle, eagle_simulations
from .physionet import Stays, stays
from .registry import Manifest, manifest, manifests
from .series import IrregularSeries
from .splits import Split, in_order, official, stratified
from .standardizer import Standardizer
from .store import get, path
from .sums import pin
from .windows import Windows, hopper, windows

__all__ = [
    "DENSITIES",
    "Covariates",
    "Density",
    "Flow",
    "FlowSet",
    "IrregularSeries",
    "Manifest",
    "Patients",
    "Space",
    "Split",
    "Standardizer",
    "Stays",
    "Windows",
    "dino_shallow_water",
    "drop",
    "eagle",
    "eagle_simulations",
    "flows",
    "get",
    "hopper",
    "in_order",
    "load",
    "manifest",
    "manifests",
    "official",
    "path",
    "pbc2",
    "pin",
    "read_flows",
    "simulate_hopper",
    "simulated_hopper",
    "stays",
    "stratified",
    "unpack",
    "windows",
    "write_flow_sets",
]
