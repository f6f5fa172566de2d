"""Small networks that denoise, made into models by EDM's preconditioning, and their files."""

from sciode.diffusion.networks.dit import DiT, DiTDesign
from sciode.diffusion.networks.files import (
    load_model,
    load_statistics,
    pretrained,
    pretrained_statistics,
    save_model,
    save_statistics,
)
from sciode.diffusion.networks.mlp import MLP, MLPDesign
from sciode.diffusion.networks.preconditioned import Preconditioned
from sciode.diffusion.networks.presets import PRESETS, build
from sciode.diffusion.networks.unet import UNet, UNetDesign

__all__ = [
    "MLP",
    "PRESETS",
    "DiT",
    "DiTDesign",
    "MLPDesign",
    "Preconditioned",
    "UNet",
    "UNetDesign",
    "build",
    "load_model",
    "load_statistics",
    "pretrained",
    "pretrained_statistics",
    "save_model",
    "save_statistics",
]
