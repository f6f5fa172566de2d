"""Advection by a neural field, in time as far as the horizon: schemes, optimisers and fields beside grids and floors.

    sciode train insr_advection
    sciode train insr_advection --set 'lines=["Galerkin, rk4","grid, cubic"]' horizon=1

u_t + u_x / 4 = 0 on [-2, 2], u = 0 at the walls, from a Gaussian of width 0.1 at -1.5: the first experiment of Chen,
Wu, Grinspun, Zheng & Chen (ICML 2023), with their step 0.05 and their network's size. "floor" is what the same time
scheme reaches when space is exact: Fourier modes, each multiplied by the scheme's stability function at every step.
What is below it owes that to errors that cancel.

The field "periodic" is a sine network of cosines and sines of pi x / 2 (omega = 10): up to T = 12 the exact solution is
below 4e-6 at the walls, and a translate of such a network is one again. "walls" is the paper's network and its weight
on the walls, where whatever the network holds outside [-2, 2] has to be kept from coming in. "hard" is 0 at the walls
by a factor. Grids have as many numbers as the network of the paper has weights. "PINN" is one network of x and t, of
about as many weights, trained on [-2, 2] x [0, horizon] at once, in the seconds that its line says: by Adam, then by
Levenberg-Marquardt (`sciode.pinn`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciode import pinn
from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.insr import Fit, Galerkin, Points, Trajectory, evolve, scheme_of
from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, show, small_mean_sd, table
from sciode.nn import HardBoundary, PeriodicEmbedding, Siren
from sciode.pde import Box, Evolution, problem_of
from sciode.pde.grid_advection import advect
from sciode.solvers.tableaux import ImplicitTableau, implicit_method
from sciode.training import INSR, Adam, LevenbergMarquardt, choose_device, isolated_rng, threads

__all__ = ["LINES", "Line", "Settings", "main"]


class Line(NamedTuple):
    """A line of the table: how time is stepped and what the field is; grid: an interpolation, and no network.

    how: arguments of `evolve`. steps: at most, for what takes hours. dtype: of the weights. pinn: a network of space
    and time in the place of all these, and seconds: of its two stages.
    """

    field: str = "periodic"
    how: Mapping[str, Any] = {}
    grid: str | None = None
    steps: int | None = None
    dtype: torch.dtype = torch.float64
    pinn: pinn.Network | None = None
    seconds: tuple[float, float] = (60.0, 120.0)


# The paper's residual is ours over dt, so its weight on the walls is dt^2 of ours; its optimiser reaches no loss that
# we accept, so that its fit and its step are taken as they come.
_RECIPE: dict[str, Any] = {
    "scheme": "implicitmidpoint",
    "optimiser": INSR,
    "points": Points(5000, weight=0.05**2),
    "attempts": 1,
    "failing": "go on",
}


LINES: dict[str, Line] = {
    "implicit Euler": Line(how={"scheme": "impliciteuler"}),
    "midpoint": Line(how={"scheme": "implicitmidpoint"}),
    "BDF2": Line(how={"scheme": "bdf2"}),
    "Gauss-Legendre 4": Line(how={"scheme": "gausslegendre4"}),
    "Galerkin, rk4": Line(how={"mode": "galerkin", "galerkin": Galerkin("rk4", fixed=True, damping=1e-10)}),
    # What rounding leaves of a loss in float32 is 1e-10 here: the tolerance for float64 would use up all iterations.
    "midpoint, float32": Line(
        how={"scheme": "implicitmidpoint", "optimiser": LevenbergMarquardt(tolerance=1e-9)}, dtype=torch.float32
    ),
    "Galerkin, rk4, float32": Line(
        how={"mode": "galerkin", "galerkin": Galerkin("rk4", fixed=True, damping=1e-10)}, dtype=torch.float32
    ),
    "Galerkin, adaptive": Line(how={"mode": "galerkin"}),
    "midpoint, walls": Line("walls", {"scheme": "implicitmidpoint"}),
    "midpoint, hard": Line("hard", {"scheme": "implicitmidpoint"}),
    "Galerkin, hard": Line("hard", {"mode": "galerkin", "galerkin": Galerkin("rk4", fixed=True, damping=1e-6)}),
    "Adam recipe, walls": Line("walls", {**_RECIPE, "fit": Fit(INSR, None)}, steps=1, dtype=torch.float32),
    "Adam step, our fit": Line("walls", _RECIPE, steps=1, dtype=torch.float32),
    "grid, linear": Line(grid="linear"),
    "PINN, tanh": Line(pinn=pinn.Network(20, 3)),
    "PINN, sine": Line(pinn=pinn.Network(20, 3, "sine", 5.0)),
    "grid, cubic": Line(grid="cubic"),
}
"""By the name that the table gives them."""

_PROBES = 4001
_EVERY = 0.25
"""Errors are measured at so many points, so often."""


@dataclass(frozen=True)
class Settings:
    """lines: names in `LINES`. horizon: the last time. dt: of a step. width, hidden: of the sine network. points: of a
    residual. accept: see `evolve`; a line ends where a step's loss stays above it. workers: rows made at a time.

    Raises ValueError for an unknown line, a size below one or a horizon that is not a multiple of dt.
    """

    lines: tuple[str, ...] = tuple(LINES)
    seeds: tuple[int, ...] = (0, 1, 2)
    horizon: float = 12.0
    dt: float = 0.05
    width: int = 20
    hidden: int = 2
    points: int = 2000
    accept: float = 1e-6
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("lines", self.lines, LINES)
        if min(self.width, self.points, self.workers, len(self.lines), len(self.seeds)) < 1 or self.hidden < 0:
            raise ValueError("settings: sizes and numbers of lines and seeds must be at least 1")
        if not self.dt > 0 or not self.horizon > 0 or abs(self.horizon / self.dt - self.steps) > 1e-9 * self.steps:
            raise ValueError(f"horizon must be a multiple of dt, got {self.horizon} and {self.dt}")

    @property
    def steps(self) -> int:
        """Of the horizon."""
        return max(round(self.horizon / self.dt), 1)


def network(kind: str, told: int, settings: Settings, seed: int) -> nn.Module:
    """A field in float64 with the weights of its seed; a line casts it."""
    size = (settings.width, settings.hidden)
    with isolated_rng(seed):
        if kind == "periodic":
            field: nn.Module = Siren(1, told, *size, omega=10.0, embedding=PeriodicEmbedding([4.0]))
        elif kind == "hard":
            field = HardBoundary(Siren(1, told, *size, omega=10.0), torch.zeros_like, lambda x: 1.0 - (x / 2.0) ** 2)
        else:
            field = Siren(1, told, *size, omega=30.0)
    return field.double()


def made(settings: Settings, line: str, seed: int) -> dict[str, Any]:
    """One row: errors at the times `ts` that were reached, weights, seconds of the fit and of a step."""
    own, problem = LINES[line], problem_of("advection")
    if own.grid is not None:
        return _on_grid(settings, problem, own.grid)
    if own.pinn is not None:
        return _in_space_time(settings, problem, own, seed)
    told = scheme_of(own.how.get("scheme", "impliciteuler")).told if own.how.get("mode") != "galerkin" else 1
    field = network(own.field, told, settings, seed).to(settings.device, own.dtype)
    end = settings.dt * min(own.steps or settings.steps, settings.steps)
    points = Points(settings.points, weight=1.0 if own.field == "walls" else 0.0)
    how: dict[str, Any] = {"points": points, "accept": settings.accept, **own.how}
    with threads(1):
        found = evolve(problem, field, [0.0, end], dt=settings.dt, seed=seed, **how)
    found = replace(found, thetas=found.thetas.double(), network=found.network.double())
    ts, errors = _measured(found, problem, settings)
    return {
        "ts": ts,
        "errors": errors,
        "weights": found.thetas.shape[1],
        "fit_loss": found.steps[0].loss,
        "fit_seconds": found.seconds[0],
        "step_seconds": fmean(found.seconds[1:]) if len(found.seconds) > 1 else 0.0,
        "iterations": fmean([step.iterations for step in found.steps[1:]] or [0.0]),
        "reached": found.times[-1],
        "status": found.steps[-1].status,
    }


def _probes(device: str = "cpu") -> torch.Tensor:
    return torch.linspace(-2.0, 2.0, _PROBES, dtype=torch.float64, device=device).unsqueeze(1)


def _exact(problem: Evolution, t: float) -> NDArray[np.float64]:
    assert problem.exact is not None
    return problem.exact(_probes(), t)[:, 0].numpy()


def _relative(values: NDArray[Any], exact: NDArray[Any]) -> float:
    return float(np.linalg.norm(values - exact) / np.linalg.norm(exact))


def _marks(settings: Settings, steps: int) -> list[int]:
    """The steps after which errors are measured: the first, every `_EVERY`, and the last."""
    stride = max(round(_EVERY / settings.dt), 1)
    return sorted({0, min(1, steps), *range(0, steps + 1, stride), steps})


def _measured(found: Trajectory, problem: Evolution, settings: Settings) -> tuple[list[float], list[float]]:
    ts = [found.times[k] for k in _marks(settings, len(found.times) - 1)]
    x = _probes(settings.device)
    return ts, [_relative(found(x, t)[:, 0].cpu().numpy(), _exact(problem, t)) for t in ts]


def _on_grid(settings: Settings, problem: Evolution, interpolation: str) -> dict[str, Any]:
    """A row of the semi-Lagrangian grid, of as many numbers as the paper's network has weights."""
    count = sum(p.numel() for p in network("walls", 1, settings, 0).parameters())
    began = time.perf_counter()
    found = advect(problem, count, settings.dt, settings.steps, interpolation=interpolation)
    seconds = time.perf_counter() - began
    marks, x = _marks(settings, settings.steps), _probes()[:, 0].numpy()
    ts = [k * settings.dt for k in marks]
    errors = [_relative(found.at(x, k), _exact(problem, t)) for k, t in zip(marks, ts, strict=True)]
    cost = {"fit_loss": 0.0, "fit_seconds": 0.0, "step_seconds": seconds / settings.steps, "iterations": 0.0}
    return {"ts": ts, "errors": errors, "weights": count, **cost, "reached": ts[-1], "status": "converged"}


