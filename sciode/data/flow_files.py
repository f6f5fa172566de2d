"""Flow sets on disk: one safetensors file a set, whose header says how it was made and what its bytes are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .flow import Flow, FlowSet, Space

__all__ = ["made_by_recipe", "read_flows", "recorded_recipe", "write_flow_sets"]

_RECORD = "sciode.flows"
_FIELDS = ("points", "times", "values", "walls", "cells")


def write_flow_sets(target: Path, parts: Mapping[str, FlowSet], recipe: Mapping[str, Any] | None = None) -> None:
    """Write the parts of a set ("train", "validation", "test") to one file.

    What all flows share (points of a grid) is written once. The header has the recipe, the versions that made it, and a
    sha256 of every array, which `read_flows` checks. Own data are kept in the same way, without a recipe.
    Raises ValueError where the parts are not parts of one set.
    """
    from safetensors.torch import save_file

    heads = {json.dumps(_head(part), sort_keys=True) for part in parts.values()}
    if len(heads) != 1:
        raise ValueError("the parts differ in name, channels, space or grid: they are not one set")
    if not any(len(part) for part in parts.values()):
        raise ValueError("there is no flow to write")
    everything = [flow for part in parts.values() for flow in part]
    shared = {name: array for name, array in _arrays(everything[0]).items() if _all_have(everything, name, array)}
    arrays = dict(shared)
    for name, part in parts.items():
        for number, flow in enumerate(part):
            own = {field: array for field, array in _arrays(flow).items() if field not in shared}
            arrays.update({f"{name}/{number}/{field}": array for field, array in own.items()})
    arrays = {key: value.detach().cpu().contiguous().clone() for key, value in arrays.items()}
    record = {
        **json.loads(heads.pop()),
        "parts": {name: len(part) for name, part in parts.items()},
        "recipe": None if recipe is None else dict(recipe),
        "torch": torch.__version__,
        "sha256": {key: _digest(value) for key, value in arrays.items()},
    }
    save_file(arrays, target, {_RECORD: json.dumps(record)})


def read_flows(file: Path, part: str) -> FlowSet:
    """One part of a set that `write_flow_sets` wrote; only its arrays are read, and checked against their sha256.

    Raises ValueError for a part that is not there, or a file that is damaged or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            record = _record(opened.metadata(), file)
            if part not in record["parts"]:
                raise ValueError(f"there is no part {part!r}: {file.name} has {', '.join(record['parts'])}")
            wanted = [key for key in record["sha256"] if "/" not in key or key.startswith(f"{part}/")]
            arrays = {key: opened.get_tensor(key) for key in wanted}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, and it is made anew") from error
    for key, value in arrays.items():
        if _digest(value) != record["sha256"][key]:
            raise ValueError(f"{file} is damaged at {key}: delete it, and it is made anew")
    flows = tuple(
        Flow(**{field: arrays.get(f"{part}/{number}/{field}", arrays.get(field)) for field in _FIELDS})  # type: ignore[arg-type]
        for number in range(record["parts"][part])
    )
    return FlowSet(
        record["name"],
        flows,
        tuple(record["channels"]),
        tuple(record["units"]),
        Space(**record["space"]),
        record["time_unit"],
        None if record["grid"] is None else tuple(record["grid"]),
    )


def recorded_recipe(file: Path) -> dict[str, Any] | None:
    """The recipe in a file's header; None if it has none. Raises ValueError for another kind of file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return _record(opened.metadata(), file)["recipe"]
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, and it is made anew") from error


def made_by_recipe(file: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether a file is there and was made by this recipe; one that cannot be read was not."""
    if not file.is_file():
        return False
    try:
        return recorded_recipe(file) == json.loads(json.dumps(dict(recipe)))
    except ValueError:
        return False


def _head(part: FlowSet) -> dict[str, Any]:
    return {
        "name": part.name,
        "channels": part.channels,
        "units": part.units,
        "space": asdict(part.space),
        "time_unit": part.time_unit,
        "grid": part.grid,
    }


def _record(metadata: Mapping[str, str] | None, file: Path) -> dict[str, Any]:
    if _RECORD not in (metadata or {}):
        raise ValueError(f"{file} holds no flow set: it was not written by write_flow_sets")
    return json.loads((metadata or {})[_RECORD])


def _arrays(flow: Flow) -> dict[str, Tensor]:
    """Those of its arrays that a flow has."""
    return {name: array for name in _FIELDS if (array := getattr(flow, name)) is not None}


def _all_have(flows: Sequence[Flow], name: str, array: Tensor) -> bool:
    others = [getattr(flow, name) for flow in flows]
    return all(one is not None and one.dtype == array.dtype and torch.equal(one, array) for one in others)


def _digest(array: Tensor) -> str:
    head = f"{array.dtype} {tuple(array.shape)} "
    return hashlib.sha256(head.encode() + array.contiguous().numpy().tobytes()).hexdigest()
