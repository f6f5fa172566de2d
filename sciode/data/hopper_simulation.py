"""The hopper of the latent ODE authors, simulated on this machine by MuJoCo: 10,000 falls from random poses."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .series import IrregularSeries
from .store import get

__all__ = ["COORDINATES", "hopper_model", "simulate_hopper", "simulated_hopper"]

COORDINATES = ("root x", "root z", "root angle", "waist", "hip", "knee", "ankle")
"""The joints, in the order of the first seven channels (positions: m, rad); the other seven are their velocities."""


def _mujoco() -> Any:
    try:
        return importlib.import_module("mujoco")
    except ImportError as error:
        raise ImportError('MuJoCo is missing: pip install "sciode[mujoco]"') from error


def hopper_model() -> Any:
    """Return dm_control's planar hopper as a compiled MuJoCo model: 7 coordinates, steps of 5 ms.

    Only the package's model file is read: `dm_control.suite` itself does not load with every MuJoCo.
    Raises ImportError naming the extra if mujoco or dm_control is missing.
    """
    mujoco, package = _mujoco(), find_spec("dm_control")
    if package is None or package.origin is None:
        raise ImportError('dm_control, whose model of the hopper is used, is missing: pip install "sciode[mujoco]"')
    return mujoco.MjModel.from_xml_path(str(Path(package.origin).parent / "suite" / "hopper.xml"))


def simulate_hopper(runs: int = 10_000, steps: int = 200, seed: int = 123) -> NDArray[np.float64]:
    """Return positions and velocities [runs, steps, 14] of a hopper whose motors are off, 5 ms apart.

    Each run begins anew: root position uniform in [0, 0.5] m (z above the model's own 1 m), angles in [-2, 2] rad,
    velocities in [-5, 5]; legs may begin below the floor, which then throws them out. Run k is a function of
    (seed, k): fewer runs are the first of more. The same bits on one machine and version of MuJoCo.
    Source: Rubanova, Chen, Duvenaud: Latent ordinary differential equations for irregularly sampled series (2019),
    section 4.2 and the authors' code.

    Raises ValueError for sizes below 1 or a negative seed, ImportError of `hopper_model`.
    """
    if runs < 1 or steps < 1 or seed < 0:
        raise ValueError(f"runs and steps must be >= 1 and seed >= 0, got {runs}, {steps}, {seed}")
    mujoco, model = _mujoco(), hopper_model()
    data = mujoco.MjData(model)
    places, speeds = model.nq, model.nv
    found = np.empty((runs, steps, places + speeds))
    for run, states in enumerate(found):
        rng = np.random.default_rng([seed, run])
        mujoco.mj_resetData(model, data)
        data.qpos[:2] = rng.uniform(0.0, 0.5, 2)
        data.qpos[2:] = rng.uniform(-2.0, 2.0, places - 2)
        data.qvel[:] = rng.uniform(-5.0, 5.0, speeds)
        for state in states:
            state[:places], state[places:] = data.qpos, data.qvel
            mujoco.mj_step(model, data)
    return found


def write_hopper(target: Path) -> None:
    """Write the set `hopper_simulated`: float32 [10000, 200, 14], each channel scaled to [0, 1] over all runs."""
    runs = simulate_hopper()
    low, high = runs.min((0, 1)), runs.max((0, 1))
    np.save(target, ((runs - low) / (high - low)).astype(np.float32), allow_pickle=False)


def simulated_hopper(runs: int = 10_000) -> IrregularSeries:
    """Return the first runs of the set `hopper_simulated` as series of 200 points, times in seconds.

    Channels are scaled to [0, 1] over the whole set, as the latent ODE authors do. Simulated at the first call (some
    20 s), then read from the cache.

    Raises ValueError for runs outside 1..10000, ImportError of `hopper_model`.
    """
    if not 1 <= runs <= 10_000:
        raise ValueError(f"runs is {runs}: the set has 10,000, give 1..10000")
    values = np.load(get("hopper_simulated"), mmap_mode="r")[:runs]
    return IrregularSeries(np.array(values), np.arange(values.shape[1]) * 0.005)
