"""Digits of 8 x 8 pixels in one to four evaluations: rectified flow, TSCD with and without its curriculum, SLAM.

Each seed trains a teacher of its own (a small diffusion transformer), and from it, with equal numbers of steps, every
student. All begin from the same noise; a student is held against its teacher's ends after many steps, and against
digits that nobody has learnt. Takes some ten minutes on a CPU; needs scikit-learn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sciode.diffusion import RectifiedFlow, initial_noise, sample
from sciode.diffusion.networks import Preconditioned
from sciode.diffusion.quality import sliced_wasserstein
from sciode.diffusion.training import (
    Segments,
    TrainOptions,
    consistency,
    pyramid,
    reflow_pairs,
    straighten,
    sub_paths,
    train,
)
from sciode.experiments.ledger import finished_rows, stamped, write_table
from sciode.lab.scans import SCHEDULE, denoiser, scans
from sciode.lab.tables import show, table
from sciode.training import Batch, choose_device, derive_seed

__all__ = ["Settings", "main"]

FLOW_TIME = RectifiedFlow()
_CLASSES = 10


@dataclass(frozen=True)
class Settings:
    """steps: of the teacher's training; student_steps: of every student's (a curriculum shares them out); pairs: of
    reflow; grid: the teacher's steps in distillation; judged: samples, as many as digits are held out; preset, width,
    depth: of the network.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 1500
    student_steps: int = 900
    batch: int = 64
    pairs: int = 2000
    grid: int = 8
    judged: int = 400
    width: int = 48
    depth: int = 3
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        sizes = (self.steps, self.student_steps, self.batch, self.pairs, self.judged, len(self.seeds))
        if min(sizes) < 1 or self.grid % 4:
            raise ValueError("sizes must be at least 1, and grid a multiple of 4, for segments")


class Case(NamedTuple):
    """What a seed's students share."""

    settings: Settings
    seed: int
    teacher: Preconditioned
    data: dict[str, Tensor]
    held: Tensor
    labels: Tensor

    @property
    def times(self) -> list[float]:
        """Of the teacher's steps, uniform in log-SNR."""
        low, high = (float(SCHEDULE.half_log_snr(t)) for t in (1.0, 1e-3))
        return [1.0, *SCHEDULE.t_of(torch.linspace(low, high, self.settings.grid + 1)).tolist()[1:-1], 1e-3]

    def taught(self, student: nn.Module, loss: Any, rows: Batch, steps: int, **more: Any) -> Any:
        """A student after so many steps, from a copy of what it begins with."""
        options = TrainOptions(
            steps=steps, batch_size=self.settings.batch, lr=1e-3, seed=self.seed, warmup=20, **more
        )  # fmt: skip
        return train(copy.deepcopy(student).requires_grad_(True), loss, rows, options).network

    def distilled(self, segments: Sequence[int], loss: Callable[..., Any] = consistency, **more: Any) -> Any:
        """Through counts of segments, one after another, by the same number of steps in all; the last by `loss`."""
        student, share = self.teacher, self.settings.student_steps // len(segments)
        for count in segments:
            of = loss if count == segments[-1] else consistency
            options = more if count == segments[-1] else {}
            rule = of(self.teacher, Segments(self.times, count), SCHEDULE, step="heun", **options)
            student = self.taught(student, rule, self.data, share, decay=0.95)
        return student


def _straightened(case: Case) -> Any:
    labels = torch.arange(case.settings.pairs) % _CLASSES
    pairs = reflow_pairs(
        case.teacher, SCHEDULE, (case.settings.pairs, 1, 8, 8), seed=derive_seed(case.seed, 5) % 2**20,
        sampler="unipc-3", nfe=15, cond={"label": labels}, device=case.settings.device,
    )  # fmt: skip
    loss = straighten(premetric=pyramid(2))
    return case.taught(case.teacher.on(FLOW_TIME, "flow"), loss, pairs, case.settings.student_steps)


