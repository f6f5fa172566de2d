"""The neural SDE that every library is asked to solve, and how each is made to.

No two libraries draw the same noise. Our engines are compared with our own eager solve in float64, which sees the same
paths; the peers by their law: the means over the paths, in units of what chance allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciode.bench.contestants import Answer, Contestant, Peer, prepare_ours, read_torch, torch_call
from sciode.bench.diffrax_peers import jax_device, precision, read_jax, temporary_bytes
from sciode.solvers import SDETerm, solve

__all__ = ["SDE_PEERS", "NeuralSDE", "StochasticProblem", "law_distance", "neural_sde", "same_paths"]


class NeuralSDE(nn.Module):
    """dy = W2 tanh(W1 y + b1) dt + 0.2 sigmoid(V y) dW, diagonal noise, y [B, D]; also an object torchsde takes."""

    noise_type = "diagonal"

    def __init__(self, weights: tuple[Tensor, ...], sde_type: str) -> None:
        super().__init__()
        self.w1, self.b1, self.w2, self.v = (nn.Parameter(weight.clone()) for weight in weights)
        self.sde_type = sde_type

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift."""
        return nn.functional.linear(torch.tanh(nn.functional.linear(y, self.w1, self.b1)), self.w2)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion."""
        return 0.2 * torch.sigmoid(nn.functional.linear(y, self.v))


def _jax_drift(jnp: Any, y: Any, weights: Any) -> Any:
    w1, b1, w2, _ = weights
    return jnp.tanh(y @ w1.T + b1) @ w2.T


def _jax_diffusion(jnp: Any, y: Any, weights: Any) -> Any:
    return 0.2 / (1 + jnp.exp(-(y @ weights[3].T)))


@dataclass(frozen=True)
class StochasticProblem:
    """A neural SDE from y0 [B, D], all paths from one point, in `steps` steps of a method, outputs at ts [T]."""

    name: str
    title: str
    y0: Tensor
    ts: Tensor
    field: NeuralSDE
    weights: tuple[Tensor, ...]
    method: str
    steps: int
    coupled: bool = True
    seed: int = 7

    @property
    def dt(self) -> float:
        """The length of a step."""
        return float(self.ts[-1]) / self.steps

    @property
    def least_bytes(self) -> int:
        """What no solver can do without: the states and the outputs."""
        return self.y0.element_size() * self.y0.numel() * (1 + len(self.ts))

    def to(self, target: str | torch.device | torch.dtype) -> StochasticProblem:
        """The same problem on another device, or in another precision; the output times stay on the host."""
        weights = tuple(weight.to(target) for weight in self.weights)
        ts = self.ts.to(target) if isinstance(target, torch.dtype) else self.ts
        return replace(
            self, y0=self.y0.to(target), ts=ts, weights=weights, field=NeuralSDE(weights, self.field.sde_type)
        )


def neural_sde(
    batch: int = 512, dim: int = 32, hidden: int = 64, steps: int = 100, outputs: int = 11, method: str = "euler"
) -> StochasticProblem:
    """t in [0, 1]; method: "euler" (Ito) or "reversibleheun" (Stratonovich). Weights as `neural_ode` draws them."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(*shape, generator=draw, dtype=torch.float64)).to(torch.float32)

    weights = (
        normal(hidden, dim, scale=1 / dim**0.5),
        normal(hidden, scale=0.5),
        normal(dim, hidden, scale=1 / hidden**0.5),
        normal(dim, dim, scale=1 / dim**0.5),
    )
    return StochasticProblem(
        name="neural_sde",
        title=f"neural SDE, batch {batch}, dim {dim}, hidden {hidden}, {steps} steps of {method}, {outputs} outputs",
        y0=normal(1, dim, scale=1.0).repeat(batch, 1),
        ts=torch.linspace(0, 1, outputs),
        field=NeuralSDE(weights, "ito" if method == "euler" else "stratonovich"),
        weights=weights,
        method=method,
        steps=steps,
    )


