"""The training loop: steps on the device, an average of the weights, checkpoints; the host looks once in a while."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from sciode.training import Average, Batch, derive_seed, isolated_rng, load_checkpoint, save_checkpoint
from sciode.training.checkpoint import flatten, unflatten

__all__ = ["Loss", "TrainOptions", "Trained", "train"]

Loss = Callable[[nn.Module, nn.Module, Batch, torch.Generator], Tensor]
"""(network, its average, named rows of the data, generator on their device) -> the batch's mean loss, 0-d."""


@dataclass(frozen=True)
class TrainOptions:
    """steps, or seconds, whichever end first (None: no limit of time); batch_size: drawn with replacement; lr: of Adam,
    reached after `warmup` steps and kept; clip: of the gradient's norm; average, decay: width or decay of `Average`;
    autocast: "bfloat16" or None; look: steps between two looks of the host at the loss; save: seconds between
    checkpoints.

    Good values: lr 1e-3 for small networks, 3e-4 for distillation; average 0.1, decay 0.95 where the average is a
    target.
    """

    steps: int = 1000
    seconds: float | None = None
    batch_size: int = 128
    lr: float = 1e-3
    warmup: int = 100
    clip: float = 1.0
    average: float = 0.1
    decay: float | None = None
    autocast: str | None = None
    seed: int = 0
    look: int = 100
    save: float = 60.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.look < 1 or self.warmup < 0:
            raise ValueError("steps, batch_size and look must be >= 1, warmup >= 0")
        if not (self.lr > 0 and self.clip > 0) or self.autocast not in (None, "bfloat16"):
            raise ValueError('lr and clip must be > 0, autocast "bfloat16" or None')


@dataclass(frozen=True)
class Trained:
    """network: the average, in evaluation mode; losses: (step, mean loss since the last look); why it stopped."""

    network: nn.Module
    losses: tuple[tuple[int, float], ...]
    steps: int
    seconds: float
    stopped: str


@dataclass
class _State:
    network: nn.Module
    average: Average
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    good: dict[str, Tensor] = field(default_factory=dict)
    drops: bool = False


def train(
    network: nn.Module, loss: Loss, data: Batch, options: TrainOptions, *, folder: Path | None = None,
    identity: str = "", keep: Callable[[nn.Module, int], None] | None = None,
) -> Trained:  # fmt: skip
    """Minimise the mean of `loss` over `data` (named tensors with one first axis, on the network's device).

    Rows and noise of step n are a function of (seed, n) alone: a run that is taken up again from `folder` gives, bit
    for bit on a CPU, what an uninterrupted one would have; more steps may be asked for. A loss that is not finite ends
    the run with the average of the last look, and says so in `stopped`. identity: what the run hangs on beside data,
    options and first weights. keep: called with the average and the step after every checkpoint. Raises ValueError for
    empty data, or a checkpoint of another run.
    """
    device = next(network.parameters()).device
    size = _size(data)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=options.lr, betas=(0.9, 0.99), fused=device.type == "cuda" or None
    )
    state = _State(network, Average(network, width=options.average, decay=options.decay), optimizer)
    state.drops = any(getattr(part, "p", 0.0) > 0 for part in network.modules() if isinstance(part, _DropoutNd))
    file = None if folder is None else Path(folder) / "training.safetensors"
    told = "" if file is None else _identity(network, data, options, identity)
    if file is not None and file.exists():
        _load(file, state, told)
    state.good = _copy(state.average.network)

    def checkpoint() -> None:
        if file is not None:
            _save(file, state, told)
        if keep is not None:
            keep(state.average.network, state.step)

    stopped = _steps(state, loss, data, size, options, checkpoint)
    state.average.network.load_state_dict(state.good)
    return Trained(state.average.network.eval(), tuple(state.losses), state.step, state.seconds, stopped)


