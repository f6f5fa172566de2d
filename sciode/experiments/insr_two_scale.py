"""A large and a small vortex by a neural field and by grids of equal memory, as the small one shrinks.

    sciode train insr_two_scale
    sciode train insr_two_scale --set 'ratios=[0.5,0.25]' width=24 points=3000

The third experiment of Chen, Wu, Grinspun, Zheng & Chen (ICML 2023): incompressible Euler on [-1, 1]^2 between slip
walls, one vortex on [-1, 0]^2 and one of `ratio` its size in the corner (1, 1). A grid has one spacing for both; a
network has none. Errors are relative to a grid many times finer, cubic and with reflection: over the whole box, and
over the square [1 - 1.2 ratio, 1]^2 that the small vortex starts in.

The network is a stream function that is 0 on the walls, beside one of the pressure: reflection, one fit a projection.
The memory of a grid is that of both. At the start neither has what the problem's vortices have in divergence where
they fade; the reference has lost it after its first step, with which the start is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciode.experiments.insr_fluid import LINES, Size, flow, network, parts
from sciode.experiments.ledger import finished_rows, stamped, write_table
from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, show, table
from sciode.pde import Evolution, problem_of
from sciode.pde.grid_fluid import GridFluid, simulate
from sciode.training import choose_device

__all__ = ["Settings", "main"]

NEURAL = "reflection, stream function"
GRIDS = ("grid, linear, Chorin", "grid, cubic, reflection")
_STEP = 0.02
"""Of the reference."""


@dataclass(frozen=True)
class Settings:
    """ratios: sizes of the small vortex, of the large one's. horizon: the last time. width, omega: of the sine
    networks. points: of a residual. fit, step: least-squares iterations; descent: those of gradient descent before.
    reference: cells an axis of the fine grid. workers: rows made at a time.

    Raises ValueError for sizes below one.
    """

    ratios: tuple[float, ...] = (0.5, 0.25, 0.125)
    seeds: tuple[int, ...] = (0, 1, 2)
    horizon: float = 1.0
    width: int = 14
    omega: float = 10.0
    points: int = 1600
    fit: int = 12
    step: int = 4
    reference: int = 384
    descent: int = 1000
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        sizes = (
            self.width,
            self.points,
            self.fit,
            self.step,
            self.descent,
            self.workers,
            len(self.ratios),
            len(self.seeds),
        )
        if min(sizes) < 1 or self.reference < 8 or not self.horizon >= _STEP:
            raise ValueError(
                f"settings: sizes and numbers of ratios and seeds must be at least 1, reference 8, horizon {_STEP}"
            )

    @property
    def size(self) -> Size:
        """Of the networks."""
        return Size(self.width, self.omega, self.points, self.fit, self.step, self.descent, self.device)

    @property
    def cells(self) -> int:
        """The axis of a grid of as many numbers as the networks: n (n + 1) faces of each component."""
        problem = problem_of("twoscale")
        nets = (network(problem, "stream", self.size, 0), network(problem, "velocity", self.size, 0, 1))
        weights = sum(p.numel() for net in nets for p in net.parameters())
        return max(round(((2 * weights + 1) ** 0.5 - 1) / 2), 4)


@cache
def _reference(ratio: float, n: int, horizon: float) -> GridFluid:
    how = {"interpolation": "cubic", "splitting": "reflect", "trace": "midpoint"}
    steps = parts(horizon, _STEP)
    return simulate(problem_of("twoscale", ratio=ratio), n, horizon / steps, steps, **how)


def regions(problem: Evolution, ratio: float) -> dict[str, torch.Tensor]:
    """Where errors are measured: points of the box, and of the small vortex's corner, [N, 2] each."""
    corner = ((1.0 - 1.2 * ratio,) * 2, problem.upper)
    found = {}
    for name, (low, high) in {"box": (problem.lower, problem.upper), "corner": corner}.items():
        axis = low[0] + (high[0] - low[0]) * (torch.arange(100, dtype=torch.float64) + 0.5) / 100
        found[name] = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return found


