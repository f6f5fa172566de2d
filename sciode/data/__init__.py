"""Data sets by name, series on their own clocks, masks, splits and standardisation."""

from .archives import unpack
from .loading import load
from .masks import drop
from .registry import Manifest, manifest, manifests
from .series import IrregularSeries
from .splits import Split, official, stratified
from .standardizer import Standardizer
from .store import get, path

__all__ = [
    "IrregularSeries",
    "Manifest",
    "Split",
    "Standardizer",
    "drop",
    "get",
    "load",
    "manifest",
    "manifests",
    "official",
    "path",
    "stratified",
    "unpack",
]
