"""Irregular time series with stable neural SDEs: models, control paths and scikit-learn style estimators."""

from sciode.timeseries.classifier import Draws, IrregularClassifier
from sciode.timeseries.controls import ControlGrid, Controls
from sciode.timeseries.linear_noise import LinearNoiseSDE, Tables
from sciode.timeseries.readout import SDEClassifier

__all__ = [
    "ControlGrid",
    "Controls",
    "Draws",
    "IrregularClassifier",
    "LinearNoiseSDE",
    "SDEClassifier",
    "Tables",
]
