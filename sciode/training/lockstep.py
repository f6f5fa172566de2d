"""Many networks of one architecture trained in lockstep: one forward and one backward pass a step for all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sciode.training.fit import minibatches
from sciode.training.isolation import derive_seed, threads
from sciode.training.options import FitOptions, learning_rate, unjudged
from sciode.training.run import Batch, Epoch, History, size_of

__all__ = ["Losses", "epochs_shown", "fit_lockstep"]

Losses = Callable[[nn.Module, Batch, Sequence[int]], Tensor]

_BETAS, _EPS = (0.9, 0.999), 1e-8
_PART = 1024  # validation samples of a member that are solved together, as in `evaluate`
_SHARED = ("epochs", "batch_size", "schedule", "clip", "warmup", "settle", "patience", "threads")


@dataclass
class _Member:
    """The course of one member's training."""

    number: int
    options: FitOptions
    warmup: int
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = -1
    stopped: str = "all epochs done"

    def improves(self, record: Epoch) -> bool:
        """Append the record; whether its weights are to be kept (up to the warm-up's end: the latest)."""
        self.epochs.append(record)
        better = record.number <= self.warmup or record.validation_loss < self.epochs[self.best_epoch].validation_loss
        if better:
            self.best_epoch = record.number
        return better

    def history(self) -> History:
        return History(tuple(self.epochs), self.best_epoch, self.stopped)


class _AdamW:
    """Adam with decoupled weight decay on stacked weights [M, ...], a learning rate and a norm for each member."""

    def __init__(self, model: nn.Module, members: Sequence[_Member]) -> None:
        self.parameters = list(model.parameters())
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.decay = [m.options.weight_decay for m in members]
        self.steps = 0

    def norms(self) -> Tensor:
        """The norm of each member's gradient [M]."""
        squares = [_gradient(p).reshape(len(p), -1).square().sum(1) for p in self.parameters]
        return torch.stack(squares).sum(0).sqrt()

    @torch.no_grad()
    def step(self, lr: Sequence[float], scale: Tensor, on: Tensor) -> None:
        """Move the members that are `on` [M] by their gradients times scale [M]; the others stay where they are."""
        self.steps += 1
        like = self.parameters[0]
        rate = torch.where(on, torch.tensor(lr, dtype=like.dtype, device=like.device), 0.0)
        shrink = 1 - rate * torch.tensor(self.decay, dtype=like.dtype, device=like.device)
        size = rate / (1 - _BETAS[0] ** self.steps)
        root = math.sqrt(1 - _BETAS[1] ** self.steps)
        for p, m, v in zip(self.parameters, self.first, self.second, strict=True):
            mine = (-1, *[1] * (p.ndim - 1))
            g = torch.where(on.view(mine), _gradient(p) * scale.view(mine), 0.0)
            m.lerp_(g, 1 - _BETAS[0])
            v.mul_(_BETAS[1]).addcmul_(g, g, value=1 - _BETAS[1])
            p.mul_(shrink.view(mine)).sub_(size.view(mine) * m / (v.sqrt() / root).add_(_EPS))
            p.grad = None

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the members."""
        self.first, self.second = ([x[rows] for x in moments] for moments in (self.first, self.second))
        self.decay = [self.decay[k] for k in rows.tolist()]


def _gradient(p: Tensor) -> Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad


class _Data:
    """The members' data sets in one, so that a minibatch of all is one look-up a tensor."""

    def __init__(self, sets: Sequence[Batch]) -> None:
        own = list({id(data): data for data in sets}.values())
        self.size = size_of(own[0])
        if any(size_of(data) != self.size for data in own):
            raise ValueError("members trained in lockstep need equally many samples: give sets of one size")
        place = {id(data): k * self.size for k, data in enumerate(own)}
        self.offsets = [place[id(data)] for data in sets]
        try:
            self.tensors = {name: torch.cat([data[name] for data in own]) for name in own[0]}
        except (RuntimeError, KeyError) as fault:
            raise ValueError(
                f"members trained in lockstep need tensors of one shape: pad them alike ({fault})"
            ) from fault

    def at(self, rows: Sequence[Tensor], members: Sequence[_Member]) -> Batch:
        """Rows [b] of each member's own set, member after member [M b, ...]."""
        flat = torch.cat([own + self.offsets[m.number] for own, m in zip(rows, members, strict=True)])
        return {name: values[flat.to(values.device)] for name, values in self.tensors.items()}


