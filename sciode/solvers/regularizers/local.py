"""One step more, from a random time of the trajectory, whose penalty stands for that of all steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

from ..steppers import ExplicitRK
from ..suggest import choose, unknown
from .base import Regularizer
from .error import Error
from .stiffness import Stiffness

if TYPE_CHECKING:
    from ..steppers import Stepper

__all__ = ["Local"]

_KINDS: dict[str, Regularizer] = {"error": Error(), "stiffness": Stiffness()}


@final
@dataclass(frozen=True)
class Local:
    """The error E |h| or the stiffness of one step from u(t1), t1 random: no adjoint has to know the solver's steps.

    of: "error", "stiffness", or any regularizer that measures a step.
    at: "uniform" (unbiased: t1 ~ U(t0, tN), one for the batch, or one a sample where ts are its own) or "accepted"
        (biased: uniform over a sample's own accepted steps, so that it favours hard stretches; all of them are kept).
    state: "detached", u(t1) is a constant; "frozen", the slope there is one, too, as in the authors' code; "attached",
        the gradient also runs through the trajectory to t1 (at="uniform" only). A frozen slope keeps a constant added
        to the field from cancelling out of the error, as it should: its gradient points elsewhere, and is large.
    step: "heuristic", the step that a solve from t1 would begin with, as in the authors' code, or "solver", the step
        that this solve took there. Adaptive steps of an SDE see the path of the solve; where its steps are fixed, the
        noise of this one is a draw of its own.
    What it draws hangs on the seed of the solve; several share one draw. The step ends at the last time at most. Its
    evaluations are not in `Solution.stats`. A sample that failed counts as 0.
    Good values: error with weights 2.5 falling to 1, stiffness 0.1; leave it out of test runs.

    Source: Pal, Edelman, Rackauckas: Locally Regularized Neural Differential Equations (ICML 2023).
    """

    of: str | Regularizer = "error"
    at: Literal["uniform", "accepted"] = "uniform"
    state: Literal["detached", "frozen", "attached"] = "detached"
    step: Literal["heuristic", "solver"] = "heuristic"
    name: str = "local"

    def __post_init__(self) -> None:
        choose("at", self.at, ("uniform", "accepted"))
        choose("state", self.state, ("detached", "frozen", "attached"))
        choose("step", self.step, ("heuristic", "solver"))
        if not isinstance(self.of, Regularizer) and self.of not in _KINDS:
            raise unknown("of", self.of, _KINDS)
        if self.at == "accepted" and self.state == "attached":
            raise ValueError(
                "Local: the solver's own steps are kept as numbers, so at='accepted' goes with state='detached'; "
                "use at='uniform' for state='attached'"
            )

    @property
    def kind(self) -> Regularizer:
        """What is measured."""
        return self.of if isinstance(self.of, Regularizer) else _KINDS[self.of]

    @property
    def looks_back(self) -> bool:
        """Whether it needs a record of the solver's steps."""
        return self.at == "accepted" or self.step == "solver"

    def check(self, stepper: Stepper) -> None:
        """The method must provide the quantity."""
        self.kind.check(stepper)
        if self.state == "frozen" and not (isinstance(stepper, ExplicitRK) and stepper.table.fsal):
            raise ValueError(
                f"Local: {stepper.name!r} hands no slope on that could be frozen; use state='detached', or a method "
                "such as tsit5"
            )
