"""Elastic bodies by neural fields beside finite elements: a stretched square, a collision, a fall in space.

    sciode train insr_elastic
    sciode train insr_elastic --set 'lines=["stretch, field","stretch, P2, 10 times the unknowns"]' 'seeds=[0]'

"stretch": the left face of [-1, 1]^2 is held and the right one moved by 2, at the weights of Chen, Wu, Grinspun, Zheng
& Chen (ICML 2023), nearly incompressible (volume / arap = 1000). The field holds both faces by construction. Finite
elements of degree 1 and 2 have as many unknowns as the network weights, and ten times as many; the least energy there
is, from refined meshes, is `REFERENCE`.

"collide": the square is pushed for two steps onto a circle, at their weights (dt = 0.1, twenty steps). With contact in
the body, a field and finite elements make the same potential least; with contact on the surface, twenty times as stiff,
the field goes no deeper than 1e-2. "fall": the two-eared stand-in for the bunny falls onto a plane (one seed).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.insr import Body, Points, Trajectory, deform
from sciode.lab.figures import picture
from sciode.lab.plots import deformed
from sciode.lab.tables import mean_sd, show, small_mean_sd, table
from sciode.nn import HardBoundary, Siren
from sciode.pde import PRESETS, SHAPES, Box, Load, Material, Plane, Setup, elements, potential, simulate, stretched
from sciode.pde.elastic import contact, force_at, penetration
from sciode.pde.finite_elements import Elements
from sciode.pde.strain import determinant
from sciode.training import choose_device, isolated_rng, threads

__all__ = ["LINES", "REFERENCE", "Line", "Settings", "lift", "main"]

REFERENCE = 6.2543
"""The stretch's least energy, to 3e-4: what elements of degree 2 converge to (Aitken's limit of refined meshes)."""


class Line(NamedTuple):
    """A line of the table. degree: of finite elements, None for a field; times: their unknowns, in the field's weights.

    surface: whether contact acts on the surface.
    """

    case: str
    degree: int | None = None
    times: int = 1
    surface: bool = False


LINES: dict[str, Line] = {
    "stretch, field": Line("stretch"),
    "stretch, P1, as many unknowns": Line("stretch", 1),
    "stretch, P2, as many unknowns": Line("stretch", 2),
    "stretch, P1, 10 times the unknowns": Line("stretch", 1, 10),
    "stretch, P2, 10 times the unknowns": Line("stretch", 2, 10),
    "collide, field": Line("collide"),
    "collide, P2, as many unknowns": Line("collide", 2),
    "collide, P2, 10 times the unknowns": Line("collide", 2, 10),
    "collide, field, contact on the surface": Line("collide", surface=True),
    "fall, field, contact on the surface": Line("fall", surface=True),
}
"""By the name that the table gives them."""

_SURFACE_STIFFNESS = 2e5
_SOFTEN = (0.01, 0.1)
FALL = Setup(
    Material(100.0, 200.0), 3, 0.05, 12, (Load((0.0, 0.0, -9.8)),), (Plane((0.0, 0.0, 1.0), -1.0),), stiffness=1e5
)


@dataclass(frozen=True)
class Settings:
    """lines: names in `LINES`. width, hidden: of the sine network of the stretch; of what moves, moving. points: inside
    the stretched square, half of them in what collides, a quarter in what falls; half as many on the square's surface,
    twice as many on that in space. steps: at most, of what moves. workers: rows made at a time.

    Raises ValueError for an unknown line or a size below one.
    """

    lines: tuple[str, ...] = tuple(LINES)
    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 20
    hidden: int = 2
    moving: int = 16
    points: int = 2048
    steps: int = 20
    omega: float = 2.0
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("lines", self.lines, LINES)
        sizes = (self.width, self.moving, self.points, self.steps, self.workers, len(self.lines), len(self.seeds))
        if min(sizes) < 1 or self.hidden < 0:
            raise ValueError("settings: sizes and numbers of lines and seeds must be at least 1")


def lift(x: Tensor) -> Tensor:
    """The uniform stretch of [-1, 1]^2 by 2, as a displacement [..., 2] -> [..., 2]."""
    return torch.cat((x[..., :1] + 1.0, torch.zeros_like(x[..., 1:])), -1)


def network(case: str, settings: Settings, seed: int) -> nn.Module:
    """The field of a case; the stretch's is the lift on the held faces, whatever its weights."""
    d, moves = 3 if case == "fall" else 2, case != "stretch"
    hidden = min(settings.hidden, 1) if case == "fall" else settings.hidden
    with isolated_rng(seed):
        net = Siren(d, d, settings.moving if moves else settings.width, hidden, omega=settings.omega)
    return (net if moves else HardBoundary(net, lift, lambda x: 1.0 - x[..., :1] ** 2)).double()