def fit_lockstep(
    model: nn.Module,
    losses: Losses,
    train: Sequence[Batch],
    validation: Sequence[Batch],
    options: Sequence[FitOptions],
    *,
    progress: Callable[[Sequence[History]], None] | None = None,
) -> tuple[History, ...]:
    """Train M networks stacked in one, each as `fit` would train it alone; leave every member's own best weights.

    Parameters
    ----------
    model: parameters and buffers [M, ...], batches laid one after another, [M B, ...]: `sciode.nn.stack`.
    losses: returns each member's own mean loss [M] of a batch [M B, ...]; seeds: one int a member.
    train, validation: each member's data (the same object may stand for several), of equal sizes and shapes.
    options: of each member, who may differ in seed, lr and weight_decay.
    progress: called after each epoch with the histories so far.

    Clipping, early stopping, the best epoch and the noise are each member's own. A member whose loss is not finite
    stops and keeps its best weights; the others go on. On a CPU a member's course is that of `fit` to rounding, dropout
    included. Members that have stopped are taken out of the work there once they are half of it (elsewhere
    other shapes would be compiled for anew). Seconds of an epoch are a member's share of them.

    Raises ValueError for options, sizes or shapes that differ where they may not.
    """
    members = _members(model, train, validation, options)
    data, held = _Data(train), _Data(validation)
    own = _Stack(model, members)
    for epoch in range(options[0].epochs):
        for member in members:
            if member in own.active and epoch - 1 - member.best_epoch > member.options.patience:
                member.stopped = f"validation loss did not improve for {member.options.patience + 1} epochs"
                own.active.remove(member)
        if not own.active:
            break
        own.compact()
        began, share = time.perf_counter(), len(own.active)
        with threads(options[0].threads):
            trained = _train(own, losses, data, epoch)
            checked = _evaluate(own, losses, held)
        seconds = (time.perf_counter() - began) / share
        own.judge(epoch, trained, checked, seconds)
        if progress is not None:
            progress([member.history() for member in members])
    own.finish()
    return tuple(member.history() for member in members)


def _members(
    model: nn.Module, train: Sequence[Batch], validation: Sequence[Batch], options: Sequence[FitOptions]
) -> list[_Member]:
    count = len(next(model.parameters()))
    if not count == len(train) == len(validation) == len(options):
        sizes = (count, len(train), len(validation), len(options))
        raise ValueError(f"give one entry for each member: weights, train, validation, options are for {sizes}")
    shared = [tuple(getattr(o, name) for name in _SHARED) for o in options]
    if len(set(shared)) > 1:
        raise ValueError(
            f"members trained in lockstep share {', '.join(_SHARED)}; seed, lr and weight_decay may differ"
        )
    return [_Member(k, o, unjudged(o, size_of(own))) for k, (o, own) in enumerate(zip(options, train, strict=True))]


