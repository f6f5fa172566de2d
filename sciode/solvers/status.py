"""What became of a sample: a code that is also a sentence."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["RUNNING", "Status"]

RUNNING = -1
"""Internal mark of a sample whose solve has not ended; never seen in a `Solution`."""


class Status(IntEnum):
    """How the solve of one sample ended: 0 is success, everything else names a failure or a stop.

    `Status(code).message` is the sentence for people. A failure never raises inside the loop: it is a value per sample,
    and `solve(throw=True)` raises once, afterwards, naming the first failing sample.
    """

    SUCCESS = 0
    MAX_STEPS = 1
    DT_MIN = 2
    NONFINITE = 3

    @property
    def message(self) -> str:
        """The sentence that says what happened and what helps."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.SUCCESS: "the solve reached its last time",
    Status.MAX_STEPS: "max_steps was reached before the last time: raise max_steps, loosen rtol/atol, "
    "or use a method for stiff problems",
    Status.DT_MIN: "the step size fell below dtmin: the problem is stiff or singular here, or the tolerances are "
    "tighter than its dtype can resolve; loosen rtol/atol or use float64",
    Status.NONFINITE: "the state or the field became NaN or infinite: check the field at the sample's last valid state",
}
