"""Training steps of observers and of their opponents: milliseconds, one by one and as graphs of a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from sciode.data.flow import Flow, FlowSet, Space
from sciode.observers import Design, Observer
from sciode.observers.gridded import FourierOperator
from sciode.observers.simulator import MeshGraphNet

__all__ = ["Step", "noises", "steps"]

SENSORS, FRAMES, BATCH, QUERIES, WIDTH = (205, 1024), 20, 16, 512, 64
WINDOWS = {"eager": 128, "capture": 1024}
"""Of an epoch: so many that validation, of one, takes no part in the time."""

_EPOCHS = 3
"""The first of which records."""
_BOX = Space("periodic", (0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True)
class Step:
    """A training step of `batch` windows: milliseconds, the median over epochs, validation of one window with it."""

    who: str
    sensors: int
    engine: str
    milliseconds: float
    batch: int


def noises(sensors: int, windows: int) -> tuple[FlowSet, FlowSet]:
    """Flows of numbers without sense at random sensors: what trains, and one that validates."""
    draw = torch.Generator().manual_seed(0)
    points, times = torch.rand(sensors, 2, generator=draw), torch.arange(FRAMES, dtype=torch.float64)
    flows = tuple(
        Flow(points, times, torch.randn(FRAMES, sensors, 1, generator=draw)) for _ in range(windows + 1)
    )  # fmt: skip
    train, chooses = (FlowSet("noises", part, ("s",), ("",), _BOX) for part in (flows[1:], flows[:1]))
    return train, chooses


def steps(device: torch.device, engines: tuple[str, ...]) -> list[Step]:
    """Time everyone's steps under each engine."""
    how: dict[str, Any] = {"length": FRAMES, "epochs": _EPOCHS, "batch_size": BATCH, "device": str(device)}
    design = Design(width=WIDTH, layers=3, waves=8, base="cubic", attention="nearest")
    kinds: dict[str, Callable[[str], Any]] = {
        "observer": lambda engine: Observer(design=design, queries=QUERIES, masks=4, engine=engine, **how),
        "MeshGraphNet": lambda engine: MeshGraphNet(width=WIDTH, engine=engine, **how),
        "Fourier operator": lambda engine: FourierOperator(width=WIDTH, engine=engine, **how),
    }
    found = []
    for sensors in SENSORS:
        for who, kind in kinds.items():
            for engine in engines:
                windows = WINDOWS[engine]
                epochs = kind(engine).fit_flows(*noises(sensors, windows)).history_.epochs
                spent = median(epoch.seconds for epoch in epochs[1:])
                found.append(Step(who, sensors, engine, 1e3 * spent * BATCH / windows, BATCH))
    return found
