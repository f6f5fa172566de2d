"""Taylor-Green vortices by neural fields until T = 5: how much kinetic energy each method loses, beside grids.

    sciode train insr_taylor_green
    sciode train insr_taylor_green --set 'lines=["Galerkin, stream function"]' horizon=1

The second experiment of Chen, Wu, Grinspun, Zheng & Chen (ICML 2023): incompressible Euler on [-1, 1]^2 between slip
walls, from vortices that are a steady exact solution. So what changes is error, and what energy is lost is numerical
dissipation. Grids have 57 x 57 cells, as many numbers as the paper's two networks have weights; ours have fewer.

"stream function" is a velocity without divergence, the curl of a sine network that is 0 on the walls: it needs no
pressure where its curl is evolved (Galerkin, midpoint), and one fit a projection where it is advected (reflection).
"velocity" is a network of both components and one of the pressure, three fits a projection: Chorin's splitting with
the trace along the velocity at the place is the paper's. Reflection projects twice a step: its step is twice as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.func import vmap

from sciode.experiments.insr_fluid import LINES, Size, energy, flow, probes
from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, show, small_mean_sd, table
from sciode.pde import problem_of
from sciode.training import choose_device

__all__ = ["Settings", "main"]


@dataclass(frozen=True)
class Settings:
    """lines: names in `insr_fluid.LINES`. horizon: the last time. width, omega: of the sine networks. points: of a
    residual. fit, step: least-squares iterations; descent: those of gradient descent before. cells: of a grid, an
    axis. workers: rows made at a time.

    Raises ValueError for an unknown line, or a size below one.
    """

    lines: tuple[str, ...] = tuple(LINES)
    seeds: tuple[int, ...] = (0, 1, 2)
    horizon: float = 5.0
    width: int = 10
    omega: float = 5.0
    points: int = 1000
    fit: int = 25
    step: int = 6
    cells: int = 57
    descent: int = 1000
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("lines", self.lines, LINES)
        sizes = (
            self.width,
            self.points,
            self.fit,
            self.step,
            self.descent,
            self.workers,
            len(self.lines),
            len(self.seeds),
        )
        if min(sizes) < 1 or not self.horizon > 0:
            raise ValueError("settings: sizes and numbers of lines and seeds must be at least 1, horizon positive")

    @property
    def size(self) -> Size:
        """Of the networks."""
        return Size(self.width, self.omega, self.points, self.fit, self.step, self.descent, self.device)


def made(settings: Settings, line: str, seed: int) -> dict[str, Any]:
    """One row: the share of energy lost and the relative L2 error over time, divergence, bytes, seconds."""
    problem = problem_of("taylorgreen")
    x = probes(problem)
    row = flow(problem, LINES[line], settings.size, seed, settings.horizon, settings.cells, [x])
    velocities, exact = row.pop("velocities")[0], vmap(problem.initial)(x).numpy()
    # Of the exact flow's energy, to which an initial fit's error counts as well.
    row["lost"] = (1.0 - energy(velocities) / energy(exact)).tolist()
    row["errors"] = (np.linalg.norm(velocities - exact, axis=(1, 2)) / np.linalg.norm(exact)).tolist()
    return row


def _lines(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Cells of the table, a line each."""
    lines = []
    for name in settings.lines:
        own = [row for row in rows if row["line"] == name]
        lost, errors = (small_mean_sd([row[key][-1] for row in own]) for key in ("lost", "errors"))
        sources = [row["divergence"] for row in own]
        seconds = mean_sd([row["step_seconds"] for row in own], 2)
        lines.append(
            [name, LINES[name].dt, own[0]["bytes"], lost, errors,
             f"{np.mean(sources):.1e}", seconds, f"{min(row['reached'] for row in own):g}",
             ", ".join(sorted({row["status"] for row in own}))]
        )  # fmt: skip
    return lines


def _figure(settings: Settings, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Errors and energies over time, the mean of the seeds in the band of the least and the largest."""
    with picture(file, (9.5, 4.4)) as drawing:
        panels = drawing.subplots(1, 2)
        for place, name in enumerate(settings.lines):
            own = [row for row in rows if row["line"] == name]
            count = min(len(row["ts"]) for row in own)
            style: dict[str, Any] = {
                "color": f"C{place % 10}",
                "linestyle": "--" if LINES[name].field == "grid" else "-",
            }
            ts = own[0]["ts"][:count]
            for axes, key in zip(panels, ("lost", "errors"), strict=True):
                values = np.abs([row[key][:count] for row in own])
                axes.plot(ts, values.mean(0), label=name, **style)
                axes.fill_between(ts, values.min(0), values.max(0), alpha=0.15, linewidth=0, color=style["color"])
        panels[0].set(yscale="log", xlabel="t", ylabel="|share of kinetic energy lost|")
        panels[1].set(yscale="log", xlabel="t", ylabel="relative L2 error of the velocity")
        panels[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes), table.json, energy.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [
        {"line": name, "seed": seed}
        for name in settings.lines
        for seed in (settings.seeds[:1] if LINES[name].field == "grid" else settings.seeds)
    ]
    rows = finished_rows(out, keys, stamped(settings, "lines", "seeds"), partial(made, settings), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    columns = ["line", "dt", "bytes", "energy lost", "error", "divergence", "s a step", "reached", "status"]
    caption = (
        f"at T = {settings.horizon:g} or the last time reached; mean ± sd over {len(settings.seeds)} seeds; error: "
        f"relative L2; divergence: rms; one thread, {settings.device}"
    )
    show(table("Taylor-Green vortices", columns, _lines(settings, rows), caption))
    _figure(settings, rows, out / "energy.png")
    print(f"numbers: {numbers}\nfigure: {out / 'energy.png'}")
    return 0
