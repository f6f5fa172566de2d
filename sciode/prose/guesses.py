"""What a model is told of a system before it reads: its skeleton, one that is wrong in a term, or nothing.

Skeletons have no numbers, so that a system has a few dozen guesses, which lie in one table on the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.prose.systems import System
from sciode.prose.trees import Expression, constant, variables
from sciode.prose.vocabulary import Vocabulary

__all__ = ["KNOWN", "NOTHING", "WRONG", "Guesses", "Told", "guesses_of", "tabled", "with_less", "with_more"]

Equations = tuple[Expression, ...]


@dataclass(frozen=True)
class Told:
    """Shares of samples whose skeleton is told as it is, and with a term too many or too few (as many of each).

    The rest are told nothing but how many components there are. Raises ValueError unless shares add up to 1 at most.
    """

    known: float = 0.4
    wrong: float = 0.3

    def __post_init__(self) -> None:
        if min(self.known, self.wrong) < 0 or self.known + self.wrong > 1 + 1e-12:
            raise ValueError(f"shares must be at least 0 and 1 together at most, got {self.known} and {self.wrong}")


KNOWN, WRONG, NOTHING = Told(1.0, 0.0), Told(0.0, 1.0), Told(0.0, 0.0)


class Guesses(NamedTuple):
    """table: ids [G, L], padded by "pad". first, count: where the guesses of each system begin and how many there are,
    int64 [systems, 4]: those that are right, have a term more, have a term less, and say nothing."""

    table: Tensor
    first: Tensor
    count: Tensor

    def drawn(self, system: Tensor, told: Told, generator: torch.Generator) -> Tensor:
        """Return a guess for each sample's system [B], ids [B, L]; nothing is read from the device."""
        chances = torch.rand(2, len(system), generator=generator, device=system.device)
        ends = (told.known, told.known + told.wrong / 2, told.known + told.wrong)
        kind = torch.stack([chances[0] >= one for one in ends]).sum(0)
        first, count = self.first[system, kind], self.count[system, kind]
        return self.table[first + (chances[1] * count).long().clamp(max=count - 1)]


def guesses_of(systems: Sequence[System], vocabulary: Vocabulary, device: torch.device | str = "cpu") -> Guesses:
    """Return the guesses at systems, in their order."""
    return tabled([_kinds(one) for one in systems], vocabulary, device)


def tabled(
    kinds: Sequence[Sequence[Sequence[Equations]]], vocabulary: Vocabulary, device: torch.device | str = "cpu"
) -> Guesses:
    """Return the table of guesses: of each system those that are right, have a term more, a term less, say nothing."""
    rows: list[list[int]] = []
    first, count = [], []
    for own in kinds:
        first.append([])
        count.append([])
        for some in own:
            first[-1].append(len(rows))
            count[-1].append(len(some))
            rows += [vocabulary.encoded(one, skeleton=True) for one in some]
    return Guesses(padded(rows, vocabulary, device), torch.tensor(first).to(device), torch.tensor(count).to(device))


def padded(rows: Sequence[Sequence[int]], vocabulary: Vocabulary, device: torch.device | str = "cpu") -> Tensor:
    """Return sequences of ids as one tensor, the shorter ones padded."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[vocabulary.ids["pad"]] * (longest - len(row))] for row in rows]).to(device)


def nothing_of(components: int) -> Equations:
    """The guess that says nothing: each component is a number."""
    return (constant(1.0),) * components


def _kinds(system: System) -> tuple[list[Equations], ...]:
    # Skeletons forget the numbers, whatever they are.
    numbers: Mapping[str, float] = system.nominal
    right = tuple(one.bound(numbers) for one in system.equations)
    u = variables(system.dimension)
    # c u_i as often as c u_i u_j.
    terms = [term for a, b in itertools.product(u, u) for term in (a, a * b)]
    return [right], list(with_more(right, terms)), list(with_less(right)) or [right], [nothing_of(system.dimension)]


def with_more(right: Equations, terms: Sequence[Expression]) -> Iterator[Equations]:
    """A system with each of some terms in each component."""
    for place, term in itertools.product(range(len(right)), terms):
        yield (*right[:place], right[place] + 1.0 * term, *right[place + 1 :])


def with_less(right: Equations) -> Iterator[Equations]:
    """A system less each term of components that have several."""
    for place, one in enumerate(right):
        terms = list(one.terms())
        for gone in range(len(terms) if len(terms) > 1 else 0):
            left = [term for k, term in enumerate(terms) if k != gone]
            total = left[0]
            for term in left[1:]:
                total = total + term
            yield (*right[:place], total, *right[place + 1 :])
