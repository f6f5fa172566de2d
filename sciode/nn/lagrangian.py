"""Lagrangian networks: the network is an action's density, in coordinates of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from sciode.nn.halves import halves
from sciode.nn.per_sample import per_sample

__all__ = ["Lagrangian"]

KINKED = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.Hardtanh, nn.RReLU)


@final
class Lagrangian(nn.Module):
    """The field of a Lagrangian L(q, v): q' = v, v' = M^-1 (dL/dq - C v), M = d2L/dv2, C = d2L/dv dq.

    The Euler-Lagrange equation d/dt dL/dv = dL/dq, solved for the acceleration. Unlike a Hamiltonian network it needs
    no canonical momenta: angles and their rates will do. It conserves dL/dv . v - L (`energy`).

        field = Lagrangian(Joined(mlp([2 * D, 64, 1], nn.Softplus)))
        field = Lagrangian(lambda q, v: (v**2 / 2 + q.cos()).sum(-1))    # the true pendulum

    Parameters
    ----------
    lagrangian: L(q, v) -> [*batch] or [*batch, 1] for q and v [*batch, D], samples apart from one another, and three
        times differentiable if it is trained: softplus, tanh or SiLU.
    ridge: added to the diagonal of M. 0 (default) is the equation itself; 1e-3 to 1e-2 keep an untrained network's M
        from being singular, and bias the accelerations by about ridge / M.

    forward(t, y): y = (q, v) [*batch, 2 D]; costs D derivatives of dL/dv and one batched D x D solve, without a
    look at its outcome: where M is singular, the field is not finite, and `solve` says so in that sample's status.
    Raises ValueError for an odd last axis of y, an L that is not one number a sample, ridge < 0, or activations whose
    second derivative vanishes (ReLU): M would be 0.
    engine="compiled" runs it (torch 2.13), but the first call takes minutes: 134 and 274 s were measured with a
    gradient for D = 2 on a busy machine, several times what a plain field takes.
    Source: Cranmer, Greydanus, Hoyer, Battaglia, Spergel, Ho: Lagrangian Neural Networks (2020).
    """

    def __init__(self, lagrangian: Callable[[Tensor, Tensor], Tensor], *, ridge: float = 0.0) -> None:
        super().__init__()
        if not callable(lagrangian):
            raise ValueError(f"lagrangian: expected a callable L(q, v), got {type(lagrangian).__name__}")
        if not ridge >= 0:
            raise ValueError(f"ridge must be >= 0, got {ridge}")
        if isinstance(lagrangian, nn.Module) and any(isinstance(part, KINKED) for part in lagrangian.modules()):
            raise ValueError(
                "lagrangian: piecewise linear activations make d2L/dv2 vanish; use nn.Softplus, nn.Tanh or nn.SiLU"
            )
        self.L, self.ridge = lagrangian, ridge

    def energy(self, y: Tensor) -> Tensor:
        """Return dL/dv . v - L of each state, [*batch, 2 D] -> [*batch]; constant along solutions."""
        q, v = halves(y, "(q, v)")
        return (self._momentum(q, v) * v).sum(-1) - self._each(q, v)

    def mass(self, y: Tensor) -> Tensor:
        """Return M = d2L/dv2 of each state, [*batch, 2 D] -> [*batch, D, D], without the ridge."""
        q, v = halves(y, "(q, v)")
        return self._slopes(q, v)[1]

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return (v, M^-1 (dL/dq - C v)), [*batch, 2 D]."""
        q, v = halves(y, "(q, v)")
        mixed, mass = self._slopes(q, v)
        force = torch.func.grad(lambda place: self._each(place, v).sum())(q) - (mixed @ v.unsqueeze(-1)).squeeze(-1)
        mass = mass + self.ridge * torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)
        return torch.cat((v, torch.linalg.solve_ex(mass, force.unsqueeze(-1)).result.squeeze(-1)), -1)

    def _each(self, q: Tensor, v: Tensor) -> Tensor:
        return per_sample(self.L(q, v), q, "L(q, v)")

    def _momentum(self, q: Tensor, v: Tensor) -> Tensor:
        return torch.func.grad(lambda speed: self._each(q, speed).sum())(v)

    def _slopes(self, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(d2L/dv dq, d2L/dv2), both [*batch, D, D], a row a component of dL/dv.

        Reverse over reverse: forward mode (`jvp`) is no faster for few coordinates, and the compiled engine cannot
        trace it (torch 2.13).
        """

        def component(q: Tensor, v: Tensor, k: int) -> Tensor:
            return self._momentum(q, v)[..., k].sum()

        rows = [torch.func.grad(component, argnums=(0, 1))(q, v, k) for k in range(v.shape[-1])]
        return torch.stack([row[0] for row in rows], -2), torch.stack([row[1] for row in rows], -2)
