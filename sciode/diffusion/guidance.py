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

__all__ = ["ClassifierFree", "ClassifierGuidance", "Guidance", "MeasurementGuidance", "followed", "one_each"]


class Guidance(ABC):
    """Changes the model's output, or pushes it along a gradient; one evaluation counts as one, whatever it calls."""

    @abstractmethod
    def output(self, model: Callable[..., Tensor], x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        """The guided output [B, ...], of the model's own kind."""

    def push(self, x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor | None:
        """What is added to the score, grad log p(x): [B, ...], or None."""
        return None

    def log_weight(self, x0: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        """What the data prediction x0 [B, ...] weighs: [B], whose gradient in x, through the model, is added to the
        score; asked where `through_model` holds."""
        raise NotImplementedError

    @property
    def through_model(self) -> bool:
        """Whether `log_weight` is to be differentiated through the model."""
        return False


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

    def __post_init__(self) -> None:
        if not isinstance(self.unconditional, Mapping) or not self.unconditional:
            raise ValueError(
                "unconditional: name what `cond` names, with the values that mean no condition, such as "
                "{'label': torch.tensor([10])}"
            )

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
    for part in (first, second):
        if part.ndim == 0 or part.shape[0] not in (1, batch):
            raise ValueError(
                f"guidance: expected arguments [{batch}, ...] or [1, ...], with and without condition, got "
                f"{tuple(part.shape)}"
            )
    return torch.cat([part.expand(batch, *part.shape[1:]) for part in (first, second)])


def _check_function(log_prob: Any) -> None:
    if not callable(log_prob):
        raise ValueError(f"log_prob: got {log_prob!r}; pass a function that gives one logarithm a sample [B]")


def one_each(name: str, value: Any, x: Tensor) -> Tensor:
    """What a function of the states x gave; ValueError unless it is one number a sample [B]."""
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"{name}: expected one number a sample, [{x.shape[0]}], got {got}; sum over all axes but one")
    return value


def followed(name: str, value: Tensor) -> Tensor:
    """What a function of the states gave; ValueError where autograd cannot follow it back."""
    if not value.requires_grad:
        raise ValueError(f"{name}: its value has no gradient in the state; is there a no_grad or a detach within?")
    return value


@final
@dataclass(frozen=True, eq=False)
class ClassifierGuidance(Guidance):
    """score + scale grad_x log_prob(x, t) for a classifier's log p(y | x_t) [B] of noisy states.

    log_prob(x, t, **cond) -> [B]. Source: Dhariwal, Nichol (2021).
    """

    log_prob: Callable[..., Tensor]
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_function(self.log_prob)

    def output(self, model: Callable[..., Tensor], x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        return model(x, t, **cond)

    def push(self, x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor | None:
        differentiable = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            inner = x if differentiable else x.detach().requires_grad_()
            logs = followed("log_prob", one_each("log_prob", self.log_prob(inner, t, **cond), x))
            (slope,) = torch.autograd.grad(logs.sum(), inner, create_graph=differentiable)
        return self.scale * slope


@final
@dataclass(frozen=True, eq=False)
class MeasurementGuidance(Guidance):
    """score + scale grad_x log p(y | D(x)) for any differentiable measurement of the data prediction D, through the
    model: posterior sampling without training.

    log_prob(x0 [B, ...], t [B], **cond) -> [B]. A plain likelihood at D is DPS; one widened by what x_t leaves open of
    the data, such as N(y; A D, s^2 + A C A^T) with C = sigma^2 / (alpha^2 + sigma^2) for data of unit variance, is
    closer to the posterior (exact for Gaussian data with their own C) and much less stiff.
    inner: guidance of the model's output beside it, or None. Doubles the cost of an evaluation, at least.
    Source: Chung et al. (2023), DPS; Song et al. (2023), pseudo-inverse guidance.
    """

    log_prob: Callable[..., Tensor]
    scale: float = 1.0
    inner: Guidance | None = None

    def __post_init__(self) -> None:
        _check_function(self.log_prob)

    def output(self, model: Callable[..., Tensor], x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        return model(x, t, **cond) if self.inner is None else self.inner.output(model, x, t, node, cond)

    def push(self, x: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor | None:
        return None if self.inner is None else self.inner.push(x, t, node, cond)

    def log_weight(self, x0: Tensor, t: Tensor, node: Node, cond: Mapping[str, Any]) -> Tensor:
        return self.scale * followed("log_prob", one_each("log_prob", self.log_prob(x0, t, **cond), x0))

    @property
    def through_model(self) -> bool:
        return True
