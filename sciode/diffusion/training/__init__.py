"""Training at notebook size: denoising, rectified flow, and distillation to few steps."""

from sciode.diffusion.training.denoising import denoise, drop_labels, preconditioned_loss, prediction_loss
from sciode.diffusion.training.distances import elementwise_huber, pseudo_huber, pyramid, squared
from sciode.diffusion.training.distillation import (
    Segments,
    consistency,
    guided,
    slam_loss,
    sub_paths,
    tscd_loss,
)
from sciode.diffusion.training.loop import Trained, TrainOptions, train
from sciode.diffusion.training.rectified import flow_loss, reflow_pairs, straighten
from sciode.diffusion.training.times import log_normal, stratified, u_shaped, uniform

__all__ = [
    "Segments",
    "TrainOptions",
    "Trained",
    "consistency",
    "denoise",
    "drop_labels",
    "elementwise_huber",
    "flow_loss",
    "guided",
    "log_normal",
    "preconditioned_loss",
    "prediction_loss",
    "pseudo_huber",
    "pyramid",
    "reflow_pairs",
    "slam_loss",
    "squared",
    "straighten",
    "stratified",
    "sub_paths",
    "train",
    "tscd_loss",
    "u_shaped",
    "uniform",
]
