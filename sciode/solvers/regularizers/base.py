"""The contract of a regularizer: a value per sample and accepted step, and how the steps' values are put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from ..suggest import choose

if TYPE_CHECKING:
    from ..problem import Problem
    from ..steppers import Step, Stepper

__all__ = ["REDUCTIONS", "Reduction", "Regularizer"]

Reduction = Literal["sum", "mean", "max"]
REDUCTIONS = ("sum", "mean", "max")


class Regularizer(ABC):
    """A penalty on how hard a trajectory was to integrate; `Solution.penalties[name]` is [*batch].

    draws: whether it needs random numbers, which then hang on the seed of the solve.
    """

    name: str
    reduce: Reduction
    draws: ClassVar[bool] = False

    @abstractmethod
    def check(self, stepper: Stepper) -> None:
        """ValueError if this method cannot provide the quantity."""

    @abstractmethod
    def measure(self, problem: Problem, t: Tensor, dt: Tensor, y: Tensor, step: Step, drawn: Tensor) -> Tensor:
        """The value [B] of one step of size dt [L] from y [B, D] at t [L]; drawn: what `draw` gave."""

    def draw(self, seeds: Tensor, y: Tensor) -> Tensor:
        """The random numbers of a whole solve, a pure function of the samples' seeds [B]; none."""
        return y.new_empty(0)

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
