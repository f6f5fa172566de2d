"""The training loop, in sight: minibatches, clipping, schedule, early stopping, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciode.training.isolation import derive_seed, isolated_rng, threads
from sciode.training.log import append_json
from sciode.training.options import FitOptions, learning_rate
from sciode.training.recorded import RecordedSteps, recorded_steps
from sciode.training.run import Batch, Epoch, History, Run, open_run, size_of

Loss = Callable[[nn.Module, Batch, int], Tensor]


def fit(
    model: nn.Module,
    loss: Loss,
    train: Batch,
    validation: Batch,
    options: FitOptions,
    *,
    folder: Path | str | None = None,
    progress: bool = False,
    identity: str = "",
    engine: str = "eager",
) -> History:
    """Minimise the mean of `loss(model, batch, seed)` over `train`; leave the weights of the best validation epoch.

    Parameters
    ----------
    loss: returns the batch's mean loss, 0-d; draws its noise from `seed`, an int that differs in every step.
    train, validation: named tensors on the model's device with one first axis, the samples.
    folder: where `checkpoint.safetensors` (each epoch) and `log.jsonl` go. A checkpoint of the same run found there
        is continued, and gives bit for bit (CPU) what the uninterrupted run would have.
    progress: a bar over the epochs, if a terminal or a notebook is there to show it.
    identity: what else the run hangs on and neither weights, data nor options show: the loss, the kind of network.
    engine: "eager", operation by operation; "capture": steps of a loss that is `Staged` are recorded as CUDA graphs and
        replayed; "auto": the latter on a card where that can be done.

    A non-finite loss ends the run: `History.stopped` says so, the model gets the best weights so far, and the
    checkpoint stays that of the last good epoch.

    Raises ValueError for a model or sets that are empty, unequal first axes, or a checkpoint of another model, data,
    options or identity, or an engine that cannot be.
    """
    run = open_run(model, train, validation, options, folder, identity)
    steps = recorded_steps(engine, run, loss, options)
    for epoch in _epochs(run, options, progress):
        began, lr = time.perf_counter(), learning_rate(options, epoch)
        run.optimizer.param_groups[0]["lr"] = lr
        with threads(options.threads), isolated_rng(options.seed, 0, epoch):
            trained = _train(run, loss, train, options, epoch, steps)
            checked = (
                evaluate(model, loss, validation, derive_seed(options.seed, 2)) if math.isfinite(trained) else math.nan
            )
        if not math.isfinite(checked):
            run.stopped = f"non-finite loss in epoch {epoch}: lower lr or clip"
            break
        record = Epoch(epoch, trained, checked, lr, time.perf_counter() - began)
        run.keep(record)
        if folder is not None:
            run.save()
            append_json(Path(folder) / "log.jsonl", asdict(record))
    return run.finish()


def _train(
    run: Run, loss: Loss, train: Batch, options: FitOptions, epoch: int, recorded: RecordedSteps | None = None
) -> float:
    """Train one epoch and return its mean loss, or NaN before a step that would spoil the weights."""
    run.model.train()
    if recorded is not None:
        recorded.begin(epoch)
        for step, rows in enumerate(minibatches(run.size, options, epoch)):
            recorded.step(_rows(train, rows), derive_seed(options.seed, 1, epoch, step), len(rows))
        return recorded.mean(run.size)
    if run.device.type == "cuda":
        return _train_ahead(run, loss, train, options, epoch)
    total = 0.0
    for step, rows in enumerate(minibatches(run.size, options, epoch)):
        value, norm = _descended(run, loss, train, options, (epoch, step), rows)
        mean = value.item()
        if not (math.isfinite(mean) and math.isfinite(norm.item())):
            return math.nan
        run.optimizer.step()
        total += mean * len(rows)
    return total / run.size


def _train_ahead(run: Run, loss: Loss, train: Batch, options: FitOptions, epoch: int) -> float:
    """The same without waiting for the card in every step: it skips, by a flag of its own, what would spoil weights."""
    zero = torch.zeros((), device=run.device)
    total, spoilt = zero.double(), zero
    for step, rows in enumerate(minibatches(run.size, options, epoch)):
        value, norm = _descended(run, loss, train, options, (epoch, step), rows)
        spoilt = torch.maximum(spoilt, (~(value.isfinite() & norm.isfinite())).float())
        # What gradient scalers set, and fused optimizers obey: no step where it is 1.
        run.optimizer.found_inf = spoilt  # type: ignore[attr-defined]
        run.optimizer.step()
        total += value.detach() * len(rows)
    return math.nan if spoilt.item() else total.item() / run.size


def _descended(
    run: Run, loss: Loss, train: Batch, options: FitOptions, number: tuple[int, int], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of a minibatch and its gradient's norm, the gradient clipped."""
    run.optimizer.zero_grad()
    value = loss(run.model, _rows(train, rows), derive_seed(options.seed, 1, *number))
    value.backward()
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), math.inf if options.clip is None else options.clip)
    return value, norm


def _rows(data: Batch, rows: Tensor) -> dict[str, Tensor]:
    return {name: values[rows.to(values.device)] for name, values in data.items()}


def evaluate(model: nn.Module, loss: Loss, data: Batch, seed: int, batch_size: int = 1024) -> float:
    """Return the mean loss over `data` in evaluation mode and without gradients; the noise is that of `seed`."""
    model.eval()
    size, total = size_of(data), torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for begin in range(0, size, batch_size):
            batch = {name: values[begin : begin + batch_size] for name, values in data.items()}
            total = total + loss(model, batch, seed).double() * len(next(iter(batch.values())))
    return float(total) / size


def minibatches(size: int, options: FitOptions, epoch: int) -> tuple[Tensor, ...]:
    """Return the epoch's shuffled row numbers in equal parts of at most `batch_size`."""
    generator = torch.Generator().manual_seed(derive_seed(options.seed, 3, epoch))
    return torch.randperm(size, generator=generator).tensor_split(math.ceil(size / options.batch_size))


def _epochs(run: Run, options: FitOptions, progress: bool) -> Iterator[int]:
    """Yield the epochs still to do, until the last or until validation stopped improving; show a bar if wanted."""
    with _bar(run, options) if progress else nullcontext() as bar:
        for epoch in range(len(run.epochs), options.epochs):
            if epoch - 1 - run.best_epoch > options.patience:
                run.stopped = f"validation loss did not improve for {options.patience + 1} epochs"
                return
            yield epoch
            if bar is not None:
                last = run.epochs[-1]
                bar.update()
                bar.set_postfix(loss=f"{last.train_loss:.3f}", validation=f"{last.validation_loss:.3f}")


def _bar(run: Run, options: FitOptions) -> Any:
    from tqdm.auto import tqdm

    # disable=None: no bar where no terminal shows it.
    return tqdm(total=options.epochs, initial=len(run.epochs), unit="epoch", leave=False, disable=None)
