"""`Observer`: learn a flow from fixed sensors, then ask for it anywhere in space and time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.data.flow import Flow, FlowSet, Space
from sciode.solvers.suggest import choose
from sciode.training import FitOptions, choose_device, fit, isolated_rng, load_checkpoint, save_checkpoint
from sciode.training.recorded import ENGINES

from .arrays import FARTHEST, Reading, as_flows, asked, parted
from .bounds import Bounds, bounds_of
from .climate import Climate, learned_climate, unpacked
from .forecast import Forecast
from .graphs import Graph, check_kind, flattened, outside_hull
from .model import PUBLISHED, Design, ObserverModel, network
from .objective import Objective
from .origin import moved, origin_of
from .plain import plain_fields
from .surface import ORDERS, chosen_order
from .windowed import Windowed
from .windows import (
    Layout,
    Scale,
    Windows,
    anchor_times,
    cut,
    fingerprint,
    layout_of,
    scale_of,
    usual_clock,
    walls_of,
)  # fmt: skip
from .wiring import Wiring

__all__ = ["Observer", "Prediction"]

_LATEST = 100 * FARTHEST
"""Steps after a reading that a rollout goes, at most: it keeps few, but takes all."""
_UNEVEN = 4.0
"""The ratio of a window's steps from which on a user is warned."""
_WHOLE = ("length", "every", "stride", "queries", "masks", "neighbours", "epochs", "batch_size", "patience",
          "random_state")  # fmt: skip


class Prediction(NamedTuple):
    """values: [T, Q, c]. outside: [Q], places outside the sensors' convex hull (in a plane), where nothing was ever
    read. beyond: [T], times later than any that training had seen from a start. away: [T], times from which on the
    forecast has run away: what is foreseen of a sensor, or answered at a place that is not outside, has left the range
    of all readings of training by more than half its width, or is no number. Answers there are kept, and not to be
    trusted. Where a given reading lies so far out itself, and is not missing, all times are."""

    values: NDArray[np.float64]
    outside: NDArray[np.bool_]
    beyond: NDArray[np.bool_]
    away: NDArray[np.bool_]


