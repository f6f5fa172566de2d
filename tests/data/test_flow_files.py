"""Flow sets on disk: what was written is read, what is shared is written once, damage is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sciode.data import Flow, FlowSet, Space, read_flows, write_flow_sets
from sciode.data.flow_files import made_by_recipe, recorded_recipe

PLANE = Space("plane", (0.0, 0.0), (1.0, 1.0))


def ragged(count: int, seed: int) -> FlowSet:
    """Flows on meshes of their own; the second has no walls."""
    rng = np.random.default_rng(seed)
    flows = []
    for number in range(count):
        points = 4 + number
        walls = rng.random(points) < 0.5 if number != 1 else None
        places, values, cells = rng.random((points, 2)), rng.random((3, points, 1)), [[0, 1, 2], [1, 2, 3]]
        flows.append(Flow.from_arrays(places, np.arange(3), values, walls, cells))
    return FlowSet("ragged", tuple(flows), ("p",), ("Pa",), PLANE, "s")


def on_a_grid(count: int, seed: int) -> FlowSet:
    rng = np.random.default_rng(seed)
    points = np.indices((2, 3)).reshape(2, -1).T / 3.0
    values = rng.random((count, 4, 6, 1)).astype(np.float32)
    flows = tuple(Flow.from_arrays(points, np.arange(4), one) for one in values)
    return FlowSet("grid", flows, ("w",), ("1/s",), Space("periodic", (0.0, 0.0), (1.0, 1.0)), "s", (2, 3))


def same(one: FlowSet, other: FlowSet) -> bool:
    heads = replace(one, flows=()), replace(other, flows=())
    if vars(heads[0]) != vars(heads[1]) or len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        for field in ("points", "times", "values", "walls", "cells"):
            x, y = getattr(a, field), getattr(b, field)
            if (x is None) != (y is None) or (x is not None and not (x.dtype == y.dtype and torch.equal(x, y))):
                return False
    return True


@pytest.mark.parametrize("make", [ragged, on_a_grid])
def test_what_was_written_is_read(tmp_path: Path, make) -> None:
    parts = {"train": make(3, 0), "validation": make(1, 1), "test": make(2, 2)}
    write_flow_sets(tmp_path / "a.safetensors", parts, {"seed": 0})
    for name, part in parts.items():
        assert same(read_flows(tmp_path / "a.safetensors", name), part)
    assert not same(parts["train"], parts["test"])
    with pytest.raises(ValueError, match=r"no part 'valid': a\.safetensors has train, validation, test"):
        read_flows(tmp_path / "a.safetensors", "valid")


def test_what_all_flows_share_is_written_once(tmp_path: Path) -> None:
    write_flow_sets(tmp_path / "a.safetensors", {"train": on_a_grid(3, 0), "test": on_a_grid(1, 1)})
    with safe_open(tmp_path / "a.safetensors", framework="np") as opened:
        assert sorted(opened.keys()) == ["points", "test/0/values", "times", *(f"train/{k}/values" for k in range(3))]


def test_a_file_knows_its_recipe(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    recipe = {"seed": 1, "settings": {"dt": 0.5, "edges": (1, 2)}}
    assert not made_by_recipe(file, recipe)
    write_flow_sets(file, {"train": on_a_grid(1, 0)}, recipe)
    assert made_by_recipe(file, recipe) and not made_by_recipe(file, {**recipe, "seed": 2})
    write_flow_sets(file, {"train": on_a_grid(1, 0)})
    assert recorded_recipe(file) is None and not made_by_recipe(file, recipe)
    file.write_bytes(b"no safetensors")
    assert not made_by_recipe(file, recipe)


def test_damage_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_flow_sets(file, {"train": on_a_grid(2, 0), "test": on_a_grid(1, 1)})
    content = bytearray(file.read_bytes())
    size = 8 + int.from_bytes(content[:8], "little")
    with safe_open(file, framework="np") as opened:
        wanted = opened.get_tensor("train/1/values").tobytes()
    at = content.index(wanted, size) + 5
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged at train/1/values: delete it"):
        read_flows(file, "train")
    assert len(read_flows(file, "test")) == 1
    file.write_bytes(content[:-3])
    for read in (lambda: read_flows(file, "test"), lambda: recorded_recipe(file)):
        with pytest.raises(ValueError, match="is damaged"):
            read()


def test_parts_of_two_sets_and_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="not one set"):
        write_flow_sets(tmp_path / "a.safetensors", {"train": on_a_grid(1, 0), "test": ragged(1, 0)})
    with pytest.raises(ValueError, match="no flow"):
        write_flow_sets(tmp_path / "a.safetensors", {"train": on_a_grid(1, 0)[:0]})
    save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="holds no flow set"):
        read_flows(tmp_path / "b.safetensors", "train")
