"""A boundary-value problem as data: fields, an equation, where it holds, what is known on boundaries and in the inside.

    problem = Problem(
        name="burgers",
        names=Names(("x", "t"), ("u",)),
        domain=Box((-1, 0), (1, 1)),
        equation=lambda d, p: d.u_t + d.u * d.u_x - p.nu * d.u_xx,
        conditions=(dirichlet(Face("t", -1), start), dirichlet(Face("x"), zero)),
        parameters={"nu": 0.01},
    )

Time is a coordinate like others. Functions of points are given all of them, x [..., d] -> [..., c].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Number
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.pde import Domain
from sciode.pinn.agreement import disagreement
from sciode.pinn.conditions import Condition, Periodic
from sciode.pinn.derivatives import ARMS, Derivatives, Equation, Names, asked_of, probed, tried
from sciode.pinn.taylor import Orders

__all__ = ["Hard", "Problem", "Reference", "Unknown"]

_PROBE_POINTS, _PROBE_SEED = 4, 0
_SIZED, _FAR = 32, 100.0
"""Of so many values the largest is looked at; a field so many times larger or smaller than its scale is warned of."""

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Unknown:
    """A number of the equation that is to be found: where the search begins, and whether it can only be positive.

    A positive one is e^v with v trained. To equations an unknown is a tensor, a number an arm: torch.exp(p.k), for
    math.exp(p.k) would have no derivative, and fails. ValueError for a positive one that begins at or below 0.
    """

    initial: float
    positive: bool = False

    def __post_init__(self) -> None:
        if self.positive and not self.initial > 0:
            raise ValueError(f"a positive unknown must begin above 0, got {self.initial}")


class Reference(NamedTuple):
    """A solution at points [R, d], exact or from a fine grid: values [R, c]; tensors or arrays."""

    points: Tensor
    values: Tensor


@dataclass(frozen=True)
class Hard:
    """u = value(x) + distance(x) network(x): conditions that hold whatever the weights, where the distance is 0.

    value: x [..., d] -> [..., c]; distance: x [..., d] -> [..., 1], as smooth as the equation needs.
    """

    value: Function
    distance: Function


@dataclass(frozen=True)
class Problem:
    """An equation R = 0 for fields on a domain, with what is known of them.

    Attributes
    ----------
    equation: (d, p) -> residual at each point, or a tuple of several; d has fields, derivatives and coordinates by name
        (d.u, d.u_xx, d.x), p the parameters (p.nu). It runs once at 4 points when the problem is made, so that its own
        error, with its own traceback, comes then.
    conditions: what is known (`sciode.pinn.dirichlet`, `neumann`, `robin`, `Periodic`, `observed`); one alone will do.
    parameters: known numbers. unknowns: those to be found, by name.
    flux: (d, p) -> one component an axis, a tensor or a number, of what flows through an interface; None: grad u.
    exact: x [..., d] -> [..., c]; reference: values on a grid of its own. Errors are measured against either.
    time: the name of the coordinate that causal weights follow. hard: conditions that need no loss.
    scale: about how large each field is, {"p": 1e5}, 1 if not said: its networks are multiplied by it. Coordinates are
        scaled by themselves, piece by piece; first-kind values far from their field's scale are warned of.
    corners: whether first-kind conditions, periodic and hard ones must agree where their sets touch ("check") or may
        not ("ignore"). Of sets that are no faces of a box, within 0.4 % of the domain's sides in the plane.

    Raises ValueError for names or shapes that do not fit, or conditions that contradict one another.
    """

    name: str
    names: Names
    domain: Domain
    equation: Equation
    conditions: tuple[Condition | Periodic, ...] = ()
    parameters: Mapping[str, float] = field(default_factory=dict)
    unknowns: Mapping[str, Unknown] = field(default_factory=dict)
    flux: Equation | None = None
    exact: Function | None = None
    reference: Reference | None = None
    time: str | None = None
    hard: Hard | None = None
    scale: Mapping[str, float] = field(default_factory=dict)
    corners: str = "check"
    source: str = ""

    def __post_init__(self) -> None:
        alone = isinstance(self.conditions, Condition | Periodic)
        object.__setattr__(self, "conditions", (self.conditions,) if alone else tuple(self.conditions))
        self._check_kinds()
        for name, one in self.unknowns.items():
            if not isinstance(one, Unknown):
                raise ValueError(f"unknowns: {name} is {one!r}; say where its search begins: Unknown({one!r})")
        if self.names.axes != self.domain.dimension:
            raise ValueError(f"{self.names.axes} coordinates on a domain of {self.domain.dimension} axes: name each")
        if self.time is not None and self.time not in self.names.coordinates:
            raise ValueError(f"time is {self.time!r}, which is no coordinate: {', '.join(self.names.coordinates)}")
        if set(self.scale) - set(self.names.fields) or not all(0 < one < math.inf for one in self.scale.values()):
            raise ValueError(f"scale must be positive numbers of {', '.join(self.names.fields)}, got {self.scale}")
        if twice := set(self.parameters) & set(self.unknowns):
            raise ValueError(f"{', '.join(sorted(twice))}: a parameter is known or to be found, not both")
        if len({one.name for one in self.conditions}) != len(self.conditions):
            raise ValueError("conditions need names of their own: give name= to those of one kind")
        if self.reference is not None:
            object.__setattr__(self, "reference", self._checked(self.reference))
        probe = self._probe
        _ = self.orders
        for one in self.conditions:
            one.check(self.names, self.domain, probe, self.started)
        for kind, function, width in (
            ("exact", self.exact, self.names.channels),
            ("hard.value", self.hard and self.hard.value, self.names.channels),
            ("hard.distance", self.hard and self.hard.distance, 1),
        ):
            if function and tuple(function(probe).shape) != (*probe.shape[:-1], width):
                raise ValueError(f"{kind} must map points [..., {self.names.axes}] to [..., {width}]")
        if self.corners not in ("check", "ignore"):
            raise ValueError(f'corners must be "check" or "ignore", got {self.corners!r}')
        held = None if self.hard is None else (self.hard.value, self.hard.distance)
        if self.corners == "check" and (said := disagreement(self.names, self.domain, self.conditions, held)):
            raise ValueError(f'{said}: mend the data, or say corners="ignore"')

        self._warn_of_sizes()

    def _check_kinds(self) -> None:
        """Raise ValueError for arguments that were mistaken for others."""
        if not isinstance(self.names, Names):
            raise ValueError(f'names: {self.names!r} is no Names: give Names(("x", "t"), ("u",))')
        if not isinstance(self.domain, Domain):
            raise ValueError(f"domain: {self.domain!r} is no Domain: give Box(low, high), Ball(...), Slab(...), ...")
        for one in self.conditions:
            if not isinstance(one, Condition | Periodic):
                raise ValueError(f"conditions: {one!r} is none: give dirichlet(...), neumann(...), Periodic(...), ...")
        for name, value in dict(self.parameters).items():
            if not isinstance(value, Number | Tensor):
                raise ValueError(f"parameters: {name} is {value!r}: give a number")

    def _checked(self, known: Reference) -> Reference:
        """The reference as tensors. ValueError for values that would be compared with those of other points."""
        points, values = (torch.as_tensor(part) for part in known)
        axes, channels = self.names.axes, self.names.channels
        if points.shape != (len(values), axes) or values.shape != (len(points), channels) or not len(points):
            raise ValueError(
                f"reference must be points [R, {axes}] and values [R, {channels}], got {tuple(points.shape)} and "
                f"{tuple(values.shape)}"
            )
        outside = int((~self.domain.contains(points.to("cpu", torch.float64))).sum())
        if outside or not bool(values.isfinite().all()):
            raise ValueError(
                f"reference: {outside} of {len(points)} points lie outside the domain, or values are not finite"
            )
        return Reference(points, values)

    def _warn_of_sizes(self) -> None:
        """Networks begin with values of about 1: far larger or smaller ones take for ever to reach."""
        largest = dict.fromkeys(self.names.fields, 0.0)
        for one in self.conditions:
            if isinstance(one, Condition) and one.fixes:
                points = one.where.draw(self.names, self.domain, _SIZED, _PROBE_SEED).points
                largest[one.fixes] = max(largest[one.fixes], float(one.value(points)[:, 0].abs().max()))
        for name, size in largest.items():
            if size and not 1 / _FAR < size / self.scale.get(name, 1.0) < _FAR:
                warnings.warn(
                    f"{self.name}: {name} is told to be as large as {size:.3g}, and its networks begin near "
                    f'{self.scale.get(name, 1.0):g}: say scale={{"{name}": {size:.1g}}}',
                    stacklevel=4,
                )

    @cached_property
    def _probe(self) -> Tensor:
        return probed(self.domain.sample(_PROBE_POINTS, _PROBE_SEED, dtype=torch.float64))

    @cached_property
    def orders(self) -> frozenset[Orders]:
        """What the equation reads."""
        return asked_of(self.names, self._probe, self.started, self.equation)

    @cached_property
    def flux_orders(self) -> frozenset[Orders]:
        """What the flux reads."""

        def read(d: Derivatives, p: Any) -> Any:
            return crossing(self, d, p, torch.ones_like(d.points)).unbind(-1)

        return asked_of(self.names, self._probe, self.started, read)

    @property
    def digits(self) -> str:
        """What the equation, the flux and the conditions make of made-up values, and what is told and built in, to nine
        digits: functions have no other sign by which a kept run knows them.
        """
        points = probed(self.domain.sample(_SIZED, _PROBE_SEED, dtype=torch.float64))
        found = [tried(self.names, points, self.started, self.equation)[0]]
        if self.flux is not None:
            normals = torch.arange(1.0, 1.0 + self.names.axes, dtype=torch.float64).expand(points.shape)
            read = lambda d, p: crossing(self, d, p, normals).unbind(-1)  # noqa: E731
            found.append(tried(self.names, points, self.started, read)[0])
        if self.hard is not None:
            found += [self.hard.value(points), self.hard.distance(points)]
        for one in self.conditions:
            if isinstance(one, Condition):
                own = one.where.draw(self.names, self.domain, _SIZED, _PROBE_SEED).points
                read = lambda d, p, one=one: one.residual(d, p, one.value(d.points))  # noqa: E731
                found += [one.value(own), tried(self.names, probed(own), self.started, read)[0]]
        return ", ".join(f"{_mark(values):.9g}" for values in found)

    @property
    def started(self) -> SimpleNamespace:
        """The parameters, unknown ones where their search begins, a number an arm as when they are searched for."""
        unknown = {
            name: torch.full((ARMS, 1, 1), one.initial, dtype=torch.float64) for name, one in self.unknowns.items()
        }
        return SimpleNamespace(**self.parameters, **unknown)


def _mark(values: Tensor) -> float:
    """A number by which values are known, their signs and order too."""
    flat = values.double().flatten()
    return float(flat @ (1.5 + torch.sin(torch.arange(len(flat), dtype=torch.float64))))


def crossing(problem: Problem, d: Derivatives, p: Any, normals: Tensor) -> Tensor:
    """Return the flux through a surface with these normals [..., d], [..., m]."""
    if problem.flux is None:
        return d.directed(normals)
    parts = problem.flux(d, p)
    if len(parts) != problem.names.axes:
        raise ValueError(f"flux gives {len(parts)} components: give one for each of {problem.names.coordinates}")
    total: Any = 0.0
    for axis, part in enumerate(parts):
        total = total + normals[..., axis] * part
    return total.unsqueeze(-1)