class _Stack:
    """The stacked weights in training, of which some members may have stopped or been taken out."""

    def __init__(self, model: nn.Module, members: Sequence[_Member]) -> None:
        self.model, self.members, self.active = model, list(members), list(members)
        self.count = len(members)
        self.optimizer = _AdamW(model, members)
        self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.drops = [part for part in model.modules() if hasattr(part, "streams")]
        self.device = next(model.parameters()).device

    def reseed(self, epoch: int) -> None:
        """Begin the streams of dropout of an epoch."""
        streams = [
            torch.Generator(self.device).manual_seed(derive_seed(m.options.seed, 0, epoch)) for m in self.members
        ]
        for part in self.drops:
            part.streams = streams  # type: ignore[assignment]

    def on(self) -> list[bool]:
        return [member in self.active for member in self.members]

    def judge(self, epoch: int, trained: Sequence[float], checked: Sequence[float], seconds: float) -> None:
        """Record an epoch, keep the weights of those that improved, and stop those that broke."""
        improved = []
        for row, (member, loss, check) in enumerate(zip(self.members, trained, checked, strict=True)):
            if member not in self.active:
                continue
            if not (math.isfinite(loss) and math.isfinite(check)):
                member.stopped = f"non-finite loss in epoch {epoch}: lower lr or clip"
                self.active.remove(member)
            elif member.improves(Epoch(epoch, loss, check, learning_rate(member.options, epoch), seconds)):
                improved.append((row, member.number))
        if improved:
            rows, numbers = zip(*improved, strict=True)
            for name, value in self.model.state_dict().items():
                self.best[name][list(numbers)] = value[list(rows)]

    def compact(self) -> None:
        """Take out members that have stopped, once they are half of those that are carried along."""
        if self.device.type != "cpu" or 2 * len(self.active) > len(self.members):
            return
        rows = torch.tensor([row for row, on in enumerate(self.on()) if on])
        self.optimizer.keep(rows)
        _put(self.model, {name: value[rows] for name, value in self.model.state_dict().items()})
        self.optimizer.parameters = list(self.model.parameters())
        self.members = list(self.active)

    def finish(self) -> None:
        """Give the stack the best weights of all members, also of those that were taken out."""
        _put(self.model, self.best)
        self.model.eval()
        for part in self.drops:
            part.streams = ()  # type: ignore[assignment]


def _put(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network weights and buffers that may be of other shapes, as new parameters: autograd knows old shapes."""
    for prefix, part in model.named_modules():
        place = f"{prefix}." if prefix else ""
        for name, old in part._parameters.items():
            if old is not None:
                part._parameters[name] = nn.Parameter(state[place + name].detach().clone())
        for name in part._buffers:
            part._buffers[name] = state[place + name].clone()


def _train(own: _Stack, losses: Losses, data: _Data, epoch: int) -> list[float]:
    """Train one epoch and return the members' mean losses, NaN for one that broke: a step before its weights would."""
    own.model.train()
    own.reseed(epoch)
    members, on = own.members, own.on()
    orders = zip(*(minibatches(data.size, member.options, epoch) for member in members), strict=True)
    lr = [learning_rate(member.options, epoch) for member in members]
    total = [0.0] * len(members)
    for step, rows in enumerate(orders):
        seeds = [derive_seed(member.options.seed, 1, epoch, step) for member in members]
        value = losses(own.model, data.at(rows, members), seeds)
        value.sum().backward()
        norm = own.optimizer.norms()
        for k, (loss, size) in enumerate(torch.stack((value.detach(), norm)).t().tolist()):
            on[k] = on[k] and math.isfinite(loss) and math.isfinite(size)
            total[k] += loss * len(rows[0]) if on[k] else math.nan
        clip = members[0].options.clip
        scale = torch.ones_like(norm) if clip is None else (clip / (norm + 1e-6)).clamp(max=1.0)
        own.optimizer.step(lr, scale, torch.tensor(on, device=norm.device))
    return [value / data.size for value in total]


@torch.no_grad()
def _evaluate(own: _Stack, losses: Losses, held: _Data) -> list[float]:
    """The members' mean validation losses, with the noise that `fit` validates by."""
    own.model.eval()
    seeds = [derive_seed(member.options.seed, 2) for member in own.members]
    total = torch.zeros(len(own.members), dtype=torch.float64)
    for begin in range(0, held.size, _PART):
        rows = torch.arange(begin, min(begin + _PART, held.size))
        batch = held.at([rows] * len(own.members), own.members)
        total += losses(own.model, batch, seeds).double().cpu() * len(rows)
    return (total / held.size).tolist()


@contextmanager
def epochs_shown(epochs: int, wanted: bool) -> Iterator[Callable[[Sequence[History]], None] | None]:
    """Give `fit_lockstep` a bar over the epochs, with the mean losses of the members, where a terminal shows it."""
    if not wanted:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=epochs, unit="epoch", leave=False, disable=None) as bar:

        def shown(histories: Sequence[History]) -> None:
            last = [history.epochs[-1] for history in histories if history.epochs]
            loss, check = (
                sum(x) / max(len(x), 1) for x in ([e.train_loss for e in last], [e.validation_loss for e in last])
            )
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", validation=f"{check:.3f}")

        yield shown
