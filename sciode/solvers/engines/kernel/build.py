"""From source text to a kernel that can be launched: a module in a file, because Triton reads its source again."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["built", "interpreting", "missing"]


def interpreting() -> bool:
    """Whether Triton runs kernels on the CPU, operation by operation; it looks when it is first imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


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
def built(text: str) -> Any:
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