def made(settings: Settings, line: str, ratio: float, seed: int) -> dict[str, Any]:
    """One row: relative L2 errors over the box and over the corner at the start and at the end."""
    problem = problem_of("twoscale", ratio=ratio)
    places = regions(problem, ratio)
    reference = _reference(ratio, settings.reference, settings.horizon)
    row = flow(problem, LINES[line], settings.size, seed, settings.horizon, settings.cells, list(places.values()))
    errors = {}
    for (name, x), velocities in zip(places.items(), row.pop("velocities"), strict=True):
        errors[name] = [_gap(velocities[k], reference.at(x.numpy(), at)) for k, at in ((0, 1), (-1, -1))]
    return {**row, "errors": errors}


def _gap(values: NDArray[Any], exact: NDArray[Any]) -> float:
    return float(np.linalg.norm(values - exact) / np.linalg.norm(exact))


def _unsure(settings: Settings, ratio: float) -> float:
    """How far the reference is from one of half as many cells an axis, over the corner, at the end."""
    x = regions(problem_of("twoscale"), ratio)["corner"].numpy()
    fine, coarse = (_reference(ratio, n, settings.horizon) for n in (settings.reference, settings.reference // 2))
    return _gap(coarse.at(x), fine.at(x))


def _lines(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Cells of the table, a line each; a grid's last cell is the networks' error over its own."""
    lines = []
    for ratio in settings.ratios:
        at = [row for row in rows if row["ratio"] == ratio]
        ours = fmean(row["errors"]["box"][-1] for row in at if row["line"] == NEURAL)
        for name in (NEURAL, *GRIDS):
            own = [row for row in at if row["line"] == name]
            cells = [mean_sd([row["errors"][where][k] for row in own]) for where in ("box", "corner") for k in (0, -1)]
            share = None if name == NEURAL else ours / own[0]["errors"]["box"][-1]
            seconds = mean_sd([row["step_seconds"] for row in own], 2)
            lines.append([f"{ratio:g}", name, own[0]["bytes"], *cells, share, seconds])
    return lines


def _figure(settings: Settings, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Errors at the end over the small vortex's size."""
    with picture(file, (8.5, 3.8)) as drawing:
        panels = drawing.subplots(1, 2, sharey=True)
        for axes, where in zip(panels, ("box", "corner"), strict=True):
            for place, name in enumerate((NEURAL, *GRIDS)):
                each = [[r["errors"][where][-1] for r in rows if (r["line"], r["ratio"]) == (name, ratio)]
                        for ratio in settings.ratios]  # fmt: skip
                style: dict[str, Any] = {"color": f"C{place}", "marker": "osv"[place], "label": name}
                axes.plot(settings.ratios, [fmean(own) for own in each], "-" if name == NEURAL else "--", **style)
                axes.fill_between(settings.ratios, [min(own) for own in each], [max(own) for own in each],
                                  alpha=0.15, linewidth=0, color=f"C{place}")  # fmt: skip
            axes.set(xscale="log", yscale="log", xlabel="size of the small vortex", title=f"over the {where}")
            axes.set_xticks(settings.ratios, [f"{ratio:g}" for ratio in settings.ratios], minor=False)
            axes.minorticks_off()
        panels[0].set_ylabel(f"relative L2 error at t = {settings.horizon:g}")
        panels[0].legend(fontsize="small")


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes), table.json, errors.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [
        {"line": name, "ratio": ratio, "seed": seed}
        for ratio in settings.ratios
        for name in (NEURAL, *GRIDS)
        for seed in (settings.seeds if name == NEURAL else settings.seeds[:1])
    ]
    rows = finished_rows(out, keys, stamped(settings, "ratios", "seeds"), partial(made, settings), settings.workers)
    unsure = {f"{ratio:g}": _unsure(settings, ratio) for ratio in settings.ratios}
    numbers = write_table(out, {"settings": settings, "reference": unsure, "rows": rows})
    columns = ["ratio", "line", "bytes", "box, t = 0", f"t = {settings.horizon:g}", "corner, t = 0",
               f"t = {settings.horizon:g}", "neural/grid", "s a step"]  # fmt: skip
    caption = (
        f"relative L2 error, mean ± sd over {len(settings.seeds)} seeds; reference: {settings.reference} cells an "
        f"axis, in the corner {', '.join(f'{value:.1e}' for value in unsure.values())} from half as many; one thread, "
        f"{settings.device}"
    )
    show(table("Vortices of two scales", columns, _lines(settings, rows), caption))
    _figure(settings, rows, out / "errors.png")
    print(f"numbers: {numbers}\nfigure: {out / 'errors.png'}")
    return 0
