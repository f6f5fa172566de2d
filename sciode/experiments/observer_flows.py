"""Flows from a few sensors: observers beside what interpolates, simulates or keeps still, by rate and subsampling.

    sciode train observer_flows
    sciode train observer_flows --set rates=[0.1] seeds=[0] 'lines=["observer","MeshGraphNet","cubic, true readings"]'
    sciode train observer_flows --set 'sets=["navier_stokes"]' width=128 layers=4 epochs=400 --device cuda

Sensors are a random share ("rate") of the points of a flow, those on walls always among them; everything is trained and
chosen on their readings alone, and told the first readings of a test flow. Errors are mean squares in units of the
sensors' variance: at the sensors or between them (In-X, Ext-X), at frames that training reads or between them (In-T,
Ext-T: every `subsampling`-th frame is read). "twice" is Ext-X over twice the horizon (`Observer.rollout`), "unseen"
Ext-X where the test's sensors stand elsewhere than the training's. "cubic, true readings" is told what the sensors
truly read at every frame: it has nothing to foresee, and is the bar between the sensors. "fitted surface, true
readings" is the same by the surface that the observer corrects, "climate, true readings" by the covariance of fields
that the readings of the training flows tell (`fitted_climate`): what there is to win in space alone. "true solver,
first readings" is told the first readings as all others are, but knows the equation: what there is to win in time;
"true solver, climate of first readings" begins with the climate's fields in place of a surface's.
"quadratic law" finds an equation (`QuadraticLaw`) and has rows of Navier-Stokes alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sciode.data import flows, manifest
from sciode.data.flow import Flow, FlowSet, Space
from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.experiments.observer_floors import fitted_surface, learned_climate, solved
from sciode.experiments.observer_tables import figure, tables, verdicts
from sciode.lab.tables import show
from sciode.observers import Design, Observer, Reading, outside_hull
from sciode.observers.bounds import bounds_of
from sciode.observers.gridded import FourierOperator
from sciode.observers.implicit import ImplicitField
from sciode.observers.interpolation import between_frames, interpolated, persistence
from sciode.observers.law import QuadraticLaw
from sciode.observers.metrics import drift, split_errors
from sciode.observers.model import PUBLISHED
from sciode.observers.simulator import MeshGraphNet
from sciode.observers.surface import ORDERS
from sciode.observers.windows import walls_of
from sciode.training import choose_device, derive_seed

__all__ = ["LINES", "Line", "Settings", "main", "sensors_of"]


class Line(NamedTuple):
    """A line of the table: what is changed of the observer and of its design; rival: not an observer."""

    observer: Mapping[str, Any] = {}
    design: Mapping[str, Any] = {}
    rival: str | None = None


LINES: dict[str, Line] = {
    "observer": Line(),
    "as published": Line(design=PUBLISHED),
    "decoded readings": Line(design={"state": "latent"}),
    "a number a wave": Line(design={"mixing": "each"}),
    "dynamics as published, waves": Line(design={"state": "latent", "mixing": "each"}),
    "dense attention": Line(design={"attention": "dense"}),
    "linear attention": Line(design={"attention": "linear"}),
    "graph ODE": Line(design={"dynamics": "ode"}),
    "causal": Line(design={"causal": True}),
    "no surface": Line(design={"base": "none"}),
    "surface, not stretched": Line(design={"base": "cubic"}),
    "cubic surface, stretched": Line(design={"base": "stretched"}),
    "climate for surface": Line(design={"base": "climate"}),
    "climate for surface, no nugget": Line(design={"base": "climate", "nugget": 0.0}),
    "climate for surface, nugget .01": Line(design={"base": "climate", "nugget": 0.01}),
    "climate for surface, nugget .1": Line(design={"base": "climate", "nugget": 0.1}),
    "no waves": Line(design={"waves": 0}),
    "mean for GRU": Line(design={"reader": "mean"}),
    "max for GRU": Line(design={"reader": "max"}),
    "no dynamics loss": Line({"dynamics_weight": 0.0}),
    "no dropout": Line({"dropout": 0.0}),
    "edges of the map": Line({"graph": "map"}),
    "flat sphere": Line({"flat": True}),
    "flat sphere, as published": Line({"flat": True}, PUBLISHED),
    "MeshGraphNet": Line(rival="simulator"),
    "Fourier operator": Line(rival="gridded"),
    "implicit field": Line(rival="implicit"),
    "cubic, true readings": Line(rival="cubic"),
    "quadratic law": Line(rival="law"),
    "stretched surface, true readings": Line(rival="stretched"),
    "fitted surface, true readings": Line(rival="fitted"),
    "climate, true readings": Line(rival="climate"),
    "true solver, first readings": Line(rival="solver"),
    "true solver, climate of first readings": Line(rival="climate solver"),
    "persistence": Line(rival="persistence"),
}
"""By the name that the table gives them. "observer" corrects a fitted surface, its sensors hear of each other by
waves too, and queries read the 16 nearest sensors; other lines change one thing. "as published" has none of the three.
"""

STILL = ("cubic", "stretched", "fitted", "climate", "solver", "climate solver", "persistence")
"""Rivals that draw nothing: one row, whatever the seeds."""

_WITHOUT_WALLS = ("navier_stokes", "shallow_water")
_KNOWN = {
    "law": "navier_stokes", "solver": _WITHOUT_WALLS, "climate": _WITHOUT_WALLS, "climate solver": _WITHOUT_WALLS,
}  # fmt: skip
"""Sets that a rival or a base can be asked of, by how their names begin; all, where it is not here."""

_LAYOUT, _UNSEEN, _POINTS = 11, 12, 13
"""First entries of the paths of the seeds that choose sensors and points."""


@dataclass(frozen=True)
class Settings:
    """sets: names of flow sets. rates: shares of the points that are sensors. subsamplings: every how many frames are
    read. lines: names in `LINES`; flat ones take part on spheres. train, test: flows at most, 0: all. horizon:
    frames of a window; stride: frames between the starts of training windows, 0: the horizon. points: between the
    sensors at which a test flow is judged, 0: all. width, layers, epochs, batch, queries and lr: of every network.
    waves: of `Design`; every: frames from anchor time to anchor time of observers. engine: of training
    steps, see `Observer`. workers: rows made at a time.

    Raises ValueError for unknown lines, rates outside (0, 1) or sizes below one.
    """

    sets: tuple[str, ...] = ("navier_stokes_reduced",)
    rates: tuple[float, ...] = (0.05, 0.1, 0.25)
    subsamplings: tuple[int, ...] = (1,)
    lines: tuple[str, ...] = tuple(LINES)
    seeds: tuple[int, ...] = (0, 1, 2)
    train: int = 0
    test: int = 4
    horizon: int = 20
    stride: int = 0
    points: int = 512
    width: int = 32
    layers: int = 2
    waves: int = 6
    every: int = 2
    epochs: int = 60
    batch: int = 4
    queries: int = 128
    lr: float = 2e-3
    device: str = "cpu"
    engine: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        named("lines", self.lines, LINES)
        if not all(0.0 < rate < 1.0 for rate in self.rates):
            raise ValueError(f"rates must lie between 0 and 1, got {self.rates}")
        sizes = (self.width, self.every, self.layers, self.epochs, self.batch, self.queries, self.workers)
        counts = (len(self.sets), len(self.lines), len(self.seeds), *self.subsamplings)
        if min(*sizes, *counts, self.horizon - 1) < 1 or min(self.train, self.test, self.stride, self.points) < 0:
            raise ValueError("settings: sizes and numbers of sets, lines and seeds must be at least 1, horizon 2")


def sensors_of(flow: Flow, rate: float, place: int) -> NDArray[np.int64]:
    """Numbers of the points of a flow that are sensors: a share of them, the same for flows with as many points."""
    count = flow.points.shape[-2]
    rng = np.random.default_rng(derive_seed(place, round(1e6 * rate), count))
    chosen = rng.choice(count, max(round(rate * count), 4), replace=False)
    walls = walls_of(flow)
    if walls is not None:
        chosen = np.union1d(chosen, walls.nonzero().squeeze(1).numpy())
    return np.sort(chosen)


def at(flow: Flow, chosen: NDArray[np.int64], step: int = 1) -> Flow:
    """A flow at some of its points, every step-th frame."""
    part = flow.between(0, len(flow.times), step)
    walls = walls_of(flow)
    return Flow(part.points[chosen], part.times, part.values[:, chosen], None if walls is None else walls[chosen])


def read(name: str, part: str, most: int, rate: float, step: int, horizon: int, stride: int = 0) -> FlowSet:
    """What the sensors read of the windows of a part, all that training may see."""
    found = flows(name, part)
    kept = (found[:most] if most else found).windows(horizon, stride or horizon)
    return replace(kept, flows=tuple(at(f, sensors_of(f, rate, _LAYOUT), step) for f in kept), grid=None)


class Told(NamedTuple):
    """One test flow: `flow` at the points that are judged, sensors first; reading: what is told of it. set: its
    name."""

    flow: Flow
    count: int
    reading: Reading
    set: str = ""


def told(flow: Flow, rate: float, place: int, points: int) -> Told:
    """A test flow with the sensors of a layout, and as many points between them."""
    sensors = sensors_of(flow, rate, place)
    others = np.setdiff1d(np.arange(flow.points.shape[-2]), sensors)
    rng = np.random.default_rng(derive_seed(_POINTS, len(others)))
    others = rng.choice(others, min(points or len(others), len(others)), replace=False)
    part = at(flow, np.concatenate((sensors, others)))
    count = len(sensors)
    walls = None if part.walls is None else part.walls[:count].numpy()
    start = Reading(part.points[:count].numpy(), part.values[0, :count].numpy(), float(part.times[0]), walls)
    return Told(part, count, start)


def trained(settings: Settings, own: Line, key: Mapping[str, Any], out: Path) -> Any:
    """The network of a line, or its surface, fitted; None for what learns nothing."""
    if own.rival in ("cubic", "persistence"):
        return None
    step = key["subsampling"]
    length = len(range(0, settings.horizon, step))
    parts = [
        read(key["set"], part, most, key["rate"], step, settings.horizon, stride)
        for part, most, stride in (("train", settings.train, settings.stride), ("validation", settings.test, 0))
    ]
    if own.rival in ("climate", "climate solver"):
        return learned_climate(*parts)
    if own.rival in STILL:
        return fitted_surface(parts[0], (3,) if own.rival == "stretched" else ORDERS)
    same: dict[str, Any] = {
        "length": length, "epochs": settings.epochs, "batch_size": settings.batch, "lr": settings.lr,
        "random_state": key["seed"], "device": settings.device,
    }  # fmt: skip
    folder = out / "fits" / _slug(settings, key)
    if own.rival is not None:
        width, layers = settings.width, settings.layers
        rivals: dict[str, Callable[[], Any]] = {
            "simulator": lambda: MeshGraphNet(width=width, layers=layers, engine=settings.engine, **same),
            "gridded": lambda: FourierOperator(width=width, engine=settings.engine, **same),
            "implicit": lambda: ImplicitField(width=width, **same),
            "law": lambda: QuadraticLaw(
                length=length, steps=6 * step, random_state=key["seed"], device=settings.device
            ),
        }
        return rivals[own.rival]().fit_flows(*parts, folder=folder)
    design: dict[str, Any] = {"width": settings.width, "layers": settings.layers, "waves": settings.waves}
    how = {
        **same,
        "engine": settings.engine,
        "every": max(settings.every // step, 1),
        "queries": settings.queries,
        **own.observer,
    }
    return Observer(design=Design(**{**design, **own.design}), **how).fit_flows(*parts, folder=folder)


def answer(own: Line, model: Any, test: Told, frames: NDArray[np.bool_], space: Any, far: bool) -> NDArray[Any]:
    """Values [T, N, c] of a test flow at all its judged points and times; far: beyond the horizon too."""
    places, times = test.flow.points.numpy(), test.flow.times.numpy()
    sensors, truth = places[: test.count], test.flow.values[:, : test.count].double().numpy()
    if own.rival == "persistence":
        return persistence(sensors, truth[0], places, len(times), space)
    if own.rival == "cubic":
        return interpolated(sensors, between_frames(times[frames], truth[frames], times), places, space)
    if own.rival in ("stretched", "fitted", "climate"):
        return model.through(sensors, between_frames(times[frames], truth[frames], times), places)
    if own.rival in ("solver", "climate solver"):
        return solved(model, manifest(test.set).recipe, sensors, truth[0], places, times)
    if own.rival is not None:
        return model.predict(places, times, test.reading)
    return (model.rollout if far else model.predict)(places, times, test.reading).values


def made(settings: Settings, out: Path, **key: Any) -> dict[str, Any]:
    """One row: errors by place and time, at twice the horizon and elsewhere, what is not conserved, how many answers
    ran away within the sensors' hull (`Bounds.left`), seconds."""
    own = LINES[key["line"]]
    began = time.perf_counter()
    model = trained(settings, own, key, out)
    seconds = time.perf_counter() - began
    readings = read(key["set"], "train", settings.train, key["rate"], key["subsampling"], settings.horizon)
    deviation, bounds = readings.moments()[1].numpy(), bounds_of(readings)
    whole = flows(key["set"], "test")
    whole = whole[: settings.test] if settings.test else whole
    ways = {
        "seen": (whole.windows(settings.horizon), _LAYOUT),
        "twice": (_longer(whole, 2 * settings.horizon), _LAYOUT),
        "unseen": (whole.windows(settings.horizon), _UNSEEN),
    }
    row: dict[str, Any] = {"seconds": seconds}
    began = time.perf_counter()
    for way, (tests, place) in ways.items():
        errors, drifts, away = [], [], 0
        for flow in tests or ():
            test = told(flow, key["rate"], place, settings.points)._replace(set=key["set"])
            frames = np.arange(len(flow.times)) % key["subsampling"] == 0
            inside = np.arange(test.flow.points.shape[0]) < test.count
            found = answer(own, model, test, frames, whole.space, way == "twice")
            truth = test.flow.values.double().numpy()
            hull = ~outside_hull(test.flow.points, test.flow.points[: test.count], whole.space)
            away += bool(bounds.left(torch.as_tensor(found)[:, hull], torch.as_tensor(deviation)).any())
            errors.append(split_errors(found, truth, inside, frames, deviation))
            drifts.append(drift(found / deviation, truth / deviation, areas(test.flow, whole.space)))
        names = errors[0]._fields if errors else ()
        means = {name: fmean(getattr(error, name) for error in errors) for name in names}
        # Where every frame is read there are no errors between frames, and JSON has no NaN.
        row[way] = {name: mean for name, mean in means.items() if not math.isnan(mean)}
        row[way] |= {"drift": np.mean(drifts, 0).tolist(), "away": away} if errors else {}
    row["answer_seconds"] = time.perf_counter() - began
    if hasattr(model, "network_"):
        row["weights"] = sum(p.numel() for p in model.network_.parameters())
        row["validation"] = model.history_.epochs[model.history_.best_epoch].validation_loss
        row["stopped"] = model.history_.stopped
    return row


