"""Training: models side by side on the same batches, so that they differ in what they are and in nothing else.

On a CUDA device a step of each model (forward in bfloat16, backward, AdamW, averaging) is one CUDA graph (of layers
that Inductor compiled, if so wished); batches are drawn on the device, and the host looks at it only where it logs.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sciode.prose.model import EXACT, Transformer
from sciode.prose.objective import Losses, losses
from sciode.prose.pool import Batch, Pool, Reading
from sciode.solvers.engines import own_code, quietly
from sciode.solvers.engines.recording import recording
from sciode.solvers.suggest import choose
from sciode.training import append_json, derive_seed, load_checkpoint, save_checkpoint
from sciode.training.checkpoint import flatten, unflatten

__all__ = ["ENGINES", "PRECISIONS", "Course", "Pupil", "Training"]

ENGINES = ("auto", "eager", "capture", "compile")
"""How steps are made: on a card "capture" and "compile" are recorded, and "auto" is "capture"."""

PRECISIONS = ("mixed", "bfloat16")
"""What a transformer's layers compute in: see `Course.precision`."""


@dataclass(frozen=True)
class Course:
    """How to train.

    steps: at most. seconds: of wall clock, 0: no limit; the rate of learning then falls by whichever is nearer its end,
    and a run that was limited by time is not the same again. batch: samples a step. lr: the highest rate, after
    `warmup` steps of rising; it falls as a cosine to `last` of itself. weight_decay, clip: of AdamW, and of the norm of
    gradients. data: weight of the data's loss beside that of symbols. average: of the exponential average of weights,
    which is what is judged. renew: steps after which the pool is drawn anew, 0: never. every: steps from look to look.
    engine: of steps, in `ENGINES`: "auto" records a CUDA graph where there is a card, and warns where that fails;
    "compile" compiles a transformer's layers first (a minute, for steps of half the time). precision: of the layers of
    a transformer; "mixed" is autocast to bfloat16 on a card and float32 elsewhere; "bfloat16" is that of all that
    passes between layers, of norms and of copies of the weights, too, which stay float32 for the optimiser. seed: of
    batches.

    Good values: those here, lr 1e-3 up to width 128, 5e-4 for 256. Raises ValueError for numbers that make no sense.
    """

    steps: int = 10_000
    seconds: float = 0.0
    batch: int = 256
    lr: float = 1e-3
    last: float = 0.02
    warmup: int = 500
    weight_decay: float = 1e-2
    clip: float = 1.0
    data: float = 6.0
    average: float = 0.999
    renew: int = 0
    every: int = 100
    engine: str = "auto"
    precision: str = "mixed"
    reading: Reading = field(default_factory=Reading)
    seed: int = 0

    def __post_init__(self) -> None:
        choose("engine", self.engine, ENGINES)
        choose("precision", self.precision, PRECISIONS)
        if min(self.steps, self.batch, self.every) < 1 or min(self.seconds, self.warmup, self.renew, self.data) < 0:
            raise ValueError(
                f"steps, batch and every must be at least 1, seconds, warmup, renew and data 0, got {self}"
            )
        if not (self.lr > 0 and self.clip > 0 and 0 <= self.average < 1 and self.weight_decay >= 0):
            raise ValueError(f"lr and clip must be positive and average in [0, 1), got {self}")

    def rate(self, step: int, seconds: float) -> float:
        """The rate of learning of a step, so many seconds after the beginning."""
        done = max(step / self.steps, seconds / self.seconds if self.seconds else 0.0)
        fall = self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.lr * min((step + 1) / max(self.warmup, 1), 1.0) * fall


