"""Noise schedules in float64: alpha, sigma, the half log-SNR and its exact inverse."""

from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.schedules.discrete import Discrete, zero_terminal_snr
from sciode.diffusion.schedules.rectified_flow import RectifiedFlow
from sciode.diffusion.schedules.variance_exploding import EDM, VE
from sciode.diffusion.schedules.variance_preserving import VPCosine, VPLinear, VPScaledLinear

__all__ = [
    "EDM",
    "VE",
    "Discrete",
    "RectifiedFlow",
    "Schedule",
    "VPCosine",
    "VPLinear",
    "VPScaledLinear",
    "zero_terminal_snr",
]
