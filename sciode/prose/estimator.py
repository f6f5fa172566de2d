"""`Prose`: a trajectory in, its continuation and its equations out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.prose.arrays import Trajectory, in_own_units, trajectory
from sciode.prose.display import latex, to_sympy
from sciode.prose.grammar import Grammar
from sciode.prose.guesses import nothing_of
from sciode.prose.memory import Memory
from sciode.prose.metrics import solved, start_of
from sciode.prose.model import PRESETS, Shape, Transformer
from sciode.prose.pool import filled
from sciode.prose.refine import Fit, refine
from sciode.prose.samples import Drawing
from sciode.prose.systems import of_dimension
from sciode.prose.training import Course, Training
from sciode.prose.trees import Expression, constant
from sciode.prose.weights import load_model, save_model
from sciode.prose.writing import Writing, write
from sciode.solvers.status import Status
from sciode.solvers.suggest import choose
from sciode.training import choose_device, derive_seed, isolated_rng

__all__ = ["PRETRAINED", "Forecast", "Prose"]

PRETRAINED = {"mini": "prose_mini.safetensors"}
"""Checkpoints that come with sciode: files beside this one, in `checkpoints`."""

_CHECKPOINTS = Path(__file__).parent / "checkpoints"
_FRAMES = 64
_AS_GOOD = 4.0


@final
@dataclass(frozen=True)
class Forecast:
    """What `Prose.predict` returns. Q times, d components, K candidate systems of equations, the likeliest first.

    values, deviation [Q, d]: mean and standard deviation over the candidates that count, by their weights: how far they
    disagree, which is no noise of readings; NaN where fewer than two count. Where none does, values are the operator's.
    operator [Q, d]: the network's own answers, NaN at times beyond what it was trained for. solutions [K, Q, d]: each
    candidate's, NaN where it was not solved. weights [K]: 0 for candidates that were not, or whose misfit is more than
    four times the least. misfits [K]: mean squared error of short solutions from the readings, relative to their
    spread. status: of each candidate's solve, in words. equations: in the units of the readings.
    """

    values: NDArray[np.float64]
    deviation: NDArray[np.float64]
    operator: NDArray[np.float64]
    solutions: NDArray[np.float64]
    weights: NDArray[np.float64]
    misfits: NDArray[np.float64]
    status: tuple[str, ...]
    equations: tuple[tuple[Expression, ...], ...]

    @property
    def best(self) -> int:
        """The candidate that fits the readings best."""
        return int(np.nan_to_num(self.misfits, nan=np.inf).argmin())

    def sympy(self, candidate: int | None = None) -> list[Any]:
        """Right-hand sides as sympy expressions of u_0, u_1, ..., multiplied out; of the best candidate by default."""
        import sympy

        own = self.equations[self.best if candidate is None else candidate]
        return [sympy.expand(to_sympy(one)) for one in own]

    def latex(self, candidate: int | None = None, names: Sequence[str] | None = None) -> str:
        """The equations as a LaTeX block; names: of the components."""
        return latex(self.equations[self.best if candidate is None else candidate], names)


@final
class Prose:
    """Continue a trajectory and write its equations, by a transformer trained on many systems.

    model: a `Transformer`. systems: those it was trained on. end: the time, in its units, up to which training asked
    for solutions. `from_pretrained` and `trained` make one.
    """

    def __init__(
        self, model: Transformer, systems: Sequence[str], device: str | torch.device = "auto", end: float = 6.0
    ) -> None:
        self.end = end
        self.device = choose_device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.systems = tuple(systems)

    @classmethod
    def from_pretrained(cls, name: str = "mini", device: str = "auto") -> Self:
        """A model that comes with sciode (`PRETRAINED`). ValueError for another name, FileNotFoundError without it."""
        choose("name", name, PRETRAINED)
        return cls.load(_CHECKPOINTS / PRETRAINED[name], device)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Self:
        """What `save` wrote, or a table's run. ValueError for another file."""
        model, record = load_model(path)
        return cls(model, record.get("systems", ()), device, record.get("end", Drawing.end))

    def save(self, path: Path | str, half: bool = False) -> None:
        """Write model and systems to one safetensors file. half: as float16."""
        save_model(path, self.model, half=half, systems=self.systems, end=self.end)

    @classmethod
    def trained(
        cls,
        preset: str | Shape = "tiny",
        drawing: Drawing | None = None,
        course: Course | None = None,
        device: str = "auto",
        folder: Path | None = None,
        tell: Any = None,
    ) -> Self:
        """Train one. preset: of `PRESETS`, or sizes. drawing: what of which systems, the 3-D ones by default. folder:
        of a checkpoint, from which an interrupted training goes on. tell: called with a record every so many steps.

        `predict` hands the model 64 frames that end at 2, as the defaults of `Drawing` and `Reading` do: keep to that.
        """
        if isinstance(preset, str):
            choose("preset", preset, PRESETS)
        shape = PRESETS[preset] if isinstance(preset, str) else preset
        drawing, course = drawing or Drawing(of_dimension(shape.dimension)), course or Course()
        place = choose_device(device)
        with isolated_rng(course.seed, 3):
            model = Transformer(shape).to(place)

        def pools(number: int) -> Any:
            return filled(drawing, derive_seed(course.seed, 1, number), shape.dimension, place)

        training = Training({"full": model}, pools, course, folder, tell)
        training.run()
        training.judge()
        return cls(model, drawing.names, place, drawing.end)

    def predict(
        self,
        times: Any,
        values: Any,
        query_times: Any,
        *,
        guess: Sequence[Expression | float] | None = None,
        scale: Sequence[float] | None = None,
        unit: float | None = None,
        beams: int = 4,
        fit: Fit | None = None,
    ) -> Forecast:
        """Continue readings values [T, d] at times [T] to query_times [Q], and write equations that they obey.

        A system that is like none of `systems` is written as if it were: large `misfits` tell, `deviation` does not.

        guess: what you think of the equations, one a component; their numbers do not matter. None: nothing is known.
        scale, unit: sizes of the components and of time that are 1 for the model, which has seen numbers of the order
        of 1 to 50, and 64 frames in 2 units of time; unit=None makes the readings just so long, if they are not nearly.
        beams: candidates. fit: how their numbers are fitted, through `sciode.solve`.

        Raises ValueError for readings that tell nothing or do not fit: see `sciode.prose.arrays.trajectory`. A
        candidate that blows up, or that the solver gives up, says so in `status` and counts for nothing.
        """
        given = trajectory(times, values, self.model.shape.dimension, _FRAMES, scale, unit)
        asked = given.asked(query_times)
        written, scores, operator = self._read(given, asked, guess, beams)
        data = given.values[None].expand(len(written), -1, -1)
        fitted = refine(written, given.times, data, fit or Fit())
        solutions, status = _continued(fitted.equations, given, asked)
        weights = _weights(scores, fitted.after, status == 0)
        size = torch.from_numpy(given.size)
        mean = (weights[:, None, None] * solutions.nan_to_num()).sum(0)
        apart = (weights[:, None, None] * (solutions.nan_to_num() - mean).square()).sum(0).sqrt()
        counted = int((weights > 0).sum())
        return Forecast(
            ((mean if counted else operator) * size).numpy(),
            ((apart if counted > 1 else torch.full_like(mean, torch.nan)) * size).numpy(),
            (operator * size).numpy(),
            (solutions * size).numpy(),
            weights.numpy(),
            fitted.after.numpy(),
            tuple(Status(one).message for one in status.tolist()),
            tuple(in_own_units(one, given) for one in fitted.equations),
        )

    def _read(
        self, given: Trajectory, asked: Tensor, guess: Sequence[Expression | float] | None, beams: int
    ) -> tuple[list[tuple[Expression, ...]], Tensor, Tensor]:
        """Candidates, their log-probabilities, and the operator's answers [Q, d]."""
        model, d = self.model, given.values.shape[1]
        told = nothing_of(d) if guess is None else _equations(guess, d)
        ids = torch.tensor([model.vocabulary.encoded(told, skeleton=True)], device=self.device)
        wide = torch.nn.functional.pad(given.values, (0, model.shape.dimension - d)).float()[None].to(self.device)
        components = torch.tensor([d], device=self.device)
        fused = model.read(given.times.float()[None].to(self.device), wide, ids, components)
        operator = model.predict(fused, asked.float()[None].to(self.device))[0, :, :d].double().cpu()
        operator[asked > self.end + 1e-6] = torch.nan
        memory = Memory(model, fused, beams)
        grammar = Grammar(model.vocabulary, self.device)
        found = write(memory.scores, grammar, components, Writing(beams), follow=memory.follow)
        return found.equations[0], found.scores[0].cpu(), operator


