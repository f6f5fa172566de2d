"""The linear systems of Gauss-Newton steps: formed and factored, or solved from products with J and J^T alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vjp

from sciode.training.blocks import Block, jacobian_of, parts_of, rows_of

__all__ = ["WORTH", "Dense", "Free", "Sum", "System", "alone"]

_LAG, WORTH = 10, 0.1
"""Conjugate gradients end where so many steps took less than this share from what is left of the loss."""
_EXACT = 1e-20
"""They end as well where the residual of the system has fallen by the square root of this."""
_SPREAD = 10.0
"""Over about so many directions is spread what some rows miss of the rest. Measured: 1 to 30 did, 1 starts faster."""
_BLUR = 1e-12
"""Eigenvalues below this share of the largest are rounding, and no direction to precondition."""


class System(ABC):
    """The residuals around theta: r(theta + step) = rows + J step + ... Of several processes each has some of the rows;
    what is summed over them, J^T J and J^T rows, is the same on all."""

    @abstractmethod
    def pull(self, rows: Tensor, damping: float, slope: Tensor | None = None) -> Tensor | None:
        """Return -(J^T J + damping I)^-1 (J^T rows + slope), None where that cannot be had."""

    @abstractmethod
    def push(self, step: Tensor) -> Tensor:
        """Return J step."""

    @abstractmethod
    def sound(self, rows: Tensor) -> bool:
        """Whether J^T rows is finite: if it is not, no damping helps."""


Sum = Callable[[Tensor], Tensor]
"""A sum over processes, each of which has rows of its own."""


def alone(values: Tensor) -> Tensor:
    """Return a sum over one process."""
    return values


@final
class Dense(System):
    """By Cholesky's factors of J^T J + damping I or, where there are fewer rows than weights, of J J^T + damping I.

    (J^T J + d I)^-1 J^T = J^T (J J^T + d I)^-1. The latter needs all rows in one process.
    """

    def __init__(
        self, blocks: Sequence[Block], theta: Tensor, chunk: int | None, by_rows: bool, summed: Sum = alone
    ) -> None:
        self.jacobian = jacobian_of(blocks, theta, chunk)
        self.by_rows, self.summed = by_rows, summed
        self.gram = self.jacobian @ self.jacobian.T if by_rows else summed(self.jacobian.T @ self.jacobian)
        self.factored: tuple[float, Tensor | None] = (-1.0, None)

    def pull(self, rows: Tensor, damping: float, slope: Tensor | None = None) -> Tensor | None:
        """See `System.pull`."""
        if self.factored[0] != damping:
            self.factored = damping, _cholesky(self.gram, damping)
        factor = self.factored[1]
        if factor is None:
            return None
        if self.by_rows:
            found = -self.jacobian.T @ torch.cholesky_solve(rows.unsqueeze(1), factor)[:, 0]
            if slope is None:
                return found
            # (J^T J + d I)^-1 = (I - J^T (J J^T + d I)^-1 J) / d.
            seen = torch.cholesky_solve((self.jacobian @ slope).unsqueeze(1), factor)[:, 0]
            return found - (slope - self.jacobian.T @ seen) / damping
        right = self.summed(self.jacobian.T @ rows)
        return -torch.cholesky_solve((right if slope is None else right + slope).unsqueeze(1), factor)[:, 0]

    def push(self, step: Tensor) -> Tensor:
        """See `System.push`."""
        return self.jacobian @ step

    def sound(self, rows: Tensor) -> bool:
        """See `System.sound`."""
        return bool(self.summed(self.jacobian.T @ rows).isfinite().all())


@final
class Free(System):
    """By conjugate gradients on the normal equations, from products with J and J^T, some points at a time.

    They end after `sweeps` products, or where the last ten of them took less than the share `worth` from what is left
    of |rows + J step|^2 + damping |step|^2: a next step, on new points, is worth more then. A tenth is for a loss that
    may fall to 0; of one that cannot, an energy, most is left for good: there it is a share below that which counts.

    Preconditioned by `rank` rows of J, of points taken at random, which count for all: M = J_s^T J_s + mu I, a Nystrom
    preconditioner, of the kernel J J^T by some of its columns. mu is the damping or, if larger, what a tenth as many
    rows more tell of the directions that the first ones miss. Memory: rank x P, and what the derivatives of `chunk`
    points take. Source: Frangella, Tropp & Udell, SIAM J. Matrix Anal. Appl. 44 (2023); Martens (ICML 2010) for ending
    by progress.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        theta: Tensor,
        chunk: int | None,
        sweeps: int,
        rank: int,
        worth: float = WORTH,
        summed: Sum = alone,
    ) -> None:
        self.theta, self.sweeps, self.worth, self.summed = theta, sweeps, worth, summed
        self.parts = [partial(_part_rows, part) for part in parts_of(blocks, chunk)]
        # Where no chunk was asked for, what the derivatives need is kept: a sweep then costs a third less.
        self.kept = [_linear(part, theta) for part in self.parts] if chunk is None else None
        self.near = _Near.of(blocks, theta, chunk, rank) if rank else None

    def pull(self, rows: Tensor, damping: float, slope: Tensor | None = None) -> Tensor | None:
        """See `System.pull`; as near as is worth it."""
        residual = -self._back(rows) if slope is None else -self._back(rows) - slope
        found, direction = torch.zeros_like(residual), torch.zeros_like(residual)
        left = [float(self.summed(rows.square().sum()))]
        size = first = torch.ones((), dtype=rows.dtype)
        for sweep in range(self.sweeps):
            # A sum of what each process's rows say is symmetric and positive as well.
            eased = residual if self.near is None else self.summed(self.near.solved(residual, damping))
            size, before = residual @ eased, size
            first = size if sweep == 0 else first
            # With work in it, what is left may be below 0.
            slow = sweep > _LAG and left[-_LAG] - left[-1] < self.worth * abs(left[-1])
            if slow or not bool(size > _EXACT * first):
                break
            direction = eased + (size / before * direction if sweep else 0.0)
            turned = self._turned(direction) + damping * direction
            length = size / (direction @ turned)
            found, residual = found + length * direction, residual - length * turned
            left.append(left[-1] - float(length * size))
        return found if bool(torch.isfinite(found).all()) else None

    def push(self, step: Tensor) -> Tensor:
        """See `System.push`."""
        return torch.cat([jvp(part, (self.theta,), (step,))[1] for part in self.parts])

    def sound(self, rows: Tensor) -> bool:
        """See `System.sound`."""
        return bool(self._back(rows).isfinite().all())

    def _back(self, rows: Tensor) -> Tensor:
        """J^T rows."""
        total, place = torch.zeros_like(self.theta), 0
        for values, back in self._linear():
            total, place = total + back(rows[place : place + len(values)])[0], place + len(values)
        return self.summed(total)

    def _turned(self, direction: Tensor) -> Tensor:
        """J^T J direction."""
        total = torch.zeros_like(self.theta)
        for part, (_, back) in zip(self.parts, self._linear(), strict=True):
            total = total + back(jvp(part, (self.theta,), (direction,))[1])[0]
        return self.summed(total)

    def _linear(self) -> Iterator[_Linear]:
        """The rows of each part, and what multiplies with J^T of it."""
        for k, part in enumerate(self.parts):
            yield self.kept[k] if self.kept else _linear(part, self.theta)


