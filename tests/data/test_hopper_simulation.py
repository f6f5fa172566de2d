"""The simulated hopper obeys mechanics: velocities are derivatives, it falls freely, the floor holds; it repeats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciode.data import get, simulate_hopper, simulated_hopper
from sciode.data.hopper_simulation import COORDINATES, hopper_model
from sciode.data.registry import File

mujoco = pytest.importorskip("mujoco", reason='MuJoCo is missing: pip install "sciode[mujoco]"')
pytest.importorskip("dm_control", reason='dm_control is missing: pip install "sciode[mujoco]"')
DT, GRAVITY = 0.005, 9.81


def test_positions_come_first_and_velocities_are_their_derivatives() -> None:
    """MuJoCo's step takes the new velocity, so the difference of two positions is dt times it, to rounding."""
    runs = simulate_hopper(5, 60)
    model = hopper_model()
    assert runs.shape == (5, 60, 14) and model.nq == model.nv == 7 == len(COORDINATES)
    assert model.opt.timestep == DT
    np.testing.assert_allclose(np.diff(runs[..., :7], axis=1), DT * runs[:, 1:, 7:], atol=1e-12)


def test_the_start_is_drawn_as_the_recipe_says() -> None:
    start = simulate_hopper(2000, 1)[:, 0]
    for columns, low, high in ((slice(0, 2), 0.0, 0.5), (slice(2, 7), -2.0, 2.0), (slice(7, 14), -5.0, 5.0)):
        part = start[:, columns]
        assert low <= part.min() and part.max() <= high
        middle, error = (low + high) / 2, (high - low) / np.sqrt(12 * len(part))
        assert (np.abs(part.mean(0) - middle) < 5 * error).all()


def test_a_run_is_a_function_of_seed_and_number() -> None:
    many = simulate_hopper(6, 50)
    np.testing.assert_array_equal(simulate_hopper(3, 50), many[:3])
    np.testing.assert_array_equal(simulate_hopper(6, 30), many[:, :30])
    assert not np.array_equal(simulate_hopper(3, 50, seed=1), many[:3])


def flights(runs: np.ndarray, dt: float) -> np.ndarray:
    """The vertical acceleration of the centre of mass while nothing is touched, of every run that flies for 0.1 s."""
    model = hopper_model()
    model.opt.timestep = dt
    data, found = mujoco.MjData(model), []
    for start in runs[:, 0]:
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = start[:7], start[7:]
        heights = []
        while len(heights) < 0.3 / dt:
            mujoco.mj_step1(model, data)
            if data.ncon:
                break
            heights.append(data.subtree_com[1, 2])
            mujoco.mj_step2(model, data)
        if len(heights) >= 0.1 / dt:
            found.append(2 * np.polyfit(np.arange(len(heights)) * dt, heights, 2)[0])
    return np.array(found)


def test_in_flight_the_centre_of_mass_falls_whatever_the_joints_do() -> None:
    """Only gravity acts on the whole. MuJoCo's steps are of first order, so in a tenth of a step a tenth of the error
    is left, and the error has no preferred sign."""
    runs = simulate_hopper(40, 2)
    coarse, fine = flights(runs, DT), flights(runs, DT / 10)
    assert len(coarse) == len(fine) > 20
    for found in (coarse, fine):
        assert abs(found.mean() + GRAVITY) < 4 * found.std() / np.sqrt(len(found))
    assert 7 < coarse.std() / fine.std() < 15


def test_at_last_it_lies_on_the_floor_and_its_energy_is_gone() -> None:
    """Six seconds after the start nothing is deep below the floor, and what moved has come to rest."""
    model = hopper_model()
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    data = mujoco.MjData(model)
    for run in simulate_hopper(4, 1200):
        energies, lowest = [], []
        for state in (run[0], run[-1]):
            data.qpos[:], data.qvel[:] = state[:7], state[7:]
            mujoco.mj_forward(model, data)
            energies.append(data.energy[1])
            bodies = slice(1, model.ngeom)  # geom 0 is the floor
            reach = np.abs(data.geom_xmat[bodies, 8]) * model.geom_size[bodies, 1] + model.geom_size[bodies, 0]
            lowest.append(float((data.geom_xpos[bodies, 2] - reach).min()))
        assert energies[1] < 0.05 * energies[0]
        assert -0.02 < lowest[1] < 0.02


def test_the_set_is_made_once_scaled_and_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = simulate_hopper(20, 200)
    calls = []
    monkeypatch.setattr("sciode.data.hopper_simulation.simulate_hopper", lambda: calls.append(1) or few)
    monkeypatch.setenv("SCIODE_CACHE", str(tmp_path))
    monkeypatch.setenv("SCIODE_OFFLINE", "1")
    monkeypatch.delenv("SCIODE_DATA", raising=False)
    first, second = simulated_hopper(20), simulated_hopper(3)
    assert len(calls) == 1 and first[:3] == second and first.channels == 14
    values = np.stack(list(first.values))
    np.testing.assert_allclose(values.min((0, 1)), 0, atol=1e-7)
    np.testing.assert_allclose(values.max((0, 1)), 1, atol=1e-7)
    scaled = (few - few.min((0, 1))) / np.ptp(few, axis=(0, 1))
    np.testing.assert_allclose(values, scaled, atol=1e-6)
    np.testing.assert_allclose(first.times[0], np.arange(200) * DT)
    assert get("hopper_simulated").is_relative_to(tmp_path)


@pytest.mark.parametrize("wrong", [(0, 10, 0), (1, 0, 0), (1, 1, -1)])
def test_misuse_says_the_mend(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1 and seed >= 0"):
        simulate_hopper(*wrong)
    with pytest.raises(ValueError, match="runs is 0: the set has 10,000"):
        simulated_hopper(0)
    with pytest.raises(ValueError, match="or made_by if it is made here"):
        File("a.npy", ())
