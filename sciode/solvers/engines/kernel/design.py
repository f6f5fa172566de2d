"""What a kernel is made for, and the draft on which its writers work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...controllers import PID
from ...steppers import Stepper
from .frame import Frame, Names
from .stages import Stages, stages_of
from .text import Text

__all__ = ["Design", "Draft"]


@dataclass(frozen=True)
class Design:
    """What a kernel is made for, beside the field's formula.

    uniform: whether all components have the same tolerances; noise: "" | "hashed" | "given"; native: for a GPU, not the
    interpreter; ignites: whether it starts from y0, without a carry; tape: outputs a row can note, 0 without one.
    """

    stepper: Stepper
    controller: PID | None
    real: torch.dtype
    size: int
    channels: int
    kind: str
    calculus: str
    sign: int
    uniform: bool
    resumable: bool
    noise: str
    native: bool
    ignites: bool
    tape: int = 0

    @property
    def dialect(self) -> str:
        """How operations are written."""
        return "native" if self.native else "interpreted"

    @property
    def control(self) -> int:
        """How many numbers the controller remembers."""
        pid = self.controller
        return 0 if pid is None or (pid.pcoeff == 0 and pid.dcoeff == 0) else 2 if pid.dcoeff else 1

    @property
    def columns(self) -> int:
        """Columns of the diffusion, a row each component."""
        return 1 if self.kind == "diagonal" else self.channels

    @property
    def widths(self) -> tuple[int, ...]:
        """Components of the stepper's memories."""
        family = stages_of(self.stepper)
        assert family is not None
        return family.widths(self.stepper, self.size, self.columns)

    @property
    def essential(self) -> int:
        """How many of the memories, the first ones, a row of the tape keeps."""
        return len(self.stepper.essential((torch.empty(0),) * len(self.widths)))


class Draft(NamedTuple):
    """A kernel being written: its text, what it is for, how it holds vectors, and how it steps."""

    text: Text
    design: Design
    frame: Frame
    stages: Stages

    @property
    def vectors(self) -> list[Names]:
        """Names of the state and of the memories."""
        memories = [self.frame.names(f"m{i}_", width) for i, width in enumerate(self.design.widths)]
        return [self.frame.names("y_", self.design.size), *memories]

    @property
    def widths(self) -> tuple[int, ...]:
        """Their components."""
        return self.design.size, *self.design.widths

    @property
    def kept(self) -> list[Names]:
        """Those that a row of the tape keeps."""
        return self.vectors[: 1 + self.design.essential]
