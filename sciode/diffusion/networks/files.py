"""Models as files: safetensors, with the design, the schedule and what was done as JSON in the header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from sciode.diffusion.networks.preconditioned import Preconditioned
from sciode.diffusion.networks.presets import KINDS, build
from sciode.diffusion.schedules import EDM, VE, RectifiedFlow, Schedule, VPCosine, VPLinear, VPScaledLinear
from sciode.diffusion.statistics import ModelStatistics
from sciode.solvers.suggest import choose
from sciode.training import load_checkpoint, save_checkpoint

__all__ = [
    "load_model", "load_statistics", "pretrained", "pretrained_statistics", "save_model", "save_statistics",
]  # fmt: skip

_SCHEDULES: Mapping[str, type[Any]] = MappingProxyType(
    {kind.__name__: kind for kind in (EDM, VE, RectifiedFlow, VPCosine, VPLinear, VPScaledLinear)}
)
_FOLDER = Path(__file__).parent / "checkpoints"


def save_model(
    path: Path, model: Preconditioned, *, dtype: torch.dtype = torch.float32, record: Mapping[str, Any] | None = None
) -> None:
    """Write a model of a network of this package; `load_model` needs nothing else to make it again.

    dtype: of the stored weights; float16 halves the file. record: what else is to be known of it, as JSON has it
    (data, steps, date). Raises ValueError for a network or a schedule that no file can name.
    """
    kind = next((name for name, (_, network) in KINDS.items() if isinstance(model.network, network)), None)
    name = type(model.schedule).__name__
    if kind is None or name not in _SCHEDULES:
        raise ValueError(f"model: only {', '.join(KINDS)} with {', '.join(_SCHEDULES)} are saved; keep others yourself")
    header = {
        "kind": kind,
        "design": asdict(model.network.design),  # type: ignore[arg-type]
        "schedule": {"name": name, **asdict(model.schedule)},  # type: ignore[call-overload]
        "deviation": model.deviation,
        "prediction": model.prediction,
        "record": dict(record or {}),
    }
    tensors = {key: value.to(dtype) for key, value in model.network.state_dict().items()}
    save_checkpoint(Path(path), tensors, header)


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[Preconditioned, dict[str, Any]]:
    """(the model in float32 and evaluation mode, its record) of a file by `save_model`.

    Raises FileNotFoundError, or ValueError for a file that is damaged or holds something else.
    """
    tensors, header = load_checkpoint(Path(path))
    if header.get("kind") not in KINDS:
        raise ValueError(f"{path} holds no model of sciode.diffusion: it was not written by save_model")
    network = build(KINDS[header["kind"]][0](**header["design"]))
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    model = Preconditioned(
        network, _schedule(header["schedule"]), deviation=header["deviation"], prediction=header["prediction"]
    )
    return model.to(device).eval().requires_grad_(False), header["record"]


def pretrained(name: str, device: torch.device | str = "cpu") -> tuple[Preconditioned, dict[str, Any]]:
    """(model, record) of a checkpoint that sciode ships; the record says how it was made. Raises ValueError for others.

    States are pictures [B, 1, 28, 28] in [-1, 1]; `label=` is the digit [B], 10 or None for any.
    """
    shipped = {file.stem: file for file in sorted(_FOLDER.glob("*.safetensors"))}
    return load_model(shipped[choose("name", name, shipped)], device)


def save_statistics(path: Path, statistics: ModelStatistics, *, record: Mapping[str, Any] | None = None) -> None:
    """Write what `estimate_ems` found, in float32: it is dear, and once a model is enough."""
    header = {"kind": "statistics", "low": statistics.low, "high": statistics.high, "record": dict(record or {})}
    parts = {name: torch.from_numpy(getattr(statistics, name)).float() for name in "lsb"}
    save_checkpoint(Path(path), parts, header)


def load_statistics(path: Path) -> tuple[ModelStatistics, dict[str, Any]]:
    """(statistics, record) of a file by `save_statistics`. Raises FileNotFoundError, or ValueError for another file."""
    tensors, header = load_checkpoint(Path(path))
    if header.get("kind") != "statistics":
        raise ValueError(f"{path} holds no statistics: it was not written by save_statistics")
    parts = [tensors[name].double().numpy() for name in "lsb"]
    return ModelStatistics(header["low"], header["high"], *parts), header["record"]


def pretrained_statistics(name: str) -> ModelStatistics:
    """Statistics of a shipped model, for `sample(sampler="dpm-v3", ems=...)` in VP-linear time from 1 to 1e-3."""
    shipped = {file.stem: file for file in sorted((_FOLDER / "statistics").glob("*.safetensors"))}
    return load_statistics(shipped[choose("name", name, shipped)])[0]


def _schedule(told: Mapping[str, Any]) -> Schedule:
    return _SCHEDULES[told["name"]](**{key: value for key, value in told.items() if key != "name"})
