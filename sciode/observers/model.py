"""The two systems as one network: sensors in, the continuum out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sciode.data.flow import Space
from sciode.solvers.suggest import choose

from .attention import WAYS
from .continuum import READERS, Continuum
from .dynamics import FORMS, SOLVER, STATES, LatentDynamics, Latents
from .plain import plain_fields
from .scene import Scene
from .surface import surface_rows, time_weights
from .waves import MIXINGS, wave_numbers, waves_at

__all__ = ["BASES", "PLAIN", "PUBLISHED", "Design", "Observed", "ObserverModel", "Simulated", "network"]

BASES = ("none", "cubic", "stretched", "fitted", "climate")
PLAIN: Mapping[str, Any] = MappingProxyType({"base": "none", "waves": 0, "attention": "dense"})
"""Neither a base nor waves, and attention to all sensors."""
PUBLISHED: Mapping[str, Any] = MappingProxyType({**PLAIN, "state": "latent", "mixing": "each"})
"""What the paper has, and observers had that were saved before there was a choice."""
_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "base": BASES, "state": STATES, "mixing": MIXINGS, "dynamics": FORMS, "attention": WAYS, "reader": READERS,
})  # fmt: skip


@dataclass(frozen=True)
class Design:
    """Sizes and kinds of both systems; those of the paper are `PUBLISHED`, and others where these did better.

    width, layers, heads, depth (of the GRU): sizes; the paper's are 128, 4, 4 and 2. modes: of `Fourier`; the paper has
    about 13, but fixed sensors are few places: a code that is sharp learns them by heart, and stripes appear between
    them. dynamics: "steps" or "ode", solver and regularize of the latter (`LatentDynamics`). places: "absolute" or
    "relative". state: "values": what sensors are said to read goes on beside their latent states, "latent": it is
    decoded from them, as the paper has it (`LatentDynamics`).
    waves: sensors hear of each other by waves up to this number beside edges (`wave_numbers`; with "absolute" places);
    0: by edges alone, as the paper has it. 6 to 10 are good where one place acts on all others, as pressure does.
    mixing: "full": each wave has a complex matrix of the channels; "each": a number a channel (`Exchange`).
    base: "none": the continuum is decoded, as the paper has it. "cubic": the continuum corrects a cubic surface through
    what System 1 says of the sensors, whose first readings are kept as they are: never far from interpolation.
    "stretched": the same in a space whose axes are stretched as suits the readings best (`chosen_stretch`). "fitted":
    the order of the surface too is what suits them best (`chosen_order`). "climate": no surface, but the best linear
    estimate of all channels at once, by their covariance as readings of the first flow's sensors have it
    (`fitted_climate`); on spheres and in periodic boxes. Of N sensors, c channels and P waves it keeps 8 c^2 P N bytes
    for each way of hiding sensors. nugget: the variance of errors in what is foreseen of the sensors that this estimate
    reckons with, in units of each channel's: with none, the errors of dense sensors come out many times larger
    between them.
    attention: "dense", "nearest" (of k) or "linear" (`SensorAttention`). reader: "gru", "mean" or "max"; causal: see
    `Continuum`. horizon: the unit of time of queries, in steps.

    Raises ValueError for kinds that are unknown, and sizes of which no network can be made.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    depth: int = 2
    modes: int = 2
    dynamics: Literal["steps", "ode"] = "steps"
    places: Literal["absolute", "relative"] = "absolute"
    state: Literal["values", "latent"] = "values"
    waves: int = 6
    mixing: Literal["full", "each"] = "full"
    base: Literal["none", "cubic", "stretched", "fitted", "climate"] = "fitted"
    nugget: float = 0.03
    attention: Literal["dense", "nearest", "linear"] = "nearest"
    k: int = 16
    reader: Literal["gru", "mean", "max"] = "gru"
    causal: bool = False
    horizon: float = 20.0
    solver: Mapping[str, Any] = field(default_factory=lambda: dict(SOLVER))
    regularize: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, kinds in _KINDS.items():
            choose(name, getattr(self, name), kinds)
        for name in ("width", "layers", "heads", "depth", "modes", "waves", "k"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} counts, and must be a whole number: got {getattr(self, name)!r}")
        if isinstance(self.regularize, str):
            raise ValueError(f"regularize: give a tuple of names, ({self.regularize!r},)")
        if self.waves < 0 or (self.waves and self.places == "relative"):
            raise ValueError('waves must be >= 0, and 0 with places="relative": they know where they are')
        if not isinstance(self.nugget, Real) or not 0.0 <= self.nugget < math.inf:
            raise ValueError(f"nugget is a variance, 0 or more: got {self.nugget!r}")
        # What the two systems refuse is known without their weights.
        with torch.device("meta"):
            _systems(1, 1, 1, min(self.waves, 1), self)


class Simulated(NamedTuple):
    """System 1's part of an answer. latents: `Latents`. told: [B, K, N, c], what it says of the sensors at the anchor
    times. surface: [B, N + p, K, c], what the surface through it is made of, of a climate [B, 2 P, K, c], its waves;
    None without a base."""

    latents: Latents
    told: Tensor
    surface: Tensor | None

    def until(self, count: int) -> Simulated:
        """The same at the first `count` anchor times alone."""
        latents = self.latents._replace(states=self.latents.states[:, :count], told=self.latents.told[:, :count])
        surface = None if self.surface is None else self.surface[:, :, :count]
        return Simulated(latents, self.told[:, :count], surface)