def strip(problem: Evolution, horizon: float) -> pinn.Problem:
    """The same problem in space and time."""

    def start(x: Tensor) -> Tensor:
        return problem.initial(x[..., :1])

    return pinn.Problem(
        name=problem.name,
        names=pinn.Names(("x", "t"), ("u",)),
        domain=Box((*problem.lower, 0.0), (*problem.upper, horizon)),
        equation=lambda d, p: d.u_t + p.speed * d.u_x,
        conditions=(
            pinn.dirichlet(pinn.Face("t", -1), start),
            pinn.dirichlet(pinn.Face("x"), lambda x: torch.zeros_like(x[..., :1])),
        ),
        parameters=dict(problem.parameters),
        time="t",
        corners="ignore",  # the Gaussian is 4e-6 at the walls, and they say 0
    )


def _in_space_time(settings: Settings, problem: Evolution, own: Line, seed: int) -> dict[str, Any]:
    """A row of a network of space and time."""
    stages = (Adam(100_000, lr=5e-3), LevenbergMarquardt(iterations=10_000, tolerance=1e-14))
    numbers = pinn.Numbers(inside=2 * settings.points, data=settings.points // 4)
    with threads(1):
        found = pinn.solve(
            strip(problem, settings.horizon), network=own.pinn, stages=stages, limits=own.seconds, numbers=numbers,
            redraw=pinn.Redraw(100), seed=seed, device=settings.device,
        )  # fmt: skip
    x = _probes(settings.device)
    ts = [k * settings.dt for k in _marks(settings, settings.steps)]
    values = [found(torch.cat((x, torch.full_like(x, t)), 1))[0, :, 0].cpu().numpy() for t in ts]
    errors = [_relative(value, _exact(problem, t)) for value, t in zip(values, ts, strict=True)]
    cost = {"fit_loss": found.history[-1].loss[0], "fit_seconds": sum(found.seconds), "step_seconds": 0.0}
    weights, status = found.theta.shape[1], found.status[0]
    return {
        "ts": ts,
        "errors": errors,
        "weights": weights,
        **cost,
        "iterations": 0.0,
        "reached": ts[-1],
        "status": status,
    }


def floor(scheme: str, settings: Settings, t: float, modes: int = 1024) -> float | None:
    """The error at a time of a scheme that is exact in space; None for a multistep table."""
    table, problem = implicit_method(scheme), problem_of("advection")
    if not isinstance(table, ImplicitTableau):
        return None
    x = torch.arange(modes, dtype=torch.float64).unsqueeze(1) * (4.0 / modes) - 2.0
    assert problem.exact is not None
    start = np.fft.rfft(problem.initial(x)[:, 0].numpy())
    wave = np.arange(len(start)) * (np.pi / 2.0)
    turned = table.stability(-1j * problem.parameters["speed"] * wave * settings.dt)
    ended = np.fft.irfft(start * turned ** round(t / settings.dt), modes)
    return _relative(ended, problem.exact(x, t)[:, 0].numpy())


def _lines(settings: Settings, rows: Sequence[Mapping[str, Any]], times: Sequence[float]) -> list[list[Any]]:
    """Cells of the table, a line each."""
    lines = []
    for name in settings.lines:
        own = [row for row in rows if row["line"] == name]
        cells = []
        for t in times:
            at = [e for row in own for s, e in zip(row["ts"], row["errors"], strict=True) if abs(s - t) < 1e-9]
            cells.append(small_mean_sd(at) if len(at) == len(own) else None)
        scheme = LINES[name].how.get("scheme")
        least = None if scheme is None or LINES[name].steps else floor(scheme, settings, times[-1])
        seconds = mean_sd([row["step_seconds"] for row in own], 2)
        fit = mean_sd([row["fit_seconds"] for row in own], 1)
        reached = f"{min(row['reached'] for row in own):g}"
        lines.append(
            [name, own[0]["weights"], *cells, None if least is None else f"{least:.1e}", fit, seconds, reached]
        )
    return lines


def _figure(settings: Settings, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Errors over time, a line each of the seeds' mean, in the band of the least and the largest."""
    with picture(file, (8.0, 4.6)) as drawing:
        axes = drawing.subplots()
        for place, name in enumerate(settings.lines):
            own = [row for row in rows if row["line"] == name]
            each = [dict(zip(row["ts"], row["errors"], strict=True)) for row in own]
            ts = [t for t in each[0] if all(t in errors for errors in each)]
            errors = np.array([[at[t] for t in ts] for at in each])
            colour, mark, dashed = f"C{place % 10}", "osv^D<>pPX*h"[place % 12], "--" if LINES[name].grid else "-"
            axes.plot(ts, errors.mean(0), dashed, color=colour, marker=mark, markersize=3, label=name)
            axes.fill_between(ts, errors.min(0), errors.max(0), alpha=0.15, linewidth=0, color=colour)
        axes.set(yscale="log", xlabel="t", ylabel="relative L2 error")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes), table.json, errors.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [
        {"line": name, "seed": seed}
        for name in settings.lines
        for seed in (settings.seeds[:1] if LINES[name].grid else settings.seeds)
    ]
    rows = finished_rows(out, keys, stamped(settings, "lines", "seeds"), partial(made, settings), settings.workers)
    times = sorted({min(t, settings.horizon) for t in (settings.dt, 1.0, 6.0, settings.horizon)})
    numbers = write_table(out, {"settings": settings, "rows": rows})
    columns = ["line", "weights", *(f"T = {t:g}" for t in times), "floor", "fit s", "s a step", "reached"]
    caption = (
        f"relative L2 error, mean ± sd over {len(settings.seeds)} seeds; dt {settings.dt:g}, one thread, "
        f"{settings.device}; floor: the same scheme, exact in space, at T = {times[-1]:g}"
    )
    show(table("Advection by a neural field", columns, _lines(settings, rows, times), caption))
    _figure(settings, rows, out / "errors.png")
    print(f"numbers: {numbers}\nfigure: {out / 'errors.png'}")
    return 0
