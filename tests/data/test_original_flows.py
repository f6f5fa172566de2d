"""The files of others, on files of the same layout made here: what was in them is in the flows, where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciode.data import dino_shallow_water, eagle, eagle_simulations, pin


def write_dedalus(file: Path, seed: int, frames: int = 4, times: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """As Dedalus 3 writes snapshots: tasks [time, phi, theta] whose axes have scales."""
    h5py = pytest.importorskip("h5py", reason='h5py is missing: pip install "sciode[flows]"')
    rng = np.random.default_rng(seed)
    phi = 2 * np.pi * np.arange(16) / 16
    theta = np.arccos(np.polynomial.legendre.leggauss(8)[0])
    fields = rng.standard_normal((2, frames, 16, 8))
    file.parent.mkdir(exist_ok=True)
    with h5py.File(file, "w") as opened:
        if times:
            opened["scales/sim_time"] = 5.0 + np.arange(frames)
        # Dedalus names its scales by what is in them.
        opened["scales/phi_hash_1a"], opened["scales/theta_hash_2b"] = phi, theta
        for scale in ("phi_hash_1a", "theta_hash_2b"):
            opened[f"scales/{scale}"].make_scale(scale)
        for name, values in zip(("height", "vorticity"), fields, strict=True):
            task = opened.create_dataset(f"tasks/{name}", data=values)
            task.dims[1].attach_scale(opened["scales/phi_hash_1a"])
            task.dims[2].attach_scale(opened["scales/theta_hash_2b"])
    angles = np.stack(np.meshgrid(phi, theta, indexing="ij"), -1)
    return fields, angles


def test_dinos_files_give_their_fields_on_the_sphere(tmp_path: Path) -> None:
    fields, angles = write_dedalus(tmp_path / "shallow_water_train/traj_0000.h5", 0)
    write_dedalus(tmp_path / "shallow_water_train/traj_0001.h5", 1, frames=3, times=False)
    write_dedalus(tmp_path / "shallow_water_test/traj_0000.h5", 2)
    found = dino_shallow_water(tmp_path, scale=(3000.0, 2.0))
    assert len(found) == 2 and found.grid == (8, 4) and found.space.kind == "sphere"
    images = found[:1].images()[0]
    np.testing.assert_allclose(images[..., 0], 3000 * fields[0, :, ::2, ::2], rtol=1e-6)
    np.testing.assert_allclose(images[..., 1], 2 * fields[1, :, ::2, ::2], rtol=1e-6)
    phi, theta = angles[::2, ::2].reshape(-1, 2).T
    x, y, z = found[0].points.numpy().T
    np.testing.assert_allclose(np.arctan2(y, x) % (2 * np.pi), phi, atol=1e-6)
    np.testing.assert_allclose(np.arccos(z), theta, atol=1e-6)
    assert found[0].times.tolist() == [5, 6, 7, 8] and found[1].times.tolist() == [0, 1, 2]
    whole = dino_shallow_water(tmp_path, "test", stride=1)
    assert whole.grid == (16, 8) and len(whole) == 1 and len(whole.windows(2)) == 2


def test_dinos_files_are_held_against_sums_and_other_layouts_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason='h5py is missing: pip install "sciode[flows]"')
    file = tmp_path / "shallow_water_train/traj_0000.h5"
    write_dedalus(file, 0)
    pin(tmp_path)
    assert len(dino_shallow_water(tmp_path)) == 1
    write_dedalus(file, 1)
    with pytest.raises(ValueError, match=r"traj_0000.h5 is not the file that"):
        dino_shallow_water(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with h5py.File(file, "w") as opened:
        opened["tasks/height"] = np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match="lacks tasks/height or tasks/vorticity"):
        dino_shallow_water(tmp_path)
    with pytest.raises(FileNotFoundError, match="shallow_water_test"):
        dino_shallow_water(tmp_path, "test")
    with pytest.raises(ValueError, match="the authors have no other"):
        dino_shallow_water(tmp_path, "validation")
    with pytest.raises(ValueError, match="stride is 0"):
        dino_shallow_water(tmp_path, stride=0)


def write_eagle(folder: Path, seed: int, points: int = 6, moving: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = 7
    cloud = rng.random((frames if moving else 1, points, 2)).repeat(1 if moving else frames, 0)
    arrays = {
        "pointcloud": cloud.astype(np.float32),
        **{name: rng.standard_normal((frames, points)).astype(np.float32) for name in ("VX", "VY", "PS", "PG")},
        "mask": np.tile(np.array([6, 6, 4, 5, *[0] * (points - 4)])[None, :, None], (frames, 1, 1)),
    }
    folder.mkdir(parents=True)
    np.savez(folder / "sim.npz", **arrays)
    triangles = np.tile([[[0, 1, 2], [1, 2, 3]]], (frames, 1, 1))
    if moving:
        triangles[3:, 1] = [2, 3, 4]
    np.save(folder / "triangles.npy", triangles)
    return {**arrays, "triangles": triangles}


def test_eagles_files_give_their_fields_on_their_meshes(tmp_path: Path) -> None:
    still, moved = write_eagle(tmp_path / "Cre/1/1", 0, moving=False), write_eagle(tmp_path / "Spl/12/2", 1, points=9)
    assert eagle_simulations(tmp_path) == ["Cre/1/1", "Spl/12/2"]
    found = eagle(tmp_path)
    first, second = found
    assert found.channels == ("vx", "vy", "ps", "pg") and found.space.kind == "plane"
    for flow, arrays in ((first, still), (second, moved)):
        expected = np.stack([arrays[name] for name in ("VX", "VY", "PS", "PG")], -1)
        np.testing.assert_array_equal(flow.values, expected)
        np.testing.assert_allclose(flow.times, np.arange(7) / 30.0)
        assert flow.walls is not None and flow.walls.sum() == 2 and bool(flow.walls[:2].all())
    assert not first.moves and first.cells is not None and first.cells.shape == (2, 3)
    np.testing.assert_array_equal(first.points, still["pointcloud"][0])
    assert second.moves and second.cells is not None
    np.testing.assert_array_equal(second.points, moved["pointcloud"])
    np.testing.assert_array_equal(second.cells, moved["triangles"])


def test_frames_and_simulations_of_eagle_are_chosen(tmp_path: Path) -> None:
    arrays = write_eagle(tmp_path / "Tri/3/1", 0)
    write_eagle(tmp_path / "Tri/4/1", 1)
    (tmp_path / "train.txt").write_text("Tri/3/1\n\n")
    found = eagle(tmp_path, tmp_path / "train.txt", begin=1, end=6, step=2)
    assert len(found) == 1 and found[0].times.tolist() == [1 / 30, 3 / 30, 5 / 30]
    np.testing.assert_array_equal(found[0].values[..., 2], arrays["PS"][1:6:2])
    np.testing.assert_array_equal(found[0].points, arrays["pointcloud"][1:6:2])
    assert len(eagle(tmp_path, ["Tri/4/1"])) == 1
    # Before it changes, a mesh that moves later is one.
    early = eagle(tmp_path, ["Tri/3/1"], end=2)[0]
    assert early.cells is not None and early.cells.shape == (2, 3) and early.moves


@pytest.mark.parametrize("wrong", [{"begin": 7}, {"begin": 3, "end": 3}, {"step": 0}, {"begin": -1}])
def test_frames_that_are_not_there_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    write_eagle(tmp_path / "Tri/3/1", 0)
    with pytest.raises(ValueError, match="not among the 7"):
        eagle(tmp_path, **wrong)


def test_eagles_files_are_held_against_sums_and_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no simulation"):
        eagle(tmp_path)
    write_eagle(tmp_path / "Cre/1/1", 0)
    pin(tmp_path)
    assert torch.isfinite(eagle(tmp_path)[0].values).all()
    np.savez(tmp_path / "Cre/1/1/sim.npz", VX=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"sim.npz is not the file that"):
        eagle(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="lacks PG, PS, VY, mask, pointcloud"):
        eagle(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no Cre/9/9/sim.npz"):
        eagle(tmp_path, ["Cre/9/9"])
