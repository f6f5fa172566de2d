"""Laws on the plane that flows are tried on, as data: each with an exact sampler and its exact log-density."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

_ARMS, _TWIST = 5, 0.7
_ARM, _SPREAD = np.array([1.5, 0.0]), np.array([0.45, 0.15])
_CELLS, _SIDE = 4, 1.0
_RADIUS, _WIDTH = 1.2, 0.1
_CENTRES = np.array([[-0.6, -0.3], [0.6, 0.3]])


@dataclass(frozen=True)
class Density:
    """A law on the plane: draw(n, generator) -> [n, 2]; log_prob(x [..., 2]) -> [...] in nats, -inf where nothing is.

    source: where the shape comes from.
    """

    draw: Callable[[int, np.random.Generator], Points]
    log_prob: Callable[[Points], Points]
    source: str


def _turned(x: Points, angle: Points) -> Points:
    """Each point turned about the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack((cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]), -1)


def _pinwheel(n: int, generator: np.random.Generator) -> Points:
    flat = _ARM + _SPREAD * generator.standard_normal((n, 2))
    arm = generator.integers(_ARMS, size=n)
    return _turned(flat, 2 * math.pi * arm / _ARMS + _TWIST * np.linalg.norm(flat, axis=-1))


def _pinwheel_log_prob(x: Points) -> Points:
    """A turn by an angle that depends on the radius alone keeps areas, so this is a mixture of Gaussians."""
    logs = []
    for arm in range(_ARMS):
        flat = _turned(x, -2 * math.pi * arm / _ARMS - _TWIST * np.linalg.norm(x, axis=-1))
        logs.append(-0.5 * (((flat - _ARM) / _SPREAD) ** 2).sum(-1))
    return np.logaddexp.reduce(logs) - math.log(2 * math.pi * _SPREAD.prod() * _ARMS)


def _checkerboard(n: int, generator: np.random.Generator) -> Points:
    row = generator.integers(_CELLS, size=n)
    column = 2 * generator.integers(_CELLS // 2, size=n) + row % 2
    corner = np.stack((column, row), -1) - _CELLS / 2
    return _SIDE * (corner + generator.random((n, 2)))


def _checkerboard_log_prob(x: Points) -> Points:
    cell = np.floor(x / _SIDE + _CELLS / 2)
    filled = ((cell >= 0) & (cell < _CELLS)).all(-1) & (cell.sum(-1) % 2 == 0)
    return np.where(filled, -math.log(_CELLS**2 / 2 * _SIDE**2), -np.inf)


def _moons(n: int, generator: np.random.Generator) -> Points:
    moon = generator.integers(2, size=n)
    angle = math.pi * (generator.random(n) + moon)
    radius = _RADIUS + _WIDTH * generator.standard_normal(n)
    return _CENTRES[moon] + radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), -1)


def _moons_log_prob(x: Points) -> Points:
    """Radius and angle are independent; the Jacobian of polar coordinates is the radius."""
    logs = []
    for moon, centre in enumerate(_CENTRES):
        apart = x - centre
        radius = np.maximum(np.linalg.norm(apart, axis=-1), 1e-300)
        inside = (apart[..., 1] >= 0) == (moon == 0)
        log = -0.5 * ((radius - _RADIUS) / _WIDTH) ** 2 - np.log(radius)
        logs.append(np.where(inside, log, -np.inf))
    return np.logaddexp.reduce(logs) - math.log(math.sqrt(2 * math.pi) * _WIDTH * math.pi * 2)


DENSITIES: Mapping[str, Density] = MappingProxyType(
    {
        "pinwheel": Density(
            _pinwheel,
            _pinwheel_log_prob,
            "after Johnson et al.: Composing graphical models with neural nets (2016)",
        ),
        "checkerboard": Density(
            _checkerboard, _checkerboard_log_prob, "after Grathwohl et al.: FFJORD (2019), its 2-D examples"
        ),
        "moons": Density(_moons, _moons_log_prob, "after scikit-learn's make_moons, noise across the arcs only"),
    }
)
"""The laws by name; a new one is one entry here."""