def same_paths(problem: StochasticProblem, mode: str) -> Answer:
    """Our eager solve in float64, from the same seed: the same Brownian paths, without rounding to speak of."""
    contestant = _prepare_sciode(problem.to(torch.float64), mode, engine="eager")
    return contestant.read(contestant.call())


def law_distance(answer: Answer, exact: Answer) -> float:
    """Root mean square over outputs and components of the difference of means over paths, in its standard errors.

    About 1 where both draw from one law, 0 for the same paths; large where the law is another.
    """
    ours, theirs = (found.ys[1:].astype(np.float64) for found in (answer, exact))
    spread = (ours.var(1) / ours.shape[1] + theirs.var(1) / theirs.shape[1]) ** 0.5
    return float(np.sqrt(np.mean(((ours.mean(1) - theirs.mean(1)) / spread) ** 2)))


def _prepare_sciode(problem: StochasticProblem, mode: str, engine: str, adjoint: str = "auto") -> Contestant:
    calculus: Any = problem.field.sde_type
    term = SDETerm(problem.field.f, problem.field.g, calculus=calculus)
    ts = problem.ts.tolist()

    def run(y0: Tensor) -> Any:
        return solve(
            term, y0, ts, method=problem.method, dt=problem.dt, seed=problem.seed, coupled=True, engine=engine,
            adjoint=adjoint,
        )  # fmt: skip

    return prepare_ours(problem, mode, engine, run)


def _prepare_torchsde(problem: StochasticProblem, mode: str) -> Contestant:
    import torchsde

    method = "euler" if problem.method == "euler" else "reversible_heun"
    ts = problem.ts.to(problem.y0)

    def run(y0: Tensor) -> Any:
        # What sdeint makes by itself, but for the entropy, which it would draw from NumPy's global stream.
        path = torchsde.BrownianInterval(
            ts[0], ts[-1], size=tuple(y0.shape), dtype=y0.dtype, device=y0.device, entropy=problem.seed
        )
        return torchsde.sdeint(problem.field, y0, ts, bm=path, method=method, dt=problem.dt)

    return Contestant(torch_call(problem, mode, run), partial(read_torch, ys=lambda ys: ys, steps=lambda ys: None))


