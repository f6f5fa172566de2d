"""Data sets by name, series on their own clocks, masks, splits and standardisation."""

from .archives import unpack
from .densities import DENSITIES, Density
from .loading import load
from .masks import drop
from .physionet import Stays, stays
from .registry import Manifest, manifest, manifests
from .series import IrregularSeries
from .splits import Split, official, stratified
from .standardizer import Standardizer
from .store import get, path

__all__ = [
    "DENSITIES",
    "Density",
    "IrregularSeries",
    "Manifest",
    "Split",
    "Standardizer",
    "Stays",
    "drop",
    "get",
    "load",
    "manifest",
    "manifests",
    "official",
    "path",
    "stays",
    "stratified",
    "unpack",
]
