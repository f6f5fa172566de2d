"""What every library is asked to solve: the same numbers as a PyTorch field and as a JAX field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MLPField", "Problem", "lorenz", "neural_ode", "van_der_pol"]


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y) or f(t, y, args) from y0 at ts[0], solved by dopri5 with outputs at ts.

    y0 [B, D]; ts [T] of the same dtype, always on the host; args [B] or None. field: f in PyTorch, batched.
    jax_field(jnp, t, y, args, weights): the same f for y [B, D] or, with the args of one sample, for y [D]; its
    constants are taken from `weights`, NumPy arrays that JAX may differentiate. coupled: one step size for the batch
    where a library leaves the choice.
    dt: fixed steps instead of tolerances. checked_until: the last time at which answers are compared, None = the end.
    """

    name: str
    title: str
    y0: Tensor
    ts: Tensor
    args: Tensor | None
    field: Callable[..., Tensor]
    jax_field: Callable[..., Any]
    weights: tuple[Tensor, ...]
    coupled: bool
    rtol: float = 1e-5
    atol: float = 1e-5
    dt: float | None = None
    checked_until: float | None = None

    @property
    def bound(self) -> Callable[[Tensor, Tensor], Tensor]:
        """f(t, y) for libraries that hand no args on."""
        field, args = self.field, self.args
        return field if args is None else lambda t, y: field(t, y, args)

    @property
    def least_bytes(self) -> int:
        """What no solver can do without: the states and the outputs."""
        return self.y0.element_size() * self.y0.numel() * (1 + len(self.ts))

    def to(self, device: str | torch.device) -> Problem:
        """The same problem with its tensors, but for the output times, on a device."""
        weights = tuple(weight.to(device) for weight in self.weights)
        field = type(self.field)(weights) if isinstance(self.field, nn.Module) else self.field
        args = None if self.args is None else self.args.to(device)
        return replace(self, y0=self.y0.to(device), args=args, weights=weights, field=field)


class MLPField(nn.Module):
    """f(t, y) = W2 tanh(W1 y + b1) + b2, y [B, D]."""

    def __init__(self, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        super().__init__()
        self.w1, self.b1, self.w2, self.b2 = (nn.Parameter(weight.clone()) for weight in weights)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Evaluate the network; t is not used."""
        hidden = torch.tanh(nn.functional.linear(y, self.w1, self.b1))
        return nn.functional.linear(hidden, self.w2, self.b2)


def _mlp(jnp: Any, t: Any, y: Any, args: Any, weights: Any) -> Any:
    w1, b1, w2, b2 = weights
    return jnp.tanh(y @ w1.T + b1) @ w2.T + b2


def neural_ode(
    batch: int = 128, dim: int = 16, hidden: int = 64, outputs: int = 8, dtype: torch.dtype = torch.float32
) -> Problem:
    """A neural ODE: a tanh network with one hidden layer, t in [0, 1], one step size for the batch.

    Weights are normal with standard deviation 3 / sqrt(inputs), biases 0.5: steep enough that dopri5 takes on the order
    of ten steps at 1e-5, as a trained network does. All draws are float64 from one seed and then rounded to dtype.
    """
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(*shape, generator=draw, dtype=torch.float64)).to(dtype)

    weights = (
        normal(hidden, dim, scale=3 / dim**0.5),
        normal(hidden, scale=0.5),
        normal(dim, hidden, scale=3 / hidden**0.5),
        normal(dim, scale=0.5),
    )
    return Problem(
        name="neural_ode",
        title=f"neural ODE, batch {batch}, dim {dim}, hidden {hidden}, {outputs} outputs",
        y0=normal(batch, dim, scale=1.0),
        ts=torch.linspace(0, 1, outputs, dtype=dtype),
        args=None,
        field=MLPField(weights),
        jax_field=_mlp,
        weights=weights,
        coupled=True,
    )


def _oscillator(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
    x, v = y[..., 0], y[..., 1]
    return torch.stack((v, mu * (1 - x * x) * v - x), -1)


def _jax_oscillator(jnp: Any, t: Any, y: Any, mu: Any, weights: Any) -> Any:
    x, v = y[..., 0], y[..., 1]
    return jnp.stack((v, mu * (1 - x * x) * v - x), -1)


def van_der_pol(batch: int = 256, outputs: int = 100, end: float = 20.0, dtype: torch.dtype = torch.float64) -> Problem:
    """x'' = mu (1 - x^2) x' - x from (2, 0), mu from 0.5 to 10 over the batch, t in [0, end], own steps a sample."""
    return Problem(
        name="van_der_pol",
        title=f"van der Pol, {batch} samples, mu 0.5 to 10, t 0 to {end:g}, {outputs} outputs",
        y0=torch.tensor([2.0, 0.0], dtype=dtype).repeat(batch, 1),
        ts=torch.linspace(0, end, outputs, dtype=dtype),
        args=torch.linspace(0.5, 10, batch, dtype=dtype),
        field=_oscillator,
        jax_field=_jax_oscillator,
        weights=(),
        coupled=False,
    )


def _convection(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    return torch.stack((10.0 * (b - a), a * (28.0 - c) - b, a * b - (8 / 3) * c), -1)


def _jax_convection(jnp: Any, t: Any, y: Any, args: Any, weights: Any) -> Any:
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    return jnp.stack((10.0 * (b - a), a * (28.0 - c) - b, a * b - (8 / 3) * c), -1)


def lorenz(batch: int = 1_000_000, outputs: int = 20, end: float = 10.0, dtype: torch.dtype = torch.float64) -> Problem:
    """Lorenz's convection (sigma 10, rho 28, beta 8/3) from around (1, 1, 1), own steps a sample, tolerance 1e-6.

    Neighbouring trajectories part by e^(0.9 t): answers are compared up to t = 2, where errors are still errors.
    """
    draw = torch.Generator().manual_seed(0)
    return Problem(
        name="lorenz",
        title=f"Lorenz, {batch} trajectories, t 0 to {end:g}, {outputs} outputs",
        y0=(1 + 0.1 * torch.randn(batch, 3, generator=draw, dtype=torch.float64)).to(dtype),
        ts=torch.linspace(0, end, outputs, dtype=dtype),
        args=None,
        field=_convection,
        jax_field=_jax_convection,
        weights=(),
        coupled=False,
        rtol=1e-6,
        atol=1e-6,
        checked_until=2.0,
    )
