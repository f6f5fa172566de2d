"""Losses over windows, in two stages: what a step reads, and what follows from it."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from sciode.training import Batch, Staged

__all__ = ["Windowed"]


@final
class Windowed(Staged):
    """The loss of a module with `inputs(rows, seed)`, `value(inputs)`, and `loss(rows, seed)` of both.

    rows: numbers of windows, on the CPU.
    """

    def inputs(self, model: nn.Module, batch: Batch, seed: int) -> Any:
        """See `Staged.inputs`."""
        own: Any = model.inputs
        return own(batch["window"], seed)

    def value(self, model: nn.Module, inputs: Any) -> Tensor:
        """See `Staged.value`."""
        own: Any = model.value
        return own(inputs)

    def __call__(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        """The loss, in evaluation mode of the validation windows."""
        own: Any = model.loss
        return own(batch["window"], seed)
