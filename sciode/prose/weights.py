"""A transformer in a file: weights in half precision beside its shape, in safetensors with a JSON record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciode.prose.model import Shape, Transformer
from sciode.training import load_checkpoint, save_checkpoint

__all__ = ["load_model", "save_model"]

_KIND = "sciode.prose"


def save_model(
    path: Path | str, model: Transformer, weights: Mapping[str, Tensor] | None = None, half: bool = True, **more: Any
) -> None:
    """Write a transformer, or other weights of it. half: as float16, 3 digits. more: of the record."""
    named = dict(model.named_parameters()) if weights is None else weights
    kept = {name: one.half() if half else one.float() for name, one in named.items()}
    save_checkpoint(Path(path), kept, {"kind": _KIND, "shape": asdict(model.shape), **more})


def load_model(path: Path | str, device: torch.device | str = "cpu") -> tuple[Transformer, dict[str, Any]]:
    """Return the transformer that `save_model` wrote, in float32 and evaluation mode, and its record.

    Raises ValueError for another file.
    """
    tensors, record = load_checkpoint(Path(path))
    if record.get("kind") != _KIND:
        raise ValueError(f"{path} holds no transformer of sciode.prose: it was not written by save_model")
    with torch.device("meta"):
        model = Transformer(Shape(**record["shape"]))
    model.load_state_dict({name: one.float() for name, one in tensors.items()}, assign=True)
    model.reset_buffers()
    return model.to(device).eval().requires_grad_(False), record
