"""Networks of one architecture, [arms, pieces] of them, as one vector of weights an arm and one product a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sciode.pinn.taylor import ACTIVATIONS, CURVES, Low, Orders, closed, unit
from sciode.solvers.suggest import choose

__all__ = ["Network", "Scaling"]


@dataclass(frozen=True)
class Scaling:
    """What carries the box around each piece onto [-1, 1]^d: x -> (x - centre) / half; both [pieces, d]."""

    centre: Tensor
    half: Tensor

    def to(self, like: Tensor) -> Scaling:
        """The same in the dtype and on the device of a tensor."""
        return Scaling(self.centre.to(like), self.half.to(like))


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron of a piece: `hidden` layers of `width`, activation "tanh" (default) or "sine".

    Weights are drawn N(0, 2 / (in + out)) (Glorot & Bengio 2010), biases are 0; a "sine" network's first layer is
    multiplied by `frequency`. Good values: 2 x 20 for an interface pair of the literature, 4 x 50 for a single network.

    Raises ValueError for sizes below one or an unknown activation.
    """

    width: int = 20
    hidden: int = 2
    activation: str = "tanh"
    frequency: float = 1.0

    def __post_init__(self) -> None:
        choose("activation", self.activation, ACTIVATIONS)
        if self.width < 1 or self.hidden < 1 or not 0 < self.frequency < math.inf:
            raise ValueError(f"width and hidden must be >= 1 and frequency positive, got {self}")

    def layers(self, inputs: int, outputs: int) -> list[tuple[int, int]]:
        """The sizes (in, out) of the linear layers."""
        return list(pairwise([inputs, *[self.width] * self.hidden, outputs]))

    def size(self, inputs: int, outputs: int) -> int:
        """How many weights a piece has."""
        return sum((a + 1) * b for a, b in self.layers(inputs, outputs))

    def initial(self, inputs: int, outputs: int, pieces: int, seeds: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return weights [arms, pieces x size], float64 draws of one seed an arm."""
        return torch.stack([self._drawn(inputs, outputs, pieces, seed) for seed in seeds]).to(dtype)

    def _drawn(self, inputs: int, outputs: int, pieces: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for k, (a, b) in enumerate(self.layers(inputs, outputs)):
            weight = torch.randn(pieces, a, b, generator=generator, dtype=torch.float64) * math.sqrt(2 / (a + b))
            parts += [weight * (self.frequency if k == 0 else 1.0), torch.zeros(pieces, b, dtype=torch.float64)]
        return torch.cat([part.reshape(-1) for part in parts])

    def unpacked(self, theta: Tensor, inputs: int, outputs: int, pieces: int) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's weights [arms, pieces, in, out] and biases [arms, pieces, 1, out] of theta [arms, P]."""
        layers = self.layers(inputs, outputs)
        sizes = [pieces * size for a, b in layers for size in (a * b, b)]
        # A split has one derivative; each slice would have a zero vector of all weights, for every point of a Jacobian.
        parts = iter(theta.split([*sizes, theta.shape[1] - sum(sizes)], 1))
        return [
            (weight.reshape(-1, pieces, a, b), bias.reshape(-1, pieces, 1, b))
            for (a, b), weight, bias in zip(layers, parts, parts, strict=False)
        ]

    def series(
        self,
        theta: Tensor,
        points: Tensor,
        which: Sequence[int],
        orders: Sequence[Orders],
        scaling: Scaling,
        outputs: int,
    ) -> dict[Orders, Tensor]:
        """Return Taylor coefficients of the networks `which`, each at its own points: orders -> [arms, K, N, outputs].

        theta: [arms, P]. points: [arms or 1, K, N, d], K points sets for K networks. orders: those wanted.
        """
        pieces, axes = scaling.centre.shape
        layers = self.unpacked(theta, axes, outputs, pieces)
        centre, half = scaling.centre, scaling.half
        if list(which) != list(range(pieces)):
            layers = [(_chosen(weight, which, 1), _chosen(bias, which, 1)) for weight, bias in layers]
            centre, half = _chosen(centre, which, 0), _chosen(half, which, 0)
        asked = closed(orders, axes)
        scaled = (points - centre[:, None]) / half[:, None]
        if sum(asked[-1]) <= 2:
            return self._low(layers, scaled, half, Low(asked))
        act = ACTIVATIONS[self.activation]
        weight, bias = layers[0]
        z = {asked[0]: scaled @ weight + bias}
        for axis in range(axes):
            if unit(axis, axes) in asked:
                # The coordinates' own series: constant first derivatives, and nothing beyond them.
                z[unit(axis, axes)] = weight[:, :, axis : axis + 1] / half[:, axis, None, None]
        y = act(z, asked)
        for place, (weight, bias) in enumerate(layers[1:], 1):
            present = [one for one in asked if one in y]
            moved = _turned(torch.stack([y[one] for one in present], 2), weight)
            z = dict(zip(present, moved.unbind(2), strict=True))
            z[asked[0]] = z[asked[0]] + bias
            y = z if place == len(layers) - 1 else act(z, asked)
        return y

    def _low(
        self, layers: Sequence[tuple[Tensor, Tensor]], scaled: Tensor, half: Tensor, low: Low
    ) -> dict[Orders, Tensor]:
        """As `series` for orders of at most two, all coefficients in one tensor [arms, K, M, N, width]."""
        curve = CURVES[self.activation]
        (weight, bias), *others = layers
        z = [(scaled @ weight + bias).unsqueeze(2)]
        if low.first:
            # The coordinates' own series: constant first derivatives, and nothing beyond them.
            z.append((_chosen(weight, low.first, 2) / _chosen(half, low.first, 1)[:, :, None]).unsqueeze(3))
        for weight, bias in others:
            z = low.split(_turned(low.bent(curve, *z), weight))
            z[0] = z[0] + bias.unsqueeze(2)
        return dict(zip(low.orders, (row for rows in z for row in rows.unbind(2)), strict=True))


def _chosen(values: Tensor, which: Sequence[int], axis: int) -> Tensor:
    """Some entries along an axis, by slices: an index tensor would be sent to the device at every step."""
    runs: list[list[int]] = []
    for one in which:
        if runs and one == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([one, one + 1])
    parts = [values.narrow(axis, begin, end - begin) for begin, end in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _turned(rows: Tensor, weight: Tensor) -> Tensor:
    """rows [arms, K, M, N, in] times weight [arms, K, in, out], as one batched product."""
    arms, pieces, many, points, size = rows.shape
    out = rows.reshape(arms * pieces, many * points, size) @ weight.reshape(arms * pieces, size, -1)
    return out.reshape(arms, pieces, many, points, -1)
