"""Continuous paths through irregular, partly missing observations: the controls of neural CDEs and SDEs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Leading = Literal["first", "zero"]


class HermitePath:
    r"""Cubic Hermite path with backward differences through the observed values of every channel.

    Between two consecutive observations (p, x_p), (q, x_q) of one channel, with r = (t - p) / (q - p),

        X(t) = x_p + (t - p) (s + (b - s)(1 - r)²),   s = (x_q - x_p) / (q - p),   b = the secant before p,

    so the slope is b at p and s at q: X is continuously differentiable, exact on straight lines, and on [p, q]
    depends on nothing after q ("causal up to one interval"). Each channel uses its own observations: rows that are NaN
    in a channel, such as other channels' or other series' times, do not change that channel's path.

    Outside a channel's observations:

    - before the first one: constant at that value (`leading="first"`), or the same cubic rule from a knot of value 0 at
      the start time (`leading="zero"`, which does not read the future; 0 is the mean of standardised data);
    - after the last one: held constant (the derivative jumps to 0 there);
    - a channel without any observation is 0 throughout.

    Parameters
    ----------
    values: [B, L, C] floating point, NaN = missing. The path is differentiable in the observed values.
    times: [L] or [B, L], strictly increasing; shorter series end in NaN times. Any unit.
    leading: "first" or "zero", see above.

    Raises
    ------
    ValueError: shapes that do not fit, infinite values, times that do not increase or have NaN before their end.

    Source: Morrill, Kidger, Yang, Lyons, "Neural controlled differential equations for online prediction tasks"
    (arXiv 2106.11028), section 3. Differences from torchcde: there, missing values are first filled linearly and the
    cubic runs between grid times (so adding empty rows changes the path), and a last value is repeated at the end time.
    """

    def __init__(self, values: Tensor, times: Tensor, *, leading: Leading = "first") -> None:
        _check(values, times, leading)
        times = times.to(values.device).expand(values.shape[:2])
        self.times = times.nan_to_num(nan=torch.inf).contiguous()  # searchsorted needs ordered rows: padding comes last
        self.start = self.times[:, :1]
        self._segments = _segments(values, times, leading)

    def evaluate(self, t: Tensor | float) -> Tensor:
        """Return X(t): [B, C] for a number, a 0-d tensor or per-sample times [B, 1]; [B, T, C] for shared times [T]."""
        elapsed, left, secant, kink, gap = self._at(t)
        return left + elapsed * (secant + kink * (1 - elapsed / gap) ** 2)

    def derivative(self, t: Tensor | float) -> Tensor:
        """Return dX/dt at t, left-sided where it jumps; the shapes are those of `evaluate`."""
        elapsed, _, secant, kink, gap = self._at(t)
        ratio = elapsed / gap
        return secant + kink * (1 - ratio) * (1 - 3 * ratio)

    def _at(self, t: Tensor | float) -> tuple[Tensor, ...]:
        """Return the time since the left knot and the coefficients of the segments that hold t."""
        t = torch.as_tensor(t, dtype=self.times.dtype, device=self.times.device)
        if t.ndim > 2 or (t.ndim == 2 and t.shape != self.start.shape):
            raise ValueError(f"t has shape {tuple(t.shape)}: pass a number, [T], or [B, 1] = {tuple(self.start.shape)}")
        query = t if t.ndim == 2 else t.reshape(1, -1)
        query = torch.maximum(query, self.start)  # [B, T]
        row = torch.searchsorted(self.times, query.contiguous()).sub(1).clamp(min=0)
        sample = torch.arange(row.shape[0], device=row.device).unsqueeze(-1)
        left, secant, kink, knot, gap = (part[sample, row] for part in self._segments)
        found = ((query.unsqueeze(-1) - knot).to(left.dtype), left, secant, kink, gap)
        return found if t.ndim == 1 else tuple(part.squeeze(1) for part in found)


def _segments(values: Tensor, times: Tensor, leading: Leading) -> tuple[Tensor, ...]:
    """Return (left value, secant, b - s, left time, gap), each [B, L, C]; row i serves the times (t_i, t_{i+1}]."""
    batch, length, channels = values.shape
    position = torch.arange(length, device=values.device).view(1, length, 1).expand(batch, length, channels)
    observed = ~values.isnan()
    first = torch.where(observed, position, length).amin(1, keepdim=True)
    filled = torch.where(observed, values, 0.0)
    start = filled.gather(1, first.clamp(max=length - 1)) if leading == "first" else torch.zeros_like(filled[:, :1])
    at_start = position == 0
    # The start is a knot of every channel, so each row has a left knot and no case is left to treat apart.
    filled = torch.where(at_start & ~observed, start, filled)
    observed = observed | at_start

    left = torch.where(observed, position, 0).cummax(1).values
    upcoming = torch.where(observed, position, length).flip(1).cummin(1).values.flip(1)
    right = torch.cat([upcoming[:, 1:], torch.full_like(upcoming[:, :1], length)], 1)
    inside = right < length
    right = torch.where(inside, right, left)

    clock = times.unsqueeze(-1).expand(batch, length, channels)
    knot = clock.gather(1, left)
    gap = torch.where(inside, clock.gather(1, right) - knot, 1.0).to(values.dtype)
    left_value = filled.gather(1, left)
    secant = (filled.gather(1, right) - left_value) / gap
    before = secant.gather(1, (left - 1).clamp(min=0))
    before = torch.where(left > 0, before, secant)
    kink = torch.where(inside, before - secant, 0.0)
    return left_value, secant, kink, knot, gap


def _check(values: Tensor, times: Tensor, leading: str) -> None:
    if values.ndim != 3 or not values.is_floating_point():
        raise ValueError(f"values must be a floating tensor [B, L, C], got {values.dtype} {tuple(values.shape)}")
    if times.shape not in (values.shape[1:2], values.shape[:2]) or not times.is_floating_point():
        raise ValueError(
            f"times must be a floating tensor [L] or [B, L] = {tuple(values.shape[:2])}, "
            f"got {times.dtype} {tuple(times.shape)}"
        )
    if leading not in ("first", "zero"):
        raise ValueError(f'leading must be "first" or "zero", got {leading!r}')
    if values.isinf().any():
        raise ValueError("values hold infinities: mark missing values as NaN")
    step = times.diff(dim=-1)
    if times[..., 0].isnan().any() or not (step.isnan() | (step > 0)).all():
        raise ValueError("times must start with a number and strictly increase; shorter series end in NaN")
    if (times[..., :-1].isnan() & ~times[..., 1:].isnan()).any():
        raise ValueError("times have NaN before their end: only trailing NaN (padding) is allowed")
    padded = times.isnan().expand(values.shape[:2]).unsqueeze(-1)
    if (padded & ~values.isnan()).any():
        raise ValueError("an observed value has a NaN time: set padded values to NaN too")