STUDENTS: Mapping[str, Callable[[Case], Any]] = {
    "teacher, DDIM": lambda case: case.teacher,
    "teacher, UniPC-2": lambda case: case.teacher,
    "rectified flow": _straightened,
    "TSCD, 4 segments": partial(Case.distilled, segments=(4,)),
    "TSCD, 4, 2, 1": partial(Case.distilled, segments=(4, 2, 1)),
    "consistency, 1 at once": partial(Case.distilled, segments=(1,)),
    "SLAM, shared noise": partial(Case.distilled, segments=(1,), loss=sub_paths),
    "SLAM, fresh noise": partial(Case.distilled, segments=(1,), loss=sub_paths, noise="fresh"),
}
"""A line of the table each."""
SAMPLERS: Mapping[str, str] = {"teacher, UniPC-2": "unipc-2"}
"""Of lines that are not sampled by DDIM."""


def _case(settings: Settings, seed: int) -> Case:
    digits = scans(settings.judged)
    data = {name: values.to(settings.device) for name, values in digits.rows.items()}
    design = {"width": settings.width, "depth": settings.depth, "heads": 3}
    trained = denoiser(data, "dit-digits", steps=settings.steps, seed=seed, batch=settings.batch, **design)
    held, labels = digits.test.to(settings.device), digits.test_labels.to(settings.device)
    return Case(settings, seed, trained.network, data, held, labels)  # type: ignore[arg-type]


def _row(settings: Settings, seed: int) -> dict[str, Any]:
    """All students of a seed: distances by number of evaluations."""
    case = _case(settings, seed)
    noise = initial_noise(SCHEDULE, (settings.judged, 1, 8, 8), seed=derive_seed(seed, 6)).to(settings.device)
    cond = {"label": case.labels}
    found: dict[str, Any] = {}
    with torch.no_grad():
        ends = sample(case.teacher, noise, SCHEDULE, sampler="unipc-3", steps=40, cond=cond)
    for name, make in STUDENTS.items():
        student = make(case)
        with torch.no_grad():
            found[name] = {str(n): _judged(case, name, student, noise, n, ends) for n in (1, 2, 4)}
    floor = sliced_wasserstein(case.data["x"][: settings.judged], case.held)
    return {"students": found, "ends": sliced_wasserstein(ends, case.held), "floor": floor}


def _judged(
    case: Case, name: str, student: Preconditioned, noise: Tensor, n: int, ends: Tensor
) -> dict[str, float]:  # fmt: skip
    options: dict[str, Any] = {"sampler": SAMPLERS.get(name, "ddim"), "cond": {"label": case.labels}}
    if student.prediction == "flow":
        start = noise / float(SCHEDULE.sigma(1.0))
        made = sample(student, start, FLOW_TIME, prediction="flow", t_start=1.0, grid="uniform", steps=n, **options)
    else:
        made = sample(student, noise, SCHEDULE, grid=Segments(case.times, n).edges, **options)
    return {
        "from_ends": float((made - ends).square().mean().sqrt()),
        "from_digits": sliced_wasserstein(made, case.held),
    }


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. Finished seeds are kept."""
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [{"seed": seed} for seed in settings.seeds]
    rows = finished_rows(out, keys, stamped(settings, "seeds"), partial(_row, settings), settings.workers)
    write_table(out, {"settings": settings, "date": date.today().isoformat(), "torch": torch.__version__, "rows": rows})
    for measure, title in (
        ("from_ends", "RMS distance from the teacher's ends"),
        ("from_digits", "sliced Wasserstein"),
    ):
        lines = [(name, *(_mean(rows, name, n, measure) for n in (1, 2, 4))) for name in STUDENTS]
        show(table(f"{title}, by evaluations", ["student", "1", "2", "4"], lines, f"{len(rows)} seeds"))
    print(f"sliced Wasserstein of the teacher's ends {_cell([row['ends'] for row in rows])}, "
          f"of training digits {_cell([row['floor'] for row in rows])}")  # fmt: skip
    return 0


def _mean(rows: Sequence[Mapping[str, Any]], name: str, n: int, measure: str) -> str:
    return _cell([row["students"][name][str(n)][measure] for row in rows])


def _cell(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
