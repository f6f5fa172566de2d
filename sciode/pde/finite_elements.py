"""Finite elements for elastic solids, of degree 1 or 2: the classical opponent of a neural field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from sciode.pde.elastic import Setup, Solid, force_at, incremental_potential, potential
from sciode.pde.meshes import Mesh

__all__ = ["Elements", "Equilibrium", "Motion", "elements", "equilibrium", "simulate", "stored_energy", "stretched"]

Density = Callable[[Tensor, Tensor], Tensor]
"""(place [..., d], gradient [..., d, d]) at all quadrature points -> energies per unit of reference volume [...]."""

ARMIJO = 1e-4
HALVINGS = 40


@final
@dataclass(frozen=True)
class Elements:
    """A space of continuous piecewise polynomials on a mesh, and its quadrature; made by `elements`.

    nodes: [N, d], where the unknowns live; cells: [M, K] node numbers of each cell; basis: [M, Q, K, 1 + d], the value
    and the gradient of each basis function of a cell at its quadrature points; weights: [M, Q], which add up to the
    volume. All float64. boundary: bool [N], the nodes on the boundary.
    """

    nodes: Tensor
    cells: Tensor
    basis: Tensor
    weights: Tensor
    boundary: Tensor

    def at_points(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return phi [M, Q, d] and F = d phi/dx [M, Q, d, d] at the quadrature points, for phi [N, d] at the nodes."""
        jets = self._jets(positions)
        return jets[..., 0], jets[..., 1:]

    def integral(self, values: Tensor) -> Tensor:
        """Return the integral over the mesh of values [M, Q, ...] at the quadrature points, [...]."""
        return torch.tensordot(self.weights, values, 2)

    def _jets(self, positions: Tensor) -> Tensor:
        return torch.einsum("mqaj,mai->mqij", self.basis, positions[self.cells])


def elements(mesh: Mesh, degree: int = 1) -> Elements:
    """Return the space of degree 1 (a node a point) or 2 (points and middles of edges) on a mesh.

    Quadrature is exact for degree 2 `degree`: the inertia exactly, (det F - 1)^2 exactly in the plane. Degree 2 for
    nearly incompressible solids, which degree 1 holds far too stiff.
    Needs scikit-fem (BSD-3): pip install "sciode[pde]". Raises ValueError for another degree.
    """
    if degree not in (1, 2):
        raise ValueError(f"degree must be 1 or 2, got {degree}")
    try:
        import skfem
    except ImportError as missing:
        raise ImportError('finite elements need scikit-fem: pip install "sciode[pde]"') from missing
    kinds: dict[tuple[int, int], tuple[Any, Any]] = {
        (2, 1): (skfem.MeshTri, skfem.ElementTriP1),
        (2, 2): (skfem.MeshTri, skfem.ElementTriP2),
        (3, 1): (skfem.MeshTet, skfem.ElementTetP1),
        (3, 2): (skfem.MeshTet, skfem.ElementTetP2),
    }
    grid, element = kinds[mesh.dimension, degree]
    made = grid(np.ascontiguousarray(mesh.points.numpy().T), np.ascontiguousarray(mesh.cells.numpy().T))
    space = skfem.CellBasis(made, element(), intorder=2 * degree)
    weights = torch.from_numpy(np.array(space.dx))
    boundary = torch.zeros(space.N, dtype=torch.bool)
    boundary[torch.from_numpy(np.asarray(space.get_dofs().flatten(), dtype=np.int64))] = True
    jets = [_jet(field[0], weights.shape) for field in space.basis]
    return Elements(
        nodes=torch.from_numpy(np.array(space.doflocs.T)),
        cells=torch.from_numpy(np.array(space.element_dofs.T, dtype=np.int64)),
        basis=torch.stack(jets, 2).contiguous(),
        weights=weights,
        boundary=boundary,
    )


def _jet(field: Any, shape: torch.Size) -> Tensor:
    """The value and the gradient of one basis function of every cell, [M, Q, 1 + d]."""
    value = np.broadcast_to(np.asarray(field), tuple(shape))
    slope = np.broadcast_to(field.grad, (field.grad.shape[0], *shape))
    return torch.from_numpy(np.stack([value, *slope], -1))


class Equilibrium(NamedTuple):
    """positions [N, d] of the nodes, the energy there, and how the search ended.

    status: "converged", "max iterations", or "no descent" (a step along which the energy doesn't fall). decrement: the
    fall that one more Newton step promises. unknowns: numbers that were free.
    """

    positions: Tensor
    energy: float
    status: str
    iterations: int
    decrement: float
    unknowns: int


