"""`sciode bench samplers`: orders and few-step errors of every sampler on mixtures with exact scores, beside diffusers.

Nothing is timed: an error at so many evaluations is the same on any machine. VP-linear, t from 1 to 1e-3, uniform
log-SNR (few steps also on the grid that is dense in its middle), float64, errors as root mean squares against the end
of the probability-flow ODE (DOP853 at 1e-12).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path as File
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sciode.bench.diffusers_peers import PEERS, available, sample_with
from sciode.bench.timing import machine
from sciode.diffusion import ModelStatistics, VPLinear, estimate_ems, round_trip, sample, samplers
from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.grids import times_of
from sciode.diffusion.path import Path
from sciode.diffusion.run import run
from sciode.diffusion.samplers.registry import catalogue
from sciode.lab.figures import picture
from sciode.lab.tables import show, table
from sciode.testing import GaussianMixture

__all__ = ["MIXTURES", "Few", "Order", "Trip", "bars", "few_steps", "main", "orders", "trips"]

SCHEDULE, START, END = VPLinear(), 1.0, 1e-3
SEEDS = (0, 1, 2)
BUDGETS = (5, 6, 8, 10, 12, 15, 20, 40, 80)
FEW = (
    "ddim", "dpm-2s", "dpm-fast", "dpm++-fast", "dpm-2m", "dpm-3m", "dpm++-2m", "dpm++-3m", "unipc-2", "unipc-3",
    "dpm-v3-1", "dpm-v3-3", "dpm-v3", "deis-tab-2", "deis-tab-3", "deis-rho-ab-3", "ipndm", "edm-heun",
    "deis-rho-rk-kutta3", "rf-solver", "fireflow", "rk-rk4", "bdia", "edict", "belm", "unipc-asinh-2", "unipc-asinh-3",
)  # fmt: skip
FEW_PEERS = ("dpmsolver++ 2", "dpmsolver++ 3", "unipc 3 bh2", "deis 2", "deis 3")
GRIDS = {"log-snr": FEW, "middle": ("dpm++-2m", "dpm++-3m", "unipc-3", "unipc-asinh-2", "dpm-v3")}
"""What takes few steps on which grid; diffusers' schedulers do on all."""
_BATCH = 32
_EXACT = 4096
_PREFIX, _LOWERED = "diffusers: ", ", lowered"
"""Rows of diffusers come twice: with full order to the end, and with the lower order of last steps that is its
default."""


@dataclass(frozen=True)
class Kind:
    """A family of mixtures: dimension, spread of the means, standard deviations of the components."""

    dim: int
    spread: float
    deviations: tuple[float, float]


MIXTURES: dict[str, Kind] = {
    "smooth 3-D": Kind(3, 1.0, (0.3, 0.8)),
    "sharp 3-D": Kind(3, 1.0, (0.05, 0.3)),
    "smooth 16-D": Kind(16, 1.0, (0.3, 0.8)),
    "smooth 64-D": Kind(64, 1.0, (0.3, 0.8)),
}
"""Five components each; a seed draws means, axes, deviations, weights, and the starting noise."""


class Case:
    """One mixture, its starts [B, D] and their exact ends."""

    def __init__(self, kind: Kind, seed: int, batch: int = _BATCH) -> None:
        self.mixture = GaussianMixture.random(kind.dim, seed=seed, spread=kind.spread, deviations=kind.deviations)
        self.model = self.mixture.model(SCHEDULE)
        generator = torch.Generator().manual_seed(1000 + seed)
        self.x = torch.randn(batch, kind.dim, generator=generator, dtype=torch.float64)
        self.exact = self.mixture.end_of_ode(self.x, SCHEDULE, START, END, 1e-12)

    @cached_property
    def ems(self) -> ModelStatistics:
        """Statistics by 1,024 points of the data, with the defaults: what few steps are measured with."""
        return estimate_ems(self.model, self.mixture.draw(1024, seed=7), SCHEDULE)

    @cached_property
    def exact_ems(self) -> ModelStatistics:
        """Statistics by so many points, resolved so far, that errors of the estimate are no part of an order."""
        return estimate_ems(self.model, self.mixture.draw(_EXACT, seed=7), SCHEDULE, degree=24)

    def error(self, x: Tensor) -> float:
        """Root mean square over samples and components."""
        return float((x - self.exact).square().mean().sqrt())

    def ours(self, name: str, grid: str = "log-snr", exact: bool = False, **budget: int) -> Tensor:
        """The sample of one of our samplers; exact: which statistics."""
        more: dict[str, Any] = {}
        if name.startswith("dpm-v3"):
            more = {"ems": self.exact_ems if exact else self.ems}
        return sample(self.model, self.x, SCHEDULE, sampler=name, grid=grid, t_end=END, seed=0, **budget, **more)

    def theirs(self, name: str, steps: int, lowered: bool = False, grid: str = "log-snr") -> Tensor:
        """The sample of a scheduler of diffusers; of an SDE the noise-free one. lowered: its `lower_order_final`."""
        peer = replace(PEERS[name], options=dict(PEERS[name].options) | {"lower_order_final": lowered})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sample_with(peer, self.model, self.x, _path(steps, grid))

    def drift(self, name: str, steps: int) -> Tensor:
        """The noise-free sample of one of our SDE samplers."""
        plan = catalogue()[name].program(_path(steps))  # type: ignore[union-attr]
        return run(plan, Denoiser(self.model, SCHEDULE, "eps"), (self.x,), lambda n: torch.zeros_like(self.x))[0]


