"""Networks by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from sciode.diffusion.networks.dit import DiT, DiTDesign
from sciode.diffusion.networks.mlp import MLP, MLPDesign
from sciode.diffusion.networks.unet import UNet, UNetDesign
from sciode.solvers.suggest import choose
from sciode.training import isolated_rng

__all__ = ["KINDS", "PRESETS", "Design", "build"]

Design = UNetDesign | DiTDesign | MLPDesign

KINDS: Mapping[str, tuple[type[Any], type[Any]]] = MappingProxyType(
    {"unet": (UNetDesign, UNet), "dit": (DiTDesign, DiT), "mlp": (MLPDesign, MLP)}
)
"""What a file calls a kind of network: its design and its class."""

PRESETS: Mapping[str, Design] = MappingProxyType(
    {
        "unet-digits": UNetDesign(width=16, multiples=(1, 2), blocks=1),
        "unet-mnist": UNetDesign(width=32, multiples=(1, 2, 3), blocks=2),
        "dit-digits": DiTDesign(patch=2, width=64, depth=3),
        "dit-mnist": DiTDesign(patch=4, width=160, depth=6, heads=5),
        "mlp-points": MLPDesign(shape=(2,), width=128, depth=3),
        "mlp-digits": MLPDesign(shape=(1, 8, 8), width=256, depth=3, classes=10),
    }
)
"""points: in the plane; digits: 8 x 8, to be trained on a CPU within a minute; mnist: 28 x 28, 3 million parameters, of
which half precision makes a file below 8 MiB."""


def build(design: str | Design, *, seed: int = 0, **changes: Any) -> nn.Module:
    """A fresh network of a design, or of a name of `PRESETS` with `changes` to its fields; same seed, same weights.

    Raises ValueError for an unknown name.
    """
    if isinstance(design, str):
        design = PRESETS[choose("design", design, PRESETS)]
    for name in changes:
        choose(f"{type(design).__name__}", name, vars(design))
    if changes:
        design = type(design)(**{**vars(design), **changes})
    network = next(network for kind, network in KINDS.values() if isinstance(design, kind))
    with isolated_rng(seed, 1):
        return network(design)
