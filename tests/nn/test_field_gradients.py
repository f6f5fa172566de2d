"""Gradients of every field, and through `solve` with every exact adjoint, against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from sciode import solve
from sciode.nn import CNF, Augmented, Autonomous, Hamiltonian, Hybrid, Joined, Lagrangian, Mechanistic, SecondOrder, mlp
from sciode.solvers.adjoints.graph import bytes_behind, clock, residual_bytes

Seeded = Callable[[int], AbstractContextManager[None]]


def _decay(t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
    return -rate * y


FIELDS: dict[str, Callable[[], nn.Module]] = {
    "augmented": lambda: Augmented(Autonomous(mlp([4, 3, 4], nn.Tanh)), size=2, extra=2),
    "second-order": lambda: SecondOrder(Joined(mlp([5, 3, 2], nn.Tanh))),
    "Hamiltonian": lambda: Hamiltonian(Joined(mlp([4, 3, 1], nn.Tanh))),
    "Lagrangian": lambda: Lagrangian(Joined(mlp([4, 3, 1], nn.Softplus)), ridge=1.0),
    "hybrid": lambda: Hybrid(
        Mechanistic(_decay, learned={"rate": 0.7}),
        Autonomous(mlp([2, 3, 1], nn.Tanh)),
        names="abcd",
        reads=("a", "d"),
        corrects=("b",),
        zero_start=False,
    ),
    "flow": lambda: CNF(Joined(mlp([4, 3, 3], nn.Tanh)), 3),
}
each_field = pytest.mark.parametrize("name", FIELDS)
each_adjoint = pytest.mark.parametrize("adjoint", ["direct", "recompute"])


def _start() -> Tensor:
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


@each_adjoint
@each_field
def test_gradients_through_a_solve_are_those_of_finite_differences(name: str, adjoint: str, seeded: Seeded) -> None:
    with seeded(0):
        field = FIELDS[name]().double()
    names = [key for key, _ in field.named_parameters()]

    def end(y0: Tensor, *weights: Tensor) -> Tensor:
        for key, weight in zip(names, weights, strict=True):
            owner, _, leaf = key.rpartition(".")
            # A solve differentiates the tensors its field reads: these must be the ones that gradcheck moves.
            module = field.get_submodule(owner)
            module._parameters.pop(leaf, None)
            setattr(module, leaf, weight)
        return solve(field, y0, [0.0, 0.4], method="rk4", dt=0.2, adjoint=adjoint, batch_dims=1).ys[-1]

    weights = [weight.detach().clone().requires_grad_() for weight in field.parameters()]
    assert torch.autograd.gradcheck(end, (_start(), *weights))


@each_field
def test_a_field_is_the_same_with_and_without_a_tape(name: str, seeded: Seeded) -> None:
    with seeded(0):
        field = FIELDS[name]().double()
    with_tape = field(torch.zeros((), dtype=torch.float64), _start())
    with torch.no_grad():
        without = field(torch.zeros((), dtype=torch.float64), _start())
    assert with_tape.requires_grad and not without.requires_grad
    assert torch.equal(with_tape, without)


@each_field
def test_samples_do_not_feel_one_another_and_a_single_state_will_do(name: str, seeded: Seeded) -> None:
    with seeded(0):
        field = FIELDS[name]().double()
    y0 = _start().detach()
    together = solve(field, y0, [0.0, 1.0]).ys[-1]
    for k in range(len(y0)):
        torch.testing.assert_close(solve(field, y0[k], [0.0, 1.0]).ys[-1], together[k], rtol=1e-12, atol=1e-12)


def test_automatic_adjoints_size_up_a_field_that_differentiates_inside(seeded: Seeded) -> None:
    """torch.func allows no hooks around it, so that what its first evaluation keeps is read off the graph."""
    with seeded(0):
        field = FIELDS["Hamiltonian"]().double()
    y0 = _start()
    by_itself = torch.autograd.grad(solve(field, y0, [0.0, 1.0]).ys.sum(), [y0, *field.parameters()], allow_unused=True)
    direct = solve(field, y0, [0.0, 1.0], adjoint="direct").ys.sum()
    for one, other in zip(
        by_itself, torch.autograd.grad(direct, [y0, *field.parameters()], allow_unused=True), strict=True
    ):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_what_a_graph_keeps_is_the_same_by_hooks_and_by_a_walk(seeded: Seeded) -> None:
    with seeded(0):
        net = nn.Sequential(nn.Linear(4, 50), nn.Tanh(), nn.Linear(50, 3), nn.Softplus()).double()
    y0 = _start()
    earlier = y0.exp().sin()
    since = clock()
    with residual_bytes() as kept:
        out = net(earlier * 2)
    assert 0 < kept.total == bytes_behind([out], since)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Hamiltonian", "flow"])
def test_a_field_that_differentiates_inside_compiles(name: str, seeded: Seeded) -> None:
    with seeded(0):
        field = FIELDS[name]().double()
    y0 = _start().detach()
    compiled = solve(field, y0, [0.0, 1.0], engine="compiled", batch_dims=1)
    assert compiled.stats.engine == "compiled"
    torch.testing.assert_close(compiled.ys, solve(field, y0, [0.0, 1.0], engine="eager").ys)