def _steps(
    state: _State, loss: Loss, data: Batch, size: int, options: TrainOptions, checkpoint: Callable[[], None]
) -> str:
    device = next(state.network.parameters()).device
    generator = torch.Generator(device)
    total, since = torch.zeros((), device=device, dtype=torch.float64), state.step
    began, before = time.perf_counter(), state.seconds
    saved, stopped = state.seconds, "all steps done"
    state.network.train()
    state.average.network.eval()
    while state.step < options.steps:
        total += _step(state, loss, data, size, options, generator)
        if state.step % options.look and state.step < options.steps:
            continue
        mean = total.item() / (state.step - since)
        total.zero_()
        since, state.seconds = state.step, before + time.perf_counter() - began
        if not math.isfinite(mean):
            return f"non-finite loss before step {state.step}: lower lr or clip"
        state.losses.append((state.step, mean))
        state.good = _copy(state.average.network)
        late = options.seconds is not None and state.seconds >= options.seconds
        if late or state.step == options.steps or state.seconds - saved >= options.save:
            checkpoint()
            saved = state.seconds
        if late:
            return "out of time"
    return stopped


def _step(
    state: _State, loss: Loss, data: Batch, size: int, options: TrainOptions, generator: torch.Generator
) -> Tensor:
    """One step; returns the loss without waiting for it."""
    device = generator.device
    # Dropout can draw from torch's own generators alone.
    draws = isolated_rng(options.seed, 2, state.step) if state.drops else nullcontext()
    generator.manual_seed(derive_seed(options.seed, 1, state.step))
    rows = torch.randint(size, (options.batch_size,), generator=generator, device=device)
    batch = {name: values[rows] for name, values in data.items()}
    lower = torch.autocast(device.type, torch.bfloat16) if options.autocast else nullcontext()
    with lower, draws:
        value = loss(state.network, state.average.network, batch, generator)
    state.optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), options.clip)
    state.optimizer.param_groups[0]["lr"] = options.lr * min(1.0, (state.step + 1) / max(options.warmup, 1))
    state.optimizer.step()
    state.step += 1
    state.average.update(state.network, state.step)
    return value.detach().double()


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _size(data: Batch) -> int:
    if not isinstance(data, Mapping):
        raise ValueError(f"data: got a {type(data).__name__}; pass named tensors, such as {{'x': pictures [n, ...]}}")
    sizes = {len(values) for values in data.values()}
    if len(sizes) != 1 or not min(sizes):
        raise ValueError(f"data: expected named tensors with one equal first axis of at least one row, got {sizes}")
    return sizes.pop()


def _identity(network: nn.Module, data: Batch, options: TrainOptions, told: str) -> str:
    """A hash of first weights, data, and the options that a step hangs on."""
    free = replace(options, steps=1, seconds=None, save=0.0, look=1)
    digest = hashlib.sha256(f"{free!r} {told}".encode())
    for prefix, tensors in (("network", network.state_dict()), ("data", data)):
        for name, value in tensors.items():
            digest.update(f"{prefix}.{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save(file: Path, state: _State, told: str) -> None:
    tensors = flatten("network", state.network.state_dict()) | flatten("average", state.average.network.state_dict())
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= flatten(f"optimizer.{number}", moments)
    record: Mapping[str, Any] = {
        "identity": told, "step": state.step, "seconds": state.seconds, "losses": state.losses
    }  # fmt: skip
    save_checkpoint(file, tensors, record)


def _load(file: Path, state: _State, told: str) -> None:
    tensors, record = load_checkpoint(file)
    if record["identity"] != told:
        raise ValueError(f"{file} belongs to a run with another network, data or options: use another folder")
    state.network.load_state_dict(unflatten("network", tensors))
    state.average.network.load_state_dict(unflatten("average", tensors))
    groups = state.optimizer.state_dict()
    count = len(groups["param_groups"][0]["params"])
    moments = {number: unflatten(f"optimizer.{number}", tensors) for number in range(count)}
    state.optimizer.load_state_dict(groups | {"state": {number: m for number, m in moments.items() if m}})
    state.step, state.seconds = record["step"], record["seconds"]
    state.losses = [tuple(entry) for entry in record["losses"]]
