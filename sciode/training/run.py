"""The state of a training run: what a checkpoint holds, so that a killed run continues as if nothing had happened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from sciode.training.checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten
from sciode.training.options import FitOptions, unjudged

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Epoch:
    """One epoch's record: number (from 0), mean losses, learning rate, wall-clock seconds."""

    number: int
    train_loss: float
    validation_loss: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class History:
    """What a finished run tells: its epochs, the best one by validation loss (-1 if none was finite), why it ended."""

    epochs: tuple[Epoch, ...]
    best_epoch: int
    stopped: str


@dataclass
class Run:
    """A run in progress: model, optimizer, records so far, and the best weights."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    size: int
    warmup: int
    identity: str
    path: Path | None
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = -1
    best: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = "all epochs done"

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.model.parameters()).device

    def keep(self, record: Epoch) -> None:
        """Append the record, and keep the weights if they are the best so far (up to the warm-up's end: the latest)."""
        self.epochs.append(record)
        if record.number <= self.warmup or record.validation_loss < self.epochs[self.best_epoch].validation_loss:
            self.best_epoch = record.number
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint atomically."""
        assert self.path is not None
        tensors = flatten("model", self.model.state_dict()) | flatten("best", self.best)
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= flatten(f"optimizer.{number}", state)
        record = {"identity": self.identity, "best_epoch": self.best_epoch, "epochs": [asdict(e) for e in self.epochs]}
        save_checkpoint(self.path, tensors, record)

    def load(self) -> None:
        """Take up the checkpoint's state; ValueError if it belongs to another run."""
        assert self.path is not None
        tensors, record = load_checkpoint(self.path)
        if record["identity"] != self.identity:
            raise ValueError(
                f"{self.path} belongs to a run with another model, data or options: use another folder, or delete it"
            )
        self.model.load_state_dict(unflatten("model", tensors))
        self.best = {name: value.to(self.device) for name, value in unflatten("best", tensors).items()}
        self.best_epoch = record["best_epoch"]
        self.epochs = [Epoch(**entry) for entry in record["epochs"]]
        state = self.optimizer.state_dict()
        count = len(state["param_groups"][0]["params"])
        moments = {number: unflatten(f"optimizer.{number}", tensors) for number in range(count)}
        self.optimizer.load_state_dict(state | {"state": {number: m for number, m in moments.items() if m}})

    def finish(self) -> History:
        """Give the model the best weights and return the history."""
        if self.best:
            self.model.load_state_dict(self.best)
        self.model.eval()
        return History(tuple(self.epochs), self.best_epoch, self.stopped)


def open_run(
    model: nn.Module, train: Batch, validation: Batch, options: FitOptions, folder: Path | str | None, told: str = ""
) -> Run:
    """Return a new run, or the one whose checkpoint lies in `folder`."""
    sizes = size_of(train), size_of(validation)
    parameters = list(model.parameters())
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameters: there is nothing to fit")
    optimizer = torch.optim.AdamW(
        parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True if parameters[0].is_cuda else None
    )
    path = None if folder is None else Path(folder) / "checkpoint.safetensors"
    identity = "" if path is None else _identity(model, train, validation, options, told)
    run = Run(model, optimizer, sizes[0], unjudged(options, sizes[0]), identity, path)
    if path is not None and path.exists():
        run.load()
    return run


def size_of(data: Batch) -> int:
    """Return the number of samples; ValueError if there is none or the tensors disagree."""
    sizes = {name: len(values) for name, values in data.items()}
    if len(set(sizes.values())) != 1 or not min(sizes.values()):
        raise ValueError(f"the data must be tensors with one equal first axis of at least one sample, got {sizes}")
    return next(iter(sizes.values()))


def _identity(model: nn.Module, train: Batch, validation: Batch, options: FitOptions, told: str) -> str:
    """Return a hash of all that determines the run: initial weights, data, options, and what the caller told."""
    digest = hashlib.sha256((repr(options) + told).encode())
    for prefix, tensors in (("model", model.state_dict()), ("train", train), ("validation", validation)):
        for name, value in tensors.items():
            digest.update(f"{prefix}.{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