@final
class Pupil:
    """A model in training: its optimiser, the average of its weights, and its last losses [data, symbols]."""

    def __init__(self, model: nn.Module, course: Course) -> None:
        self.model, self.course = model, course
        self.weights = [one for one in model.parameters() if one.requires_grad]
        device = self.weights[0].device
        self.on_card = device.type == "cuda"
        self.rate = torch.tensor(course.lr, device=device)
        lr: Any = self.rate if self.on_card else course.lr
        self.optimizer = torch.optim.AdamW(
            self.weights, lr, (0.9, 0.98), weight_decay=course.weight_decay, capturable=self.on_card, fused=self.on_card
        )
        self.average = [one.detach().clone() for one in self.weights]
        # How far the average follows: quickly at first.
        self.follow = torch.zeros((), device=device)
        self.seen = torch.zeros(2, device=device)
        # Gradients go to the stream on which their weights were first used: that of the recording has to be that one.
        self.stream = torch.cuda.Stream(device) if self.on_card else None
        self.records = self.on_card and course.engine != "eager"
        self.run = _compiled_layers() if course.engine == "compile" and isinstance(model, Transformer) else None
        self.graph: Any = None
        self.held: Batch | None = None
        self.made = 0

    @property
    def engine(self) -> str:
        """How steps are made by now: "eager", "compiled", "recorded" or "compiled and recorded"."""
        words = ["compiled"] * (self.run is not None) + ["recorded"] * (self.graph is not None)
        return " and ".join(words) or "eager"

    def step(self, batch: Batch, rate: float, number: int) -> None:
        """Move the weights by one step; nothing is read from the device."""
        follow = 1 - min(self.course.average, (1 + number) / (10 + number))
        self.follow.fill_(follow)
        self.made += 1
        if not self.on_card:
            self.optimizer.param_groups[0]["lr"] = rate
            self._move(batch)
            return
        self.rate.fill_(rate)
        if self.graph is not None:
            assert self.held is not None
            for own, new in zip(self.held, batch, strict=True):
                own.copy_(new)
            self.graph.replay()
            return
        self._aside(batch)
        if self.records and self.made >= _BEFORE_CAPTURE:
            self._capture(batch)

    def judged(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        names = [name for name, one in self.model.named_parameters() if one.requires_grad]
        return dict(zip(names, self.average, strict=True))

    def _move(self, batch: Batch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self._layers():
            found = self._losses(batch)
            total = self.course.data * found.data + found.symbols
            total.backward()
        nn.utils.clip_grad_norm_(self.weights, self.course.clip, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            # average + follow (weights - average), follow a tensor that the host may set.
            apart = _MANY._foreach_sub(self.weights, self.average)
            _MANY._foreach_mul_(apart, self.follow)
            _MANY._foreach_add_(self.average, apart)
            self.seen.copy_(torch.stack(found).detach())

    def _losses(self, batch: Batch) -> Losses:
        layers = isinstance(self.model, Transformer)
        if layers and self.course.precision == "bfloat16":
            named = self.model.named_parameters()
            copies = {f"model.{name}": one if name.startswith(EXACT) else one.bfloat16() for name, one in named}
            return functional_call(_Lesson(self.model), copies, (batch,))
        # Casts are not kept: a graph would find them gone.
        with torch.autocast("cuda", torch.bfloat16, enabled=self.on_card and layers, cache_enabled=False):
            return losses(self.model, batch)

    @contextmanager
    def _layers(self) -> Iterator[None]:
        """Compiled layers within, whatever torch says to itself of it; the model is as it was afterwards."""
        if self.run is None:
            yield
            return
        assert isinstance(self.model, Transformer)
        plain, self.model.run = self.model.run, self.run
        try:
            with quietly(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"torch\.")
                yield
        finally:
            self.model.run = plain

    def _aside(self, batch: Batch) -> None:
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self._move(batch)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _capture(self, batch: Batch) -> None:
        """Record the steps to come; nothing is moved. Where that fails, say so, and go on as before."""
        held, graph = Batch(*(one.clone() for one in batch)), torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # Gradients of the steps before lie outside of the graph's memory.
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with recording(graph, self.stream):
                self._move(held)
        except RuntimeError as fault:
            self.records = False
            self.optimizer.zero_grad(set_to_none=True)
            warnings.warn(f"steps are not recorded but made one by one, which is slow: {fault}", stacklevel=4)
            return
        self.graph, self.held = graph, held


@final
class _Lesson(nn.Module):
    """Losses of a model as a module, which can be called with other weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Losses:
        return losses(self.model, batch)


def _compiled_layers() -> Callable[..., Tensor]:
    """A layer and what it is called with -> what it returns, by Inductor: one compilation for all layers of a kind."""

    def run(block: nn.Module, *given: Any) -> Tensor:
        return block(*given)

    return torch.compile(own_code(run), dynamic=False)


_BEFORE_CAPTURE = 3
_MANY: Any = torch
"""Its operations on many tensors at once have no types."""


@final
class Training:
    """Models by name on one pool. folder: of checkpoints, log.jsonl and weights; one found there is gone on from.

    pools: a pool by its number, the first being 0; what `Course.renew` asks for. tell: called with each record. rates:
    rates of learning of some models. share: called, whenever a checkpoint is written, with each model's name, the model
    and its averaged weights.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        pools: Callable[[int], Pool],
        course: Course,
        folder: Path | None = None,
        tell: Callable[[dict[str, Any]], None] | None = None,
        rates: Mapping[str, float] | None = None,
        share: Callable[[str, nn.Module, dict[str, Tensor]], None] | None = None,
    ) -> None:
        own = rates or {}
        self.courses = {name: replace(course, lr=own.get(name, course.lr)) for name in models}
        self.pupils = {name: Pupil(model, self.courses[name]) for name, model in models.items()}
        self.pools, self.course, self.folder, self.tell, self.share = pools, course, folder, tell, share
        self.step, self.seconds = 0, 0.0
        self.device = next(iter(self.pupils.values())).weights[0].device
        self.identity = repr((course, sorted(own.items()), [(name, str(one)) for name, one in models.items()]))
        if self.path is not None and self.path.exists():
            self._resume()

    @property
    def path(self) -> Path | None:
        """Where the checkpoint lies."""
        return None if self.folder is None else self.folder / "training.safetensors"

    @property
    def over(self) -> bool:
        """Whether steps or seconds are used up."""
        late = bool(self.course.seconds) and self.seconds >= self.course.seconds
        return self.step >= self.course.steps or late

    def run(self, save_seconds: float = 60.0) -> None:
        """Train to the end; a checkpoint every so many seconds and at the end. Raises ArithmeticError for NaN."""
        before, began, saved = self.seconds, time.perf_counter(), time.perf_counter()
        number, pool, generator = -1, None, torch.Generator(self.device)
        for one in self.pupils.values():
            one.model.train()
        if self.over:
            return
        while not self.over:
            wanted = self.step // self.course.renew if self.course.renew else 0
            if pool is None or wanted != number:
                number, pool = wanted, self.pools(wanted)
            generator.manual_seed(derive_seed(self.course.seed, 7, self.step))
            batch = pool.batch(self.course.batch, self.course.reading, generator)
            for name, one in self.pupils.items():
                one.step(batch, self.courses[name].rate(self.step, self.seconds), self.step)
            self.step += 1
            self.seconds = before + time.perf_counter() - began
            if self.step % self.course.every == 0 or self.over:
                self._look()
                self.seconds = before + time.perf_counter() - began
            if self.folder is not None and time.perf_counter() - saved > save_seconds:
                self.save()
                saved = time.perf_counter()
        if self.folder is not None:
            self.save()

    def _look(self) -> None:
        record: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 3), "engines": self.engines}
        for name, one in self.pupils.items():
            data, symbols = one.seen.tolist()
            if not math.isfinite(data + symbols):
                raise ArithmeticError(f"{name}: loss {data}, {symbols} in step {self.step}: lower lr")
            record[name] = {"data": data, "symbols": symbols}
        if self.folder is not None:
            append_json(self.folder / "log.jsonl", record)
        if self.tell is not None:
            self.tell(record)

    @property
    def engines(self) -> dict[str, str]:
        """How each model's steps are made by now: see `Pupil.engine`."""
        return {name: one.engine for name, one in self.pupils.items()}

    def judge(self) -> None:
        """Give the models their averaged weights, in evaluation mode."""
        for one in self.pupils.values():
            with torch.no_grad():
                for weight, average in zip(one.weights, one.average, strict=True):
                    weight.copy_(average)
            one.model.eval()

    def save(self) -> None:
        """Write the checkpoint atomically."""
        assert self.path is not None
        tensors: dict[str, Tensor] = {}
        for name, one in self.pupils.items():
            tensors |= flatten(f"{name}.model", one.model.state_dict()) | flatten(f"{name}.average", one.judged())
            for number, state in one.optimizer.state_dict()["state"].items():
                tensors |= flatten(f"{name}.optimizer.{number}", state)
        record = {"identity": self.identity, "step": self.step, "seconds": self.seconds, "course": asdict(self.course)}
        save_checkpoint(self.path, tensors, record)
        for name, one in self.pupils.items():
            if self.share is not None:
                self.share(name, one.model, one.judged())

    def _resume(self) -> None:
        assert self.path is not None
        tensors, record = load_checkpoint(self.path)
        if record["identity"] != self.identity:
            raise ValueError(f"{self.path} belongs to other models or another course: use another folder, or delete it")
        self.step, self.seconds = record["step"], record["seconds"]
        for name, one in self.pupils.items():
            one.model.load_state_dict(unflatten(f"{name}.model", tensors))
            average = unflatten(f"{name}.average", tensors)
            for own, key in zip(one.average, one.judged(), strict=True):
                own.copy_(average[key])
            state = one.optimizer.state_dict()
            moments = {k: unflatten(f"{name}.optimizer.{k}", tensors) for k in range(len(one.weights))}
            one.optimizer.load_state_dict(state | {"state": {k: m for k, m in moments.items() if m}})
            if one.on_card:
                one.optimizer.param_groups[0]["lr"] = one.rate
