"""The contract of a regularizer: a value per sample and accepted step, and how the steps' values are put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..suggest import choose, unknown

if TYPE_CHECKING:
    from ..problem import Problem
    from ..steppers import Step, Stepper

__all__ = ["REDUCTIONS", "Reduction", "Regularizer", "as_regularizers"]

Reduction = Literal["sum", "mean", "max"]
REDUCTIONS = ("sum", "mean", "max")


class Regularizer(ABC):
    """A penalty on how hard a trajectory was to integrate; `Solution.penalties[name]` is [*batch]."""

    name: str
    reduce: Reduction

    @abstractmethod
    def check(self, stepper: Stepper) -> None:
        """ValueError if this method cannot provide the quantity."""

    @abstractmethod
    def measure(self, problem: Problem, dt: Tensor, y: Tensor, step: Step) -> Tensor:
        """The value [B] of one step of size dt [L] from y [B, D]."""

    def total(self, values: list[Tensor], taken: Tensor, like: Tensor) -> Tensor:
        """Put together the values [B] of the steps that a sample accepted (taken [I, L]): [B]."""
        choose("reduce", self.reduce, REDUCTIONS)
        if not values:
            return like.new_zeros(like.shape[0])
        stacked = torch.stack(values)
        stacked = torch.where(taken, stacked, torch.zeros_like(stacked))
        if self.reduce == "max":
            return stacked.amax(0)
        total = stacked.sum(0)
        return total if self.reduce == "sum" else total / taken.sum(0).clamp(min=1)


def as_regularizers(regularize: object, stepper: Stepper) -> tuple[Regularizer, ...]:
    """Names or objects, one or several, as a tuple of regularizers that this method can serve."""
    from . import Error, Stiffness

    defaults: dict[str, Regularizer] = {"error": Error(), "stiffness": Stiffness()}
    items = regularize if isinstance(regularize, list | tuple) else (regularize,)
    chosen: list[Regularizer] = []
    for item in items:
        if isinstance(item, str):
            if item not in defaults:
                raise unknown("regularize", item, defaults)
            item = defaults[item]
        if not isinstance(item, Regularizer):
            raise ValueError(f"regularize: expected a name or a Regularizer, got {type(item).__name__}")
        item.check(stepper)
        chosen.append(item)
    names = [item.name for item in chosen]
    if len(set(names)) < len(names):
        raise ValueError(
            f"regularize: two regularizers share a name ({', '.join(names)}); pass name= to tell them apart"
        )
    return tuple(chosen)
