"""A network's weights as one vector, and the field that a vector makes of the network."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sciode.pde import FieldFunction

__all__ = ["Flat"]


@final
class Flat:
    """The weights of a network as theta [P], and theta as a field function x [d] -> u(x) [c].

    Weights that ask for no gradient stay what they are, outside theta.
    Raises ValueError for a network without weights to move, or whose weights differ in dtype or device.
    """

    def __init__(self, network: nn.Module) -> None:
        weights = {name: x for name, x in network.named_parameters() if x.requires_grad}
        if len({(x.dtype, x.device) for x in weights.values()}) != 1:
            raise ValueError("field: give a network that has weights, all of one dtype and on one device")
        self.network = network
        self.shapes = {name: x.shape for name, x in weights.items()}
        self.theta = torch.cat([x.detach().reshape(-1) for x in weights.values()])

    def elsewhere(self) -> Tensor:
        """Weights some way from theta: what a field is there, too, it is by construction, even if it starts at 0."""
        drawn = torch.randn(self.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return self.theta + 0.1 * (1.0 + self.theta.abs()) * drawn.to(self.theta)

    @property
    def size(self) -> int:
        """P, the number of weights."""
        return len(self.theta)

    def field(self, theta: Tensor) -> FieldFunction:
        """The field function of theta [P]."""
        named, place = {}, 0
        for name, shape in self.shapes.items():
            named[name] = theta[place : place + shape.numel()].view(shape)
            place += shape.numel()
        return lambda x: functional_call(self.network, named, (x,))

    def load(self, theta: Tensor) -> nn.Module:
        """Put theta into the network, and return it."""
        nn.utils.vector_to_parameters(theta, (x for x in self.network.parameters() if x.requires_grad))
        return self.network
