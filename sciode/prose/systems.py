"""The fifteen systems of ordinary differential equations of PROSE, as data.

Source: Liu, Zhang, Schaeffer: PROSE: predicting multiple operators and symbolic expressions using multimodal
transformers (Neural Networks 180, 2024). Numbers are drawn uniformly within 10 % of their nominal values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any

from sciode.prose.trees import Expression, constant, cos, parameter, sin, square, variables

__all__ = ["SYSTEMS", "System", "of_dimension"]

Right = Callable[[tuple[Expression, ...], Any], tuple[Expression, ...]]
"""(variables, parameters by name) -> the components of du/dt."""


@dataclass(frozen=True, eq=False)
class System:
    """du/dt = f(u; p). nominal: parameters by name. spread: how far they are drawn from that, as a share of it.

    start: initial values are uniform in [-start, start]^d. first: the value that the first one has at t = 0, if it is
    time itself. Raises ValueError for another number of equations, or parameters that no equation reads.
    """

    name: str
    dimension: int
    right: Right
    nominal: Mapping[str, float] = field(default_factory=dict)
    spread: float = 0.1
    start: float = 2.0
    first: float | None = None

    def __post_init__(self) -> None:
        if len(self.equations) != self.dimension:
            raise ValueError(f"{self.name}: {self.dimension} equations are wanted, got {len(self.equations)}")
        read = {name for one in self.equations for name in one.parameters}
        if read != set(self.nominal):
            raise ValueError(f"{self.name}: equations read {sorted(read)}, nominal names {sorted(self.nominal)}")

    @property
    def equations(self) -> tuple[Expression, ...]:
        """The right-hand side, with parameters by name."""
        named = SimpleNamespace(**{name: parameter(name) for name in self.nominal})
        return self.right(variables(self.dimension), named)


def _thomas(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return sin(y) - p.b * x, sin(z) - p.b * y, sin(x) - p.b * z


def _lorenz(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return p.sigma * (y - x), x * (p.rho - z) - y, x * y - p.beta * z


def _aizawa(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    last = p.c + p.a * z - z**3 / 3.0 - square(x) + p.f * z * x**3
    return (z - p.b) * x - p.d * y, p.d * x + (z - p.b) * y, last


def _chen_lee(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return p.a * x - y * z, -10.0 * y + x * z, p.d * z + x * y / 3.0


def _dadras(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return 0.5 * y - p.a * x + p.b * y * z, p.c * y - 0.5 * x * z + 0.5 * z, p.d * x * y - p.e * z


def _roessler(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return -y - z, x + p.a * y, p.b + z * (x - p.c)


def _halvorsen(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return tuple(p.a * a - b - c - square(b) / 4.0 for a, b, c in ((x, y, z), (y, z, x), (z, x, y)))


def _rabinovich_fabrikant(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    one = constant(1.0)
    return (
        y * (z - one + square(x)) + p.gamma * x,
        x * (3.0 * z + one - square(x)) + p.gamma * y,
        -2.0 * p.alpha * z - 2.0 * x * y * z,
    )


def _sprott_b(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return p.a * y * z, x - p.b * y, p.c - x * y


def _sprott_linz_f(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return y + z, p.a * y - x, square(x) - z


def _four_wing(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    x, y, z = u
    return p.a * x + y * z, p.b * x + p.c * y - x * z, -z - x * y


def _duffing(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    t, x, v = u
    return constant(1.0), v, p.delta * v + p.alpha * x + p.beta * x**3 + p.gamma * cos(p.omega * t)


def _lorenz_96(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    count = len(u)
    return tuple((u[(i + 1) % count] - u[i - 2]) * u[i - 1] - u[i] + p.force for i in range(count))


def _double_pendulum(u: tuple[Expression, ...], p: Any) -> tuple[Expression, ...]:
    """Equal masses and lengths; g over l is p.ratio. Angles a, b and their speeds."""
    a, b, v, w = u
    apart = 3.0 - cos(2.0 * (a - b))
    twist = 2.0 * sin(a - b)
    first = -3.0 * p.ratio * sin(a) - p.ratio * sin(a - 2.0 * b) - twist * (square(w) + square(v) * cos(a - b))
    second = twist * (2.0 * square(v) + 2.0 * p.ratio * cos(a) + square(w) * cos(a - b))
    return v, w, first / apart, second / apart


SYSTEMS: Mapping[str, System] = MappingProxyType(
    {
        one.name: one
        for one in (
            System("thomas", 3, _thomas, {"b": 0.17}),
            System("lorenz", 3, _lorenz, {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}),
            System("aizawa", 3, _aizawa, {"a": 0.95, "b": 0.7, "c": 0.6, "d": 3.5, "f": 0.1}),
            System("chen_lee", 3, _chen_lee, {"a": 5.0, "d": -0.38}),
            System("dadras", 3, _dadras, {"a": 1.25, "b": 1.15, "c": 0.75, "d": 0.8, "e": 4.0}),
            System("roessler", 3, _roessler, {"a": 0.1, "b": 0.1, "c": 14.0}),
            System("halvorsen", 3, _halvorsen, {"a": -0.35}),
            System("rabinovich_fabrikant", 3, _rabinovich_fabrikant, {"alpha": 0.98, "gamma": 0.1}),
            System("sprott_b", 3, _sprott_b, {"a": 0.4, "b": 1.2, "c": 1.0}),
            System("sprott_linz_f", 3, _sprott_linz_f, {"a": 0.5}),
            System("four_wing", 3, _four_wing, {"a": 0.2, "b": 0.01, "c": -0.4}),
            System(
                "duffing",
                3,
                _duffing,
                {"delta": -0.02, "alpha": -1.0, "beta": -5.0, "gamma": 8.0, "omega": 0.5},
                first=0.0,
            ),
            System("lorenz_96_4", 4, _lorenz_96, {"force": 8.0}),
            System("lorenz_96_5", 5, _lorenz_96, {"force": 8.0}),
            System("double_pendulum", 4, _double_pendulum, {"ratio": 9.81}),
        )
    }
)
"""By name."""


def of_dimension(most: int) -> tuple[str, ...]:
    """Return the names of systems of at most so many components: 3 and 5 are the sets of the paper."""
    return tuple(name for name, one in SYSTEMS.items() if one.dimension <= most)
