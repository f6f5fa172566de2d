"""From weights to fields: networks side by side, networks under windows, or a function that is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import final

import torch
from torch import Tensor

from sciode.pinn.decomposition import Decomposition
from sciode.pinn.derivatives import Derivatives
from sciode.pinn.networks import Network
from sciode.pinn.problem import Problem
from sciode.pinn.taylor import Orders, closed, derivatives_of, factorial, multiplied

__all__ = ["Known", "Piecewise", "Representation", "Windowed", "representation_of"]

Extras = Mapping[str, Tensor]
"""What is computed once for a set of points and travels with them, [arms or 1, K, N, orders, ...]."""


class Representation(ABC):
    """Fields of every arm as functions of its weights theta [arms, P].

    The last entries of theta are the problem's unknowns. groups: how many networks or sets of points lie side by side.
    """

    groups: int

    def __init__(self, problem: Problem, decomposition: Decomposition, network: Network, like: Tensor) -> None:
        self.problem, self.decomposition, self.network = problem, decomposition, network
        self.names = problem.names
        self.scaling = decomposition.scaling.to(like)
        self.known: Mapping[str, float | Tensor] = problem.parameters
        sizes = [problem.scale.get(name, 1.0) for name in problem.names.fields]
        self.sizes = like.new_tensor(sizes) if any(size != 1 for size in sizes) else None
        self.weights = decomposition.size * network.size(self.names.axes, self.names.channels)

    @property
    def size(self) -> int:
        """P, unknowns included."""
        return self.weights + len(self.problem.unknowns)

    def initial(self, seeds: Sequence[int], like: Tensor) -> Tensor:
        """Return theta [arms, P] for one seed an arm."""
        pieces, names = self.decomposition.size, self.names
        theta = self.network.initial(names.axes, names.channels, pieces, seeds, torch.float64)
        starts = [one.initial for one in self.problem.unknowns.values()]
        unknown = torch.tensor(starts, dtype=torch.float64)
        positive = torch.tensor([one.positive for one in self.problem.unknowns.values()], dtype=torch.bool)
        unknown = torch.where(positive, torch.where(positive, unknown, 1.0).log(), unknown)
        return torch.cat((theta, unknown.expand(len(seeds), -1)), 1).to(like)

    def unknowns(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the unknowns by name, [arms] each."""
        found = {}
        for place, (name, one) in enumerate(self.problem.unknowns.items()):
            value = theta[:, self.weights + place]
            found[name] = value.exp() if one.positive else value
        return found

    def parameters(self, theta: Tensor) -> SimpleNamespace:
        """Return what equations read as p; an unknown is [arms, 1, 1]."""
        unknown = {name: value[:, None, None] for name, value in self.unknowns(theta).items()}
        return SimpleNamespace(**self.known, **unknown)

    @contextmanager
    def told(self, numbers: Mapping[str, Tensor]) -> Iterator[None]:
        """While this lasts, equations read these tensors in the place of their numbers."""
        before, self.known = self.known, {**self.known, **numbers}
        try:
            yield
        finally:
            self.known = before

    def extras(self, points: Tensor, which: Sequence[int], orders: Iterable[Orders]) -> dict[str, Tensor]:
        """Return what travels with points [arms or 1, K, N, d]: Taylor coefficients of hard constraints."""
        hard = self.problem.hard
        if hard is None:
            return {}

        def both(x: Tensor) -> Tensor:
            return torch.cat((hard.value(x), hard.distance(x)), -1)

        return {"hard": _coefficients(both, points, orders, self.names.axes)}

    def derivatives(
        self,
        theta: Tensor,
        points: Tensor,
        which: Sequence[int],
        orders: Iterable[Orders],
        extras: Extras,
        normals: Tensor | None = None,
    ) -> Derivatives:
        """Return fields and derivatives at points [arms or 1, K, N, d], those of network which[k] in group k."""
        asked = closed(orders, self.names.axes)
        series = self._series(theta, points, which, asked, extras)
        if "hard" in extras:
            known = _split(extras["hard"], asked)
            factor = {one: value[..., -1:] for one, value in known.items()}
            series = multiplied(series, factor, asked)
            series = {one: value + known[one][..., :-1] for one, value in series.items()}
        # A set that goes unheard would leave its term at nothing.
        assert all(value.shape[-3] in (1, points.shape[1]) for value in series.values())
        values = {one: value * factorial(one) if factorial(one) != 1 else value for one, value in series.items()}
        return Derivatives(self.names, values, points, normals)

    def _networks(
        self, theta: Tensor, points: Tensor, which: Sequence[int], asked: Sequence[Orders]
    ) -> Mapping[Orders, Tensor]:
        """Series of the networks `which`, each field's of its own size."""
        found = self.network.series(theta, points, which, asked, self.scaling, self.names.channels)
        return found if self.sizes is None else {one: value * self.sizes for one, value in found.items()}

    @abstractmethod
    def _series(
        self, theta: Tensor, points: Tensor, which: Sequence[int], asked: Sequence[Orders], extras: Extras
    ) -> Mapping[Orders, Tensor]:
        """Taylor coefficients [arms, K, N, c] without hard constraints."""

    def at(self, theta: Tensor, points: Tensor) -> Tensor:
        """Return the fields of all arms at points [N, d] of the domain, [arms, N, c]."""
        value = (0,) * self.names.axes
        return self.read(theta, points, (value,))[value]

    @abstractmethod
    def read(self, theta: Tensor, points: Tensor, orders: Iterable[Orders]) -> dict[Orders, Tensor]:
        """Return derivatives of these orders, of all fields and arms, at points [N, d] of the domain: [arms, N, c]."""


