"""Of readings with gaps, the part that has none."""

from __future__ import annotations

from torch import Tensor

__all__ = ["largest_table"]


def largest_table(points: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of points [N, d] and values [F, N, c] the largest table without a gap, if sensors leave in the order of how many
    readings they lack: points [n, d] and values [f, n, c], both in their order; f is 0 where no sensor ever read all
    channels at once.

    A sensor that is silent all the time so costs itself and no frame, one that is silent for a moment costs that frame.
    """
    missing = ~values.isfinite().all(-1)
    order = missing.sum(0).argsort(stable=True)
    whole = missing[:, order].cumsum(1) == 0  # [F, N], of the first sensors of that order
    best = int((whole.sum(0) * (whole.new_ones(len(order)).cumsum(0))).argmax())
    sensors = order[: best + 1].sort().values
    return points[sensors.to(points.device)], values[whole[:, best]][:, sensors]
