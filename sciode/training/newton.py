"""Newton's method with conjugate gradients, for many functions at once: NNCG, each arm with its own preconditioner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciode.training.isolation import derive_seed
from sciode.training.side_by_side import CONVERGED, GOING, STUCK, Memory, Minimiser, Objective, stopped

__all__ = ["NewtonCG"]

_ARMIJO = 0.1


@final
@dataclass(frozen=True)
class NewtonCG(Minimiser):
    """theta <- theta - t (H + damping I)^-1 g, by conjugate gradients preconditioned with a Nystrom sketch of H.

    The last stage after Adam and L-BFGS: where the loss is badly conditioned it goes on where they stall, at the cost
    of `rank` + `sweeps` Hessian products an iteration at most.

    rank: of the sketch, made anew every `renew` iterations. sweeps: conjugate gradient steps at most; an arm ends them
    where its residual is below `tolerance` |g| or its curvature is not positive. searches: halvings of t at most.
    Raises ValueError for bad numbers.
    Source: Rathore, Lei, Frangella, Lu, Udell: Challenges in training PINNs: a loss landscape perspective (ICML 2024).
    """

    iterations: int = 100
    damping: float = 1e-3
    rank: int = 40
    renew: int = 20
    sweeps: int = 100
    tolerance: float = 1e-6
    searches: int = 20
    still: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.iterations, self.rank, self.renew, self.sweeps, self.searches) < 1 or self.seed < 0:
            raise ValueError(f"iterations, rank, renew, sweeps and searches must be >= 1, got {self}")
        if not (0 < self.damping < math.inf and 0 < self.tolerance < 1):
            raise ValueError(f"damping must be positive and tolerance in (0, 1), got {self}")

    def begin(self, theta: Tensor) -> Memory:
        """See `Minimiser.begin`."""
        rank = min(self.rank, theta.shape[1])
        basis = theta.new_zeros(len(theta), theta.shape[1], rank)
        return {**super().begin(theta), "basis": basis, "values": theta.new_zeros(len(theta), rank)}

    def step(self, memory: Mapping[str, Tensor], objective: Objective, k: int) -> Memory:
        """See `Minimiser.step`."""
        loss, gradient = objective(memory["theta"])
        now = stopped(dict(memory), loss, gradient)
        gradient = torch.where((now["state"] == GOING)[:, None], gradient, 0.0)
        none = (now["state"] == GOING) & (gradient.abs().amax(1) == 0)
        now["state"] = torch.where(none, CONVERGED, now["state"])
        going = now["state"] == GOING
        if not bool(going.any()):
            return now
        product = objective.curvature(now["theta"])
        if k % self.renew == 0:
            now["basis"], now["values"] = self._sketch(product, now["theta"], k)
        direction = -self._solved(product, gradient, now)
        slope = (direction * gradient).sum(1)
        direction = torch.where((slope < 0)[:, None], direction, -gradient)
        slope = (direction * gradient).sum(1)
        length, looking = torch.ones_like(slope), going.clone()
        theta = now["theta"]
        for _ in range(self.searches):
            at = now["theta"] + torch.where(looking, length, 0.0)[:, None] * direction
            value, _ = objective(at)
            lower = looking & value.isfinite() & (value <= loss + _ARMIJO * length * slope)
            theta = torch.where(lower[:, None], at, theta)
            looking = looking & ~lower
            if not bool(looking.any()):
                break
            length = torch.where(looking, length / 2, length)
        return {**now, "theta": theta, "state": torch.where(looking, STUCK, now["state"])}

    def _sketch(self, product: Callable[[Tensor], Tensor], theta: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Orthonormal columns U [arms, P, rank] and values [arms, rank], H ~ U diag(values) U^T, negative ones cut."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, 1, k))
        size, rank = theta.shape[1], min(self.rank, theta.shape[1])
        drawn = torch.randn(size, rank, generator=generator, dtype=torch.float64)
        test = torch.linalg.qr(drawn)[0].to(theta)
        # The same test vectors for all arms: alone or beside others, an arm sees the same.
        image = torch.stack([product(column.expand_as(theta)) for column in test.unbind(1)], -1)
        # Decompositions of a batch raise for all if one is not finite: such an arm gets an empty sketch.
        image = torch.where(image.isfinite().flatten(1).all(1)[:, None, None], image, 0.0)
        core = test.T @ image
        values, vectors = torch.linalg.eigh((core + core.mT) / 2)
        least = torch.finfo(theta.dtype).eps * values.abs().amax(1, keepdim=True) * size
        inverse = torch.where(values > least, values.clamp(min=1e-300).rsqrt(), 0.0)
        basis, roots, _ = torch.linalg.svd(image @ (vectors * inverse[:, None]), full_matrices=False)
        return basis, roots.square()

    def _solved(self, product: Callable[[Tensor], Tensor], right: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """(H + damping I)^-1 right, as near as the sweeps come."""
        basis, values = memory["basis"], memory["values"]
        weights = (values.amin(1, keepdim=True) + self.damping) / (values + self.damping)

        def eased(vector: Tensor) -> Tensor:
            inner = (basis.mT @ vector.unsqueeze(-1))[..., 0]
            return vector + (basis @ ((weights - 1) * inner).unsqueeze(-1))[..., 0]

        residual, found = right, torch.zeros_like(right)
        easy = eased(residual)
        along, size = easy, (residual * easy).sum(1)
        enough = self.tolerance * right.norm(dim=1)
        on = right.norm(dim=1) > 0
        for sweep in range(self.sweeps):
            turned = product(along) + self.damping * along
            bend = (along * turned).sum(1)
            if sweep == 0:
                # Curvature that is not positive at once: the eased gradient is the direction.
                found = torch.where((on & ~(bend > 0))[:, None], easy, found)
            on = on & (bend > 0)
            length = torch.where(on, size / torch.where(on, bend, 1.0), 0.0)
            found = found + length[:, None] * along
            residual = residual - length[:, None] * turned
            on = on & (residual.norm(dim=1) > enough)
            if not bool(on.any()):
                break
            easy = eased(residual)
            new = (residual * easy).sum(1)
            along = torch.where(on[:, None], easy + (new / torch.where(on, size, 1.0))[:, None] * along, along)
            size = torch.where(on, new, size)
        return found