def body(line: Line, settings: Settings) -> Body:
    """The body of a line."""
    square = Box((-1.0, -1.0), (1.0, 1.0))
    if line.case == "stretch":
        return Body(replace(PRESETS["stretch"], boundary=0.0), square, displacement=lift, name="stretch")
    if line.case == "collide":
        setup = PRESETS["collide"]
        setup = replace(setup, steps=min(setup.steps, settings.steps))
        if line.surface:
            return Body(replace(setup, stiffness=_SURFACE_STIFFNESS), square, contact="surface", name="collide")
        return Body(setup, square, name="collide")
    setup = replace(FALL, steps=min(FALL.steps, settings.steps))
    return Body(setup, SHAPES["bunny-stand-in"].domain(), contact="surface", name="fall")


def made(settings: Settings, line: str, seed: int) -> dict[str, Any]:
    """The row of a line and a seed."""
    with threads(1):
        return _solved(LINES[line], settings, seed) if LINES[line].degree is None else _meshed(LINES[line], settings)


def _run(line: Line, settings: Settings, seed: int) -> Trajectory:
    field = network(line.case, settings, seed).to(settings.device)
    # Fewer weights, and inertia among the squares: fewer points will do for what moves.
    count = max(settings.points // {"stretch": 1, "collide": 2, "fall": 4}[line.case], 2)
    walls = 2 * settings.points if line.case == "fall" else max(settings.points // 2, 2)
    points = Points(count, walls, how="sobol")
    soften = _SOFTEN if line.case == "stretch" else ()
    return deform(body(line, settings), field, soften=soften, points=points, seed=seed, attempts=1, failing="go on")


def _solved(line: Line, settings: Settings, seed: int) -> dict[str, Any]:
    found = _run(line, settings, seed)
    weights = found.thetas.shape[1]
    told = [dict(step.penalties) for step in found.steps[1:]]
    shown, _ = _shown(line.case)
    with torch.no_grad():
        moved = [shown + found(shown, found.times[k]) for k in _marks(len(found.times))]
    return {
        "unknowns": weights,
        "bytes": 8 * weights,
        "seconds": sum(found.seconds),
        "ts": list(found.times[1:]),
        "told": told,
        "statuses": [step.status for step in found.steps],
        "iterations": [step.iterations for step in found.steps],
        "promised": [step.loss for step in found.steps],
        "places": [place.round(decimals=4).tolist() for place in moved],
        "complete": found.complete,
    }


def _marks(count: int) -> list[int]:
    """The steps that are drawn."""
    return sorted({0, count // 3, 2 * count // 3, count - 1})


def _shown(case: str) -> tuple[Tensor, Tensor]:
    """Points whose places are drawn, and the faces between them: of a lattice of the square, or of the body's skin."""
    if case == "fall":
        mesh = SHAPES["bunny-stand-in"].mesh(20)
        used, numbers = torch.unique(mesh.boundary(), return_inverse=True)
        return mesh.points[used], numbers
    side = torch.linspace(-1.0, 1.0, 21, dtype=torch.float64)
    first = torch.cartesian_prod(torch.arange(20), torch.arange(20)) @ torch.tensor([21, 1])
    return torch.cartesian_prod(side, side), first.unsqueeze(1) + torch.tensor([0, 21, 22, 1])


def _space(line: Line, settings: Settings) -> Elements:
    """Elements of a degree with at least so many unknowns, on the coarsest lattice that has them."""
    assert line.degree is not None
    weights = sum(p.numel() for p in network(line.case, settings, 0).parameters())
    resolution, free = 1, 0
    while free < line.times * weights:
        resolution += 1
        nodes = line.degree * resolution + 1
        free = 2 * nodes * (nodes - 2 if line.case == "stretch" else nodes)
    return elements(SHAPES["square"].mesh(resolution), line.degree)


def _meshed(line: Line, settings: Settings) -> dict[str, Any]:
    began = time.perf_counter()
    space, setup = _space(line, settings), body(line, settings).setup
    if line.case == "stretch":
        start, material = None, setup.material
        assert isinstance(material, Material)
        for share in (*_SOFTEN, 1.0):
            found = stretched(space, replace(material, volume=share * material.volume), start=start)
            start = found.positions
        positions, rates, ts = [space.nodes, found.positions], None, [1.0]
        statuses, unknowns = [found.status], found.unknowns
    else:
        assert setup.dt is not None
        motion = simulate(space, setup)
        positions, rates = list(motion.positions), list(motion.velocities)
        ts = [setup.dt * k for k in range(1, setup.steps + 1)]
        statuses, unknowns = motion.status, space.nodes.numel()
    seconds = time.perf_counter() - began
    told = [
        _measured(space, setup, k, place, None if rates is None else rates[k]) for k, place in enumerate(positions) if k
    ]
    rest = {"statuses": statuses, "told": told, "ts": ts, "complete": set(statuses) == {"converged"}}
    return {"unknowns": unknowns, "bytes": 8 * unknowns, "seconds": seconds, **rest}


def _measured(space: Elements, setup: Setup, number: int, place: Tensor, rate: Tensor | None) -> dict[str, float]:
    """What `deform` tells of a step, of finite elements."""
    at, gradient = space.at_points(place)
    rest = space.at_points(space.nodes)[0]
    force = at.new_tensor(force_at(number - 1, setup.loads, setup.dimension))
    whole = float(space.weights.sum())
    found = {
        "elastic": space.integral(potential(gradient, setup.material)),
        "potential": -space.integral((at - rest) @ force),
        "inverted": space.integral((determinant(gradient) <= 0).double()) / whole,
    }
    if rate is not None:
        found["kinetic"] = setup.material.density / 2 * space.integral(space.at_points(rate)[0].square().sum(-1))
    if setup.obstacles:
        found["contact"] = space.integral(contact(at, setup.obstacles, setup.stiffness))
        skin = place[space.boundary]
        found["penetration"] = torch.stack([penetration(skin, one)[0].amax() for one in setup.obstacles]).amax()
    return {name: float(value) for name, value in found.items()}


def _stretch_lines(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Cells of the first table."""
    cells = []
    for name, own in _grouped(settings, rows, lambda line: line.case == "stretch"):
        energies = [row["told"][-1]["elastic"] for row in own]
        above = 100 * (fmean(energies) / REFERENCE - 1)
        inverted = max(row["told"][-1]["inverted"] for row in own)
        spent = mean_sd([row["seconds"] for row in own], 1)
        sizes = own[0]["unknowns"], own[0]["bytes"]
        cells.append(
            [name, *sizes, small_mean_sd(energies, ".4g", ".1g"), f"{above:+.2f} %", inverted, _unsettled(own), spent]
        )
    return cells


def _moving_lines(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Cells of the second table: the largest of each over the steps."""
    cells = []
    for name, own in _grouped(settings, rows, lambda line: line.case != "stretch"):
        peaks = [
            small_mean_sd([max(step[what] for step in row["told"]) for row in own], ".4g", ".1g")
            for what in ("elastic", "kinetic", "penetration")
        ]
        inverted = max(step["inverted"] for row in own for step in row["told"])
        steps, spent = min(len(row["told"]) for row in own), mean_sd([row["seconds"] for row in own], 1)
        cells.append([name, own[0]["unknowns"], own[0]["bytes"], steps, _unsettled(own), *peaks, inverted, spent])
    return cells


def _unsettled(rows: Sequence[Mapping[str, Any]]) -> int:
    """The largest number of steps that ended by their budget, or worse, among the seeds."""
    ends = [row["statuses"][-len(row["told"]) :] for row in rows]
    return max(sum(status not in ("converged", "accepted") for status in own) for own in ends)


def _grouped(
    settings: Settings, rows: Sequence[Mapping[str, Any]], which: Callable[[Line], bool]
) -> list[tuple[str, list[Mapping[str, Any]]]]:
    return [(name, [row for row in rows if row["line"] == name]) for name in settings.lines if which(LINES[name])]


def _figure(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Where the fields of the first seed are, a column an instant, and the energies over time."""
    pictured = [row for row in rows if "places" in row and row["seed"] == rows[0]["seed"]]
    with picture(file, (12.0, 3.0 * len(pictured) + 0.1)) as drawing:
        axes = drawing.subplots(max(len(pictured), 1), 5, squeeze=False)
        for own, row in zip(axes, pictured, strict=False):
            line, marks = LINES[row["line"]], _marks(len(row["ts"]) + 1)
            case = line.case
            rivals = [name for name, one in LINES.items() if one.times == 10 and one[::3] == line[::3]]
            for panel, k, places in zip(own[:4], marks, row["places"], strict=False):
                deformed(panel, places, _shown(case)[1], edges=case != "fall")
                _obstacle(panel, case)
                panel.set_title(f"{row['line']}\nstep {k}" if k == marks[0] else f"\nstep {k}", fontsize="small")
            for panel in own[len(marks) : 4]:
                panel.set_axis_off()
            _energies(own[4], row, [other for other in rows if other["line"] in rivals])


def _obstacle(panel: Any, case: str) -> None:
    from matplotlib.patches import Circle

    if case == "collide":
        panel.add_patch(Circle((0.0, -2.0), 1.0, color="0.85", zorder=0))
        panel.set(xlim=(-1.9, 1.9), ylim=(-3.1, 1.1))
    elif case == "fall":
        panel.axhspan(-1.2, -1.0, color="0.85", zorder=0)
        panel.set(xlim=(-1.1, 1.1), ylim=(-1.2, 1.1))


def _energies(panel: Any, row: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> None:
    if len(row["ts"]) < 2:
        own = [(row["line"], row), *((rival["line"], rival) for rival in rivals)]
        panel.barh([name for name, _ in own], [one["told"][-1]["elastic"] for _, one in own], color="C0")
        panel.axvline(REFERENCE, color="k", linewidth=1)
        panel.set(xlabel="elastic energy")
        panel.tick_params(axis="y", labelsize="x-small")
        return
    for place, what in enumerate(("elastic", "kinetic")):
        panel.plot(row["ts"], [step[what] for step in row["told"]], color=f"C{place}", label=what)
        for rival in rivals:
            panel.plot(rival["ts"], [step[what] for step in rival["told"]], "--", color=f"C{place}")
    panel.set(xlabel="t", ylabel="energy (dashed: P2)" if rivals else "energy")
    panel.legend(fontsize="small")


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the tables in the folder `out`: rows.jsonl (it resumes), table.json, bodies.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [
        {"line": name, "seed": seed}
        for name in settings.lines
        for seed in (
            settings.seeds if LINES[name].degree is None and LINES[name].case != "fall" else settings.seeds[:1]
        )
    ]
    rows = finished_rows(out, keys, stamped(settings, "lines", "seeds"), partial(made, settings), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    caption = f"mean ± sd over {len(settings.seeds)} seeds; float64, one thread, {settings.device}"
    if still := _stretch_lines(settings, rows):
        columns = ["line", "unknowns", "bytes", "energy", f"above {REFERENCE}", "inverted", "unsettled", "seconds"]
        show(table("A square stretched to twice its length", columns, still, caption))
    if moving := _moving_lines(settings, rows):
        columns = ["line", "unknowns", "bytes", "steps", "unsettled", "elastic", "kinetic", "penetration", "inverted",
                   "seconds"]  # fmt: skip
        show(table("Collisions: the largest over all steps", columns, moving, caption))
    _figure(rows, out / "bodies.png")
    print(f"numbers: {numbers}\nfigure: {out / 'bodies.png'}")
    return 0