def _prepare_diffrax(problem: StochasticProblem, mode: str, brownian: str, adjoint: str) -> Contestant:
    """brownian: "unsafe" (drawn in the loop) or "tree"; adjoint: "direct" or "recursive"."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    solver = diffrax.Euler() if problem.method == "euler" else diffrax.ReversibleHeun()
    how = diffrax.DirectAdjoint() if adjoint == "direct" else diffrax.RecursiveCheckpointAdjoint()
    start, end, shape = 0.0, float(problem.ts[-1]), tuple(problem.y0.shape)
    ts = jax_device(problem.y0.device)(problem.ts)
    # A loop of unknown length is the fastest, and only a gradient needs to know it; one step is for rounding.
    bound = None if mode == "forward" and brownian == "unsafe" else problem.steps + 1

    def run(y0: Any, weights: Any) -> tuple[Any, Any]:
        key, form = jax.random.key(problem.seed), jax.ShapeDtypeStruct(shape, y0.dtype)
        path = (
            diffrax.UnsafeBrownianPath(form, key)
            if brownian == "unsafe"
            else diffrax.VirtualBrownianTree(start, end, tol=problem.dt / 2, shape=form, key=key)
        )
        drift = diffrax.ODETerm(lambda t, y, w: _jax_drift(jnp, y, w))
        noise = diffrax.ControlTerm(lambda t, y, w: lineax.DiagonalLinearOperator(_jax_diffusion(jnp, y, w)), path)
        found = diffrax.diffeqsolve(
            diffrax.MultiTerm(drift, noise), solver, start, end, problem.dt, y0, weights,
            saveat=diffrax.SaveAt(ts=ts), adjoint=how, max_steps=bound,
        )  # fmt: skip
        return found.ys, found.stats["num_steps"]

    return _jitted(problem, mode, run)


def _prepare_scan(problem: StochasticProblem, mode: str) -> Contestant:
    """What a JAX user writes by hand: the noise drawn first, the Euler or reversible Heun steps in a `lax.scan`."""
    import jax
    import jax.numpy as jnp

    dt, outputs = problem.dt, len(problem.ts) - 1
    every = problem.steps // outputs

    def euler(state: Any, dw: Any, weights: Any) -> Any:
        (y,) = state
        return (y + dt * _jax_drift(jnp, y, weights) + _jax_diffusion(jnp, y, weights) * dw,)

    def heun(state: Any, dw: Any, weights: Any) -> Any:
        y, z, f, g = state
        ahead = 2 * y - z + f * dt + g * dw
        f1, g1 = _jax_drift(jnp, ahead, weights), _jax_diffusion(jnp, ahead, weights)
        return y + 0.5 * (f + f1) * dt + 0.5 * (g + g1) * dw, ahead, f1, g1

    step = euler if problem.method == "euler" else heun

    def run(y0: Any, weights: Any) -> tuple[Any, Any]:
        draws = jax.random.normal(jax.random.key(problem.seed), (outputs, every, *y0.shape), y0.dtype) * dt**0.5
        state = (y0,) if step is euler else (y0, y0, _jax_drift(jnp, y0, weights), _jax_diffusion(jnp, y0, weights))

        def stretch(state: Any, dws: Any) -> Any:
            state, _ = jax.lax.scan(lambda inner, dw: (step(inner, dw, weights), None), state, dws)
            return state, state[0]

        _, ys = jax.lax.scan(stretch, state, draws)
        return jnp.concatenate([y0[None], ys]), None

    return _jitted(problem, mode, run)


def _jitted(problem: StochasticProblem, mode: str, run: Callable[[Any, Any], tuple[Any, Any]]) -> Contestant:
    import jax

    move = jax_device(problem.y0.device)

    def loss(y0: Any, weights: Any) -> tuple[Any, Any]:
        ys, steps = run(y0, weights)
        return (ys**2).sum(), (ys, steps)

    def solved(y0: Any, weights: Any) -> Any:
        if mode == "forward":
            return run(y0, weights), ()
        (_, found), (to_y0, to_weights) = jax.value_and_grad(loss, (0, 1), has_aux=True)(y0, weights)
        return found, (to_y0, *to_weights)

    with precision(problem.y0.dtype):
        y0, weights, compiled = move(problem.y0), tuple(map(move, problem.weights)), jax.jit(solved)

    def call() -> Any:
        with precision(problem.y0.dtype):
            return jax.block_until_ready(compiled(y0, weights))

    def memory() -> int | None:
        with precision(problem.y0.dtype):
            return temporary_bytes(compiled, y0, weights)

    return Contestant(call, read_jax, compiles=True, memory=memory)


def _ours(engine: str, adjoint: str = "auto") -> Peer:
    return Peer("sciode", partial(_prepare_sciode, engine=engine, adjoint=adjoint))


SDE_PEERS = {
    "eager": _ours("eager"),
    "compiled": _ours("compiled"),
    "graph": _ours("graph"),
    "graph recompute": _ours("graph", "recompute"),
    "graph direct": _ours("graph", "direct"),
    "kernel": _ours("kernel"),
    "diffrax unsafe": Peer("diffrax", partial(_prepare_diffrax, brownian="unsafe", adjoint="direct")),
    "diffrax tree": Peer("diffrax", partial(_prepare_diffrax, brownian="tree", adjoint="recursive")),
    "diffrax tree direct": Peer("diffrax", partial(_prepare_diffrax, brownian="tree", adjoint="direct")),
    "scan": Peer("jax", _prepare_scan),
    "torchsde": Peer("torchsde", _prepare_torchsde),
}
