"""How the time of a solve grows: with the batch, the dimension, the tolerance and the number of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sciode.bench.measuring import start_all, take_turns
from sciode.bench.problems import Problem, lorenz, neural_ode, van_der_pol
from sciode.lab.figures import picture

__all__ = ["AXES", "Axis", "curves", "draw"]

Point = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """One curve a contestant: `problem(value)` solved for each value, on a CPU only for those up to `cpu_end`.

    contestants: by device. A tolerance is small where it is hard: `cpu_end` is then the smallest.
    """

    name: str
    values: tuple[float, ...]
    problem: Callable[[Any], Problem]
    contestants: dict[str, tuple[str, ...]]
    cpu_end: float

    def on(self, device: str) -> tuple[float, ...]:
        """The values for this device."""
        if device == "cuda":
            return self.values
        last = self.values.index(self.cpu_end)
        return self.values[: last + 1]


_ALL = {"cuda": ("graph", "kernel", "eager", "diffrax"), "cpu": ("compiled", "eager", "diffrax")}
_LOOPS = {"cuda": ("graph", "kernel", "diffrax"), "cpu": ("compiled", "diffrax")}
_END = 5.0

AXES: tuple[Axis, ...] = (
    Axis(
        "batch",
        (1, 16, 256, 4096, 65536, 1_000_000),
        lambda batch: lorenz(batch=batch, outputs=2, end=1.0),
        _ALL,
        cpu_end=4096,
    ),
    Axis("dim", (2, 8, 32, 128, 512, 1024), lambda dim: neural_ode(dim=dim, hidden=2 * dim), _ALL, cpu_end=128),
    Axis(
        "tolerance",
        (1e-3, 1e-5, 1e-7, 1e-9),
        lambda tolerance: replace(neural_ode(dtype=torch.float64), rtol=tolerance, atol=tolerance),
        _ALL,
        cpu_end=1e-9,
    ),
    Axis(
        "steps",
        (100, 1000, 10_000, 100_000),
        lambda steps: replace(van_der_pol(batch=16, outputs=2, end=_END), dt=_END / steps),
        _LOOPS,
        cpu_end=10_000,
    ),
)


def curves(device: str, only: str | None = None, repeats: int = 5) -> Iterator[list[Point]]:
    """The points of one value of an axis at a time: {axis, value, contestant, seconds, low, high, note}.

    only: axes whose name contains it. Raises ValueError where it selects none.
    """
    chosen = [axis for axis in AXES if (only or "") in axis.name]
    if not chosen:
        raise ValueError(f"only: no axis has {only!r} in its name; there are: {', '.join(a.name for a in AXES)}")
    for axis in chosen:
        for value in axis.on(device):
            yield _points(axis, value, device, repeats)


def _points(axis: Axis, value: float, device: str, repeats: int) -> list[Point]:
    problem = axis.problem(value).to(device)
    started = start_all(axis.contestants[device], problem, "forward", lambda answer: None)
    timings, faults = take_turns(started, repeats, warmup=1, patience=3.0)
    points = []
    for found in started:
        timing = timings.get(found.name)
        seconds, low, high = (None, None, None) if timing is None else timing
        note = found.note or faults.get(found.name)
        points.append(
            {"axis": axis.name, "value": value, "contestant": found.name, "seconds": seconds, "low": low, "high": high,
             "steps": found.steps, "note": note}
        )  # fmt: skip
        print(f"{axis.name} {value:g}: {found.name} {note if seconds is None else f'{1e3 * seconds:.3f} ms'}")
    return points


def draw(points: list[Point], folder: Path) -> Path | None:
    """Draw the curves into <folder>/scaling.png, an axis a panel; None where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        print("matplotlib is not installed: the curves are in the JSON only")
        return None
    axes, path = list(dict.fromkeys(point["axis"] for point in points)), folder / "scaling.png"
    names = list(dict.fromkeys(point["contestant"] for point in points))
    with picture(path, (3.6 * len(axes), 3.4)) as figure:
        panels = figure.subplots(1, len(axes), squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=True):
            of_axis = [point for point in points if point["axis"] == axis and point["seconds"] is not None]
            for i, name in enumerate(names):
                line = [(p["value"], 1e3 * p["seconds"]) for p in of_axis if p["contestant"] == name]
                if line:
                    panel.loglog(*zip(*line, strict=True), "o-", color=f"C{i}", label=name)
            panel.set(xlabel=axis, ylabel="ms a solve" if panel is panels[0] else "")
            if axis == "tolerance":
                panel.invert_xaxis()
        handles = {label: handle for p in panels for handle, label in zip(*p.get_legend_handles_labels(), strict=True)}
        panels[-1].legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1.02, 0.5))
    print(f"curves: {path}")
    return path
