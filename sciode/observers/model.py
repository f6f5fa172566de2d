"""The two systems as one network: sensors in, the continuum out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from sciode.data.flow import Space

from .continuum import Continuum
from .dynamics import SOLVER, LatentDynamics, Latents
from .scene import Scene

__all__ = ["Design", "Observed", "ObserverModel", "network"]


@dataclass(frozen=True)
class Design:
    """Sizes and kinds of both systems.

    width, layers, heads, depth (of the GRU): sizes; the paper's are 128, 4, 4 and 2. modes: of `Fourier`; the paper has
    about 13, but fixed sensors are few places: a code that is sharp learns them by heart, and stripes appear between
    them. dynamics: "steps" or "ode", solver and regularize of the latter (`LatentDynamics`). places: "absolute" or
    "relative".
    attention: "dense", "nearest" (of k) or "linear" (`SensorAttention`). reader: "gru", "mean" or "max"; causal: see
    `Continuum`. horizon: the unit of time of queries, in steps.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    depth: int = 2
    modes: int = 2
    dynamics: Literal["steps", "ode"] = "steps"
    places: Literal["absolute", "relative"] = "absolute"
    attention: Literal["dense", "nearest", "linear"] = "dense"
    k: int = 16
    reader: Literal["gru", "mean", "max"] = "gru"
    causal: bool = False
    horizon: float = 20.0
    solver: Mapping[str, Any] = field(default_factory=lambda: dict(SOLVER))
    regularize: tuple[str, ...] = ()


class Observed(NamedTuple):
    """values: [B, Q, c], standardised, at the queries. latents: of the sensors, `Latents`."""

    values: Tensor
    latents: Latents


class ObserverModel(nn.Module):
    """System 1 (`dynamics`) and System 2 (`continuum`); what is asked of a `Scene` is standardised values anywhere."""

    def __init__(self, dynamics: LatentDynamics, continuum: Continuum) -> None:
        super().__init__()
        self.dynamics, self.continuum = dynamics, continuum

    def forward(self, scene: Scene, x: Tensor, t: Tensor) -> Observed:
        """Queries x [B, Q, d] at times t [B, Q] float64, in steps from the scene's start on."""
        latents = self.dynamics(scene)
        return Observed(self.continuum(latents.states, scene, x, t), latents)

    def at_sensors(self, latents: Latents) -> Tensor:
        """What System 1 by itself says of the sensors at the anchor times, [B, K, N, c]."""
        return self.dynamics.head(latents.states)


def network(channels: int, space: Space, design: Design) -> ObserverModel:
    """An untrained network, its weights from torch's default generator: see `sciode.training.isolated_rng`."""
    coordinates = 2 * space.dimension if space.kind == "periodic" else space.dimension
    dynamics = LatentDynamics(
        channels, space.dimension, design.width, design.layers, form=design.dynamics, places=design.places,
        embedding=coordinates, solver=design.solver, regularize=design.regularize,
    )  # fmt: skip
    continuum = Continuum(
        channels, coordinates, design.width, heads=design.heads, attention=design.attention, k=design.k,
        reader=design.reader, depth=design.depth, causal=design.causal, horizon=design.horizon, modes=design.modes,
    )  # fmt: skip
    return ObserverModel(dynamics, continuum)
