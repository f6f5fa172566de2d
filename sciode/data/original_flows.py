"""The flow sets of others, read from their own files: the shallow water of DINo, and Eagle. Nothing is downloaded."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .flow import Flow, FlowSet, Space
from .sums import check_sums

__all__ = ["WALL", "dino_shallow_water", "eagle", "eagle_simulations"]

WALL = 6
"""Of the node types in Eagle's masks (0 inside, 4 inlet, 5 outlet, 6 wall)."""
_RATE = 30.0


def dino_shallow_water(
    folder: Path | str, part: str = "train", *, stride: int = 2, scale: tuple[float, float] = (1.0, 1.0)
) -> FlowSet:
    """Height and vorticity of the shallow-water set of DINo, from its files `shallow_water_<part>/traj_*.h5`.

    - `folder`: where the archive of figshare article 21298179 was unpacked. Files in it are held against its
      SHA256SUMS, where there is one (`sciode.data.pin`).
    - `part`: "train" or "test"; the authors have no validation part: keep some of the first for that.
    - `stride`: every stride-th longitude and latitude; 2 makes 128 x 64 of 256 x 128, as the authors do.
    - `scale`: factors of both channels. The papers feed 3000 x height and 2 x vorticity; (1, 1) is the files' own.

    A flow has all frames of its file on one grid (longitude, colatitude), as points of the unit sphere; times are those
    of the file, or 0, 1, ... hours where it has none. `.windows(20)` cuts it as the papers do.
    Raises ValueError for another part or a file of another layout, FileNotFoundError, and ImportError without h5py.
    Source: Yin, Kirchmeyer, Franceschi et al.: Continuous PDE dynamics forecasting with implicit neural representations
    (ICLR 2023).
    """
    if part not in ("train", "test"):
        raise ValueError(f"part is {part!r}: give 'train' or 'test', the authors have no other")
    if stride < 1:
        raise ValueError(f"stride is {stride}; it must be >= 1")
    root = Path(folder)
    files = sorted((root / f"shallow_water_{part}").glob("traj_*.h5"))
    if not files:
        raise FileNotFoundError(f"there is no shallow_water_{part}/traj_*.h5 below {root}")
    check_sums(root, [file.relative_to(root).as_posix() for file in files])
    flows, grid = [], None
    for file in files:
        flow, shape = _dedalus(file, stride, scale)
        grid = grid or shape
        if shape != grid:
            raise ValueError(f"{file}: its grid is {shape}, that of {files[0].name} is {grid}")
        flows.append(flow)
    return FlowSet("dino_shallow_water", tuple(flows), ("height", "vorticity"), ("", ""), Space("sphere"), "h", grid)


def eagle_simulations(folder: Path | str) -> list[str]:
    """The simulations below a folder of Eagle, `Cre/1/1` and so on: names for `eagle`, in order."""
    root = Path(folder)
    return sorted(found.parent.relative_to(root).as_posix() for found in root.rglob("sim.npz"))


