"""The catalogue of methods: it collects the constants that exist, so that a method is one declaration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .steppers import ExplicitRK, SDEStepper, Stepper, from_table
from .steppers import stochastic as written_out
from .suggest import unknown
from .tableaux import AdditiveTableau, ItoTableau, StratonovichTableau, Tableau, explicit, stochastic

__all__ = ["MethodInfo", "methods", "stepper_of", "suited"]


@dataclass(frozen=True)
class MethodInfo:
    """What the catalogue says of a method; `order` is the claim that the tests check."""

    name: str
    kind: str
    order: float
    error_order: float | None
    stages: int
    stiff: bool
    adaptive: bool
    problem: str
    reference: str


@lru_cache(maxsize=1)
def _catalogue() -> dict[tuple[str, str], Stepper]:
    steppers: list[Stepper] = [ExplicitRK(table) for table in explicit().values()]
    steppers += [value for value in vars(written_out).values() if isinstance(value, Stepper)]
    steppers += [from_table(table) for table in stochastic().values()]
    return {(stepper.kind, stepper.name): stepper for stepper in steppers}


def methods(kind: str | None = None) -> dict[Any, MethodInfo]:
    """All methods, keyed (kind, name); with a kind ("ode", "sde"), keyed by name."""
    infos = {key: _info(stepper) for key, stepper in _catalogue().items()}
    if kind is None:
        return infos
    kinds = {k for k, _ in infos}
    if kind not in kinds:
        raise unknown("kind", kind, kinds)
    return {name: info for (k, name), info in infos.items() if k == kind}


def _info(stepper: Stepper) -> MethodInfo:
    return MethodInfo(
        name=stepper.name,
        kind=stepper.kind,
        order=stepper.order,
        error_order=stepper.error_order,
        stages=stepper.nstages,
        stiff=False,
        adaptive=stepper.adaptive,
        problem="any",
        reference=stepper.reference,
    )


def suited(kind: str, noise: str | None = None, calculus: str | None = None, adaptive: bool = False) -> str:
    """The names of the methods for such a term, for use in a sentence; those with an error estimate, if `adaptive`."""
    names = []
    for (k, name), stepper in _catalogue().items():
        fits = k == kind and (stepper.adaptive or not adaptive)
        if isinstance(stepper, SDEStepper):
            fits = fits and noise in stepper.noises and (noise == "additive" or calculus in stepper.calculi)
        if fits:
            names.append(repr(name))
    return ", ".join(names)


def stepper_of(method: object, kind: str, default: str) -> Stepper:
    """A name, a tableau or a stepper as a stepper for this kind of equation; ValueError if there is none."""
    if method is None:
        method = default
    if isinstance(method, Tableau):
        method = ExplicitRK(method)
    if isinstance(method, AdditiveTableau | ItoTableau | StratonovichTableau):
        method = from_table(method)
    if isinstance(method, str):
        known = {name: stepper for (k, name), stepper in _catalogue().items() if k == kind}
        if method not in known:
            raise _no_such(method, kind, known)
        method = known[method]
    if not isinstance(method, Stepper):
        raise ValueError(f"method: expected a name, a Tableau or a Stepper, got {type(method).__name__}")
    if method.kind != kind:
        raise ValueError(
            f"method: {method.name!r} solves {method.kind.upper()}s, the term is an {kind.upper()}; "
            f"choose from {', '.join(methods(kind))}"
        )
    return method


def _no_such(name: str, kind: str, known: dict[str, Stepper]) -> ValueError:
    other = [k for k, n in _catalogue() if n == name]
    if other:
        names = ", ".join(sorted(known))
        return ValueError(f"method: {name!r} solves {other[0].upper()}s, the term is an {kind.upper()}; use {names}")
    plain = name.lower().replace("_", "").replace("-", "")
    return unknown("method", plain if plain in known else name, known)
