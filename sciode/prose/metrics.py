"""What written equations are worth: their terms beside the true ones, their right-hand sides, and their solutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.prose.display import to_sympy
from sciode.prose.programs import Programs
from sciode.prose.trees import Expression
from sciode.solvers import solve

__all__ = [
    "Solved",
    "Terms",
    "coefficient_error",
    "coefficients_of",
    "right_hand_error",
    "solved",
    "start_of",
    "terms_of",
]

Equations = Sequence[Expression]


class Terms(NamedTuple):
    """found: terms that are written and true, written: all that are written, true: all that should be."""

    found: int
    written: int
    true: int

    @property
    def exact(self) -> bool:
        """Whether every component has the true terms and no others."""
        return self.found == self.written == self.true

    @classmethod
    def between(cls, written: Sequence[frozenset[Any]], true: Sequence[frozenset[Any]]) -> Terms:
        """Count over components, of `terms_of`."""
        both = sum(len(a & b) for a, b in zip(written, true, strict=True))
        return cls(both, sum(map(len, written)), sum(map(len, true)))


def terms_of(equations: Equations, least: float = 0.0) -> list[frozenset[Any]]:
    """Return the terms of each component, multiplied out, without their numbers.

    Terms are sympy expressions; numbers inside functions and denominators do not count either, but their signs
    do: 1 / (2 + u) is 1 / (5 + u), and not 1 / u. least: terms whose number is not larger in size do not count (0 x u
    is none).
    """
    return [_terms(to_sympy(one), least) for one in equations]


def coefficients_of(equations: Equations) -> list[dict[Any, float]]:
    """Return what stands before each of `terms_of`, by component: signed, summed over those that look alike there."""
    import sympy

    found: list[dict[Any, float]] = []
    for one in equations:
        found.append({})
        for term in sympy.Add.make_args(sympy.expand(to_sympy(one))):
            number, bare = _bare(term)
            found[-1][bare] = found[-1].get(bare, 0.0) + number
    return found


def coefficient_error(found: Equations, true: Equations) -> float:
    """Return the largest relative error of the coefficients of true terms; one that is not written errs by 1."""
    pairs = zip(coefficients_of(found), coefficients_of(true), strict=True)
    return max(
        (abs(mine.get(term, 0.0) / own - 1) for mine, right in pairs for term, own in right.items() if own), default=0.0
    )


def _terms(expression: Any, least: float) -> frozenset[Any]:
    import sympy

    found: dict[Any, float] = {}
    for term in sympy.Add.make_args(sympy.expand(expression)):
        number, bare = _bare(term)
        found[bare] = found.get(bare, 0.0) + abs(number)
    return frozenset(term for term, size in found.items() if size > least)


def _bare(term: Any) -> tuple[float, Any]:
    """The number before a term, and the term without numbers."""
    number, rest = term.as_coeff_Mul()
    sign, bare = _without_numbers(rest).as_coeff_Mul()
    return float(number * sign), bare


def _without_numbers(expression: Any) -> Any:
    """sin(0.5 x - 2 y + 1) as sin(x - y), 1 / (3 - 2 x) as 1 / (1 - x): numbers before what stands inside functions and
    powers become signs."""
    import sympy

    if not expression.args:
        return expression
    if expression.is_Pow:
        return _power(expression.base, expression.exp)
    if expression.is_Add:
        return sympy.Add(*(_signed(one) for one in expression.args if not one.is_number))
    return expression.func(*(_signed(one) for one in expression.args))


def _power(base: Any, exponent: Any) -> Any:
    """A sum's power, of its signs: the first of its parts is positive, and so 1 / (x - y) is -1 / (y - x)."""
    import sympy

    if not base.is_Add:
        return _without_numbers(base) ** exponent
    parts = [sympy.sign(one) if one.is_number else _signed(one) for one in base.args]
    if sympy.Add(*parts) == 0:
        return base**exponent  # Parts that look alike without their numbers have cancelled.
    first = min(parts, key=lambda part: sympy.default_sort_key(part.as_coeff_Mul()[1]))
    sign = -1 if exponent.is_Integer and first.as_coeff_Mul()[0] < 0 else 1
    return sign**exponent * sympy.Add(*(sign * part for part in parts)) ** exponent


def _signed(expression: Any) -> Any:
    number, rest = expression.as_coeff_Mul()
    return _without_numbers(rest) if number > 0 else -_without_numbers(rest)


def right_hand_error(written: Sequence[Equations], true: Sequence[Equations], points: Tensor) -> Tensor:
    """Return |f - true f| / |true f| over points [B, P, D] of each system, [B]; infinite where f is not finite."""
    dimension = points.shape[-1]
    found, wanted = (Programs(one, dimension, points)(points) for one in (written, true))
    error = ((found - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2)).clamp(min=1e-30)).sqrt()
    return torch.where(error.isfinite(), error, torch.inf)


class Solved(NamedTuple):
    """values: [B, Q, D]. status: of the solver, int [B], 0 where the last time was reached."""

    values: Tensor
    status: Tensor


def solved(systems: Sequence[Equations], start: Tensor, times: Tensor, max_steps: int = 2000) -> Solved:
    """Solve systems from start [B, D] at times[0] to times [Q], increasing; what blows up says so and holds up nobody.

    States that are not reached are NaN.
    """
    programs = Programs(systems, start.shape[-1], start)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return programs(y)

    with torch.no_grad():
        found = solve(field, start, times, rtol=1e-5, atol=1e-7, max_steps=max_steps, throw=False, engine="eager")
    values = found.ys.transpose(0, 1)
    return Solved(torch.where((found.status == 0)[:, None, None], values, torch.nan), found.status)


def start_of(systems: Sequence[Equations], times: Tensor, values: Tensor, frames: int = 8) -> Tensor:
    """Return the state [B, D] at the last frame, less noisy than values [B, T, D]: the last frames are carried there by
    the equations, and the mean is taken; the last frame itself where that lies out of reach. times: even, two tell the
    gap.
    """
    count = min(frames, values.shape[1])
    states, gap = values[:, -count:], float(times[1] - times[0])
    programs = Programs(systems, values.shape[-1], values)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return programs(y)

    whole = [states[:, -1]]
    if count > 1:
        ts = torch.linspace(0, (count - 1) * gap, count, dtype=torch.float64, device=values.device)
        with torch.no_grad():
            ahead = solve(field, states, ts, method="rk4", dt=gap / 4, throw=False, engine="eager").ys
        # Frame k has count - 1 - k gaps to go.
        whole += [ahead[count - 1 - k, :, k] for k in range(count - 1)]
    mean = torch.stack(whole).mean(0)
    # What grows on its way is no mean of readings.
    fine = (mean - values[:, -1]).abs() <= values.amax(1) - values.amin(1)
    return torch.where(fine.all(-1, keepdim=True), mean, values[:, -1])
