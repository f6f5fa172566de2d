"""Messages along the edges of a graph: the one file that loads torch-geometric's layers."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sciode.nn import mlp

__all__ = ["Interaction", "geometric"]


@cache
def geometric() -> Any:
    """torch-geometric, loaded at the first call. Raises ImportError that names the extra where it is missing."""
    try:
        with warnings.catch_warnings():
            # It scripts a class with torch's own deprecated jit while it is imported.
            warnings.simplefilter("ignore", DeprecationWarning)
            import torch_geometric
            import torch_geometric.nn
    except ImportError as error:
        raise ImportError('torch-geometric is missing: pip install "sciode[graph]"') from error
    return torch_geometric


@cache
def _messages() -> Any:
    base: Any = geometric().nn.MessagePassing

    class Messages(base):
        """Sums over incoming edges; the edges are given as they are."""

        def forward(self, edges: Tensor, e: Tensor, count: int) -> Tensor:
            return self.propagate(edges, e=e, size=(count, count))

        def message(self, e: Tensor) -> Tensor:
            return e

    return Messages


class Interaction(nn.Module):
    """One layer of message passing: e' = MLP([v_s, v_r, e]), v' = MLP([v, sum of e' over incoming edges]).

    v [M, width], e [E, width], edges [2, E] (sender, receiver) -> (v', e'), the increments of both. One hidden layer a
    network. The first affine map of e' acts on nodes before they are gathered: the same numbers, a sixth of the work.

    Source: Battaglia et al.: Interaction networks (2016); sizes as in Janny et al. (ICLR 2024).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sender = nn.Linear(width, width, bias=False)
        self.receiver = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width)
        self.edge_out = nn.Linear(width, width)
        self.node = mlp([2 * width, width, width])
        self.messages: Any = _messages()(aggr="sum")

    def forward(self, v: Tensor, e: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Increments of nodes and edges."""
        # What is selected so is added up on the way back, where indexing would sort first.
        sent, received = self.sender(v).index_select(0, edges[0]), self.receiver(v).index_select(0, edges[1])
        hidden = sent + received + self.edge(e)
        change = self.edge_out(hidden.relu())
        return self.node(torch.cat((v, self.messages(edges, change, len(v))), -1)), change
