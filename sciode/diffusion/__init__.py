"""Diffusion and flow models: schedules, predictions, and samplers that keep the order they claim and invert exactly."""

from sciode.diffusion.diffusers import FromDiffusers, from_diffusers
from sciode.diffusion.gradients.settings import GRADIENTS, Adjoint, Checkpoint
from sciode.diffusion.grids import GRIDS, karras, middle, shifted
from sciode.diffusion.guidance import ClassifierFree, ClassifierGuidance, Guidance, MeasurementGuidance
from sciode.diffusion.likelihood import Likelihood, log_likelihood
from sciode.diffusion.noise import initial_noise
from sciode.diffusion.predictions import PREDICTIONS, convert
from sciode.diffusion.prepare import Prepared, prepare
from sciode.diffusion.sample import InversionResult, RoundTrip, SampleResult, invert, round_trip, sample
from sciode.diffusion.samplers.adaptive import runge_kutta_adaptive
from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.samplers.recipe import Recipe, Step
from sciode.diffusion.samplers.registry import SamplerInfo, sampler, samplers
from sciode.diffusion.samplers.runge_kutta import runge_kutta
from sciode.diffusion.schedules import (
    EDM,
    VE,
    Discrete,
    RectifiedFlow,
    Schedule,
    VPCosine,
    VPLinear,
    VPScaledLinear,
    zero_terminal_snr,
)
from sciode.diffusion.statistics import ModelStatistics, estimate_ems
from sciode.diffusion.thresholding import Threshold

__all__ = [
    "EDM",
    "GRADIENTS",
    "GRIDS",
    "PREDICTIONS",
    "VE",
    "Adaptive",
    "Adjoint",
    "Checkpoint",
    "ClassifierFree",
    "ClassifierGuidance",
    "Discrete",
    "FromDiffusers",
    "Guidance",
    "InversionResult",
    "Likelihood",
    "MeasurementGuidance",
    "ModelStatistics",
    "Prepared",
    "Recipe",
    "RectifiedFlow",
    "RoundTrip",
    "SampleResult",
    "Sampler",
    "SamplerInfo",
    "Schedule",
    "Step",
    "Threshold",
    "VPCosine",
    "VPLinear",
    "VPScaledLinear",
    "convert",
    "estimate_ems",
    "from_diffusers",
    "initial_noise",
    "invert",
    "karras",
    "log_likelihood",
    "middle",
    "prepare",
    "round_trip",
    "runge_kutta",
    "runge_kutta_adaptive",
    "sample",
    "sampler",
    "samplers",
    "shifted",
    "zero_terminal_snr",
]
