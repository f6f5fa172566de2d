"""Trees of derivatives as right-hand sides on a circle, by Fourier modes, and their solutions through `sciode.solve`.

What is linear about a field's mean is solved exactly, the modes of all fields together, so that u_xxxx, dispersion and
waves ask for no small steps; the rest goes by Runge-Kutta steps of order 4 (`sciode.pde.exponential`). Modes from a
third of the points on are dropped, so that products of two fields alias into none that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from sciode.pde.exponential import Lawson
from sciode.prose.fields import ORDERS
from sciode.prose.programs import Programs
from sciode.prose.trees import Expression
from sciode.solvers import solve

__all__ = ["Circle", "Moved", "refined_grid", "variables_in"]


class Moved(NamedTuple):
    """values [T, B, N, fields, points], NaN where the solve failed; status [B]: of the solver, 0 where it did not."""

    values: Tensor
    status: Tensor


@final
class Circle:
    """B systems of as many fields each, u_t = f(u, u_x, ..., u_xxxx, v, ...), on a circle of length `length`.

    Variables are those of `sciode.prose.fields`: u_0 to u_4 the first field and its derivatives, u_5 to u_9 the
    second's. points: of the grid on which products are formed. `constants`, `owners` [K] are those of `Programs`.
    Raises ValueError for systems of different numbers of fields, variables of fields that there are not, a length that
    is not positive, or fewer than 8 points.
    """

    def __init__(self, systems: Sequence[Sequence[Expression]], length: float, points: int) -> None:
        if len({len(one) for one in systems}) != 1 or not 0 < length < math.inf or points < 8:
            raise ValueError(
                f"expected systems of one number of fields, a length > 0 and 8 points or more, got "
                f"{[len(one) for one in systems]} fields, {length} and {points}"
            )
        self.fields, self.points = len(systems[0]), points
        read = sorted({one for own in systems for tree in own for one in variables_in(tree)} | {0})
        if read[-1] >= ORDERS * self.fields:
            raise ValueError(
                f"the equations read u_{read[-1]}, {self.fields} fields have u_0 to u_{ORDERS * self.fields - 1}"
            )
        self.count, names = len(systems), {f"u_{one}": f"u_{place}" for place, one in enumerate(read)}
        compact = [tuple(_renamed(tree, names) for tree in own) for own in systems]
        self.programs = Programs(compact, max(len(read), self.fields))
        self.constants, self.owners = self.programs.constants, self.programs.owners
        self.whose, self.orders = torch.tensor(read) // ORDERS, torch.tensor(read) % ORDERS
        modes = torch.arange(points // 2 + 1, dtype=torch.float64)
        self.kept = (modes < points / 3).double()
        k = torch.complex(torch.zeros_like(modes), 2 * math.pi / length * modes)
        self.powers = torch.stack([k**order for order in self.orders.tolist()])

    def moved(self, constants: Tensor, starts: Tensor, times: Tensor, steps: int) -> Moved:
        """Solve from starts [B, N, fields, points] at even times [T], in `steps` steps a gap.

        constants: [K], or [K, N] where each of the N starts of a system has its own.
        """
        numbers = self._numbers(constants, starts)
        hat = torch.fft.rfft(starts, dim=-1) * self.kept
        dt = float(times[1] - times[0]) / steps
        linear = self._linear(numbers, starts.mean(-1))
        half, shape = _exponential(0.5 * dt * linear), hat.shape
        own = numbers[..., None].expand(-1, -1, self.points).flatten(1)

        def rest(t: Tensor, state: Tensor) -> Tensor:
            return self._rate(state, own) - _applied(linear, state)

        stepper = Lawson(lambda y: _applied(half, y.reshape(shape)).reshape(y.shape))
        with torch.no_grad():
            found = solve(rest, hat, times, method=stepper, dt=dt, batch_dims=1, throw=False, engine="eager")
        values = torch.fft.irfft(found.ys, n=self.points, dim=-1)
        return Moved(torch.where((found.status == 0)[:, None, None, None], values, torch.nan), found.status)

    def slopes(self, constants: Tensor, values: Tensor) -> Tensor:
        """Return the right-hand sides of values [B, N, fields, points], of that shape; constants: as for `moved`."""
        own = self._numbers(constants, values)[..., None].expand(-1, -1, self.points).flatten(1)
        return torch.fft.irfft(self._rate(torch.fft.rfft(values, dim=-1) * self.kept, own), n=self.points, dim=-1)

    def _numbers(self, constants: Tensor, values: Tensor) -> Tensor:
        return constants[:, None].expand(-1, values.shape[1]) if constants.ndim == 1 else constants

    def _rate(self, hat: Tensor, own: Tensor) -> Tensor:
        """Modes of the right-hand sides, [B, N, fields, modes] as hat; own: numbers of each point, [K, N points]."""
        jets = torch.fft.irfft(hat[..., self.whose, :] * self.powers, n=self.points, dim=-1)
        found = self.programs(self._wide(jets.transpose(-1, -2)).flatten(1, 2), own)[..., : self.fields]
        back = found.unflatten(1, (hat.shape[1], self.points)).transpose(-1, -2)
        return torch.fft.rfft(back, dim=-1) * self.kept

    def _wide(self, jets: Tensor) -> Tensor:
        return torch.nn.functional.pad(jets, (0, self.programs.dimension - jets.shape[-1]))

    def _linear(self, numbers: Tensor, means: Tensor) -> Tensor:
        """What the right-hand sides are to first order about constant fields, [B, N, fields, fields, modes]."""
        at = self._wide(torch.where(self.orders == 0, means[..., self.whose], 0.0)).requires_grad_()
        found = means.new_zeros(*means.shape, self.fields, len(self.kept)).to(self.powers.dtype)
        with torch.enable_grad():
            value = self.programs(at, numbers)
            for field in range(self.fields):
                total = value[..., field].sum()
                slopes = torch.autograd.grad(total, at, retain_graph=True)[0] if total.requires_grad else 0 * at
                for place, whose in enumerate(self.whose.tolist()):
                    slope = slopes[..., place, None].detach().nan_to_num(0.0, 0.0, 0.0)
                    found[..., field, whose, :] += slope * self.powers[place]
        return found * self.kept


def refined_grid(values: Tensor, points: int) -> Tensor:
    """Return fields [..., n] on `points` points, a multiple of n, by their Fourier modes."""
    few = values.shape[-1]
    hat = torch.fft.rfft(values, dim=-1)
    if few % 2 == 0 and points > few:
        hat = torch.cat((hat[..., :-1], 0.5 * hat[..., -1:]), -1)
    return torch.fft.irfft(hat, n=points, dim=-1) * (points / few)


def _applied(matrix: Tensor, hat: Tensor) -> Tensor:
    """A matrix a mode, [..., fields, fields, modes], on [..., fields, modes]."""
    return (matrix * hat[..., None, :, :]).sum(-2)


def _exponential(matrix: Tensor) -> Tensor:
    if matrix.shape[-2] == 1:
        return matrix.exp()
    return torch.linalg.matrix_exp(matrix.movedim(-1, -3).contiguous()).movedim(-3, -1)


def variables_in(tree: Expression) -> list[int]:
    """Numbers of the variables u_0, u_1, ... that a tree reads, as often as it does."""
    return [int(one[2:]) for one in tree.symbols if isinstance(one, str) and one.startswith("u_")]


def _renamed(tree: Expression, names: dict[str, str]) -> Expression:
    return Expression(tuple(names.get(one, one) if isinstance(one, str) else one for one in tree.symbols))
