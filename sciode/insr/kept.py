"""The steps of an evolution so far, on the disk if there is a folder: an interrupted one goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from sciode.insr.body import Body
from sciode.insr.trajectory import Step, Trajectory
from sciode.pde import Evolution
from sciode.training import load_checkpoint, save_checkpoint

__all__ = ["Kept"]

_FILE = "evolution.safetensors"


@final
@dataclass
class Kept:
    """Weights at the end of each step that was taken, and how each step went; going: whether there may be more."""

    identity: Mapping[str, Any]
    folder: Path | None = None
    thetas: list[Tensor] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def opened(
        cls, folder: str | Path | None, identity: Mapping[str, Any], times: Sequence[float], like: Tensor
    ) -> Kept:
        """What the folder holds. ValueError if that is another evolution's, or one over other times."""
        if folder is None:
            return cls(identity)
        path = Path(folder) / _FILE
        if not path.is_file():
            return cls(identity, Path(folder))
        tensors, record = load_checkpoint(path)
        differs = [name for name, value in identity.items() if record["identity"].get(name) != value]
        reached = [step[0] for step in record["steps"]][: len(times)]
        if not all(abs(a - b) <= 1e-12 * max(1.0, abs(b)) for a, b in zip(reached, times, strict=False)):
            differs.append("times")
        if differs:
            raise ValueError(
                f"folder: {path} holds an evolution that differs in {', '.join(differs)}: give another folder"
            )
        steps = [Step(*step) for step in record["steps"]]
        thetas = list(tensors["thetas"].to(like).unbind()) if "thetas" in tensors else []
        kept = cls(identity, Path(folder), thetas, steps, list(record["seconds"]))
        kept._drop_failed()
        return kept

    @property
    def going(self) -> bool:
        """Whether the last step was taken."""
        return len(self.thetas) == len(self.steps)

    def add(self, theta: Tensor | None, step: Step, seconds: float) -> None:
        """Keep a step; None: it was not taken."""
        if theta is not None:
            self.thetas.append(theta)
        self.steps.append(step)
        self.seconds.append(seconds)
        if self.folder is not None:
            tensors = {"thetas": torch.stack(self.thetas)} if self.thetas else {}
            record = {
                "identity": dict(self.identity),
                "steps": [[*step[:-1], dict(step.penalties)] for step in self.steps],
                "seconds": self.seconds,
            }
            save_checkpoint(self.folder / _FILE, tensors, record)

    def trajectory(
        self, problem: Evolution | Body, network: nn.Module, told: int, times: Sequence[float]
    ) -> Trajectory:
        """What there is, as a trajectory over the times it reached."""
        # A folder may hold an evolution that went further.
        thetas, steps = self.thetas[: len(times)], tuple(self.steps[: len(times)])
        done, seconds = len(thetas), tuple(self.seconds[: len(times)])
        whole = done == len(times)
        return Trajectory(problem, network, told, tuple(times[:done]), torch.stack(thetas), steps, seconds, whole)

    def _drop_failed(self) -> None:
        """A step that failed is tried again."""
        del self.steps[len(self.thetas) :], self.seconds[len(self.thetas) :]
