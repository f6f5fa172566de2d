"""The libraries that are compared, each called as its own documentation calls it.

`Peer.prepare(problem, mode)` returns a `Contestant`: `call` is what is timed, from tensors to finished results; `read`
takes its result apart afterwards. Modes: "forward"; "backward", which adds the gradient of sum(ys^2) with respect to
y0 and the weights, through the solver's operations; "adjoint", the same gradient by torchdiffeq's odeint_adjoint,
which integrates backwards.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciode.bench.problems import Problem
from sciode.solvers import solve

__all__ = ["PEERS", "Answer", "Contestant", "Peer", "count_calls", "reference"]


@dataclass(frozen=True)
class Answer:
    """A result in NumPy: ys [T, B, D]; gradients like (y0, *weights), () in forward mode; a sample's most steps."""

    ys: np.ndarray
    gradients: tuple[np.ndarray, ...]
    steps: int | None


@dataclass(frozen=True)
class Contestant:
    """What is timed (`call`), and how its result is read; `compiles`: whether the first call also compiles."""

    call: Callable[[], Any]
    read: Callable[[Any], Answer]
    compiles: bool = False


@dataclass(frozen=True)
class Peer:
    """A library: the module that must be importable, and how it is made to solve a problem.

    joint, separate: how it then steps the batch, in words, when the problem is coupled and when it is not. count: how
    it is made to call the field from Python, where `prepare` compiles the calls away.
    """

    library: str
    prepare: Callable[[Problem, str], Contestant]
    joint: str = "joint"
    separate: str = "per sample"
    torch_field: bool = True
    count: Callable[[Problem, str], Contestant] | None = None

    def how(self, problem: Problem, mode: str) -> str:
        """How the library is called here, e.g. "jit, vmap"."""
        batch = self.joint if problem.coupled else self.separate
        return f"adjoint, {batch}" if mode == "adjoint" else batch

    @property
    def version(self) -> str | None:
        """The installed version, None if there is none."""
        if find_spec(self.library) is None:
            return None
        try:
            return metadata.version(self.library)
        except metadata.PackageNotFoundError:
            # A checkout on the path, not an installed distribution.
            return "source tree"


class _Counted(nn.Module):
    """A field that counts its evaluations."""

    def __init__(self, field: Callable[..., Tensor]) -> None:
        super().__init__()
        self.field = field
        self.calls = 0

    def forward(self, *arguments: Tensor) -> Tensor:
        """Count and evaluate."""
        self.calls += 1
        return self.field(*arguments)


def count_calls(peer: Peer, problem: Problem, mode: str) -> int | None:
    """Batched evaluations of the field in one call (with a backward solve's own); None where it is not PyTorch's."""
    if not peer.torch_field:
        return None
    counted = _Counted(problem.field)
    (peer.count or peer.prepare)(replace(problem, field=counted), mode).call()
    return counted.calls


