"""Every sampler by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sciode.diffusion.samplers.adaptive import ADAPTIVE
from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.samplers.consistency import CONSISTENCY
from sciode.diffusion.samplers.ddim import DDIM
from sciode.diffusion.samplers.dpm_v3 import DPM_V3
from sciode.diffusion.samplers.edm import EDM_SAMPLERS
from sciode.diffusion.samplers.fixed_weights import FIXED_WEIGHTS
from sciode.diffusion.samplers.multistep import MULTISTEP
from sciode.diffusion.samplers.reversible import REVERSIBLE
from sciode.diffusion.samplers.runge_kutta import RUNGE_KUTTA
from sciode.diffusion.samplers.singlestep import SINGLESTEP
from sciode.solvers.suggest import unknown

__all__ = ["SamplerInfo", "catalogue", "named", "sampler", "samplers"]


@dataclass(frozen=True)
class SamplerInfo:
    """What a sampler claims; the tests measure it.

    order: of the global error, of an SDE sampler's mean equation (None: converges to no ODE); weak: of the variance
    for Gaussian data; kind: "ode", "sde" or "consistency"; evaluations: calls of ten steps (None: adaptive);
    exact_inverse: whether `invert` is exact with memory.
    """

    name: str
    order: int | None
    weak: int | None
    kind: str
    evaluations: int | None
    exact_inverse: bool
    source: str


@lru_cache(maxsize=1)
def catalogue() -> Mapping[str, Sampler | Adaptive]:
    """All of them, ready to run."""
    tables = (
        DDIM,
        SINGLESTEP,
        MULTISTEP,
        DPM_V3,
        FIXED_WEIGHTS,
        RUNGE_KUTTA,
        EDM_SAMPLERS,
        CONSISTENCY,
        REVERSIBLE,
        ADAPTIVE,
    )
    return MappingProxyType({row.name: row for table in tables for row in table})


def named(name: str) -> Sampler | Adaptive:
    """The sampler of this name. Raises ValueError, which guesses what others' names mean: "DPM++ 2M", "dpmpp_2m"."""
    known = catalogue()
    if name not in known:
        spelt = _in_our_spelling(name)
        raise ValueError(str(unknown("sampler", spelt, known)).replace(repr(spelt), repr(name), 1))
    return known[name]


def _in_our_spelling(name: object) -> str:
    """dpmpp_2m, DPM++ 2M and dpmsolver++ as dpm++-2m and dpm++."""
    text = str(name).lower().strip().replace("_", "-").replace(" ", "-")
    return text.replace("solver", "").replace("dpmpp", "dpm++")


def samplers() -> dict[str, SamplerInfo]:
    """Every name that `sample(sampler=)` knows, with the order it claims."""
    return {name: _info(row) for name, row in catalogue().items()}


def _info(row: Sampler | Adaptive) -> SamplerInfo:
    if isinstance(row, Adaptive):
        return SamplerInfo(row.name, row.order, None, row.kind, None, False, row.source)
    return SamplerInfo(
        row.name, row.order, row.weak, row.kind, row.evaluations(10), row.inverse is not None, row.source
    )


def sampler(name: str, **options: Any) -> Any:
    """A sampler with other options than its default, for `sample(sampler=)`: `sampler("bdia", gamma=0.95)`.

    Raises ValueError for names and options that do not exist.
    """
    row = named(name)
    for option in options:
        if option not in row.options:
            raise unknown(f"sampler {name}", option, row.options)
    return replace(row, options=row.options | options)