def stored_energy(space: Elements, positions: Tensor, material: Solid) -> float:
    """Return the integral of W(F) over the solid."""
    return float(space.integral(potential(space.at_points(positions)[1], material)))


def equilibrium(
    space: Elements,
    density: Density,
    start: Tensor,
    held: Tensor | None = None,
    *,
    tolerance: float = 1e-12,
    max_iterations: int = 200,
) -> Equilibrium:
    """Return a minimum of the integral of a density over deformations of the nodes, by Newton's method.

    start: [N, d]; held: bool [N] or [N, d], what stays as it is in `start`. Each step solves with the exact Hessian
    where it is positive definite (its sparse factors tell), and else with the positive part of the density's Hessian
    at each quadrature point, then halves the step until the energy falls (Armijo). The search ends when the promised
    fall is below `tolerance` of the integral of |density|; 1e-14 is as low as rounding lets it be. What is free to
    move rigidly (no held node, no inertia) has no single minimum: hold something. From a rough start it may end in
    another, entangled minimum: nearly incompressible solids have many.
    Raises ValueError for shapes that do not fit or an infinite energy at the start.
    Sources: Nocedal, Wright: Numerical optimization (2006); Teran, Sifakis, Irving, Fedkiw: Robust quasistatic finite
    elements (2005) for the positive part.
    """
    free = _free(space, start, held)
    positions = start.detach().clone()
    energy = float(space.integral(density(*space.at_points(positions))))
    if not np.isfinite(energy):
        raise ValueError(f"start: its energy is {energy}; start nearer to rest")
    decrement = np.inf
    for iteration in range(max_iterations):
        step, decrement, scale = _newton_step(space, density, positions, free)
        if decrement <= tolerance * scale:
            # The step is known, and squares what error is left.
            reached = float(space.integral(density(*space.at_points(positions + step))))
            if reached <= energy + tolerance * scale:
                positions, energy = positions + step, reached
            return Equilibrium(positions, energy, "converged", iteration, decrement, len(free))
        for halving in range(HALVINGS):
            trial = positions + 0.5**halving * step
            reached = float(space.integral(density(*space.at_points(trial))))
            if reached <= energy - ARMIJO * 0.5**halving * 2 * decrement:
                break
        else:
            return Equilibrium(positions, energy, "no descent", iteration, decrement, len(free))
        positions, energy = trial, reached
    return Equilibrium(positions, energy, "max iterations", max_iterations, decrement, len(free))


def _free(space: Elements, start: Tensor, held: Tensor | None) -> np.ndarray:
    if start.shape != space.nodes.shape or start.dtype != torch.float64:
        raise ValueError(f"start: expected float64 {list(space.nodes.shape)}, got {start.dtype} {list(start.shape)}")
    if held is None:
        held = torch.zeros(len(start), dtype=torch.bool)
    if held.dtype != torch.bool or held.shape not in (start.shape[:1], start.shape):
        raise ValueError(f"held: expected bool [N] or [N, d] for N = {len(start)}, got {held.dtype} {list(held.shape)}")
    mask = held.unsqueeze(-1).expand_as(start) if held.ndim == 1 else held
    return np.flatnonzero(~mask.reshape(-1).numpy())


def _newton_step(space: Elements, density: Density, positions: Tensor, free: np.ndarray) -> tuple[Tensor, float, float]:
    """(step [N, d], half the promised fall g . step, the integral of |density|)."""
    jets = space._jets(positions).requires_grad_(True)
    values = density(jets[..., 0], jets[..., 1:])
    (slopes,) = torch.autograd.grad(values.sum(), jets, create_graph=True)
    flat = slopes.flatten(-2)
    rows = [torch.autograd.grad(flat[..., k].sum(), jets, retain_graph=True)[0] for k in range(flat.shape[-1])]
    curvature = torch.stack([row.flatten(-2) for row in rows], -2)
    force = torch.einsum("mq,mqij,mqaj->mai", space.weights, slopes.detach(), space.basis)
    gradient = torch.zeros_like(positions).index_add_(0, space.cells.flatten(), force.flatten(0, 1))
    downhill = -gradient.reshape(-1).numpy()[free]
    factors = _factors(_assembled(space, curvature, free))
    if factors is None:
        values_, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
        positive = (vectors * values_.clamp(min=1e-8 * float(values_.max())).unsqueeze(-2)) @ vectors.mT
        factors = splu(_assembled(space, positive, free))
    direction = factors.solve(downhill)
    step = np.zeros(positions.numel())
    step[free] = direction
    scale = float(space.integral(values.detach().abs()))
    return torch.from_numpy(step).view_as(positions), float(downhill @ direction) / 2, scale