def eagle(
    folder: Path | str,
    simulations: Sequence[str] | Path | None = None,
    *,
    begin: int = 0,
    end: int | None = None,
    step: int = 1,
) -> FlowSet:
    """Velocity and both pressures of Eagle, from its files `<simulation>/sim.npz` and `<simulation>/triangles.npy`.

    - `folder`: where the archives of datasets.liris.cnrs.fr/eagle-version1 were unpacked. Files are held against its
      SHA256SUMS, where there is one (`sciode.data.pin`).
    - `simulations`: names below it, or a text file with one a line, as the authors' lists of splits; None: all.
      All of them are some 60 GB: choose, or read few frames.
    - `begin`, `end`, `step`: frames, 30 a second; the papers test from frame 100 on.

    Points, walls and triangles that do not change in these frames are kept once. The authors' channels: vx, vy, and the
    static and dynamic pressure. Raises ValueError for frames or arrays that don't fit, FileNotFoundError.
    Source: Janny, Beneteau, Nadri, Digne, Thome & Wolf: EAGLE, large-scale learning of turbulent fluid dynamics with
    mesh transformers (ICLR 2023).
    """
    root = Path(folder)
    if isinstance(simulations, Path):
        simulations = [line.strip() for line in simulations.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = eagle_simulations(root) if simulations is None else list(simulations)
    if not names:
        raise FileNotFoundError(f"there is no simulation (a folder with sim.npz) below {root}")
    for name in names:
        if not (root / name / "sim.npz").is_file():
            raise FileNotFoundError(f"there is no {name}/sim.npz below {root}")
    check_sums(root, [f"{name}/{file}" for name in names for file in ("sim.npz", "triangles.npy")])
    flows = tuple(_simulation(root / name, begin, end, step) for name in names)
    points = torch.cat([flow.points.reshape(-1, 2) for flow in flows])
    lower, upper = points.amin(0).tolist(), points.amax(0).tolist()
    space = Space("plane", tuple(lower), tuple(upper))
    return FlowSet("eagle", flows, ("vx", "vy", "ps", "pg"), ("", "", "", ""), space, "s")


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError('h5py is missing: pip install "sciode[flows]"') from error


def _dedalus(file: Path, stride: int, scale: tuple[float, float]) -> tuple[Flow, tuple[int, int]]:
    """A flow of one file, and the shape of its grid; longitudes first."""
    with _h5py().File(file, "r") as opened:
        try:
            tasks = [opened[f"tasks/{name}"] for name in ("height", "vorticity")]
            longitudes, colatitudes = (np.asarray(tasks[0].dims[axis][0]).ravel()[::stride] for axis in (1, 2))
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{file} lacks tasks/height or tasks/vorticity with scales of both angles") from error
        if any(task.ndim != 3 for task in tasks) or tasks[0].shape != tasks[1].shape:
            raise ValueError(f"{file}: expected two fields [time, longitude, colatitude] of one shape")
        fields = [factor * task[:, ::stride, ::stride] for factor, task in zip(scale, tasks, strict=True)]
        frames = len(fields[0])
        clock = opened["scales/sim_time"][:] if "scales/sim_time" in opened else np.arange(frames)
    east, down = np.meshgrid(longitudes, colatitudes, indexing="ij")
    points = np.stack((np.cos(east) * np.sin(down), np.sin(east) * np.sin(down), np.cos(down)), -1)
    values = np.stack(fields, -1).astype(np.float32).reshape(frames, -1, 2)
    flow = Flow.from_arrays(points.reshape(-1, 3).astype(np.float32), clock, values)
    return flow, (len(longitudes), len(colatitudes))


def _simulation(folder: Path, begin: int, end: int | None, step: int) -> Flow:
    with np.load(folder / "sim.npz", allow_pickle=False) as opened:
        missing = {"pointcloud", "VX", "VY", "PS", "PG", "mask"} - set(opened.files)
        if missing:
            raise ValueError(f"{folder / 'sim.npz'} lacks {', '.join(sorted(missing))}")
        total = len(opened["VX"])
        if not 0 <= begin < (total if end is None else min(end, total)) or step < 1:
            raise ValueError(f"frames {begin} to {end} by {step} are not among the {total} of {folder}")
        frames = slice(begin, end, step)
        points = opened["pointcloud"][frames]
        values = np.stack([opened[name][frames] for name in ("VX", "VY", "PS", "PG")], -1)
        # The authors' masks have a last axis of one.
        walls = opened["mask"][frames].reshape(*values.shape[:2]) == WALL
    cells = np.load(folder / "triangles.npy", allow_pickle=False)[frames]
    clock = np.arange(total)[frames] / _RATE
    return Flow(
        _once(points.astype(np.float32)),
        torch.from_numpy(clock),
        torch.from_numpy(values.astype(np.float32)),
        _once(walls),
        _once(cells.astype(np.int64)),
    )


def _once(array: NDArray[Any]) -> Tensor:
    """An array [T, ...], or [...] of it where it does not change."""
    return torch.from_numpy(array[0].copy() if (array == array[:1]).all() else array)
