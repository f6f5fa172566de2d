"""Sine networks as fields: the network, an input that makes it periodic, an output that meets boundary values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["HardBoundary", "PeriodicEmbedding", "Siren"]


@final
class PeriodicEmbedding(nn.Module):
    """x -> (cos, sin)(2 pi x_i / L_i) for each periodic axis i, x_i itself for the others: [..., d] -> [..., width].

    Whatever network comes after it is periodic with all its derivatives, by construction and not by training.

        field = Siren(2, 1, 32, 3, embedding=PeriodicEmbedding([2.0, None]))    # a channel: periodic in x, walls in y

    Parameters
    ----------
    periods: one length L_i > 0 an axis, None where the axis is not periodic.

    `inputs` is d, `width` the number of features, two a periodic axis and one for each other. The lengths are kept as
    Python numbers: a network made in float32 and cast to float64 is periodic to float64's rounding.

    Raises ValueError for no axis, or a length that is not a positive number.
    Source: Dong, Ni: A method for representing periodic functions (J. Comput. Phys. 2021).
    """

    def __init__(self, periods: Sequence[float | None]) -> None:
        super().__init__()
        if len(periods) < 1 or not all(length is None or 0 < length < math.inf for length in periods):
            raise ValueError(f"periods must hold a positive length or None for each axis, got {list(periods)}")
        self.periods = tuple(None if length is None else float(length) for length in periods)
        self.inputs = len(periods)
        self.width = sum(1 if length is None else 2 for length in periods)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, axis after axis."""
        _check_inputs(x, self.inputs)
        features = []
        for axis, length in enumerate(self.periods):
            place = x[..., axis : axis + 1]
            if length is None:
                features.append(place)
            else:
                angle = place * (2 * math.pi / length)
                features += [angle.cos(), angle.sin()]
        return torch.cat(features, -1)


@final
class Siren(nn.Module):
    """A sine network x [..., d] -> [..., c]: h_0 = x, h_{k+1} = sin(omega (W_k h_k + b_k)), u = W h + b.

    It is smooth to all orders and made so that values and derivatives are of order one at the start, which makes it the
    usual carrier of a field whose derivatives enter an equation. As all layers act on the last axis, it is a field
    function of one point [d] as it stands.

    Parameters
    ----------
    inputs, outputs: d and c. width: of every sine layer.
    hidden: how many sine layers follow the first, >= 0: there are hidden + 1 of them, and a linear layer last.
    omega: the frequency inside every sine. 30 (default) suits images and sharp fronts on [-1, 1]; 5 to 15 smooth
        fields, of which 30 carries spurious short waves.
    embedding: what x passes through first, e.g. a `PeriodicEmbedding`; a module with `inputs` (d) and `width`.

    Weights of the first layer are drawn from U(-1/n, 1/n), all others from U(-sqrt(6/n)/omega, sqrt(6/n)/omega), n
    being the layer's own inputs; biases are torch's default draw. Make the network inside
    `sciode.training.isolated_rng(seed)` to fix it. `Siren(1, 1, 20, 2)` has 901 parameters.

    Raises ValueError for sizes below one, hidden < 0, omega <= 0, or an embedding for another number of axes.
    Source: Sitzmann, Martel, Bergman, Lindell, Wetzstein: Implicit Neural Representations with Periodic Activation
    Functions (NeurIPS 2020).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        hidden: int,
        omega: float = 30.0,
        embedding: PeriodicEmbedding | None = None,
    ) -> None:
        super().__init__()
        if min(inputs, outputs, width) < 1 or hidden < 0:
            raise ValueError(
                "inputs, outputs and width must be >= 1 and hidden >= 0, got "
                f"inputs={inputs}, outputs={outputs}, width={width}, hidden={hidden}"
            )
        if not 0 < omega < math.inf:
            raise ValueError(f"omega must be a positive number, got {omega}")
        if embedding is not None and embedding.inputs != inputs:
            raise ValueError(f"the embedding takes {embedding.inputs} axes, the network {inputs}: give them the same")
        self.inputs, self.outputs, self.omega = inputs, outputs, float(omega)
        self.embedding = embedding
        first = inputs if embedding is None else embedding.width
        sizes = [first, *[width] * (hidden + 1), outputs]
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        for k, (layer, size) in enumerate(zip(layers, sizes, strict=False)):
            bound = math.sqrt(6 / size) / self.omega if k else 1 / size
            nn.init.uniform_(layer.weight, -bound, bound)
        self.sines, self.last = nn.ModuleList(layers[:-1]), layers[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return u(x)."""
        _check_inputs(x, self.inputs)
        state = x if self.embedding is None else self.embedding(x)
        for layer in self.sines:
            state = torch.sin(self._turned(layer, state))
        return self.last(state)

    def _turned(self, layer: nn.Module, state: Tensor) -> Tensor:
        """omega (W h + b). A weight is scaled once; points, and every tangent of theirs, would be N times."""
        if not isinstance(layer, nn.Linear):
            # Members stacked by `sciode.nn.stack`.
            return self.omega * layer(state)
        return F.linear(state, self.omega * layer.weight, self.omega * layer.bias)


@final
class HardBoundary(nn.Module):
    """u(x) = value(x) + distance(x) network(x): what `value` says where `distance` vanishes, whatever the network says.

    A boundary value is then no term of a loss. Take for `distance` something as smooth as the equation needs: the true
    distance has kinks in the middle of a domain, `Box.vanishing` and `Ball.vanishing` have none.

        wall = Box(-1.0, 1.0)
        field = HardBoundary(Siren(1, 1, 20, 2), value=torch.zeros_like, distance=wall.vanishing)

    Parameters
    ----------
    network: x [d] -> [c]. value: x [d] -> [c], or anything that broadcasts to it.
    distance: x [d] -> [1] (or [c], component by component): zero on the boundary, positive inside.

    Where all three act on the last axis it takes batches [..., d] too. Parameters of the functions that are modules are
    its own.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        value: Callable[[Tensor], Tensor],
        distance: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.network, self.value, self.distance = network, value, distance

    def forward(self, x: Tensor) -> Tensor:
        """Return u(x)."""
        return self.value(x) + self.distance(x) * self.network(x)


def _check_inputs(x: Tensor, inputs: int) -> None:
    if x.ndim < 1 or x.shape[-1] != inputs:
        raise ValueError(f"x must be [..., {inputs}], one coordinate an axis, got {tuple(x.shape)}")
