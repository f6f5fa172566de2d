"""Hamiltonian networks: the network is an energy, and the field conserves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from sciode.nn.halves import halves
from sciode.nn.per_sample import per_sample

__all__ = ["Hamiltonian"]


@final
class Hamiltonian(nn.Module):
    """The field of an energy H(q, p): q' = dH/dp, p' = -dH/dq, by automatic differentiation.

    dH/dt = H_q q' + H_p p' = 0 whatever H is, so an untrained network conserves its energy as well as a trained one
    (up to the solver's error); a plain network conserves nothing.

        field = Hamiltonian(Joined(mlp([2 * D, 64, 1], nn.Tanh)))
        field = Hamiltonian(lambda q, p: (p**2 / 2 - q.cos()).sum(-1))    # the true pendulum

    Parameters
    ----------
    energy: H(q, p) -> [*batch] or [*batch, 1] for q and p [*batch, D], samples apart from one another. It should be
        twice differentiable: tanh, softplus or SiLU; with ReLU the field is piecewise constant.

    forward(t, y): y = (q, p) [*batch, 2 D], canonical momenta. Works under `no_grad` and with every adjoint.
    Raises ValueError for an odd last axis of y, or an H that is not one number a sample.
    Compiles under engine="compiled" if H does (torch 2.13).
    Source: Greydanus, Dzamba, Yosinski: Hamiltonian Neural Networks (NeurIPS 2019).
    """

    def __init__(self, energy: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(energy):
            raise ValueError(f"energy: expected a callable H(q, p), got {type(energy).__name__}")
        self.H = energy

    def energy(self, y: Tensor) -> Tensor:
        """Return H(q, p) of each state, [*batch, 2 D] -> [*batch], e.g. along `solution.ys`."""
        q, p = halves(y, "(q, p)")
        return per_sample(self.H(q, p), q, "H(q, p)")

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return (dH/dp, -dH/dq), [*batch, 2 D]."""
        # The samples' energies do not share a state, so the gradient of their sum is each one's own.
        q_slope, p_slope = halves(torch.func.grad(lambda state: self.energy(state).sum())(y), "(q, p)")
        return torch.cat((p_slope, -q_slope), -1)