def _assembled(space: Elements, curvature: Tensor, free: np.ndarray) -> sparse.csc_matrix:
    """The Hessian of the integral with respect to the free unknowns; curvature: [M, Q, d (1 + d), d (1 + d)]."""
    d = space.nodes.shape[1]
    count, points, local = space.basis.shape[:3]
    tensor = (space.weights[..., None, None] * curvature).view(count, points, d, 1 + d, d, 1 + d)
    half = torch.einsum("mqaj,mqijkl->mqaikl", space.basis, tensor)
    blocks = torch.einsum("mqaikl,mqbl->maibk", half, space.basis).reshape(count, local * d, local * d).numpy()
    numbers = (space.cells.unsqueeze(-1) * d + torch.arange(d)).reshape(count, local * d).numpy()
    rows = np.broadcast_to(numbers[:, :, None], blocks.shape).reshape(-1)
    columns = np.broadcast_to(numbers[:, None, :], blocks.shape).reshape(-1)
    size = space.nodes.numel()
    whole = sparse.csc_matrix((blocks.reshape(-1), (rows, columns)), shape=(size, size))
    return whole[free][:, free]


def _factors(matrix: sparse.csc_matrix) -> SuperLU | None:
    """Sparse factors of a symmetric matrix if it is positive definite, else None.

    Without pivoting off the diagonal L U is L D L^T: by Sylvester's law of inertia D has the signs of the eigenvalues.
    """
    try:
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:  # exactly singular
        return None
    symmetric = bool((factors.perm_r == factors.perm_c).all())
    return factors if symmetric and bool((factors.U.diagonal() > 0).all()) else None


def stretched(
    space: Elements, material: Solid, pull: float = 2.0, *, start: Tensor | None = None, **options: Any
) -> Equilibrium:
    """Return the equilibrium of a solid whose faces of smallest and largest x are held, the latter moved by `pull`.

    The search starts from the uniform stretch along x, or from inner nodes as in `start` [N, d]: for a nearly
    incompressible material on a fine mesh take the equilibrium of a softer volume weight, or the search may end in an
    entangled minimum of higher energy (seen at volume / arap = 1000, degree 2, 96 cells a side). options: of
    `equilibrium`. The corners of the held faces are
    singular, so that the energy converges more slowly than smooth solutions would.
    """
    x = space.nodes[:, 0]
    first, last = x.min(), x.max()
    uniform = space.nodes.clone()
    uniform[:, 0] = x + pull * (x - first) / (last - first)
    slack = 1e-9 * (last - first)
    held = (x < first + slack) | (x > last - slack)
    begin = uniform if start is None else torch.where(held.unsqueeze(-1), uniform, start)
    return equilibrium(space, lambda place, gradient: potential(gradient, material), begin, held, **options)


class Motion(NamedTuple):
    """positions [T + 1, N, d], from the start on; velocities [T + 1, N, d]; each step's `Equilibrium`.status, [T]."""

    positions: Tensor
    velocities: Tensor
    status: list[str]


def simulate(
    space: Elements,
    setup: Setup,
    *,
    start: Tensor | None = None,
    velocity: Tensor | None = None,
    held: Tensor | None = None,
    **options: Any,
) -> Motion:
    """Return the motion of a solid by implicit Euler steps, each a minimum of the textbook incremental potential.

    setup: material, dt, steps, loads, obstacles and the contact's stiffness (`boundary` plays no part: `held` holds
    exactly). start: [N, d], at rest by default; velocity: [N, d], 0 by default; held: see `equilibrium`.
    Implicit Euler loses energy, in proportion to dt. Raises ValueError for a quasi-static setup (see `stretched`).
    """
    if setup.dt is None:
        raise ValueError("setup: dt=None is quasi-static; simulate needs a step size")
    now = space.nodes.clone() if start is None else start
    rates = [torch.zeros_like(now) if velocity is None else velocity]
    places, status, dt = [now], [], setup.dt
    for step in range(setup.steps):
        force = now.new_tensor(force_at(step, setup.loads, now.shape[1]))
        before = space.at_points(now)[0]
        earlier = space.at_points(now - dt * rates[-1])[0]

        def density(place: Tensor, gradient: Tensor, before=before, earlier=earlier, force=force) -> Tensor:
            return incremental_potential(
                place,
                gradient,
                setup.material,
                dt=dt,
                before=before,
                earlier=earlier,
                force=force,
                obstacles=setup.obstacles,
                stiffness=setup.stiffness,
            )

        found = equilibrium(space, density, now, held, **options)
        rates.append((found.positions - now) / dt)
        now = found.positions
        places.append(now)
        status.append(found.status)
    return Motion(torch.stack(places), torch.stack(rates), status)