def areas(flow: Flow, space: Space) -> NDArray[Any] | None:
    """Areas that the points of a grid stand for: those of longitudes and latitudes shrink to the poles."""
    return flow.points[:, :2].norm(dim=1).numpy() if space.kind == "sphere" else None


def _longer(whole: FlowSet, frames: int) -> FlowSet | None:
    return whole.windows(frames) if min(len(flow.times) for flow in whole) >= frames else None


def _slug(settings: Settings, key: Mapping[str, Any]) -> str:
    text = json.dumps([_stamp(settings), key], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(settings: Settings) -> dict[str, Any]:
    return stamped(settings, "sets", "rates", "subsamplings", "lines", "seeds")


def _keys(settings: Settings) -> list[dict[str, Any]]:
    """What rows there are, seed by seed: what draws nothing has one, and a sphere is needed to be flattened."""
    return [
        {"set": name, "rate": rate, "subsampling": step, "line": line, "seed": seed}
        for number, seed in enumerate(settings.seeds)
        for name in settings.sets
        for rate in settings.rates
        for step in settings.subsamplings
        for line in settings.lines
        if not (number and LINES[line].rival in STILL)
        if not {"flat", "graph"} & set(LINES[line].observer) or name.startswith("shallow_water")
        if name.startswith(_KNOWN.get(LINES[line].rival or LINES[line].design.get("base", ""), ""))
    ]


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes, and so do rows in work), table.json, rates.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = _keys(settings)
    rows = finished_rows(out, keys, _stamp(settings), partial(made, settings, out), settings.workers)
    stamp = {"date": datetime.now(UTC).date().isoformat(), "torch": torch.__version__}
    stamp["card"] = torch.cuda.get_device_name() if settings.device.startswith("cuda") else "CPU"
    found = verdicts(rows)
    record = {**stamp, "settings": settings, "verdicts": [v._asdict() for v in found], "rows": rows}
    numbers = write_table(out, record)
    caption = (
        f"mean square errors in units of the sensors' variance, mean ± sd over {len(settings.seeds)} seeds; "
        f"{settings.epochs} epochs, width {settings.width}, {settings.device}"
    )
    for each in tables(rows, caption):
        show(each)
    for verdict in found:
        print(verdict)
    figure(rows, out / "rates.png")
    print(f"numbers: {numbers}\nfigure: {out / 'rates.png'}")
    return 0
