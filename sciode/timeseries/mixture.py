"""Equal-weight mixtures of Gaussians: what draws over noise and members predict together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_HALVINGS = 60  # from any bracket to double precision


class Mixture(NamedTuple):
    """Means and standard deviations [S, n, Q, C] of the components, NaN where nothing was asked for."""

    mean: NDArray[np.float64]
    sigma: NDArray[np.float64]

    def centre(self) -> NDArray[np.float64]:
        """Return the mixture's mean [n, Q, C]."""
        return self.mean.mean(0)

    def quantile(self, level: float) -> NDArray[np.float64]:
        """Return the value [n, Q, C] below which the mixture has the probability `level`, by bisection."""
        # Every component's own quantile brackets the mixture's.
        own = self.mean + self.sigma * float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64)))
        low, high = own.min(0), own.max(0)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below = torch.from_numpy((middle - self.mean) / self.sigma)
            under = torch.special.ndtr(below).mean(0).numpy() < level
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return 0.5 * (low + high)

    def sample(self, seeds: list[int]) -> NDArray[np.float64]:
        """Return one value of each component, [S, n, Q, C]; component k draws from seeds[k], independent in Q and C."""
        noise = [np.random.default_rng(seed).standard_normal(self.mean.shape[1:]) for seed in seeds]
        return self.mean + self.sigma * np.stack(noise)
