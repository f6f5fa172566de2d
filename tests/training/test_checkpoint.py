"""Checkpoints come back whole, or the old one stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sciode.training import append_json, checksum, load_checkpoint, read_json_lines, save_checkpoint


def test_tensors_and_record_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(True), "c": torch.tensor([1 << 40])}
    record = {"name": "ζ", "numbers": [1, 2.5, None]}
    save_checkpoint(tmp_path / "deep" / "one.safetensors", tensors, record)
    found, said = load_checkpoint(tmp_path / "deep" / "one.safetensors")
    assert said == record
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_checkpoint_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, {"a": torch.zeros(3)}, {"epoch": 1})

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os if broken == "fsync" else Path, broken, crash)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"a": torch.ones(3)}, {"epoch": 2})
    assert load_checkpoint(path)[1] == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.safetensors"]


def test_damaged_foreign_and_absent_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, {"a": torch.zeros(300)}, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="no sciode record"):
        load_checkpoint(path)


def test_a_log_survives_a_torn_last_line_and_goes_on_after_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    append_json(path, {"epoch": 0})
    with path.open("a") as file:
        file.write('{"epoch": 1, "lo')
    assert read_json_lines(path) == [{"epoch": 0}]
    append_json(path, {"epoch": 1})
    assert read_json_lines(path) == [{"epoch": 0}, {"epoch": 1}]


def test_damage_inside_a_log_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"epoch": 0}\nnonsense\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_json_lines(path)


def test_a_checksum_tells_weights_by_their_numbers_and_names_and_not_by_their_precision(
    seeded: Callable[[int], AbstractContextManager[None]],
) -> None:
    with seeded(0):
        one, same, other = nn.Linear(2, 2), nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))
    for network in (one, same, other):
        for parameter in network.parameters():
            nn.init.constant_(parameter, 0.5)
    assert checksum(one) == checksum(same.half()) != checksum(other)
    with torch.no_grad():
        one.bias[1] = 0.25
    assert checksum(one) != checksum(same)