def _path(steps: int, grid: str = "log-snr") -> Path:
    return Path.of(SCHEDULE, times_of(grid, SCHEDULE, steps, START, END))


@dataclass(frozen=True)
class Order:
    """Of one sampler on one mixture: what it claims, errors over steps, slopes between them, whether the best slope is
    within 0.15 of the claim (None: no claim). kind: "ode", or "drift" of an SDE sampler without its noise."""

    name: str
    kind: str
    claim: int | None
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    slopes: tuple[float, ...]
    kept: bool | None


def _steps(order: int) -> tuple[int, ...]:
    if order == 1:
        return (640, 1280, 2560)
    return (160, 320, 640) if order < 5 else (10, 20, 40, 80)


def _order(name: str, kind: str, claim: int | None, steps: tuple[int, ...], error: Callable[[int], float]) -> Order:
    errors = tuple(error(n) for n in steps)
    pairs = zip(pairwise(steps), pairwise(errors), strict=True)
    # Below 1e-13 there is rounding alone.
    slopes = tuple(math.log(e / f) / math.log(m / n) for (n, m), (e, f) in pairs if f > 1e-13)
    kept = None if claim is None else max(slopes) >= claim - 0.15
    return Order(name, kind, claim, steps, errors, slopes, kept)


def orders(names: Sequence[str] | None = None, peers: bool = True) -> Iterator[Order]:
    """Measure the order of every sampler (or of `names`), then of diffusers' schedulers, on the first smooth
    mixture."""
    case = Case(MIXTURES["smooth 3-D"], 0)
    # What an SDE sampler without its noise tends to: extrapolated by our finest one of order 4.
    reverse = case.drift("sa-solver-3", 1280)
    for name, info in samplers().items():
        if (names is not None and name not in names) or info.evaluations is None or info.order is None:
            continue
        error = partial(_our_error, case, name, reverse if info.kind == "sde" else None)
        if info.kind == "ode" or info.weak is not None:
            yield _order(name, "ode" if info.kind == "ode" else "drift", info.order, _steps(info.order), error)
    for name in PEERS if peers and available() else ():
        sde = name.startswith("sde")
        aim = reverse if sde else case.exact
        error = partial(_their_error, case, name, aim)
        yield _order(_PREFIX + name, "drift" if sde else "ode", None, (80, 160, 320), error)


def _our_error(case: Case, name: str, aim: Tensor | None, steps: int) -> float:
    """To the end of the ODE, or of a noise-free sample to what it tends to."""
    return case.error(case.ours(name, exact=True, steps=steps)) if aim is None else _rms(case.drift(name, steps), aim)


def _their_error(case: Case, name: str, aim: Tensor, steps: int) -> float:
    return _rms(case.theirs(name, steps), aim)


def _rms(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().mean().sqrt())


@dataclass(frozen=True)
class Few:
    """Of one sampler on one kind of mixture: errors by budget, one list a seed; None where the budget is too small."""

    mixture: str
    name: str
    errors: dict[int, list[float | None]]
    grid: str = "log-snr"

    def mean(self, budget: int) -> float | None:
        """The geometric mean over the seeds."""
        values = [e for e in self.errors[budget] if e is not None]
        return math.exp(fmean(map(math.log, values))) if values else None


