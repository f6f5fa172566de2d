"""diffrax as its users call it: one jitted function of (y0, args, weights), compiled once, waited for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.bench.contestants import Answer, Contestant
from sciode.bench.problems import Problem
from sciode.solvers import solve

__all__ = ["jax_device", "precision", "prepare_diffrax", "prepare_tuned_diffrax", "read_jax", "temporary_bytes"]

_BOUNDS = (16, 64, 256, 1024, 4096, 16384, 131072)
"""What `max_steps` is chosen from: memory and time of a gradient grow with it."""
_PIECES = 64
"""Into how many pieces a batch may be cut before a device counts as too small for it."""


def prepare_diffrax(
    problem: Problem, mode: str, adjoint: str | None = None, max_steps: int = 4096, pieces: int = 1
) -> Contestant:
    """The batch as one system if coupled, else vmap over the samples.

    adjoint: "direct", "recursive", None = diffrax's default. pieces: into how many calls the batch is cut.
    """
    import jax

    move = jax_device(problem.y0.device)
    with precision(problem.y0.dtype):
        sections = [
            (move(y0), None if args is None else move(args))
            for y0, args in zip(problem.y0.chunk(pieces), _chunks(problem.args, pieces), strict=True)
        ]
        weights = tuple(map(move, problem.weights))
        compiled = jax.jit(_solved(problem, mode, adjoint, max_steps, move(problem.ts)))

    def call() -> Any:
        with precision(problem.y0.dtype):
            return jax.block_until_ready([compiled(y0, args, weights) for y0, args in sections])

    def memory() -> int | None:
        with precision(problem.y0.dtype):
            return temporary_bytes(compiled, *sections[0], weights)

    return Contestant(call, lambda found: _joined(list(map(read_jax, found))), compiles=True, memory=memory)


def _solved(problem: Problem, mode: str, adjoint: str | None, max_steps: int, ts: Any) -> Callable[..., Any]:
    """The function that is compiled: (ys, steps) and the gradients."""
    import diffrax
    import jax
    import jax.numpy as jnp

    how = {"direct": diffrax.DirectAdjoint, "recursive": diffrax.RecursiveCheckpointAdjoint}
    control = diffrax.PIDController(rtol=problem.rtol, atol=problem.atol)

    def one(y0: Any, args: Any, weights: Any) -> tuple[Any, Any]:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, given: problem.jax_field(jnp, t, y, *given)),
            diffrax.Dopri5(),
            ts[0],
            ts[-1],
            problem.dt,
            y0,
            (args, weights),
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=control if problem.dt is None else diffrax.ConstantStepSize(),
            max_steps=max_steps,
            adjoint=how[adjoint or "recursive"](),
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

    return solved


def prepare_tuned_diffrax(problem: Problem, mode: str, adjoint: str | None = None) -> Contestant:
    """diffrax with the smallest `max_steps` and the fewest pieces that do: both are found by the first call."""
    return _Tuning(problem, mode, adjoint).contestant()


class _Tuning:
    """Moves on to the next setting where a call says that this one does not do; later calls find it chosen."""

    def __init__(self, problem: Problem, mode: str, adjoint: str | None) -> None:
        self.problem, self.mode, self.adjoint = problem, mode, adjoint
        needed = _steps(problem)
        self.bounds = [bound for bound in _BOUNDS if bound >= needed]
        self.pieces = 1
        self.prepared: Contestant | None = None

    def contestant(self) -> Contestant:
        """What is timed."""
        return Contestant(self._call, self._read, compiles=True, memory=self._memory)

    def _call(self) -> Any:
        while True:
            if self.prepared is None:
                self.prepared = prepare_diffrax(self.problem, self.mode, self.adjoint, self.bounds[0], self.pieces)
            try:
                return self.prepared.call()
            except Exception as fault:
                if not self._better(str(fault)):
                    raise
                self.prepared = None

    def _better(self, said: str) -> bool:
        """Whether there is another setting to try after this failure."""
        if "solver steps" in said and len(self.bounds) > 1:
            self.bounds = self.bounds[1:]
            return True
        # A gradient of shared weights is not cut: its pieces would have to be added up.
        if "RESOURCE_EXHAUSTED" in said and self.mode == "forward" and not self.problem.coupled:
            self.pieces *= 4
            return self.pieces <= min(_PIECES, len(self.problem.y0))
        return False

    def _read(self, found: Any) -> Answer:
        assert self.prepared is not None
        return self.prepared.read(found)

    def _memory(self) -> int | None:
        return None if self.prepared is None or self.prepared.memory is None else self.prepared.memory()


def _steps(problem: Problem) -> int:
    """How many steps a sample needs at most, as our own solver counts them; controllers differ a little."""
    if problem.dt is not None:
        return int(np.ceil(float(problem.ts[-1] - problem.ts[0]) / problem.dt))
    part = slice(0, len(problem.y0) if problem.coupled else 4096)
    with torch.no_grad():
        found = solve(
            problem.field,
            problem.y0[part],
            problem.ts,
            args=None if problem.args is None else problem.args[part],
            method="dopri5",
            rtol=problem.rtol,
            atol=problem.atol,
            coupled=problem.coupled,
            engine="eager",
        )
    return int(found.stats.steps.max())


def _chunks(args: Tensor | None, pieces: int) -> tuple[Tensor | None, ...]:
    return (None,) * pieces if args is None else args.chunk(pieces)


def read_jax(found: Any) -> Answer:
    """((ys, steps), gradients) of JAX on the host."""
    (ys, steps), gradients = found
    most = None if steps is None else int(np.asarray(steps).max())
    return Answer(np.asarray(ys), tuple(np.asarray(gradient) for gradient in gradients), most)


def _joined(answers: list[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    steps = max(answer.steps or 0 for answer in answers)
    return Answer(np.concatenate([answer.ys for answer in answers], 1), (), steps)


def jax_device(device: torch.device) -> Callable[[Tensor], Any]:
    """How tensors get to JAX's device of the same kind; RuntimeError where JAX has none."""
    import jax

    target = jax.devices("gpu" if device.type == "cuda" else "cpu")[0]
    return lambda x: jax.device_put(x.detach().cpu().numpy(), target)


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """JAX computes in float64, and multiplies float32 matrices in float32, only inside this switch."""
    import jax

    # Where it lived before JAX 0.8.
    home = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with home.enable_x64(dtype == torch.float64), jax.default_matmul_precision("highest"):
        yield


def temporary_bytes(compiled: Any, *arguments: Any) -> int | None:
    """Bytes a jitted function needs for intermediates and results, as XLA planned them."""
    plan = compiled.lower(*arguments).compile().memory_analysis()
    return None if plan is None else plan.temp_size_in_bytes + plan.output_size_in_bytes
