"""What may be, given readings: fitted candidates weighed against one another, drawn from, and solved on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sciode.prose.metrics import solved
from sciode.prose.shooting import Shot, with_numbers

__all__ = ["Continued", "continued", "joined", "likelier"]


class Continued(NamedTuple):
    """solutions [K, Q, d] and status [K] of the candidates; weights [K]; samples [S, Q, d] and their mean and deviation
    [Q, d]; NaN where nothing was solved."""

    solutions: Tensor
    status: Tensor
    weights: Tensor
    samples: Tensor
    mean: Tensor
    deviation: Tensor


def likelier(first: Shot, second: Shot) -> Shot:
    """Of each system the fit with more evidence, at the noise that the best of both leaves."""
    both = joined(first, second)
    size = len(first.equations)
    evidence = both.evidence.view(2, size)
    places = (torch.arange(size) + size * evidence.argmax(0)).tolist()
    return Shot([both.equations[k] for k in places], *(one[places] for one in both[1:]))


def joined(first: Shot, second: Shot) -> Shot:
    """Candidates of both, so that their evidence is one against the other's."""
    d = first.starts.shape[1]
    width = max(one.numbers.shape[1] for one in (first, second)) - d
    parts = [_widened(one, width) for one in (first, second)]
    rest = (torch.cat(both) for both in zip(*(one[1:] for one in parts), strict=True))
    return Shot([*parts[0].equations, *parts[1].equations], *rest)


def continued(shot: Shot, asked: Tensor, draws: int, seed: int) -> Continued:
    """Solve candidates, and draws from what they may be, from their starts to the times that are asked [Q]."""
    count = len(shot.equations)
    clock, back = torch.cat((torch.zeros(1, dtype=torch.float64), asked)).unique(return_inverse=True)
    clock, back = (clock, back[1:]) if len(clock) > 1 else (torch.cat((clock, clock + 1e-6)), back[1:])
    path = solved(shot.equations, shot.starts, clock)
    solutions = path.values[:, back]
    evidence = torch.where(path.status == 0, shot.evidence, -torch.inf)
    top = evidence.amax()
    weights = (evidence - top).exp() if bool(top.isfinite()) else torch.zeros(count, dtype=torch.float64)
    weights = weights / weights.sum().clamp(min=1e-300)
    if not bool(weights.any()):
        nothing = torch.full_like(solutions[0], torch.nan)
        return Continued(solutions, path.status, weights, nothing.expand(draws, -1, -1), nothing, nothing)
    generator = torch.Generator().manual_seed(seed)
    # Systematic draws: candidates come as often as their weights say, to within one.
    owner = torch.searchsorted(weights.cumsum(0), (torch.arange(draws) + 0.5) / draws).clamp(max=count - 1)
    white = torch.randn(draws, shot.numbers.shape[1], generator=generator, dtype=torch.float64)
    numbers = shot.numbers[owner] + (shot.chances[owner] @ white[..., None])[..., 0]
    drawn = [with_numbers(shot.equations[k], row) for k, row in zip(owner.tolist(), numbers.tolist(), strict=True)]
    d = shot.starts.shape[1]
    samples = solved(drawn, numbers[:, -d:], clock).values[:, back]
    fine = samples[samples.isfinite().flatten(1).all(1)]
    best = (weights[:, None, None] * solutions.nan_to_num()).sum(0)
    if len(fine) < 2:
        return Continued(solutions, path.status, weights, samples, best, torch.full_like(best, torch.nan))
    return Continued(solutions, path.status, weights, samples, best, (fine - best).square().mean(0).sqrt())


def _widened(shot: Shot, width: int) -> Shot:
    """With room for more numbers of equations."""
    d = shot.starts.shape[1]
    own = shot.numbers.shape[1] - d
    more = width - own
    numbers = torch.cat((shot.numbers[:, :own], shot.numbers.new_zeros(len(shot.numbers), more), shot.starts), 1)
    places = torch.cat((torch.arange(own), torch.arange(d) + width))
    chances = shot.chances.new_zeros(len(numbers), width + d, width + d)
    chances[:, places[:, None], places] = shot.chances
    return shot._replace(numbers=numbers, chances=chances)
