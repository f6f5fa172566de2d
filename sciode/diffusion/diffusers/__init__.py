"""Networks, settings and pipelines of diffusers: `from_diffusers`, and `SciodeScheduler`, which needs diffusers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sciode.diffusion.diffusers.configs import BETAS
from sciode.diffusion.diffusers.model import FromDiffusers, from_diffusers

if TYPE_CHECKING:
    from sciode.diffusion.diffusers.scheduler import SciodeScheduler

__all__ = ["BETAS", "FromDiffusers", "SciodeScheduler", "from_diffusers"]


def __getattr__(name: str) -> Any:
    """The scheduler is a subclass of diffusers' own: it is loaded when it is first named."""
    if name != "SciodeScheduler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sciode.diffusion.diffusers.scheduler import SciodeScheduler

    return SciodeScheduler
