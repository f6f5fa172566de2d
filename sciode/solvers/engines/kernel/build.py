"""From source text to a kernel that can be launched: a module in a file, because Triton reads its source again."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["Launcher", "interpreting", "missing"]


def interpreting() -> bool:
    """Whether Triton runs kernels on the CPU, operation by operation; it looks when it is first imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@lru_cache(maxsize=1)
def missing() -> bool:
    """Whether Triton is not installed."""
    return importlib.util.find_spec("triton") is None


@lru_cache(maxsize=1)
def _folder() -> Path:
    """Where this user's kernels lie: nobody else may write there, because what lies there is run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sciode" / "kernels"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="sciode_kernels_"))
    return cache if os.access(cache, os.W_OK) else Path(tempfile.mkdtemp(prefix="sciode_kernels_"))


@lru_cache(maxsize=256)
def _built(text: str) -> Any:
    """The kernel `solve` of a module with this text."""
    name = f"sciode_kernel_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    folder = _folder()
    path = folder / f"{name}.py"
    # Written in one move, for processes beside this one.
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.solve


class Launcher:
    """Launches a kernel; once compiled, without asking again which compiled kernel goes with the arguments.

    That is the same one for all of them: nothing is specialised on numbers or alignment, and dtypes hang on the text.
    """

    def __init__(self, text: str, warps: int) -> None:
        self.text, self.warps = text, warps
        self._compiled: dict[torch.device, Any] = {}

    def __call__(self, programs: int, device: torch.device, arguments: list[Any]) -> None:
        """Launch this many programs on a device's current stream."""
        if device.type == "cpu":
            # The interpreter computes with NumPy, which warns of the numbers in lanes that are switched off.
            with np.errstate(all="ignore"):
                _built(self.text)[(programs,)](*arguments, num_warps=self.warps)
            return
        with nullcontext() if torch.cuda.current_device() == device.index else torch.cuda.device(device):
            compiled = self._compiled.get(device)
            if compiled is None:
                solve = _built(self.text)
                self._compiled[device] = solve[(programs,)](*arguments, num_warps=self.warps)
            else:
                compiled[(programs, 1, 1)](*arguments)
