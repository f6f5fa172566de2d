"""Several models of one kind, trained together: their parameters stacked along a first axis, one solve for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from sciode.training import isolated_rng

__all__ = ["Stacked"]


class Stacked:
    """Models made by `build()` with seeds of their own; `parameters` are leaves [models, ...] for one optimiser.

    An elementwise optimiser (Adam) then trains every model as if it were alone, for a loss that is a sum over models.
    """

    def __init__(self, build: Callable[[], nn.Module], seeds: Sequence[int], device: torch.device) -> None:
        models = []
        for seed in seeds:
            with isolated_rng(seed):
                models.append(build())
        parameters, _ = stack_module_state(models)  # type: ignore[arg-type]
        self.parameters = {name: p.detach().to(device).requires_grad_() for name, p in parameters.items()}
        self.model = models[0].to("meta")

    def __call__(self, parameters: dict[str, Tensor], *inputs: Tensor) -> Any:
        """The models' outputs [models, ...] for inputs [models, ...]."""

        def one(own: dict[str, Tensor], *given: Tensor) -> Any:
            return functional_call(self.model, own, given)

        return torch.vmap(one)(parameters, *inputs)

    def field(self, t: Tensor, y: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """All models as one field, for `solve(stacked.field, y0, ts, args=stacked.parameters, batch_dims=2)`."""
        return self(parameters, t, y)
