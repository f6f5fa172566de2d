"""What opponents of the observer have in common: the windows they learn from, and how they are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciode.data.flow import FlowSet
from sciode.training import FitOptions, History, fit

from .arrays import Reading, asked, parted
from .windowed import Windowed
from .windows import Scale, Windows, cut, fingerprint, scale_of

__all__ = ["asked_of", "even", "fitted", "trained_rival", "windows_of"]


def fitted(rival: Any) -> None:
    """Raise RuntimeError for an opponent that has learnt nothing yet."""
    if not hasattr(rival, "network_"):
        raise RuntimeError(f"this {type(rival).__name__} is not fitted: fit it first")


def asked_of(rival: Any, positions: Any, times: Any, given: Reading) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places [Q, d], and times [T] in steps from the reading on, checked as `Observer.predict` checks them.

    Raises ValueError for what cannot be asked, RuntimeError before the fit.
    """
    fitted(rival)
    return asked(positions, times, given, rival.space_, len(rival.channels_), rival.scale_.unit)


def windows_of(
    train: FlowSet, validation: FlowSet | None, length: int, every: int = 1
) -> tuple[Scale, dict[str, Windows]]:
    """The scale of the training set, and windows of `length` by "train" and "validation", every `every`-th frame.

    Without a validation set a fifth of the flows is held out, of less than three a fifth of the frames.
    """
    train, chooses = parted(train, validation, 0.2)
    scale, parts = scale_of(train, every), (("train", train), ("validation", chooses))
    return scale, {name: _every(cut(flows, length, None, scale, name), every) for name, flows in parts}


def even(windows: Windows, who: str) -> None:
    """Raise ValueError for frames that are not evenly apart."""
    if float((windows.times.diff(dim=1) - 1.0).abs().max()) > 1e-6:
        raise ValueError(f"a {who} steps from frame to frame: give it frames that are evenly apart")


def _every(windows: Windows, every: int) -> Windows:
    return Windows(windows.values[:, ::every], windows.times[:, ::every], windows.layouts, windows.which, windows.space)


def trained_rival(
    rival: Any, training: Any, windows: dict[str, Windows], folder: Path | None, progress: bool, engine: str
) -> History:
    """Minimise `training.loss(rows, seed)` over windows, numbered on the CPU, with an opponent's parameters."""
    options = FitOptions(
        epochs=rival.epochs, batch_size=rival.batch_size, lr=rival.lr, schedule="cosine", patience=rival.epochs,
        warmup=0, settle=0, seed=rival.random_state, threads=torch.get_num_threads(),
    )  # fmt: skip
    rows = {name: {"window": torch.arange(len(part.which))} for name, part in windows.items()}
    return fit(
        training, Windowed(), rows["train"], rows["validation"], options, folder=folder, progress=progress,
        identity=f"{rival} {fingerprint(windows)}", engine=engine,
    )  # fmt: skip
