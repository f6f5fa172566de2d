"""Training at notebook size: denoising, rectified flow, and distillation to few steps."""

from sciode.diffusion.training.denoising import drop_labels, preconditioned_loss, prediction_loss
from sciode.diffusion.training.distances import elementwise_huber, pseudo_huber, pyramid, squared
from sciode.diffusion.training.loop import Trained, TrainOptions, train
from sciode.diffusion.training.rectified import flow_loss, reflow_pairs
from sciode.diffusion.training.times import log_normal, stratified, u_shaped, uniform

__all__ = [
    "TrainOptions",
    "Trained",
    "drop_labels",
    "elementwise_huber",
    "flow_loss",
    "log_normal",
    "preconditioned_loss",
    "prediction_loss",
    "pseudo_huber",
    "pyramid",
    "reflow_pairs",
    "squared",
    "stratified",
    "train",
    "u_shaped",
    "uniform",
]