@dataclass(kw_only=True, eq=False)
class Observer:
    """Simulate and query a flow anywhere from a few fixed sensors, trained on those sensors alone.

    The sensors' first readings are encoded, a graph network moves them on in a latent space (System 1), and attention
    reads any place and time from them (System 2). `fit`, then `predict` or `rollout`.

    Parameters
    ----------
    design: sizes and kinds of both systems (`Design`); its horizon is set by `length` and `every`.
    space: where the sensors are; None: a plane around them. flat: take a sphere as a plane of longitude and latitude,
        with a seam and poles: an ablation.
    length: frames a training window; every: frames from anchor time to anchor time; stride: frames between windows'
        starts (None: end to end).
    graph, neighbours, radius: how sensors are joined (`edges_between`).
    dropout: probability that a training step hides a sensor; masks: in how many ways (0: a new one every step, which
        costs its graph). queries: asked a window in a step. dynamics_weight: of the sensors' own loss. penalty: of the
        solver's regularizers, of an "ode" with `Design.regularize`.
    epochs, batch_size, lr, weight_decay, schedule, clip, patience: see `FitOptions`. validation: share of the flows
        that choose the weights.
    random_state: of weights, dropout and queries. device: "auto", "cpu", "cuda", ... engine: how training steps run
        (`sciode.training.fit`): "auto" records them on a card, but for an "ode", whose solver decides as it goes.

    Attributes after `fit`: `network_`, `scale_`, `space_`, `origin_` (what is taken off positions, and off the corners
    of `space_`, where they lie so far from 0 that float32 would blur them), `channels_`, `history_`, `horizon_` (time
    from a window's start to its end), `clock_` (the usual anchor times of a window, in units of `scale_`), `given_`
    (the first readings of the first flow that has any, with its walls), `order_` and `stretch_` (of the surface),
    `climate_` (of standardised readings; None without),
    `bounds_` (of the training's readings; infinite in observers saved before they were kept).
    """

    design: Design = field(default_factory=Design)
    space: Space | None = None
    flat: bool = False
    length: int = 20
    every: int = 2
    stride: int | None = None
    graph: Graph = "delaunay"
    neighbours: int = 6
    radius: float | None = None
    dropout: float = 0.25
    queries: int = 256
    masks: int = 32
    dynamics_weight: float = 1.0
    penalty: float = 0.0
    epochs: int = 100
    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    clip: float | None = 1.0
    patience: int = 1000
    validation: float = 0.2
    random_state: int = 0
    device: str = "auto"
    engine: str = "auto"

    def fit(
        self,
        positions: Any,
        times: Any,
        values: Any,
        walls: Any | None = None,
        *,
        validation: tuple[Any, Any, Any] | tuple[Any, Any, Any, Any] | None = None,
        folder: Path | str | None = None,
        progress: bool = False,
    ) -> Self:
        """Learn from sensors at positions [N, d] read at times [T]: values [T, N, c], NaN or masked = missing.

        Several flows: values [F, T, N, c], or a list of arrays; positions and times then are lists too, where they
        differ. walls [N] bool: sensors on walls, which dropout never hides. validation: (positions, times, values), or
        with walls as a fourth, that choose the weights, instead of a share of the flows, or the end of a single one.
        folder: of a checkpoint, from which an interrupted fit of the same data goes on. Windows without any reading are
        left out.

        Raises ValueError for arrays that do not fit, times that do not increase, channels without any reading.
        """
        train, others = as_flows(positions, times, values, walls, self.space), None
        if validation is not None:
            if len(validation) not in (3, 4):
                raise ValueError("validation is (positions, times, values), or with walls as a fourth")
            own = validation[3] if len(validation) == 4 else None
            others = as_flows(*validation[:3], own, train.space)
        return self.fit_flows(train, others, folder=folder, progress=progress)

    def fit_flows(
        self,
        train: FlowSet,
        validation: FlowSet | None = None,
        *,
        folder: Path | str | None = None,
        progress: bool = False,
    ) -> Self:
        """The same from flow sets, of which the points are the sensors."""
        self._check()
        self.order_, self.stretch_ = 3, ()
        if self.design.base == "climate" and (self.flat or train.space.kind == "plane"):
            raise ValueError('base="climate" needs a sphere or a periodic box: in a plane take base="fitted"')
        if self.graph == "map":
            flattened(train[0].points[:1], train.space)  # refuses what is no sphere
        device = choose_device(self.device)
        self.origin_ = origin_of(train.space)
        train, chooses = (moved(flows, self.origin_) for flows in parted(train, validation, self.validation))
        self.space_, self.channels_ = train.space, train.channels
        self.scale_, self.bounds_ = scale_of(train, self.every), bounds_of(train)
        parts = {
            name: cut(self._seen(flows), self.length, self.stride, self.scale_, name).to(device)
            for name, flows in (("train", train), ("validation", chooses))
        }
        first = parts["train"]
        if self.design.base in ("stretched", "fitted"):
            orders = ORDERS if self.design.base == "fitted" else (3,)
            self.order_, found = chosen_order(*first.of_first(device), first.space, orders)
            self.stretch_: tuple[float, ...] = tuple(found.tolist())
        self.climate_ = _climate(parts, device) if self.design.base == "climate" else None
        reach = float(first.times[:, -1].max())
        self.horizon_, self.clock_ = reach * self.scale_.unit, usual_clock(first.times, self.every)
        self._warn_of_gaps(anchor_times(first.times, self.every).diff(dim=1))
        self._build(reach)
        engine = "eager" if self.design.dynamics == "ode" and self.engine == "auto" else self.engine
        objective = Objective(
            self.network_, parts, wiring=self._wiring(), every=self.every, queries=self.queries, dropout=self.dropout,
            dynamics_weight=self.dynamics_weight, penalty=self.penalty, masks=self.masks, chunk=self.batch_size,
            fixed=device.type == "cuda" and engine != "eager",
        ).to(device)  # fmt: skip
        rows = {name: {"window": torch.arange(len(part.which))} for name, part in parts.items()}
        self.history_ = fit(
            objective,
            Windowed(),
            rows["train"],
            rows["validation"],
            self._options(),
            folder=folder,
            progress=progress,
            identity=_told(self, parts),
            engine=engine,
        )
        self.given_ = _first(train, self.origin_)
        self.network_.eval()
        return self

    def predict(self, positions: Any, times: Any, given: Reading | None = None, *, chunk: int = 8192) -> Prediction:
        """The flow at positions [Q, d] and times [T], from the sensors' readings at one time.

        given: what the sensors read at a time, None: the first readings of the first flow of `fit`. Sensors may stand
        elsewhere and be more or fewer than in training. Times must not be before `given.time`; later ones than
        `horizon_` after it are answered by letting the latent dynamics go on, and flagged. chunk: queries at a time.
        Raises ValueError for earlier times, or some more than 100,000 steps later, positions of another dimension or
        that are no numbers, no place or time at all, a reading that does not fit; RuntimeError before `fit`.
        """
        places, steps, given = self._asked(positions, times, given, chunk)
        forecast = self._forecast()
        part = forecast.joined(self._layout(given))
        found, leaves = forecast.answer(part, _tensor(given.values), self._placed(places), steps, chunk)
        return self._told(places, steps, found, leaves, given)

    def rollout(self, positions: Any, times: Any, given: Reading | None = None, *, chunk: int = 8192) -> Prediction:
        """As `predict`, for times as late as one likes: after every `horizon_` the flow at the sensors is read, and
        taken as the start of the next stretch, so that the networks see no time that training had not. A climate
        smooths it there each time, by its nugget."""
        places, steps, given = self._asked(positions, times, given, chunk, _LATEST)
        forecast, reach = self._forecast(), self.horizon_ / self.scale_.unit
        layout = self._layout(given)
        part, x, start = forecast.joined(layout), self._placed(places), _tensor(given.values)
        values = np.empty((len(steps), len(places), len(self.channels_)))
        done, number, leaves = np.zeros(len(steps), dtype=bool), 0, np.inf
        while not done.all():
            now = ~done & (steps <= (number + 1) * reach + 1e-9)
            if now.any():
                values[now], left = forecast.answer(part, start, x, steps[now] - number * reach, chunk)
                leaves = min(leaves, number * reach + left)
            done |= now
            number += 1
            if not done.all():
                ends, left = forecast.answer(part, start, layout.points, np.array([reach]), chunk)
                leaves = min(leaves, (number - 1) * reach + left)
                start = torch.from_numpy(ends[0])
        return self._told(places, steps, values, leaves, given)

    def save(self, path: Path | str) -> None:
        """Write the fitted observer to one safetensors file with a JSON header."""
        self._fitted()
        given = {
            "given.positions": torch.as_tensor(self.given_.positions),
            "given.values": torch.as_tensor(self.given_.values),
        }
        weights = {f"network.{name}": value for name, value in self.network_.state_dict().items()}
        if self.given_.walls is not None:
            given["given.walls"] = torch.as_tensor(self.given_.walls)
        scale = {"scale.mean": self.scale_.mean, "scale.deviation": self.scale_.deviation}
        bounds = {f"bounds.{name}": value for name, value in self.bounds_._asdict().items()}
        record = {
            "parameters": asdict(self),
            "space": asdict(self.space_),
            "origin": list(self.origin_),
            "channels": self.channels_,
            "unit": self.scale_.unit,
            "horizon": self.horizon_,
            "clock": self.clock_.tolist(),
            "given_time": self.given_.time,
            "stretch": list(self.stretch_),
            "order": self.order_,
        }
        kept = {} if self.climate_ is None else self.climate_.packed()
        climate = {f"climate.{name}": value for name, value in kept.items()}
        record["degree"] = 0 if self.climate_ is None else self.climate_.degree
        save_checkpoint(Path(path), {**weights, **scale, **bounds, **climate, **given}, record)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Self:
        """The observer that `save` wrote. Raises ValueError for another file."""
        tensors, record = load_checkpoint(Path(path))
        if "parameters" not in record or "given.values" not in tensors:
            raise ValueError(f"{path} holds no observer: it was not written by Observer.save")
        told = dict(record["parameters"])
        told["design"] = Design(**{**PUBLISHED, **told["design"], "regularize": tuple(told["design"]["regularize"])})
        told["space"] = None if told["space"] is None else Space(**told["space"])
        self = cls(**{**told, "device": device})
        self.space_, self.channels_ = Space(**record["space"]), tuple(record["channels"])
        self.origin_ = tuple(record.get("origin", [0.0] * self.space_.dimension))
        self.scale_ = Scale(tensors["scale.mean"], tensors["scale.deviation"], record["unit"])
        none = torch.full_like(self.scale_.mean, torch.inf)
        self.bounds_ = Bounds(tensors.get("bounds.lowest", -none), tensors.get("bounds.highest", none))
        self.horizon_, self.order_ = record["horizon"], record.get("order", 3)
        even = range(math.ceil(self.horizon_ / self.scale_.unit - 1e-9) + 1)
        self.clock_ = torch.tensor(record.get("clock", list(even)), dtype=torch.float64)
        self.stretch_ = tuple(record["stretch"])
        kept = {name[8:]: value for name, value in tensors.items() if name.startswith("climate.")}
        if self.design.base == "climate" and not kept:
            raise ValueError(f"{path}: the climate is missing; save the observer again")
        self.climate_ = unpacked(kept, self.space_, record["degree"]) if kept else None
        first, walls = tensors["given.positions"], tensors.get("given.walls")
        self.given_ = Reading(first, tensors["given.values"], record["given_time"], walls)
        self._build(self.horizon_ / self.scale_.unit)
        self.network_.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        self.network_.to(choose_device(device)).eval()
        return self

    def _check(self) -> None:
        plain_fields(self)
        choose("engine", self.engine, ENGINES)
        if not isinstance(self.design, Design):
            raise ValueError(f"design: {self.design!r} is no Design: give Design(width=..., layers=...)")
        for name in _WHOLE:
            value = getattr(self, name)
            if not isinstance(value, Integral) and (name, value) != ("stride", None):
                raise ValueError(f"{name} counts, and must be a whole number: got {value!r}")
        if not 0.0 <= self.dropout < 1.0 or not 0.0 < self.validation < 1.0:
            raise ValueError("dropout must lie in [0, 1) and validation in (0, 1)")
        if min(self.length - 1, self.every, self.queries, self.stride or 1, self.neighbours) < 1:
            raise ValueError("length must be >= 2; every, stride, queries and neighbours >= 1")
        if min(self.masks, self.dynamics_weight, self.penalty) < 0:
            raise ValueError("masks, dynamics_weight and penalty must be >= 0")
        if self.every >= self.length:
            raise ValueError(f"every={self.every} frames leave one anchor time in windows of {self.length}: lower it")
        check_kind(self.graph, self.neighbours, self.radius)
        if self.flat and self.graph == "map":
            raise ValueError('graph="map" joins sensors of a sphere; with flat=True all is a map: leave it out')
        self._options()

    def _options(self) -> FitOptions:
        return FitOptions(
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=self.weight_decay,
            schedule=self.schedule, clip=self.clip, patience=self.patience, warmup=0, settle=0,  # type: ignore[arg-type]
            seed=self.random_state, threads=torch.get_num_threads(),
        )  # fmt: skip

    def _wiring(self) -> Wiring:
        design = self.design
        surface, climate = design.base not in ("none", "climate"), self.climate_
        return Wiring(
            self.graph, self.neighbours, self.radius, design.waves, surface, self.stretch_, self.order_, climate,
            design.nugget,
        )  # fmt: skip

    def _seen(self, flows: FlowSet) -> FlowSet:
        """As networks see them: on a sphere or flattened."""
        if not self.flat:
            return flows
        space = flattened(flows[0].points, flows.space)[1]
        flat = tuple(Flow(flattened(f.points, flows.space)[0], f.times, f.values, f.walls) for f in flows)
        return FlowSet(flows.name, flat, flows.channels, flows.units, space, flows.time_unit)

    def _build(self, horizon: float) -> None:
        design = Design(**{**asdict(self.design), "horizon": horizon})
        with isolated_rng(self.random_state, 1):
            self.network_: ObserverModel = network(len(self.channels_), self._space(), design)

    def _warn_of_gaps(self, gaps: Tensor) -> None:
        if self.design.dynamics == "steps" and float(gaps.max()) > _UNEVEN * float(gaps.min()):
            warnings.warn(
                f"times from anchor to anchor differ {float(gaps.max() / gaps.min()):.3g} times, and each is one step "
                'of Euler\'s method: Design(dynamics="ode") solves them to a tolerance',
                stacklevel=4,
            )

    def _fitted(self) -> None:
        if not hasattr(self, "network_"):
            raise RuntimeError("this observer is not fitted: call fit first")

    def _asked(
        self, positions: Any, times: Any, given: Reading | None, chunk: int, farthest: int = FARTHEST
    ) -> tuple[Tensor, NDArray[Any], Reading]:
        """Places and reading in coordinates that count from `origin_`, and times in steps from the reading on."""
        self._fitted()
        given = self.given_ if given is None else given
        if not isinstance(chunk, Integral) or chunk < 1:
            raise ValueError(f"chunk must be >= 1, and a whole number: got {chunk}")
        most = farthest * self._forecast().beat
        places, steps = asked(positions, times, given, self.space_, len(self.channels_), self.scale_.unit, most)
        if any(self.origin_):
            given = replace(given, positions=given.positions - np.array(self.origin_))
        return torch.from_numpy(places - np.array(self.origin_)).float(), steps, given

    def _told(
        self, places: Tensor, steps: NDArray[Any], values: NDArray[Any], leaves: float, given: Reading
    ) -> Prediction:
        read, left = _tensor(given.values).double(), self._forecast().left
        there = read.isfinite()
        outside = outside_hull(places, _tensor(given.positions).float()[there.any(1)], self.space_).numpy()
        lost = left(torch.from_numpy(values[:, ~outside])).any(1).numpy()
        wild = left(torch.where(there, read, self.scale_.mean)).any()
        first = 0.0 if wild else min([leaves, *steps[lost]])
        return Prediction(values, outside, steps > self.horizon_ / self.scale_.unit + 1e-9, steps >= first)

    def _forecast(self) -> Forecast:
        return Forecast(self.network_, self.scale_, self.bounds_, self._wiring(), self._space(), self.clock_)

    def _layout(self, given: Reading) -> Layout:
        return layout_of(self._placed(_tensor(given.positions).float()), given.walls)

    def _space(self) -> Space:
        return flattened(torch.ones(1, 3), self.space_)[1] if self.flat else self.space_

    def _placed(self, points: Tensor) -> Tensor:
        return flattened(points, self.space_)[0] if self.flat else points


