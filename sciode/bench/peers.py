"""The libraries that are compared, each called as its own documentation calls it.

`Peer.prepare(problem, mode)` returns a `Contestant`: `call` is what is timed, from tensors to finished results; `read`
takes its result apart afterwards. Modes: "forward"; "backward", which adds the gradient of sum(ys^2) with respect to
y0 and the weights, through the solver's operations; "adjoint", the same gradient by torchdiffeq's odeint_adjoint,
which integrates backwards.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from sciode.bench.contestants import Contestant, Peer, prepare_ours, read_torch, torch_call
from sciode.bench.diffrax_peers import prepare_diffrax
from sciode.bench.problems import Problem
from sciode.solvers import solve

__all__ = ["PEERS", "count_calls", "prepare_sciode", "prepare_torchdiffeq", "prepare_torchode"]


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


def prepare_sciode(problem: Problem, mode: str, engine: str = "compiled", adjoint: str = "auto") -> Contestant:
    """Our solve; FellBack where another engine than the one asked for did the work."""
    # Output times on the host: what they decide there needs no word from the device.
    ts = problem.ts.cpu()
    steps: dict[str, Any] = {"rtol": problem.rtol, "atol": problem.atol} if problem.dt is None else {"dt": problem.dt}

    def run(y0: Tensor) -> Any:
        return solve(
            problem.field,
            y0,
            ts,
            args=problem.args,
            method="dopri5",
            coupled=problem.coupled,
            engine=engine,
            adjoint=adjoint,
            **steps,
        )

    return prepare_ours(problem, mode, engine, run)


def prepare_torchdiffeq(problem: Problem, mode: str) -> Contestant:
    """torchdiffeq's `odeint`, or in mode "adjoint" its `odeint_adjoint`: one step size for the batch."""
    import torchdiffeq

    odeint = torchdiffeq.odeint_adjoint if mode == "adjoint" else torchdiffeq.odeint
    bound, ts = problem.bound, problem.ts.to(problem.y0.device)

    def run(y0: Tensor) -> Tensor:
        return odeint(bound, y0, ts, method="dopri5", rtol=problem.rtol, atol=problem.atol)  # type: ignore[return-value]

    # It reports no steps.
    return Contestant(torch_call(problem, mode, run), partial(read_torch, ys=lambda ys: ys, steps=lambda ys: None))


def prepare_torchode(problem: Problem, mode: str) -> Contestant:
    """torchode's `solve_ivp` with its integral controller: each sample steps by itself."""
    torchode = _import_torchode()
    ts = problem.ts.to(problem.y0.device)

    def run(y0: Tensor) -> Any:
        term = torchode.ODETerm(problem.field, with_args=problem.args is not None)
        controller = torchode.IntegralController(atol=problem.atol, rtol=problem.rtol, term=term)
        return torchode.solve_ivp(term, y0, ts, method="dopri5", controller=controller, args=problem.args)

    def ys(solution: Any) -> Tensor:
        return solution.ys.transpose(0, 1)

    read = partial(read_torch, ys=ys, steps=lambda solution: int(solution.stats["n_steps"].max()))
    return Contestant(torch_call(problem, mode, run, ys), read)


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


_EAGER = partial(prepare_sciode, engine="eager")

PEERS = (
    Peer("sciode", prepare_sciode, joint="compiled, joint", separate="compiled, per sample", count=_EAGER),
    Peer("sciode", _EAGER, joint="eager, joint", separate="eager, per sample"),
    Peer("torchdiffeq", prepare_torchdiffeq, separate="joint"),
    Peer("torchode", prepare_torchode, joint="per sample"),
    Peer("diffrax", prepare_diffrax, joint="jit, joint", separate="jit, vmap", torch_field=False),
)