def few_steps(
    kinds: Sequence[str] = tuple(MIXTURES), budgets: Sequence[int] = BUDGETS, names: Sequence[str] = FEW,
    seeds: Sequence[int] = SEEDS, peers: Sequence[str] = FEW_PEERS, grids: Sequence[str] = tuple(GRIDS),
) -> Iterator[Few]:  # fmt: skip
    """Errors at equal evaluations, of ours and of diffusers' schedulers from the same noise on the same grid."""
    for kind in kinds:
        cases = [Case(MIXTURES[kind], seed) for seed in seeds]
        for grid in grids:
            for name in [name for name in names if name in GRIDS[grid]]:
                yield Few(kind, name, {n: [_within(case, name, n, grid) for case in cases] for n in budgets}, grid)
            for name in peers if available() else ():
                for lowered, said in ((False, ""), (True, _LOWERED)):
                    found = {n: [case.error(case.theirs(name, n, lowered, grid)) for case in cases] for n in budgets}
                    yield Few(kind, _PREFIX + name + said, found, grid)  # type: ignore[arg-type]


def _within(case: Case, name: str, budget: int, grid: str) -> float | None:
    row = catalogue()[name]
    if row.evaluations(1) > budget:  # type: ignore[union-attr]
        return None
    return case.error(case.ours(name, grid, nfe=budget))


def _ratio(ours: Few, theirs: Few, budget: int) -> float:
    own, their = ours.mean(budget), theirs.mean(budget)
    assert own is not None and their is not None
    return own / their


@dataclass(frozen=True)
class Trip:
    """Root mean square error of the way there and back, and the growth of rounding that was foretold."""

    name: str
    dtype: str
    steps: int
    rmse: float
    growth: float | None


def trips(steps: Sequence[int] = (10, 40, 100)) -> Iterator[Trip]:
    """Round trips of what inverts exactly, in float32 and float64, and of two samplers that do not."""
    case = Case(MIXTURES["smooth 3-D"], 0)
    for name in ("bdia", "edict", "belm", "ddim", "dpm++-3m"):
        for dtype in (torch.float32, torch.float64):
            for n in steps:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    found = round_trip(case.model, case.x.to(dtype), SCHEDULE, sampler=name, steps=n)
                growth = found.inverted.growth if found.inverted.exact else None
                rmse = float(found.rmse.double().square().mean().sqrt())
                yield Trip(name, str(dtype).removeprefix("torch."), n, rmse, growth)


def bars(measured: Sequence[Order], few: Sequence[Few], back: Sequence[Trip]) -> list[tuple[str, str, float, bool]]:
    """What is asked for: (bar, where, value, whether it is met)."""
    found = []
    slopes = {row.name: max(row.slopes) for row in measured}
    for name in ("dpm++-3m", "dpm++-3m-sde"):
        if name in slopes:
            found.append((f"slope of {name} >= 2.8", "smooth 3-D", slopes[name], slopes[name] >= 2.8))
    errors = {(row.mixture, row.grid, row.name): row for row in few}
    rival = _PREFIX + "dpmsolver++ 3"
    bars = [(name, rival, 20) for name in ("dpm++-3m", "unipc-asinh-2", "unipc-asinh-3", "dpm-v3")] + [
        ("dpm-v3", "dpm++-2m", 5)
    ]
    for ours, other, budget in bars:
        for kind, grid, name in errors:
            their = errors.get((kind, grid, other))
            if name == ours and their is not None:
                ratio = _ratio(errors[kind, grid, name], their, budget)
                bar = f"error of {ours} at {budget} evaluations <= 0.55 of {other}"
                found.append((bar, kind if grid == "log-snr" else f"{kind}, {grid}", ratio, ratio <= 0.55))
    worst = [row.rmse for row in back if (row.name, row.dtype, row.steps) == ("bdia", "float32", 100)]
    found += [("round trip of bdia, float32, 100 steps <= 1e-6", "smooth 3-D", e, e <= 1e-6) for e in worst]
    return found


