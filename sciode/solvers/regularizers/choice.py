"""From what the caller wrote under `regularize=` to regularizers."""

from __future__ import annotations

from typing import NamedTuple

from ..steppers import Stepper
from ..suggest import unknown
from .base import Regularizer
from .divergence import Divergence
from .error import Error
from .integral import Jacobian, Kinetic
from .local import Local
from .stiffness import Stiffness
from .taylor import Taylor

__all__ = ["Chosen", "as_regularizers"]

_NAMED: dict[str, Regularizer | Local] = {
    "error": Error(),
    "stiffness": Stiffness(),
    "kinetic": Kinetic(),
    "jacobian": Jacobian(),
    "taylor": Taylor(),
    "local": Local(),
}


class Chosen(NamedTuple):
    """What is measured in every step, and what in one step more."""

    along: tuple[Regularizer, ...]
    local: tuple[Local, ...]

    @property
    def draws(self) -> bool:
        """Whether anything of it is random."""
        return bool(self.local) or any(r.draws for r in self.along)


def as_regularizers(regularize: object, stepper: Stepper, compares: bool = False) -> Chosen:
    """Names or objects, one or several, that this method can serve; compares: and the divergence from a prior."""
    items = regularize if isinstance(regularize, list | tuple) else (regularize,)
    items = (*items, Divergence()) if compares else items
    chosen: list[Regularizer | Local] = []
    for item in items:
        if isinstance(item, str):
            if item not in _NAMED:
                raise unknown("regularize", item, _NAMED)
            item = _NAMED[item]
        if not isinstance(item, Regularizer | Local):
            raise ValueError(f"regularize: expected a name or a Regularizer, got {type(item).__name__}")
        item.check(stepper)
        chosen.append(item)
    names = [item.name for item in chosen]
    if len(set(names)) < len(names):
        raise ValueError(
            f"regularize: two regularizers share a name ({', '.join(names)}); pass name= to tell them apart"
        )
    along = tuple(item for item in chosen if isinstance(item, Regularizer))
    return Chosen(along, tuple(item for item in chosen if isinstance(item, Local)))
