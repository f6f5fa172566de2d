"""Irregular time series with stable neural SDEs: models, control paths and scikit-learn style estimators."""

from sciode.timeseries.baselines import ChannelMean, LastValue, LinearGuess, StraightLine
from sciode.timeseries.classifier import Draws, IrregularClassifier
from sciode.timeseries.controls import ControlGrid, Controls
from sciode.timeseries.forecaster import IrregularForecaster
from sciode.timeseries.interpolator import IrregularInterpolator
from sciode.timeseries.linear_noise import LinearNoiseSDE
from sciode.timeseries.model import Batch, Paths, SequenceModel
from sciode.timeseries.models import MODELS, ModelKind, build
from sciode.timeseries.readout import SDEClassifier
from sciode.timeseries.stable import EQUATIONS, Equation, StableFields, StableSDE, Tables
from sciode.timeseries.together import Case, fit_together, predict_together

__all__ = [
    "EQUATIONS",
    "MODELS",
    "Batch",
    "Case",
    "ChannelMean",
    "ControlGrid",
    "Controls",
    "Draws",
    "Equation",
    "IrregularClassifier",
    "IrregularForecaster",
    "IrregularInterpolator",
    "LastValue",
    "LinearGuess",
    "LinearNoiseSDE",
    "ModelKind",
    "Paths",
    "SDEClassifier",
    "SequenceModel",
    "StableFields",
    "StableSDE",
    "StraightLine",
    "Tables",
    "build",
    "fit_together",
    "predict_together",
]
