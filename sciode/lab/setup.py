"""The first cell of every notebook: device, dtype, seed, output folder, plot style and versions, said once."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """What a notebook works with: `device`, `dtype`, `seed`, `out` (an existing folder), `fast`, `versions`.

    Nothing here is global: pass `seed=lab.seed`, `device=lab.device` on to what draws or computes.
    """

    device: torch.device
    dtype: torch.dtype
    seed: int
    out: Path
    fast: bool
    versions: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        versions = " · ".join(f"{name} {version}" for name, version in self.versions)
        pace = "fast mode (SCIODE_FAST=1: small sizes, few steps)" if self.fast else "full run"
        precision = str(self.dtype).removeprefix("torch.")
        return f"{versions}\n{self.device} · {precision} · seed {self.seed} · {pace} · files go to {self.out}"


def setup(
    seed: int = 0,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
    out: str | Path = "sciode-out",
    verbose: bool = True,
) -> Session:
    """Choose the device, make the output folder, apply the house plot style, print one summary, and return it all.

    The only global thing it changes is matplotlib's style (where matplotlib is installed): no random stream, default
    dtype, grad mode or thread count.

    Args:
        seed: integer >= 0, handed on as `lab.seed`; three seeds for any comparison.
        device: "auto" (CUDA, then Apple's MPS, then the CPU) or any name torch knows.
        dtype: of the states and networks; float32 trains, float64 verifies.
        out: folder for figures and numbers, made if absent.
        verbose: print the summary.

    Raises:
        ValueError: a seed that is no integer >= 0, a dtype that is not floating, or a device that is not here.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating dtype such as torch.float32, got {dtype}")
    folder = Path(out).expanduser()
    chosen = _device(device)
    folder.mkdir(parents=True, exist_ok=True)
    _apply_style()
    session = Session(chosen, dtype, seed, folder, fast(), _versions())
    if verbose:
        print(session)
    return session


def fast() -> bool:
    """Whether SCIODE_FAST asks for small sizes: 1 in tests and CI, unset or 0 for the published result.

    Raises:
        ValueError: SCIODE_FAST is neither 0, 1 nor empty.
    """
    switch = os.environ.get("SCIODE_FAST", "")
    if switch not in ("", "0", "1"):
        raise ValueError(f"SCIODE_FAST must be 0 or 1, got {switch!r}")
    return switch == "1"


def scale(full: T, fast: T) -> T:
    """Return `full` for the published result and `fast` in fast mode: `epochs = lab.scale(full=200, fast=5)`."""
    return fast if _fast() else full


# `scale(full=, fast=)` reads best in a notebook, and its argument hides the function of that name.
_fast = fast


def _device(name: str | torch.device) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as fault:
        reason = str(fault).splitlines()[0]
        raise ValueError(f"device {str(name)!r} is not available here ({reason}); use 'auto' or 'cpu'") from fault


def _apply_style() -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        # Plots say what to install when one is drawn; a notebook without plots needs no matplotlib.
        return
    with as_file(files("sciode.lab") / "style.mplstyle") as style:
        plt.style.use(style)


def _versions() -> tuple[tuple[str, str], ...]:
    try:
        own = metadata.version("sciode")
    except metadata.PackageNotFoundError:
        # Run from a checkout that was never installed, e.g. on a machine without an index.
        own = "from source"
    return (("Python", platform.python_version()), ("torch", torch.__version__), ("sciode", own))
