"""Networks of one architecture as one: weights stacked along a first axis, batches laid one after another.

The stack of M networks takes what one of them takes, with M batches of equal size along the first axis, member after
member, [M B, ...]. So whatever stands around the weights (a solve, a path, a schedule) needs not know that there are
several networks, and one solve serves them all: on small networks nearly all of its time is the launching of
operations, which M members then share.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["StackedDropout", "StackedLinear", "members_of", "rowwise", "stack", "unstack"]


def rowwise(weight: Tensor, rows: Tensor, ndim: int) -> Tensor:
    """Return a weight [*w] of `ndim` axes as it is, and one that is stacked [M, *w] as [M B, 1, ..., *w].

    What it returns broadcasts against rows [M B, ..., *w]. A module that owns parameters, beside those of its layers,
    reads them through this and names them in `reads_rowwise`; then `stack` can stack it.
    """
    if weight.ndim == ndim:
        return weight
    each = weight.repeat_interleave(len(rows) // len(weight), 0)
    return each.reshape(len(rows), *[1] * (rows.ndim - 1 - ndim), *weight.shape[1:])


@final
class StackedLinear(nn.Module):
    """x [M B, ..., in] -> x W_m^T + b_m [M B, ..., out]: the linear layer of each member on its own rows."""

    def __init__(self, members: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.in_features, self.out_features = members[0].in_features, members[0].out_features
        self.weight = _joined([layer.weight for layer in members])
        self.bias = None if members[0].bias is None else _joined([layer.bias for layer in members])

    def forward(self, x: Tensor) -> Tensor:
        """All members' outputs."""
        rows = x.reshape(self.weight.shape[0], -1, self.in_features)
        turned = self.weight.transpose(1, 2)
        out = torch.bmm(rows, turned) if self.bias is None else torch.baddbmm(self.bias.unsqueeze(1), rows, turned)
        return out.reshape(*x.shape[:-1], self.out_features)


@final
class StackedGRUCell(nn.Module):
    """(x [M B, in], h [M B, size]) -> h [M B, size]: torch's GRU cell of each member on its own rows."""

    def __init__(self, members: Sequence[nn.GRUCell]) -> None:
        super().__init__()
        if not members[0].bias:
            raise ValueError("a GRU cell without biases cannot be stacked")
        self.weight_ih, self.weight_hh = (_joined([getattr(m, f"weight_{x}") for m in members]) for x in ("ih", "hh"))
        self.bias_ih, self.bias_hh = (_joined([getattr(m, f"bias_{x}") for m in members]) for x in ("ih", "hh"))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """All members' next states."""
        count = self.weight_ih.shape[0]
        old = h.reshape(count, -1, h.shape[-1])
        of_input, of_state = (
            torch.baddbmm(bias.unsqueeze(1), rows, weight.transpose(1, 2)).chunk(3, -1)
            for rows, weight, bias in (
                (x.reshape(count, -1, x.shape[-1]), self.weight_ih, self.bias_ih),
                (old, self.weight_hh, self.bias_hh),
            )
        )
        reset, keep = (torch.sigmoid(a + b) for a, b in zip(of_input[:2], of_state[:2], strict=True))
        new = torch.tanh(of_input[2] + reset * of_state[2])
        return (new + keep * (old - new)).reshape(h.shape)


@final
class StackedBatchNorm(nn.Module):
    """BatchNorm of each member over its own rows, [M B, F] -> [M B, F], with running statistics of its own."""

    def __init__(self, members: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        first = members[0]
        if not (first.affine and first.track_running_stats and first.momentum is not None):
            raise ValueError("only a BatchNorm with weights, running statistics and a momentum can be stacked")
        self.momentum, self.eps = first.momentum, first.eps
        self.weight, self.bias = _joined([m.weight for m in members]), _joined([m.bias for m in members])
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, torch.stack([getattr(m, name) for m in members]))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised rows."""
        count, width = self.weight.shape
        side_by_side = x.reshape(count, -1, width).transpose(0, 1).reshape(-1, count * width)
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if self.training:
            self.get_buffer("num_batches_tracked").add_(1)
        out = F.batch_norm(
            side_by_side,
            mean.view(-1),
            var.view(-1),
            self.weight.reshape(-1),
            self.bias.reshape(-1),
            self.training,
            self.momentum,
            self.eps,
        )
        return out.reshape(-1, count, width).transpose(0, 1).reshape(x.shape)


@final
class StackedDropout(nn.Module):
    """Dropout whose mask each member draws from its own generator: `streams`, which whoever trains must set.

    On a CPU a member's masks are those that `nn.Dropout` draws from a default generator in the same state.
    """

    streams: Sequence[torch.Generator] = ()

    def __init__(self, members: Sequence[nn.Dropout]) -> None:
        super().__init__()
        self.p = members[0].p

    def forward(self, x: Tensor) -> Tensor:
        """The rows, with some of their numbers 0 in training."""
        if not self.training or not self.p:
            return x
        if not self.streams or len(x) % len(self.streams):
            raise ValueError("set `streams`, one generator for each member, before a stack with dropout is trained")
        shape = (len(x) // len(self.streams), *x.shape[1:])
        kept = [x.new_empty(shape).bernoulli_(1 - self.p, generator=stream) for stream in self.streams]
        return x * torch.cat(kept).div_(1 - self.p)


_LAYERS: dict[type[nn.Module], Any] = {
    nn.Linear: StackedLinear,
    nn.GRUCell: StackedGRUCell,
    nn.BatchNorm1d: StackedBatchNorm,
    nn.Dropout: StackedDropout,
}
"""Layers that have a stacked form of their own."""


def stack(members: Sequence[nn.Module]) -> Any:
    """Return one network of the same class as the members, whose parameters and buffers are theirs, stacked [M, ...].

    It takes M batches of equal size along the first axis (see the module). Layers are replaced by stacked ones, modules
    with parameters of their own must read them through `rowwise`, all else is shared with the first member. The weights
    are copies; `unstack` gives them back.

    Raises ValueError for no members, members that differ in more than numbers, or a layer without a stacked form.
    """
    if not members:
        raise ValueError("members: give at least one network")
    shapes = [{name: x.shape for name, x in member.state_dict().items()} for member in members]
    if any(type(m) is not type(members[0]) for m in members) or any(s != shapes[0] for s in shapes):
        raise ValueError("members differ in class or in the shapes of their weights: stack one architecture")
    return _stacked(members)


def _stacked(members: Sequence[nn.Module]) -> nn.Module:
    first = members[0]
    if type(first) in _LAYERS:
        made = _LAYERS[type(first)](members)
    else:
        own = {*first._parameters, *first._buffers}
        if own - set(getattr(first, "reads_rowwise", ())):
            raise ValueError(
                f"{type(first).__name__} owns {', '.join(sorted(own))} and has no stacked form: train one by one"
            )
        made = copy.copy(first)
        made._parameters = {name: _joined([m.get_parameter(name) for m in members]) for name in first._parameters}
        made._modules = {
            name: None if part is None else _stacked([m.get_submodule(name) for m in members])
            for name, part in first._modules.items()
        }
    return made.train(first.training)


def _joined(weights: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([weight.detach() for weight in weights]))


def members_of(stacked: nn.Module) -> int:
    """Return how many networks a stack holds."""
    return len(next(stacked.parameters()))


def unstack(stacked: nn.Module, members: Sequence[nn.Module]) -> None:
    """Give each member its weights and buffers back."""
    state = stacked.state_dict()
    for number, member in enumerate(members):
        member.load_state_dict({name: value[number] for name, value in state.items()})
