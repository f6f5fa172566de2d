"""`Prose`: a trajectory in, its continuation and its equations out."""

from __future__ import annotations

import warnings
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
from sciode.prose.model import PRESETS, Shape, Transformer
from sciode.prose.pool import filled
from sciode.prose.posterior import continued, joined, likelier
from sciode.prose.programs import Programs
from sciode.prose.refine import Fit, misfit, refine
from sciode.prose.samples import Drawing
from sciode.prose.search import WIDE, searched
from sciode.prose.shooting import Shot, noise_of, shoot
from sciode.prose.systems import of_dimension
from sciode.prose.training import Course, Training
from sciode.prose.trees import Expression, constant
from sciode.prose.weights import load_model, save_model
from sciode.prose.writing import Writing, write
from sciode.solvers.status import Status
from sciode.solvers.suggest import choose
from sciode.training import choose_device, derive_seed, isolated_rng

__all__ = ["DOUBTFUL", "PRETRAINED", "Forecast", "Prose"]

PRETRAINED = {"mini": "prose_mini.safetensors"}
"""Checkpoints that come with sciode: files beside this one, in `checkpoints`."""

_CHECKPOINTS = Path(__file__).parent / "checkpoints"
_FRAMES = 64
DOUBTFUL = 1.5
"""`Forecast.excess` above which equations are doubted; true ones left at most 1.22 of 46 validation trajectories."""
_DRAWS = 64


@final
@dataclass(frozen=True)
class Forecast:
    """What `Prose.predict` returns. Q times, d components, K candidate systems of equations, as they were written.

    values, deviation [Q, d]: mean and standard deviation of what may be, NaN where nothing was solved; then values are
    the operator's. samples [S, Q, d]: what may be, drawn from the candidates by their weights and from what numbers and
    start of each may be beside the readings' noise; NaN where a draw was not solved. operator [Q, d]: the network's own
    answers, NaN at times beyond what it was trained for. solutions [K, Q, d]: each candidate's, NaN where it was not
    solved. weights [K]: probabilities of the candidates, were one of them true: Laplace's approximation at the noise of
    the readings, 0 for those that were not solved. excess [K]: mean squared distance of a candidate's whole path from
    the readings, over that noise: 1 is what noise explains. misfits [K]: mean squared error of short solutions from the
    readings, relative to their spread. noise [d]: standard deviation, as differences of the readings tell it. status:
    of each candidate's solve, in words. equations: with fitted numbers, in the units of the readings. written: as the
    network wrote them, in the same units; it did not write what a search found.
    """

    values: NDArray[np.float64]
    deviation: NDArray[np.float64]
    samples: NDArray[np.float64]
    operator: NDArray[np.float64]
    solutions: NDArray[np.float64]
    weights: NDArray[np.float64]
    excess: NDArray[np.float64]
    misfits: NDArray[np.float64]
    noise: NDArray[np.float64]
    status: tuple[str, ...]
    equations: tuple[tuple[Expression, ...], ...]
    written: tuple[tuple[Expression, ...], ...]

    @property
    def best(self) -> int:
        """The likeliest candidate; where none has a weight, the one whose short solutions fit best."""
        if self.weights.any():
            return int(self.weights.argmax())
        return int(np.nan_to_num(self.misfits, nan=np.inf).argmin())

    @property
    def doubtful(self) -> bool:
        """Whether noise does not explain what the best candidate leaves: then its equations are not those sought."""
        return not float(self.excess[self.best]) <= DOUBTFUL

    def band(self, coverage: float = 0.9) -> NDArray[np.float64]:
        """Lower and upper ends [2, Q, d] between which the true solution lies with that probability, by `samples`.

        It is worth nothing where `doubtful`. ValueError for a coverage outside (0, 1).
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
        solved = self.samples[np.isfinite(self.samples).all((1, 2))]
        if not len(solved):
            return np.full((2, *self.values.shape), np.nan)
        return np.quantile(solved, ((1 - coverage) / 2, (1 + coverage) / 2), axis=0)

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
        search: int = 0,
        seed: int = 0,
    ) -> Forecast:
        """Continue readings values [T, d] at times [T] to query_times [Q], and write equations that they obey.

        A system that is like none of `systems` is written as if it were: `Forecast.doubtful` says so, and a warning.

        guess: what you think of the equations, one a component; their numbers do not matter. None: nothing is known.
        scale, unit: sizes of the components and of time that are 1 for the model, which has seen numbers of the order
        of 1 to 50, and 64 frames in 2 units of time; unit=None makes the readings just so long, if they are not nearly.
        beams: candidates. fit: how their numbers are fitted to short solutions, before those of the whole path. search:
        rounds in which terms are added and dropped where what is written leaves doubts (`sciode.prose.search`), some
        seconds each; what it finds are more candidates, up to four. seed: of `Forecast.samples`.

        Raises ValueError for readings that tell nothing or do not fit: see `sciode.prose.arrays.trajectory`. A
        candidate that blows up, or that the solver gives up, says so in `status` and counts for nothing.
        """
        given = trajectory(times, values, self.model.shape.dimension, _FRAMES, scale, unit)
        asked = given.asked(query_times)
        written, operator = self._read(given, asked, guess, beams)
        fit = fit or Fit()
        shot = _fitted(written, given, fit)
        if search and not bool(shot.excess[shot.evidence.argmax()] <= DOUBTFUL):
            found = searched([*written, *shot.equations], given.times, given.values, search)
            shot = joined(shot, shoot(found, given.times, given.values, WIDE))
        answer = continued(shot, asked, _DRAWS, seed)
        size, programs = torch.from_numpy(given.size), Programs(shot.equations, given.values.shape[1])
        data = given.values[None].expand(len(shot.equations), -1, -1)
        counted = bool((answer.weights > 0).any())
        forecast = Forecast(
            ((answer.mean if counted else operator) * size).numpy(),
            (answer.deviation * size).numpy(),
            (answer.samples * size).numpy(),
            (operator * size).numpy(),
            (answer.solutions * size).numpy(),
            answer.weights.numpy(),
            shot.excess.numpy(),
            misfit(programs, given.times, data, fit).numpy(),
            (noise_of(given.values) * size).numpy(),
            tuple(Status(one).message for one in answer.status.tolist()),
            *(tuple(in_own_units(one, given) for one in some) for some in (shot.equations, written)),
        )
        if forecast.doubtful:
            warnings.warn(_doubts(forecast, search), stacklevel=2)
        return forecast

    def _read(
        self, given: Trajectory, asked: Tensor, guess: Sequence[Expression | float] | None, beams: int
    ) -> tuple[list[tuple[Expression, ...]], Tensor]:
        """Candidates and the operator's answers [Q, d]."""
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
        return found.equations[0], operator


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


def _fitted(written: Sequence[tuple[Expression, ...]], given: Trajectory, fit: Fit) -> Shot:
    """Each candidate fitted to the whole path from its written numbers and from those of short solutions, which may
    have other signs: the likelier of both."""
    data = given.values[None].expand(len(written), -1, -1)
    short = refine(written, given.times, data, fit).equations
    return likelier(*(shoot(one, given.times, given.values, fit.spread) for one in (written, short)))


def _doubts(forecast: Forecast, search: int) -> str:
    excess = forecast.excess[forecast.best]
    what = f"leave {excess:.3g} times what noise explains" if np.isfinite(excess) else "could not be solved"
    more = "" if search else "; search=8 looks for terms beside those of the model's systems"
    return f"the best equations {what}: the system is hardly one of those that the model knows{more}"