def reference(problem: Problem, mode: str) -> Answer:
    """The same problem in float64 by torchdiffeq's dopri8 at 1e-12, far below every error that is compared with it."""
    import torchdiffeq

    def double(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(torch.float64)

    weights = tuple(weight.to(torch.float64) for weight in problem.weights)
    field = type(problem.field)(weights) if isinstance(problem.field, nn.Module) else problem.field
    exact = replace(problem, y0=double(problem.y0), ts=double(problem.ts), args=double(problem.args), field=field)
    integrate = partial(torchdiffeq.odeint, method="dopri8", rtol=1e-12, atol=1e-12)
    found = _torch_call(exact, mode, lambda y0: integrate(exact.bound, y0, exact.ts))
    return _torch_read(found(), lambda ys: ys, lambda ys: None)


def _torch_call(
    problem: Problem, mode: str, run: Callable[[Tensor], Any], ys: Callable[[Any], Tensor] = lambda x: x
) -> Callable[[], tuple[Any, tuple[Tensor, ...]]]:
    """A call that solves, and takes the gradient unless the mode is forward."""
    parameters = tuple(problem.field.parameters()) if isinstance(problem.field, nn.Module) else ()

    def forward() -> tuple[Any, tuple[Tensor, ...]]:
        with torch.no_grad():
            return run(problem.y0), ()

    def backward() -> tuple[Any, tuple[Tensor, ...]]:
        y0 = problem.y0.detach().requires_grad_()
        out = run(y0)
        return out, torch.autograd.grad(ys(out).square().sum(), (y0, *parameters))

    return forward if mode == "forward" else backward


def _torch_read(
    found: tuple[Any, tuple[Tensor, ...]], ys: Callable[[Any], Tensor], steps: Callable[[Any], int | None]
) -> Answer:
    out, gradients = found
    return Answer(ys(out).detach().numpy(), tuple(gradient.numpy() for gradient in gradients), steps(out))


def _prepare_sciode(problem: Problem, mode: str, engine: str = "compiled") -> Contestant:
    def run(y0: Tensor) -> Any:
        return solve(
            problem.field,
            y0,
            problem.ts,
            args=problem.args,
            method="dopri5",
            rtol=problem.rtol,
            atol=problem.atol,
            coupled=problem.coupled,
            engine=engine,
        )

    def ys(solution: Any) -> Tensor:
        return solution.ys

    read = partial(_torch_read, ys=ys, steps=lambda solution: int(solution.stats.steps.max()))
    return Contestant(_torch_call(problem, mode, run, ys), read, compiles=engine != "eager")


def _prepare_torchdiffeq(problem: Problem, mode: str) -> Contestant:
    import torchdiffeq

    odeint = torchdiffeq.odeint_adjoint if mode == "adjoint" else torchdiffeq.odeint
    bound = problem.bound

    def run(y0: Tensor) -> Tensor:
        return odeint(bound, y0, problem.ts, method="dopri5", rtol=problem.rtol, atol=problem.atol)  # type: ignore[return-value]

    # It reports no steps.
    return Contestant(_torch_call(problem, mode, run), partial(_torch_read, ys=lambda ys: ys, steps=lambda ys: None))


def _prepare_torchode(problem: Problem, mode: str) -> Contestant:
    torchode = _import_torchode()

    def run(y0: Tensor) -> Any:
        term = torchode.ODETerm(problem.field, with_args=problem.args is not None)
        controller = torchode.IntegralController(atol=problem.atol, rtol=problem.rtol, term=term)
        return torchode.solve_ivp(term, y0, problem.ts, method="dopri5", controller=controller, args=problem.args)

    def ys(solution: Any) -> Tensor:
        return solution.ys.transpose(0, 1)

    read = partial(_torch_read, ys=ys, steps=lambda solution: int(solution.stats["n_steps"].max()))
    return Contestant(_torch_call(problem, mode, run, ys), read)


def _import_torchode() -> ModuleType:
    """Import torchode with a stand-in for torchtyping, an annotation library that current torch cannot import."""
    if "torchode" in sys.modules:
        return sys.modules["torchode"]
    stub = ModuleType("torchtyping")
    stub.TensorType = type("TensorType", (), {"__class_getitem__": classmethod(lambda cls, key: cls)})  # type: ignore[attr-defined]
    stub.is_float = None  # type: ignore[attr-defined]
    before = sys.modules.get("torchtyping")
    sys.modules["torchtyping"] = stub
    try:
        return importlib.import_module("torchode")
    finally:
        if before is None:
            del sys.modules["torchtyping"]
        else:
            sys.modules["torchtyping"] = before


def _prepare_diffrax(problem: Problem, mode: str) -> Contestant:
    """One jitted function of (y0, args, weights): the batch as one system if coupled, else vmap over the samples."""
    import diffrax
    import jax
    import jax.numpy as jnp

    with _precision(problem):
        y0, ts = jnp.asarray(problem.y0.numpy()), jnp.asarray(problem.ts.numpy())
        args = None if problem.args is None else jnp.asarray(problem.args.numpy())
        weights = tuple(jnp.asarray(weight.numpy()) for weight in problem.weights)
    controller = diffrax.PIDController(rtol=problem.rtol, atol=problem.atol)

    def one(y0: Any, args: Any, weights: Any) -> tuple[Any, Any]:
        term = diffrax.ODETerm(lambda t, y, given: problem.jax_field(jnp, t, y, *given))
        found = diffrax.diffeqsolve(
            term,
            diffrax.Dopri5(),
            ts[0],
            ts[-1],
            None,
            y0,
            (args, weights),
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=controller,
        )
        return found.ys, found.stats["num_steps"]

    run = one if problem.coupled else jax.vmap(one, (0, 0, None), (1, 0))

    def loss(y0: Any, args: Any, weights: Any) -> tuple[Any, Any]:
        ys, steps = run(y0, args, weights)
        return (ys**2).sum(), (ys, steps)

    def solved(y0: Any, args: Any, weights: Any) -> Any:
        if mode == "forward":
            return run(y0, args, weights), ()
        (_, found), (to_y0, to_weights) = jax.value_and_grad(loss, (0, 2), has_aux=True)(y0, args, weights)
        return found, (to_y0, *to_weights)

    with _precision(problem):
        compiled = jax.jit(solved)

    def call() -> Any:
        with _precision(problem):
            return jax.block_until_ready(compiled(y0, args, weights))

    def read(found: Any) -> Answer:
        (ys, steps), gradients = found
        return Answer(
            np.asarray(ys), tuple(np.asarray(gradient) for gradient in gradients), int(np.asarray(steps).max())
        )

    return Contestant(call, read, compiles=True)


@contextmanager
def _precision(problem: Problem) -> Iterator[None]:
    """JAX computes in float64 only inside this switch."""
    import jax

    # Where it lived before JAX 0.8.
    home = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with home.enable_x64(problem.y0.dtype == torch.float64):
        yield


_EAGER = partial(_prepare_sciode, engine="eager")

PEERS = (
    Peer("sciode", _prepare_sciode, joint="compiled, joint", separate="compiled, per sample", count=_EAGER),
    Peer("sciode", _EAGER, joint="eager, joint", separate="eager, per sample"),
    Peer("torchdiffeq", _prepare_torchdiffeq, separate="joint"),
    Peer("torchode", _prepare_torchode, joint="per sample"),
    Peer("diffrax", _prepare_diffrax, joint="jit, joint", separate="jit, vmap", torch_field=False),
)
