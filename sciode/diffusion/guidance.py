"""Guidance: what is made of several outputs of a model, or of a classifier's gradient, at every evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.path import Node

__all__ = ["ClassifierFree", "ClassifierGuidance", "Guidance"]


class Guidance(ABC):
    """Changes the model's output, or pushes it along a gradient; one evaluation counts as one, whatever it calls."""

    @abstractmethod
    def output(self, model: Callable[..., Tensor], x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        """The guided output [B, ...], of the model's own kind."""

    def push(self, x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor | None:
        """What is added to the score, grad log p(x): [B, ...], or None."""
        return None


@final
@dataclass(frozen=True, eq=False)
class ClassifierFree(Guidance):
    """u + scale (c - u) for the conditional output c and the unconditional one u; eps, x0, v and flow come out alike.

    scale: 1 is the conditional model alone, and calls it once; 3 to 8 in text-to-image models.
    unconditional: keyword arguments in the place of `cond`, with tensors [B, ...] or [1, ...] each, or dicts of them.
    interval: (lowest, highest) t at which to guide; elsewhere the conditional output is used. Both outputs come from
    one call of twice the batch. Source: Ho, Salimans (2022); Kynkaanniemi et al. (2024) for intervals.
    """

    scale: float
    unconditional: Mapping[str, Any]
    interval: tuple[float, float] | None = None

    def output(self, model: Callable[..., Tensor], x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        if set(cond) != set(self.unconditional):
            raise ValueError(
                f"guidance: unconditional has {sorted(self.unconditional)}, cond has {sorted(cond)}; name the same"
            )
        if self.scale == 1.0 or not self._active(node):
            return model(x, t, **cond)
        both = {name: _joined(self.unconditional[name], cond[name], x.shape[0]) for name in cond}
        without, with_ = model(torch.cat((x, x)), torch.cat((t, t)), **both).chunk(2)
        return torch.lerp(without, with_, self.scale)

    def _active(self, node: Node) -> bool:
        if self.interval is None:
            return True
        low, high = self.interval
        inside = (low <= np.asarray(node.t)) & (np.asarray(node.t) <= high)
        return bool(inside.all())


def _joined(first: Any, second: Any, batch: int) -> Any:
    """One argument for twice the batch, entry by entry of a dict; what is no tensor has to be the same for both."""
    if isinstance(first, Mapping) and isinstance(second, Mapping) and set(first) == set(second):
        return {name: _joined(first[name], second[name], batch) for name in first}
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        if first is not second and first != second:
            raise ValueError("guidance: arguments that differ with and without condition must be tensors [B, ...]")
        return second
    return torch.cat([part.expand(batch, *part.shape[1:]) for part in (first, second)])


@final
@dataclass(frozen=True, eq=False)
class ClassifierGuidance(Guidance):
    """score + scale grad_x log_prob(x, t) for a classifier's log p(y | x_t) [B] of noisy states.

    log_prob(x, t, **cond) -> [B]. Source: Dhariwal, Nichol (2021).
    """

    log_prob: Callable[..., Tensor]
    scale: float = 1.0

    def output(self, model: Callable[..., Tensor], x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        return model(x, t, **cond)

    def push(self, x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor | None:
        differentiable = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            inner = x if differentiable else x.detach().requires_grad_()
            logs = self.log_prob(inner, t, **cond)
            (slope,) = torch.autograd.grad(logs.sum(), inner, create_graph=differentiable)
        return self.scale * slope
