"""The visible training loop, and what makes it safe: isolated randomness, atomic checkpoints, a log a line an epoch."""

from sciode.training.average import Average
from sciode.training.blocks import Block, Following
from sciode.training.broyden import Broyden
from sciode.training.checkpoint import checksum, load_checkpoint, save_checkpoint
from sciode.training.descent import INSR, Descent, descend
from sciode.training.device import choose_device
from sciode.training.fit import Loss, evaluate, fit
from sciode.training.isolation import derive_seed, isolated_rng, threads
from sciode.training.lbfgs import LBFGS
from sciode.training.least_squares import LevenbergMarquardt, Minimum, minimise
from sciode.training.lockstep import Losses, epochs_shown, fit_lockstep
from sciode.training.log import append_json, read_json_lines
from sciode.training.newton import NewtonCG
from sciode.training.options import FitOptions, learning_rate
from sciode.training.recorded import Staged
from sciode.training.run import Batch, Epoch, History
from sciode.training.side_by_side import Adam, Minimiser, Objective
from sciode.training.stopwatch import Stopwatch
from sciode.training.weights import decaying, growing

__all__ = [
    "INSR",
    "LBFGS",
    "Adam",
    "Average",
    "Batch",
    "Block",
    "Broyden",
    "Descent",
    "Epoch",
    "FitOptions",
    "Following",
    "History",
    "LevenbergMarquardt",
    "Loss",
    "Losses",
    "Minimiser",
    "Minimum",
    "NewtonCG",
    "Objective",
    "Staged",
    "Stopwatch",
    "append_json",
    "checksum",
    "choose_device",
    "decaying",
    "derive_seed",
    "descend",
    "epochs_shown",
    "evaluate",
    "fit",
    "fit_lockstep",
    "growing",
    "isolated_rng",
    "learning_rate",
    "load_checkpoint",
    "minimise",
    "read_json_lines",
    "save_checkpoint",
    "threads",
]