@final
class Piecewise(Representation):
    """A network for each piece, and no other heard there: single networks, XPINN, cPINN."""

    @property
    def groups(self) -> int:  # type: ignore[override]
        """Pieces."""
        return self.decomposition.size

    def _series(
        self, theta: Tensor, points: Tensor, which: Sequence[int], asked: Sequence[Orders], extras: Extras
    ) -> Mapping[Orders, Tensor]:
        return self._networks(theta, points, which, asked)

    def read(self, theta: Tensor, points: Tensor, orders: Iterable[Orders]) -> dict[Orders, Tensor]:
        """See `Representation.read`; a point of an interface is told by the first of its pieces."""
        asked = tuple(orders)
        owners = self.decomposition.owner(points)
        if bool((owners < 0).any()):
            raise ValueError(f"{int((owners < 0).sum())} of {len(points)} points lie outside the domain")
        found = {one: theta.new_empty(len(theta), len(points), self.names.channels) for one in asked}
        for piece in owners.unique().tolist():
            rows = torch.nonzero(owners == piece)[:, 0]
            own = points[rows][None, None]
            d = self.derivatives(theta, own, (piece,), asked, self.extras(own, (piece,), asked))
            for one in asked:
                found[one][:, rows] = d.of(one)[:, 0]
        return found


@final
class Windowed(Representation):
    """Networks under windows that sum to 1, each heard wherever its window is not 0: FBPINN.

    All networks are evaluated at all points, in one product; so a step costs pieces times that of one network, which is
    little for the few windows of a line and much for large grids of them.
    """

    groups = 1

    def extras(self, points: Tensor, which: Sequence[int], orders: Iterable[Orders]) -> dict[str, Tensor]:
        """See `Representation.extras`; and the windows' coefficients."""
        asked = tuple(orders)
        own = {"windows": _coefficients(self.decomposition.window, points, asked, self.names.axes)}
        return {**super().extras(points, which, asked), **own}

    def _series(
        self, theta: Tensor, points: Tensor, which: Sequence[int], asked: Sequence[Orders], extras: Extras
    ) -> Mapping[Orders, Tensor]:
        pieces, sets = self.decomposition.size, points.shape[1:3]
        # All sets of points are one to the networks, each of which sees it.
        every = points.flatten(1, 2).unsqueeze(1).expand(-1, pieces, -1, -1)
        found = self._networks(theta, every, range(pieces), asked)
        # [arms, K, N, pieces] -> [arms, pieces, K N, 1].
        split = _split(extras["windows"], asked)
        shares = {one: w.flatten(1, 2).transpose(1, 2).unsqueeze(-1) for one, w in split.items()}
        heard = multiplied(found, shares, asked)
        return {one: value.sum(1).unflatten(1, sets) for one, value in heard.items()}

    def read(self, theta: Tensor, points: Tensor, orders: Iterable[Orders]) -> dict[Orders, Tensor]:
        """See `Representation.read`."""
        own, asked = points[None, None], tuple(orders)
        d = self.derivatives(theta, own, (0,), asked, self.extras(own, (0,), asked))
        return {one: d.of(one)[:, 0] for one in asked}


@final
class Known(Representation):
    """The exact solution of a problem in the place of networks: what conditions and equations say of it is rounding."""

    @property
    def groups(self) -> int:  # type: ignore[override]
        """Pieces."""
        return self.decomposition.size

    def extras(self, points: Tensor, which: Sequence[int], orders: Iterable[Orders]) -> dict[str, Tensor]:
        """See `Representation.extras`."""
        assert self.problem.exact is not None
        return {"exact": _coefficients(self.problem.exact, points, orders, self.names.axes)}

    def _series(
        self, theta: Tensor, points: Tensor, which: Sequence[int], asked: Sequence[Orders], extras: Extras
    ) -> Mapping[Orders, Tensor]:
        return _split(extras["exact"], asked)

    def read(self, theta: Tensor, points: Tensor, orders: Iterable[Orders]) -> dict[Orders, Tensor]:
        """See `Representation.read`."""
        assert self.problem.exact is not None
        found = derivatives_of(self.problem.exact, points, orders)
        return {one: value.expand(len(theta), -1, -1) for one, value in found.items()}


def representation_of(problem: Problem, decomposition: Decomposition, network: Network, like: Tensor) -> Representation:
    """Return the representation that a decomposition asks for, in the dtype and on the device of `like`."""
    kind = Windowed if decomposition.overlap else Piecewise
    return kind(problem, decomposition, network, like)


def _coefficients(function: object, points: Tensor, orders: Iterable[Orders], axes: int) -> Tensor:
    """Taylor coefficients of a plain function at points, [..., orders, c], in the order of `closed`."""
    asked = closed(orders, axes)
    with torch.no_grad():
        found = derivatives_of(function, points, asked)  # type: ignore[arg-type]
    return torch.stack([found[one] / factorial(one) for one in asked], -2)


def _split(coefficients: Tensor, asked: Sequence[Orders]) -> dict[Orders, Tensor]:
    return dict(zip(asked, coefficients.unbind(-2), strict=True))