@final
class _Near:
    """What some rows J_s of J say of J^T J: eigenvalues s, and V^T = diag(s)^-1/2 U^T J_s, which is not formed.

    others: further rows, by which to judge how much is missed: its trace over _SPREAD is the eigenvalue it is given.
    """

    def __init__(self, rows: Tensor, others: Tensor | None) -> None:
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        seen = values > _BLUR * values[-1]
        self.rows, self.values = rows, values[seen]
        self.turned = vectors[:, seen] / self.values.sqrt()
        self.missed = 0.0
        if others is not None:
            known = others @ rows.T @ self.turned
            self.missed = max(float(others.square().sum() - known.square().sum()), 0.0) / _SPREAD

    @classmethod
    def of(cls, blocks: Sequence[Block], theta: Tensor, chunk: int | None, rank: int) -> _Near:
        """Of about so many points, of each block its share, and a tenth as many to judge by."""
        share = min(rank / sum(block.count for block in blocks), 1.0)
        parts: tuple[list[Block], list[Block]] = [], []
        for number, block in enumerate(blocks):
            mixed = torch.from_numpy(np.random.default_rng(number).permutation(block.count)).to(theta.device)
            n = max(round(block.count * share), 1)
            for which, part in zip((mixed[:n], mixed[n : n + n // 10 + 1]), parts, strict=True):
                if len(which):
                    # Few that count for all: the block's own weight.
                    part.append(block.some(which)._replace(weight=block.weight))
        rows, others = (jacobian_of(part, theta, chunk) if part else None for part in parts)
        assert rows is not None
        return cls(rows, others)

    def solved(self, residual: Tensor, damping: float) -> Tensor:
        """M^-1 residual."""
        floor = max(self.missed, damping)
        seen = self.turned.T @ (self.rows @ residual)
        change = (1.0 / (self.values + floor) - 1.0 / floor) * seen
        return residual / floor + self.rows.T @ (self.turned @ change)


_Linear = tuple[Tensor, Callable[[Tensor], tuple[Tensor]]]
"""Rows, and what multiplies with their J^T."""


def _linear(rows: Callable[[Tensor], Tensor], theta: Tensor) -> _Linear:
    values, back = vjp(rows, theta)[:2]
    return values, back


def _part_rows(part: Block, theta: Tensor) -> Tensor:
    return rows_of([part], theta)


def _cholesky(gram: Tensor, damping: float) -> Tensor | None:
    damped = gram.clone()
    damped.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(damped)
    return factor if int(info) == 0 else None
