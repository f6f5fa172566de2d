"""Mechanistic fields: a formula whose constants are known, or to be learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor, nn

__all__ = ["Mechanistic"]


@final
class Mechanistic(nn.Module):
    """A formula as a field with named constants: dy/dt = f(t, y, **constants).

        def swing(t, y, gravity, length):
            angle, rate = y[..., :1], y[..., 1:]
            return torch.cat((rate, -gravity / length * angle.sin()), -1)

        field = Mechanistic(swing, fixed={"gravity": 9.81}, learned={"length": 1.0})

    Parameters
    ----------
    formula: f(t, y, **constants) -> [*batch, D] for y [*batch, D]; the constants come as tensors.
    fixed: constants that stay (buffers). learned: first guesses of those that are trained (parameters). Numbers or
        tensors, in the formula's own units; float64 with `.double()`.

    Attributes: each constant by its name, `field.length`.
    Raises ValueError for a name in both, or one that is no Python name or already an attribute of a module.
    Compiles under engine="compiled" if `formula` does.
    """

    def __init__(
        self,
        formula: Callable[..., Tensor],
        *,
        fixed: Mapping[str, float | Tensor] | None = None,
        learned: Mapping[str, float | Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not callable(formula):
            raise ValueError(f"formula: expected a callable f(t, y, **constants), got {type(formula).__name__}")
        self.formula = formula
        constants, guesses = dict(fixed or {}), dict(learned or {})
        self.constants = (*constants, *guesses)
        if twice := constants.keys() & guesses.keys():
            raise ValueError(f"{', '.join(sorted(twice))}: a constant is either fixed or learned, not both")
        for name, value in (constants | guesses).items():
            if not name.isidentifier() or hasattr(self, name):
                raise ValueError(f"{name!r} cannot name a constant: it must be a Python name that no module has itself")
            start = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.get_default_dtype())
            if name in guesses:
                self.register_parameter(name, nn.Parameter(start.detach().clone()))
            else:
                self.register_buffer(name, start.detach().clone())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f(t, y, **constants)."""
        return self.formula(t, y, **{name: getattr(self, name) for name in self.constants})
