"""Checkpoints: one safetensors file with a JSON record in its header, written so that it is old, new, never half."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

_RECORD = "sciode"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write the tensors and the JSON record to `path` in one atomic step.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name only then: a
    process killed at any moment leaves the previous checkpoint or the new one. Missing folders are made.

    Raises TypeError for a record that JSON cannot hold (before anything is written).
    """
    header = {_RECORD: json.dumps(record)}
    payload = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, header)
    write_atomically(Path(path), payload)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors on the CPU, record) of a file by `save_checkpoint`; no code in the file can run.

    Raises FileNotFoundError, or ValueError for a file that is damaged or not a sciode checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): delete it or restore a copy") from error
    if _RECORD not in header:
        raise ValueError(f"{path} holds tensors but no sciode record: it was not written by save_checkpoint")
    return tensors, json.loads(header[_RECORD])


def checksum(model: nn.Module) -> str:
    """16 hexadecimal digits that tell weights from others: SHA-256 of names and of numbers in float32."""
    found = hashlib.sha256()
    for name, one in sorted(model.named_parameters()):
        found.update(name.encode())
        found.update(one.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def write_atomically(path: Path, payload: bytes) -> None:
    """Write bytes to a temporary neighbour, flush it to the disk, and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flatten(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state_dict, their names under `prefix.`."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def unflatten(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of `tensors` under `prefix.`, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
