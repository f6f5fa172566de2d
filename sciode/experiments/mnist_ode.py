"""MNIST by a neural ODE, trained in every way of `recipes`: accuracy, and how many evaluations a prediction takes.

The model of "Opening the Blackbox" (Pal et al., ICML 2021): images as states [784] of a field 784 (+ t) -> 100 tanh
(+ t) -> 784 tanh over t in [0, 1], and a linear head. Seeds are stacked: one solve trains them all, each by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sciode import data
from sciode.experiments.ledger import finished_rows
from sciode.experiments.recipes import RECIPES, Recipe
from sciode.experiments.stacked import StackedLinear
from sciode.experiments.verdicts import chosen, pareto, result_table
from sciode.lab.tables import show
from sciode.solvers import Solution, solve
from sciode.training import choose_device, derive_seed
from sciode.training.checkpoint import write_atomically

__all__ = ["Settings", "main"]

_TS = torch.tensor([0.0, 1.0], dtype=torch.float64)
_VALIDATION = 10_000
"""Images at the end of the training set that choose weights and are never trained on."""


@dataclass(frozen=True)
class Settings:
    """What all rows share. tolerance: relative and absolute; images: of the training set, from its start."""

    steps: int = 3000
    batch: int = 512
    seeds: tuple[int, ...] = (0, 1, 2)
    lr: float = 1e-3
    tolerance: float = 1e-5
    images: int = 50_000
    tested: int = 10_000
    device: str = "cpu"
    engine: str = "auto"


class Field(nn.Module):
    """t [S, B, 1], y [S, B, 784] -> tanh(W2 [tanh(W1 [y, t]), t]) of every seed's own weights."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.inner = StackedLinear(785, 100, seeds)
        self.outer = StackedLinear(101, 784, [derive_seed(seed, 1) for seed in seeds])

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope, time appended to both layers."""
        hidden = torch.tanh(self.inner(torch.cat([y, t], -1)))
        return torch.tanh(self.outer(torch.cat([hidden, t], -1)))


class Digits:
    """MNIST on a device: images as states [n, 784] in [0, 1], labels [n]; parts: "train", "validation", "test"."""

    def __init__(self, settings: Settings) -> None:
        with np.load(data.get("mnist")) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
        device = torch.device(settings.device)
        images, labels = arrays["x_train"], arrays["y_train"]
        held = min(_VALIDATION, settings.tested)
        self.parts = {
            "train": (images[: settings.images], labels[: settings.images]),
            "validation": (images[-_VALIDATION:][:held], labels[-_VALIDATION:][:held]),
            "test": (arrays["x_test"][: settings.tested], arrays["y_test"][: settings.tested]),
        }
        self.parts = {
            name: (x.flatten(1).to(device).float() / 255, y.to(device).long()) for name, (x, y) in self.parts.items()
        }

    def batch(self, settings: Settings, step: int) -> tuple[Tensor, Tensor]:
        """States [S, batch, 784] and labels [S, batch] of a training step, each seed's own draw."""
        images, labels = self.parts["train"]
        rows = []
        for seed in settings.seeds:
            draw = torch.Generator().manual_seed(derive_seed(seed, step))
            rows.append(torch.randint(len(labels), (settings.batch,), generator=draw))
        at = torch.stack(rows).to(images.device)
        return images[at], labels[at]


class Trial:
    """One way of training, at one strength."""

    def __init__(self, settings: Settings, digits: Digits, recipe: Recipe, factor: float) -> None:
        self.settings, self.digits, self.recipe, self.factor = settings, digits, recipe, factor
        device = torch.device(settings.device)
        self.field = Field(settings.seeds).to(device)
        self.head = StackedLinear(784, 10, [derive_seed(seed, 2) for seed in settings.seeds]).to(device)

    def solve(self, y0: Tensor, ts: Tensor, **options: Any) -> Solution:
        """All seeds' images through their own field."""
        tolerance = self.settings.tolerance
        return solve(
            self.field, y0, ts, batch_dims=2, rtol=tolerance, atol=tolerance, engine=self.settings.engine, **options
        )

    def train(self) -> float:
        """Train; seconds of it, the first tenth (compilation) counted at the pace of the rest."""
        settings, recipe = self.settings, self.recipe
        optimizer = torch.optim.Adam([*self.field.parameters(), *self.head.parameters()], settings.lr)
        warm, began = settings.steps // 10, 0.0
        for step in range(settings.steps):
            if step == warm:
                began = _clock(settings.device)
            y0, labels = self.digits.batch(settings, step)
            seed = derive_seed(settings.seeds[0], 1, step)
            found = self.solve(y0, recipe.times(_TS, seed), regularize=recipe.regularize, seed=seed)
            logits = self.head(found.ys[-1])
            # Summed over the seeds, so that each has the gradient it would have alone.
            task = cross_entropy(logits.flatten(0, 1), labels.flatten()) * len(settings.seeds)
            loss = task + recipe.loss(found, self.factor, step, settings.steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (_clock(settings.device) - began) * settings.steps / (settings.steps - warm)

    @torch.no_grad()
    def test(self, part: str) -> dict[str, Any]:
        """Accuracy and evaluations of every seed, batched evaluations, and seconds of the second of two predictions."""
        images, labels = self.digits.parts[part]
        right, nfe, calls, seconds = [], [], [], 0.0
        for start in range(0, len(labels), self.settings.batch):
            y0 = images[start : start + self.settings.batch].expand(len(self.settings.seeds), -1, -1).contiguous()
            for again in (False, True):
                began = _clock(self.settings.device)
                found = self.solve(y0, _TS)
                logits = self.head(found.ys[-1])
                seconds += (_clock(self.settings.device) - began) * again
            right.append(logits.argmax(-1) == labels[start : start + self.settings.batch])
            nfe.append(found.stats.nfe.double())
            calls.append(found.stats.calls)
        return {
            "accuracy": torch.cat(right, 1).double().mean(1).tolist(),
            "nfe": torch.cat(nfe, 1).mean(1).tolist(),
            "calls": fmean(calls),
            "seconds": seconds,
        }


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Train all recipes at all strengths, print the table, draw the Pareto curve; <out>/rows.jsonl resumes.

    out: folder of rows.jsonl, table.json, pareto.png. device: as for `sciode.training.choose_device`. changes: fields
    of `Settings`. Returns 0. Raises ValueError for settings that make no sense.
    """
    settings = Settings(**changes, device=str(choose_device(device)))
    if min(settings.steps, settings.batch, len(settings.seeds), settings.images, settings.tested) < 1:
        raise ValueError(f"settings: sizes must be at least 1, got {settings}")
    digits = Digits(settings)

    def make(recipe: str, factor: float) -> dict[str, Any]:
        trial = Trial(settings, digits, next(r for r in RECIPES if r.name == recipe), factor)
        return {"train_seconds": trial.train(), "validation": trial.test("validation"), "test": trial.test("test")}

    keys = [{"recipe": recipe.name, "factor": factor} for recipe in RECIPES for factor in recipe.weights]
    stamp = json.loads(json.dumps(asdict(settings)))
    rows = finished_rows(out, keys, stamp, make)
    best = chosen(rows)
    write_atomically(out / "table.json", (json.dumps(best, indent=2) + "\n").encode())
    show(result_table("MNIST, neural ODE", best))
    pareto(rows, out / "pareto.png")
    print(f"numbers: {out / 'table.json'}\nfigure: {out / 'pareto.png'}")
    return 0