def _tensor(array: NDArray[Any]) -> Tensor:
    """A copy: arrays of users may be read-only."""
    return torch.from_numpy(np.array(array))


def _climate(parts: Mapping[str, Windows], device: torch.device) -> Climate:
    """Of what the sensors of the first flow read, settled by those of the first that chooses; found on a device, kept
    on the CPU."""
    (points, values), others = (parts[name].of_first(device) for name in ("train", "validation"))
    return learned_climate(points, values, *others, parts["train"].space).to("cpu")


def _first(flows: FlowSet, origin: tuple[float, ...]) -> Reading:
    """The first frame that has a reading, of the first flow that has one, where its sensors really stand."""
    there = ((flow, flow.values.isfinite().flatten(1).any(1)) for flow in flows)
    flow, read = next((flow, read) for flow, read in there if bool(read.any()))
    frame = int(read.nonzero()[0])
    points = flow.points.numpy() + np.array(origin) if any(origin) else flow.points.numpy()
    return Reading(points, flow.values[frame].double(), float(flow.times[frame]), walls_of(flow))


def _told(observer: Observer, parts: Mapping[str, Windows]) -> str:
    """What a checkpoint hangs on beside weights: parameters, and the windows."""
    return f"{asdict(observer)} {fingerprint(parts)}"