class Observed(NamedTuple):
    """values: [B, Q, c], standardised, at the queries. latents, told: of the sensors, see `Simulated`."""

    values: Tensor
    latents: Latents
    told: Tensor


class ObserverModel(nn.Module):
    """System 1 (`dynamics`) and System 2 (`continuum`); what is asked of a `Scene` is standardised values anywhere.

    base: see `Design`.
    """

    def __init__(self, dynamics: LatentDynamics, continuum: Continuum, base: str = "none") -> None:
        super().__init__()
        self.dynamics, self.continuum, self.base = dynamics, continuum, base

    def forward(self, scene: Scene, x: Tensor, t: Tensor) -> Observed:
        """Queries x [B, Q, d] at times t [B, Q] float64, in steps from the scene's start on."""
        simulated = self.simulated(scene)
        return Observed(self.asked(simulated, scene, x, t), simulated.latents, simulated.told)

    def simulated(self, scene: Scene) -> Simulated:
        """What is made once, however many queries follow."""
        latents = self.dynamics(scene)
        told = latents.told
        if self.base == "none":
            return Simulated(latents, told, None)
        gap = torch.where(scene.read, scene.start - told[:, 0], 0.0)
        told = (told + gap.unsqueeze(1)) * scene.there[:, None, :, None]
        if self.base == "climate":
            return Simulated(latents, told, _estimated(told, scene))
        inverse = scene.span.surface
        assert inverse is not None
        values = told.double().transpose(1, 2)  # [B, N, K, c]
        return Simulated(latents, told, (inverse @ values.flatten(2)).unflatten(2, values.shape[2:]))

    def based(self, simulated: Simulated, scene: Scene, x: Tensor) -> Tensor | None:
        """What the base says of places x [B, Q, d] at all anchor times, [B, Q, K, c]; None without a base."""
        if simulated.surface is None:
            return None
        return (_rows(x, scene) @ simulated.surface.flatten(2)).unflatten(2, simulated.surface.shape[2:])

    def asked(self, simulated: Simulated, scene: Scene, x: Tensor, t: Tensor, known: Tensor | None = None) -> Tensor:
        """Values [B, Q, c] at queries; see `forward`. known: `based` of the same places, where it is at hand."""
        states = simulated.latents.states
        known = self.based(simulated, scene, x) if known is None else known
        if known is None:
            return self.continuum(states, scene, x, t)
        index, weight = time_weights(scene.clock, t, self.continuum.causal)
        near = known.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, known.shape[-1]))
        base = (weight.unsqueeze(-1) * near).sum(2).to(states)
        return self.continuum(states, scene, x, t, base)


def _estimated(told: Tensor, scene: Scene) -> Tensor:
    """The waves [B, 2 P, K, c] that a climate makes of what sensors are said to read, [B, K, N, c]."""
    weights, usual = scene.span.climate, scene.span.usual
    assert weights is not None and usual is not None
    weights = weights.flatten(2)
    if len(weights) == 1:  # one layout: one product for all flows, which reads these many numbers once
        waves = (told.permute(0, 1, 3, 2).flatten(2) @ weights[0].T).transpose(1, 2)
    else:
        waves = weights @ told.permute(0, 3, 2, 1).flatten(1, 2)
    return (waves + usual.unsqueeze(2)).unflatten(1, (told.shape[3], -1)).permute(0, 2, 3, 1)


def _rows(x: Tensor, scene: Scene) -> Tensor:
    """What a base is made of at places x [B, Q, d]: [B, Q, N + p] of a surface, [B, Q, 2 P] of a climate."""
    span = scene.span
    if span.climate is None:
        return surface_rows(x, scene.points, scene.there, scene.space, span.stretch, span.order)
    rows = waves_at(x.flatten(0, 1), scene.space, span.degree, span.numbers).flatten(1)
    return rows.to(span.climate).unflatten(0, x.shape[:2])


def network(channels: int, space: Space, design: Design) -> ObserverModel:
    """An untrained network in float32, its weights from torch's default generator: see `isolated_rng`."""
    coordinates = 2 * space.dimension if space.kind == "periodic" else space.dimension
    waves = len(wave_numbers(space, design.waves)) if design.waves else 0
    return _systems(channels, space.dimension, coordinates, waves, design).float()


def _systems(channels: int, dimension: int, coordinates: int, waves: int, design: Design) -> ObserverModel:
    dynamics = LatentDynamics(
        channels, dimension, design.width, design.layers, form=design.dynamics, places=design.places,
        embedding=coordinates, solver=design.solver, regularize=design.regularize, waves=waves, state=design.state,
        mixing=design.mixing,
    )  # fmt: skip
    continuum = Continuum(
        channels, coordinates, design.width, heads=design.heads, attention=design.attention, k=design.k,
        reader=design.reader, depth=design.depth, causal=design.causal, horizon=design.horizon, modes=design.modes,
        corrects=design.base != "none",
    )  # fmt: skip
    return ObserverModel(dynamics, continuum, design.base)
