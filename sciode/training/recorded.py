"""Training steps as graphs of a card: recorded once for each shape of their inputs, and replayed."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sciode.solvers.engines.graphs import copied
from sciode.solvers.engines.recording import end_capture, recording
from sciode.solvers.suggest import choose
from sciode.training.options import FitOptions, learning_rate
from sciode.training.run import Batch, Run

__all__ = ["ENGINES", "RecordedSteps", "Staged", "recorded_steps"]

ENGINES = ("auto", "eager", "capture")

_BEFORE = 2
"""Steps of a shape that are taken operation by operation: libraries choose kernels and allocate in them."""

_MOST = 12
"""Graphs of a run at most; steps of more shapes run operation by operation."""


class Staged(ABC):
    """A loss in two stages: `inputs`, which the host prepares, and `value`, which a card can record.

    `value` reads nothing from the device, and asks for nothing that its inputs do not hold.
    """

    @abstractmethod
    def inputs(self, model: nn.Module, batch: Batch, seed: int) -> Any:
        """A tree (tuples, dicts) of tensors on the model's device, and of constants; few shapes, whatever the seed."""

    @abstractmethod
    def value(self, model: nn.Module, inputs: Any) -> Tensor:
        """The mean loss of a batch, 0-d."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        """Both, as `fit` calls a loss."""
        return self.value(model, self.inputs(model, batch, seed))


def recorded_steps(engine: str, run: Run, loss: Any, options: FitOptions) -> RecordedSteps | None:
    """What takes the steps of an engine: None for those that run operation by operation.

    Raises ValueError for an unknown engine, or for "capture" without a card or with a loss that is not `Staged`.
    """
    choose("engine", engine, ENGINES)
    on_card, staged = run.device.type == "cuda", isinstance(loss, Staged)
    if engine == "capture" and not (on_card and staged):
        raise ValueError('engine="capture" needs a CUDA device and a loss in two stages: take "auto" or "eager"')
    return RecordedSteps(run, loss, options, engine == "auto") if engine != "eager" and on_card and staged else None


@final
class RecordedSteps:
    """Forward, backward, clipping and AdamW of one batch as one CUDA graph, with inputs of its own.

    cautious: where a step cannot be recorded it and all later ones run operation by operation, with a warning; False:
    a ValueError. A step that would spoil the weights, and all after it, are skipped, by a flag of the device's own.
    """

    def __init__(self, run: Run, loss: Staged, options: FitOptions, cautious: bool) -> None:
        self.run, self.loss, self.options, self.cautious = run, loss, options, cautious
        self.rate = torch.tensor(options.lr, device=run.device)
        self.total = torch.zeros((), dtype=torch.float64, device=run.device)
        self.spoilt = torch.zeros((), device=run.device)
        # A graph is recorded on a stream of its own, on which the steps before it have to be made, too.
        self.stream = torch.cuda.Stream(run.device)
        self.graphs: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor]]] = {}
        self.seen: dict[Any, int] = {}
        self.most = _MOST
        group = run.optimizer.param_groups[0]
        group["lr"], group["capturable"] = self.rate, True
        # What gradient scalers set, and fused optimizers obey: no step where it is 1.
        run.optimizer.found_inf = self.spoilt  # type: ignore[attr-defined]

    def begin(self, epoch: int) -> None:
        """Begin an epoch."""
        self.rate.fill_(learning_rate(self.options, epoch))
        self.run.optimizer.param_groups[0]["lr"] = self.rate
        self.total.zero_()
        self.spoilt.zero_()

    def step(self, batch: Batch, seed: int, count: int) -> None:
        """Move the weights by one step on `count` samples; nothing is read from the device."""
        inputs = self.loss.inputs(self.run.model, batch, seed)
        leaves, structure = pytree.tree_flatten(inputs)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        key = (str(structure), count, tuple((x.shape, x.dtype) for x in tensors))
        if key in self.graphs:
            graph, own = self.graphs[key]
            copied(own, tensors)
            graph.replay()
            return
        self.seen[key] = self.seen.get(key, 0) + 1
        if self.seen[key] <= _BEFORE or len(self.graphs) >= self.most:
            self._aside(inputs, count)
        elif self._captured(key, leaves, structure, count):
            self.graphs[key][0].replay()
        else:
            self._aside(inputs, count)

    def mean(self, size: int) -> float:
        """The mean loss since `begin`, NaN where a step would have spoilt the weights."""
        return math.nan if self.spoilt.item() else self.total.item() / size

    def _move(self, inputs: Any, count: int) -> None:
        optimizer, clip = self.run.optimizer, self.options.clip
        optimizer.zero_grad()
        value = self.loss.value(self.run.model, inputs)
        value.backward()
        norm = nn.utils.clip_grad_norm_(self.run.model.parameters(), math.inf if clip is None else clip)
        self.spoilt.copy_(torch.maximum(self.spoilt, (~(value.isfinite() & norm.isfinite())).float()))
        optimizer.step()
        self.total.add_(value.detach().double() * count)

    def _aside(self, inputs: Any, count: int) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self._move(inputs, count)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _captured(self, key: Any, leaves: list[Any], structure: Any, count: int) -> bool:
        """Record a step, which is not taken by that; whether it could be."""
        # A tensor that is written to has no two places in one: what was expanded is laid out.
        whole = [x.clone(memory_format=torch.contiguous_format) if isinstance(x, Tensor) else x for x in leaves]
        inputs, graph = pytree.tree_unflatten(whole, structure), torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values()))[0].pool() if self.graphs else None
        torch.cuda.synchronize()
        try:
            # Steps follow one another, and none reads what another left in its memory: so they share it.
            with recording(graph, stream=self.stream, pool=pool):
                self._move(inputs, count)
        except RuntimeError as error:
            end_capture()
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if not self.cautious:
                raise ValueError(f'a training step cannot be recorded: {said}; take engine="eager"') from error
            warnings.warn(f"a training step cannot be recorded and runs operation by operation: {said}", stacklevel=2)
            self.most = 0
            return False
        self.graphs[key] = graph, [x for x in whole if isinstance(x, Tensor)]
        return True