def _equations(guess: Sequence[Expression | float], components: int) -> tuple[Expression, ...]:
    told = tuple(guess) if isinstance(guess, Sequence) and not isinstance(guess, str) else (guess,)
    if len(told) != components:
        raise ValueError(f"the guess has {len(told)} equations, the readings {components} components")
    known = [f"u_{place}" for place in range(components)]
    for one in told:
        if not isinstance(one, Expression | Real):
            raise ValueError(f"a guess is made of sciode.prose.variables({components}) and numbers, got {one!r}")
        read = one.symbols if isinstance(one, Expression) else ()
        unknown = [symbol for symbol in read if str(symbol).startswith("u_") and symbol not in known]
        if unknown:
            raise ValueError(f"the guess reads {unknown[0]}, the readings have {', '.join(known)}")
    return tuple(one if isinstance(one, Expression) else constant(float(one)) for one in told)


def _continued(systems: Sequence[tuple[Expression, ...]], given: Trajectory, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Solutions [K, Q, d] at the times that are asked, and statuses [K]: from the first reading for those within the
    readings, from a smoothed last one for those behind."""
    data, end = given.values[None].expand(len(systems), -1, -1), given.times[-1:]
    found = torch.full((len(systems), len(asked), data.shape[-1]), torch.nan, dtype=torch.float64)
    status = torch.zeros(len(systems), dtype=torch.int64)
    before = asked <= end
    for part, start, first in (
        (before, data[:, 0], given.times[:1]),
        (~before, start_of(systems, given.times, data), end),
    ):
        if not bool(part.any()):
            continue
        clock, back = asked[part].unique(return_inverse=True)
        ahead = bool(clock[0] > first)
        path = solved(systems, start, torch.cat((first, clock)) if ahead else _with_end(clock))
        own = path.values[:, 1:] if ahead else path.values[:, : len(clock)]
        found[:, part] = own[:, back]
        status = torch.where(status == 0, path.status.long(), status)
    return found, status


def _with_end(clock: Tensor) -> Tensor:
    """A solve needs two times."""
    return clock if len(clock) > 1 else torch.cat((clock, clock + 1e-6))


def _weights(scores: Tensor, misfits: Tensor, fine: Tensor) -> Tensor:
    counts = fine & misfits.isfinite() & scores.isfinite()
    if bool(counts.any()):
        counts = counts & (misfits <= _AS_GOOD * misfits[counts].min())
    chances = torch.where(counts, scores - scores[counts].max() if bool(counts.any()) else scores, -torch.inf)
    return torch.where(counts, chances.exp(), 0.0) / chances.exp().sum().clamp(min=1e-300)
