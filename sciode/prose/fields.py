"""Fields for the transformer: frames of a field as data, and partial differential equations as trees of derivatives.

Variables stand for a field and its derivatives in x: u_0 to u_4 are u, u_x, ..., u_xxxx, and u_5 to u_9 those of a
second field, if there is one. Burgers' equation is then one tree, nu u_2 - u_0 u_1, made from the family's own terms by
the rules of sum, product and chain. A data token is a frame: u at all points at one time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from sciode.prose.families import FAMILIES, Family, draw_fields
from sciode.prose.guesses import nothing_of, padded, tabled, with_less, with_more
from sciode.prose.pool import Pool
from sciode.prose.samples import PARTS, Drawing
from sciode.prose.trees import Expression, constant, cos, sin, variable
from sciode.prose.vocabulary import Vocabulary
from sciode.solvers.suggest import choose

__all__ = ["ORDERS", "READS", "FieldDrawing", "derivative", "equations_of_family", "filled_fields"]

ORDERS = 5
"""Derivatives of a field that have a variable, the field itself among them."""
READS = 2 * ORDERS
"""Variables of equations of at most two fields."""
_FINE = 128


@dataclass(frozen=True)
class FieldDrawing:
    """What is drawn of each family: equations times starts, seen at `points` points (128 or a part) and `frames` times.

    part: of `sciode.prose.samples.PARTS`. Raises ValueError for unknown families or sizes that do not fit.
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    equations: int = 50
    starts: int = 10
    points: int = 32
    frames: int = 32
    part: str = "train"

    def __post_init__(self) -> None:
        for name in self.families:
            choose("family", name, FAMILIES)
        choose("part", self.part, PARTS)
        if min(len(self.families), self.equations, self.starts, self.frames - 1) < 1 or _FINE % max(self.points, 1):
            raise ValueError(f"sizes must be at least 1 and points divide {_FINE}, got {self}")
        if self.points < READS:
            raise ValueError(f"points must be at least {READS}, for tokens of all derivatives, got {self.points}")


def equations_of_family(family: Family) -> tuple[Expression, ...]:
    """Return du/dt of each field as a tree of its derivatives, with parameters by name.

    ValueError for derivatives above the fourth, or operators without a rule.
    """
    found: list[Expression | None] = [None] * family.fields
    for term in family.terms:
        tree: Expression | None = _widened(term.expression)
        for _ in range(term.order):
            tree = None if tree is None else derivative(tree)
        if tree is not None:
            before = found[term.field]
            found[term.field] = tree if before is None else before + tree
    return tuple(constant(0.0) if one is None else one for one in found)


def _widened(tree: Expression) -> Expression:
    """Fields u_0, u_1 as the first of their derivatives, u_0 and u_5."""
    return Expression(tuple(
        f"u_{ORDERS * int(one[2:])}" if isinstance(one, str) and one.startswith("u_") else one for one in tree.symbols
    ))  # fmt: skip


def derivative(tree: Expression) -> Expression | None:
    """Return the derivative in x of a tree of fields' derivatives; None is 0."""
    head = tree.symbols[0]
    if not isinstance(head, str) or head.startswith("p_"):
        return None
    if head.startswith("u_"):
        place = int(head[2:])
        if (place + 1) % ORDERS == 0:
            raise ValueError(f"derivatives go up to order {ORDERS - 1}")
        return variable(place + 1)
    parts = tree.children
    slopes = [derivative(one) for one in parts]
    if head in ("add", "sub"):
        a, b = slopes
        if a is None or b is None:
            return a if b is None else b if head == "add" else _product(constant(-1.0), b)
        return a + b if head == "add" else a - b
    if head == "neg":
        return None if slopes[0] is None else -slopes[0]
    if head == "mul":
        found = [_product(one, slope) for one, slope in zip(parts[::-1], slopes, strict=True) if slope is not None]
        return None if not found else found[0] if len(found) == 1 else found[0] + found[1]
    if head not in _OUTER:
        raise ValueError(f"there is no rule for the derivative of {head}")
    return None if slopes[0] is None else _product(_OUTER[head](parts[0]), slopes[0])


_OUTER: Mapping[str, Callable[[Expression], Expression]] = MappingProxyType(
    {"pow2": lambda a: 2.0 * a, "sin": cos, "cos": lambda a: -1.0 * sin(a)}
)


def _product(a: Expression, b: Expression) -> Expression:
    """a b, numbers in front of both made one."""
    (first, left), (second, right) = _parted(a), _parted(b)
    number, rest = first * second, [one for one in (left, right) if one is not None]
    if not rest:
        return constant(number)
    whole = rest[0] if len(rest) == 1 else rest[0] * rest[1]
    return whole if number == 1.0 else -whole if number == -1.0 else number * whole


def _parted(tree: Expression) -> tuple[float, Expression | None]:
    head = tree.symbols[0]
    if not isinstance(head, str):
        return float(head), None
    if head == "mul" and not isinstance(tree.symbols[1], str):
        return float(tree.symbols[1]), tree.children[1]
    return 1.0, tree


def filled_fields(how: FieldDrawing, seed: int, device: torch.device | str = "cpu") -> Pool:
    """Draw a pool of first fields, with a channel a point; times are stretched to those of `Drawing`.

    Its models have dimension `points`, their grammar reads `READS` variables.
    """
    vocabulary = Vocabulary(how.points)
    values, system, owner, rows, kinds = list[Tensor](), [], [], list[list[int]](), []
    left_out = 0
    for number, name in enumerate(how.families):
        family = FAMILIES[name]
        found = draw_fields(family, how.equations, how.starts, seed, _FINE, how.frames, device, how.part)
        trees = equations_of_family(family)
        named = [dict(zip(family.nominal, row, strict=True)) for row in found.numbers[:: how.starts].tolist()]
        own = torch.arange(how.equations).repeat_interleave(how.starts)
        fine = found.fine.cpu()
        values.append(found.values[found.fine][:, :, 0, :: _FINE // how.points].float())
        owner.append(own[fine] + len(rows))
        system.append(torch.full((int(fine.sum()),), number))
        rows += [vocabulary.encoded([one.bound(numbers) for one in trees]) for numbers in named]
        kinds.append(_kinds(tuple(one.bound(family.nominal) for one in trees)))
        left_out += int((~fine).sum())
    times = torch.linspace(0, Drawing.end, how.frames, dtype=torch.float64)
    channels = torch.full((len(how.families),), how.points)
    return Pool(
        times.to(device), torch.cat(values).to(device), torch.cat(system).to(device), torch.cat(owner).to(device),
        padded(rows, vocabulary, device), channels.to(device), tabled(kinds, vocabulary, device), how.families,
        vocabulary, left_out,
    )  # fmt: skip


def _kinds(right: tuple[Expression, ...]) -> Sequence[Sequence[tuple[Expression, ...]]]:
    return [right], list(with_more(right, list(_terms()))), list(with_less(right)) or [right], [nothing_of(len(right))]


def _terms() -> Iterator[Expression]:
    """Derivatives of the first field, alone and times the field."""
    for order in range(ORDERS):
        yield variable(order)
        yield variable(0) * variable(order)
