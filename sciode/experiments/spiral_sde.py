"""A noisy spiral by a neural SDE, trained in every way of `recipes` that goes with SDEs, with adaptive steps.

The task of "Opening the Blackbox" (Pal et al., ICML 2021), on data simulated here from the equation

    du = u^3 A dt + 0.2 u dW,  A = [-0.1 2; -2 -0.1],  u(0) = (2, 0),

at 30 times in [0, 1]. The model's drift is W2 tanh(W1 u^3), its diffusion an affine map of u; the loss compares means
and variances over trajectories. Theirs is AdaBelief, ours Adam. Seeds are stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciode.experiments import frame
from sciode.experiments.recipes import ALONG_ODES
from sciode.experiments.stacked import StackedLinear
from sciode.experiments.verdicts import Score
from sciode.solvers import SDETerm, Solution, solve
from sciode.training import derive_seed

__all__ = ["Settings", "SpiralSde", "main"]

_TS = torch.linspace(0.0, 1.0, 30, dtype=torch.float64)
_START = (2.0, 0.0)
_TURN = ((-0.1, 2.0), (-2.0, -0.1))
_NOISE = 0.2
_STREAMS = {"validation": 1, "test": 2}


@dataclass(frozen=True)
class Settings(frame.Settings):
    """batch: trajectories of a training step; tested: of a test; simulated: behind the moments that are fitted."""

    steps: int = 250
    batch: int = 100
    lr: float = 1e-2
    tolerance: float = 1e-2
    method: str = "sosri"
    tested: int = 4096
    simulated: int = 16_384


class Spiral(nn.Module):
    """Drift and diffusion [S, B, 2] of every seed's own weights."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.inner = StackedLinear(2, 50, seeds)
        self.outer = StackedLinear(50, 2, [derive_seed(seed, 1) for seed in seeds])
        self.noise = StackedLinear(2, 2, [derive_seed(seed, 2) for seed in seeds])

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """W2 tanh(W1 y^3)."""
        return self.outer(torch.tanh(self.inner(y**3)))

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """An affine map."""
        return self.noise(y)


class SpiralSde(frame.Task):
    """Means and variances of a noisy spiral, judged by how far they are from those of the equation."""

    title = "Spiral, neural SDE"
    score = Score("fit", "squared distance of moments", "lower", loses=0.1, relative=True, digits=4)
    unit = 0.02
    inapplicable = ALONG_ODES

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        found = moments(simulated(settings.simulated, seed=0))
        self.means, self.variances = (x.to(settings.device, settings.real) for x in found)

    def model(self) -> Spiral:
        """Fresh weights."""
        return Spiral(self.settings.seeds)

    def loss(self, model: Spiral, step: int, solver: frame.Solver) -> tuple[Tensor, Solution]:
        """Of the moments over a batch of trajectories."""
        found = self._walk(model, self.settings.batch, solver)
        return self._distance(found).sum(), found

    def size(self, part: str) -> int:
        """A part is one set of trajectories."""
        return 1

    def judge(self, model: Spiral, part: str, rows: slice, solver: frame.Solver) -> frame.Judged:
        """On noise that no other part sees."""
        seed = derive_seed(0, 4, _STREAMS[part])
        found = self._walk(model, self.settings.tested, solver, seed=seed)
        return frame.Judged(self._distance(found), 1, found)

    def _walk(self, model: Spiral, count: int, solver: frame.Solver, **options: Any) -> Solution:
        y0 = torch.tensor(_START, dtype=self.settings.real, device=self.settings.device)
        y0 = y0.expand(len(self.settings.seeds), count, 2).contiguous()
        term = SDETerm(model.drift, model.diffusion)
        return solver(term, y0, _TS, method=self.settings.method, **options)

    def _distance(self, found: Solution) -> Tensor:
        """Mean squares of the differences of means and of variances [S]."""
        means, variances = moments(found.ys)
        away = (means - self.means).square() + (variances - self.variances).square()
        return away.mean((0, 2))


def moments(ys: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances [T, S, 2] over the trajectories of ys [T, S, B, 2]."""
    return ys.mean(2), ys.var(2)


def simulated(count: int, seed: int) -> Tensor:
    """Trajectories [30, 1, count, 2] of the equation itself, in small steps of float64."""
    turn = torch.tensor(_TURN, dtype=torch.float64)
    y0 = torch.tensor(_START, dtype=torch.float64).expand(1, count, 2).contiguous()
    term = SDETerm(lambda t, u: u**3 @ turn, lambda t, u: _NOISE * u)
    return solve(term, y0, _TS, batch_dims=2, method="milstein", dt=1 / 1160, seed=seed).ys


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `frame.run`."""
    return frame.run(SpiralSde, Settings, out, device, changes)
