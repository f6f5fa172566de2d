"""Densities on the plane by a continuous normalising flow, trained in every way of `recipes`.

The field is FFJORD's, three ConcatSquash layers with softplus between (Grathwohl et al., 2019), its trace exact.
Kinetic energy and Jacobian as penalties make RNODE (Finlay et al., 2020); they, and Taylor's, look at the point alone,
not at the account of its density, which the solver's own heuristics see as the solver does. Every training step draws
new points. A model learns one density; all densities and all seeds are learnt side by side in one solve. A seed's score
is the mean over the densities. On a CPU give --set engine=eager: this field's compiled loop takes minutes to build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from sciode.data import DENSITIES
from sciode.experiments import frame
from sciode.experiments.recipes import RECIPES
from sciode.experiments.stacked import StackedLinear
from sciode.experiments.verdicts import Score
from sciode.nn import CNF
from sciode.solvers import Solution
from sciode.training import derive_seed

__all__ = ["Cnf", "Settings", "main"]

_TS = torch.tensor([0.0, 1.0], dtype=torch.float64)
_STREAMS = {"validation": 1, "test": 2}
"""Streams of the points that are tested on; those of training hang on the models' seeds, too."""


@dataclass(frozen=True)
class Settings(frame.Settings):
    """densities: names in `sciode.data.DENSITIES`; tested: points of each in validation and in test; hidden: width."""

    steps: int = 1000
    batch: int = 512
    lr: float = 3e-3
    densities: tuple[str, ...] = ("pinwheel", "checkerboard", "moons")
    tested: int = 4096
    hidden: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.densities or set(self.densities) - DENSITIES.keys():
            raise ValueError(f"densities: give some of {', '.join(DENSITIES)}, got {self.densities}")


class Squash(nn.Module):
    """ConcatSquash of every model: t [M, B, 1], x [M, B, in] -> (W x + b) sigmoid(g t + c) + h t + d."""

    def __init__(self, inputs: int, outputs: int, seeds: Sequence[int]) -> None:
        super().__init__()
        self.linear = StackedLinear(inputs, outputs, seeds)
        self.clock = StackedLinear(1, 2 * outputs, [derive_seed(seed, 1) for seed in seeds])

    def forward(self, t: Tensor, x: Tensor, changes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The outputs [M, B, out], and (W v) gate [M, V, B, out] for directions v [M, V, B, in]; None = unit ones."""
        gate, shift = self.clock(t).chunk(2, -1)
        gate = torch.sigmoid(gate)
        weight = self.linear.weight.unsqueeze(1)
        pushed = weight.transpose(1, 2) if changes is None else torch.matmul(changes, weight)
        return self.linear(x) * gate + shift, pushed * gate.unsqueeze(1)


class Field(nn.Module):
    """A field on the plane for every model, which knows its own trace: plain operations that every engine repeats."""

    def __init__(self, hidden: int, seeds: Sequence[int]) -> None:
        super().__init__()
        sizes = ((2, hidden), (hidden, hidden), (hidden, 2))
        self.layers = nn.ModuleList(
            Squash(*size, [derive_seed(s, 3, i) for s in seeds]) for i, size in enumerate(sizes)
        )

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope [M, B, 2]."""
        return self.with_trace(t, y)[0]

    def with_trace(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The slope [M, B, 2] and the trace [M, B] of its derivative."""
        x, changes = self.layers[0](t, y)
        for layer in list(self.layers)[1:]:
            changes = changes * torch.sigmoid(x).unsqueeze(1)
            x, changes = layer(t, softplus(x), changes)
        return x, torch.diagonal(changes, dim1=1, dim2=3).sum(-1)


class Cnf(frame.Task):
    """Negative log-likelihood in nats, trained and judged; models are ordered by seed, then by density."""

    score = Score("nll", "NLL (nats)", "lower", loses=0.02, unit="nats", digits=3)
    recipes = tuple(recipe.on(part=2) for recipe in RECIPES)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.laws = [DENSITIES[name] for name in settings.densities]
        drawn = {part: self._points(settings.tested, [stream]) for part, stream in _STREAMS.items()}
        floor = -np.mean([law.log_prob(x).mean() for law, x in zip(self.laws, drawn["test"], strict=True)])
        self.title = f"Flows to {', '.join(settings.densities)}; the laws' own NLL on the test points is {floor:.3f}"
        self.parts = {part: self._tensor(points) for part, points in drawn.items()}

    def _points(self, n: int, *streams: Sequence[int]) -> NDArray[np.float64]:
        """Points [streams x densities, n, 2]."""
        drawn = [
            law.draw(n, np.random.default_rng([k, *stream])) for stream in streams for k, law in enumerate(self.laws)
        ]
        return np.stack(drawn)

    def _tensor(self, points: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(points).to(self.settings.device, self.settings.real)

    def model(self) -> CNF:
        """Fresh weights."""
        count = len(self.laws)
        field = Field(self.settings.hidden, [derive_seed(s, k) for s in self.settings.seeds for k in range(count)])
        return CNF(field, 2, trace=field.with_trace)

    def loss(self, model: CNF, step: int, solver: frame.Solver) -> tuple[Tensor, Solution]:
        """Of new points."""
        x = self._tensor(self._points(self.settings.batch, *([3, seed, step] for seed in self.settings.seeds)))
        found = solver(model, model.start(x), _TS)
        return -model.log_density(found.ys[-1]).mean(1).sum(), found

    def size(self, part: str) -> int:
        """Points of each density."""
        return self.settings.tested

    def judge(self, model: CNF, part: str, rows: slice, solver: frame.Solver) -> frame.Judged:
        """All seeds see the same points."""
        seeds = len(self.settings.seeds)
        x = self.parts[part][:, rows].repeat(seeds, 1, 1)
        found = solver(model, model.start(x), _TS)
        lost = -model.log_density(found.ys[-1]).sum(1)
        return frame.Judged(lost.reshape(seeds, -1).mean(1), rows.stop - rows.start, found)


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `frame.run`."""
    return frame.run(Cnf, Settings, out, device, changes)