def main(out: File | None = None, only: str | None = None) -> int:
    """Measure, print the tables; with `out` write samplers.json and samplers.png there.

    only: of the samplers, those whose name contains it. Takes some ten minutes. Returns 0 whatever is met.
    """
    names = [name for name in samplers() if (only or "") in name]
    if not names:
        raise ValueError(f"only: no sampler has {only!r} in its name")
    measured = list(orders(names, peers=only is None))
    few = list(few_steps(names=[name for name in FEW if name in names]))
    back = list(trips())
    verdicts = bars(measured, few, back)
    _print(measured, few, back, verdicts)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record = {
            "machine": machine(),
            "diffusers": metadata.version("diffusers") if available() else None,
            "seeds": SEEDS,
            "mixtures": {name: asdict(kind) for name, kind in MIXTURES.items()},
            "orders": [asdict(row) for row in measured],
            "few_steps": [asdict(row) for row in few],
            "round_trips": [asdict(row) for row in back],
            "bars": [dict(zip(("bar", "mixture", "value", "met"), row, strict=True)) for row in verdicts],
        }
        (out / "samplers.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"numbers: {out / 'samplers.json'}")
        _draw(measured, few, out / "samplers.png")
    return 0


def _print(
    measured: list[Order], few: list[Few], back: list[Trip], verdicts: list[tuple[str, str, float, bool]]
) -> None:
    kept = {True: "kept", False: "broken", None: None}
    rows = [(r.name, r.kind, r.claim, f"{max(r.slopes):.2f}", kept[r.kept], f"{r.errors[-1]:.1e}") for r in measured]
    show(table("Orders", ["sampler", "of the", "claims", "measured", "claim", "error at the finest"], rows))
    for kind, grid in dict.fromkeys((row.mixture, row.grid) for row in few):
        cells = [(r.name, *(_number(r.mean(n)) for n in BUDGETS)) for r in few if (r.mixture, r.grid) == (kind, grid)]
        caption = f"geometric means of {len(SEEDS)} mixtures, grid {grid}"
        show(table(f"Errors by evaluations: {kind}, {grid}", ["sampler", *map(str, BUDGETS)], cells, caption))
    trip = [(r.name, r.dtype, r.steps, f"{r.rmse:.1e}", _number(r.growth)) for r in back]
    show(table("There and back", ["sampler", "dtype", "steps", "error", "growth of rounding"], trip))
    met = {True: "met", False: "missed"}
    show(table("Bars", ["bar", "mixture", "value", ""], [(b, m, _number(v), met[ok]) for b, m, v, ok in verdicts]))


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2e}"


_TICKS = (5, 10, 20, 40, 80)
_DRAWN = {
    name: (name, "log-snr")
    for name in ("ddim", "dpm++-2m", "dpm++-3m", "unipc-3", "unipc-asinh-2", "dpm-v3", _PREFIX + "dpmsolver++ 3")
} | {f"{name}, middle": (name, "middle") for name in ("unipc-asinh-2", "dpm-v3")}


def _draw(measured: list[Order], few: list[Few], path: File) -> None:
    """Errors over evaluations, a kind of mixture a panel."""
    if find_spec("matplotlib") is None:
        print("matplotlib is not installed: the curves are in the JSON only")
        return
    kinds = list(dict.fromkeys(row.mixture for row in few))
    with picture(path, (3.4 * len(kinds), 3.6)) as figure:
        panels = figure.subplots(1, len(kinds), squeeze=False)[0]
        for panel, kind in zip(panels, kinds, strict=True):
            for i, (name, (drawn, grid)) in enumerate(_DRAWN.items()):
                rows = [row for row in few if (row.mixture, row.name, row.grid) == (kind, drawn, grid)]
                points = [(n, row.mean(n)) for row in rows for n in BUDGETS]
                line = [(n, e) for n, e in points if e is not None]
                if line:
                    theirs = name.startswith(_PREFIX)
                    look = {"color": "black", "linestyle": "--"} if theirs else {"color": f"C{i}", "marker": "o"}
                    if grid != "log-snr":
                        look = {"color": f"C{list(_DRAWN).index(drawn)}", "linestyle": ":", "marker": "s"}
                    panel.loglog(*zip(*line, strict=True), label=name, markersize=3, **look)
            panel.set_xticks(_TICKS, [str(n) for n in _TICKS], minor=False)
            panel.minorticks_off()
            panel.set(title=kind, xlabel="evaluations", ylabel="RMS error" if panel is panels[0] else "")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    print(f"curves: {path}")
