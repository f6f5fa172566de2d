"""Many different equations at once: trees of all samples, level by level, an operation for each kind of node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from sciode.prose.trees import OPERATORS, Expression

__all__ = ["Programs"]


class _Step(NamedTuple):
    """Nodes of one level and one operator: where their arguments are."""

    operator: str
    arguments: tuple[Tensor, ...]


@final
class Programs:
    """The right-hand sides of B systems, each of its own, as one function of u [B, ..., D].

    Values of nodes stand one after another: variables, numbers, then what each level adds; nothing is written twice, so
    that gradients with respect to u and `constants` [K] (of all systems and components, in prefix order) come by
    themselves. Components that a system lacks are 0.

    Raises ValueError for a system with parameters, or more components or variables than `dimension`.
    """

    def __init__(self, systems: Sequence[Sequence[Expression]], dimension: int, like: Tensor | None = None) -> None:
        like = torch.zeros((), dtype=torch.float64) if like is None else like
        self.size, self.dimension = len(systems), dimension
        nodes = _Nodes(dimension * len(systems))
        roots = torch.full((len(systems), dimension), -1)
        for sample, equations in enumerate(systems):
            if len(equations) > dimension:
                raise ValueError(f"system {sample} has {len(equations)} components, {dimension} are the most")
            for component, one in enumerate(equations):
                roots[sample, component] = nodes.add(one, sample, dimension)
        places, self.steps = nodes.ordered(like.device)
        self.constants = like.new_tensor(nodes.numbers)
        self.roots = torch.where(roots >= 0, places[roots.clamp(min=0)], -1).to(like.device)
        self.owners = torch.tensor(nodes.owners, dtype=torch.int64, device=like.device)

    def __call__(self, u: Tensor, constants: Tensor | None = None) -> Tensor:
        """Return du/dt, of the shape of u [B, ..., D].

        constants: numbers in the place of the systems' own, [K], or [K, points] where each point has others.
        """
        flat = u.reshape(self.size, -1, self.dimension)
        points = flat.shape[1]
        numbers = (self.constants if constants is None else constants).to(u)
        numbers = numbers[:, None].expand(-1, points) if numbers.ndim == 1 else numbers
        values = torch.cat((flat.transpose(1, 2).reshape(-1, points), numbers))
        for step in self.steps:
            values = torch.cat((values, OPERATORS[step.operator].apply(*(values[at] for at in step.arguments))))
        found = torch.where((self.roots >= 0)[..., None], values[self.roots.clamp(min=0)], 0.0)
        return found.transpose(1, 2).reshape(u.shape)


class _Nodes:
    """Nodes in the order they are met: variables [samples x dimension] first, then numbers and operators."""

    def __init__(self, variables: int) -> None:
        self.variables = variables
        self.numbers: list[float] = []
        self.owners: list[int] = []
        self.found: list[tuple[str, int, tuple[int, ...]]] = []

    def add(self, tree: Expression, sample: int, dimension: int) -> int:
        """Take a tree up; return its root: a variable's place, or `variables` + the place among what was met."""
        stack: list[tuple[int, int]] = []
        # In prefix order, in which trees name them; the walk meets them from the end.
        self.numbers += tree.constants
        self.owners += [sample] * len(tree.constants)
        last = len(self.numbers)
        for symbol in reversed(tree.symbols):
            if not isinstance(symbol, str):
                last -= 1
                stack.append(self._met("number", 0, (last,)))
            elif symbol in OPERATORS:
                own = [stack.pop() for _ in range(OPERATORS[symbol].arity)]
                stack.append(self._met(symbol, 1 + max(level for level, _ in own), tuple(place for _, place in own)))
            elif symbol.startswith("u_") and int(symbol[2:]) < dimension:
                stack.append((0, sample * dimension + int(symbol[2:])))
            else:
                raise ValueError(f"system {sample} reads {symbol}: there are numbers and u_0 to u_{dimension - 1}")
        return stack[0][1]

    def _met(self, kind: str, level: int, arguments: tuple[int, ...]) -> tuple[int, int]:
        self.found.append((kind, level, arguments))
        return level, self.variables + len(self.found) - 1

    def ordered(self, device: torch.device) -> tuple[Tensor, list[_Step]]:
        """Where each node's value will stand, and the steps that make the values."""
        count = self.variables + len(self.found)
        places = torch.full((count,), -1)
        places[: self.variables] = torch.arange(self.variables)
        groups: dict[tuple[int, str], list[int]] = {}
        for place, (kind, level, arguments) in enumerate(self.found):
            if kind == "number":
                places[self.variables + place] = self.variables + arguments[0]
            else:
                groups.setdefault((level, kind), []).append(place)
        begin, steps = self.variables + len(self.numbers), []
        for (_, kind), own in sorted(groups.items()):
            places[torch.tensor(own) + self.variables] = torch.arange(begin, begin + len(own))
            begin += len(own)
            columns = zip(*(self.found[place][2] for place in own), strict=True)
            # Arguments are of lower levels: their places are known by now.
            steps.append(_Step(kind, tuple(places[torch.tensor(column)].to(device) for column in columns)))
        return places, steps
