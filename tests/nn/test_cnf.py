"""Continuous normalising flows: exact Gaussians, densities that integrate to one, gradients, and the way back."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode.nn import CNF, Joined, mlp
from sciode.solvers import Jacobian, Kinetic, Taylor, solve

TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9, "engine": "eager"}


@pytest.fixture
def field(seeded: Any) -> nn.Module:
    with seeded(0):
        return Joined(mlp([3, 12, 2], nn.Softplus)).double()


def points(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MATRIX = torch.tensor([[0.3, -0.9], [0.5, -0.2]], dtype=torch.float64)


def linear(t: Tensor, y: Tensor) -> Tensor:
    return y @ MATRIX.T


def known(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return linear(t, y), MATRIX.trace().expand(y.shape[:-1])


@pytest.mark.parametrize("trace", ["exact", known], ids=["exact", "its own"])
def test_a_linear_field_carries_a_gaussian_to_a_gaussian(trace: Any) -> None:
    """y(T) = e^{TA} x, so x is normal with covariance (e^{TA})^-1 (e^{TA})^-T."""
    x, time = points(6), 1.5
    forth = torch.linalg.inv(torch.matrix_exp(time * MATRIX))
    law = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), forth @ forth.T)
    found = CNF(linear, 2, trace=trace, time=time).log_prob(x, **TIGHT)
    torch.testing.assert_close(found, law.log_prob(x), rtol=1e-7, atol=1e-7)


def test_hutchinsons_trace_is_exact_in_the_mean_over_all_signs(field: nn.Module) -> None:
    t, x = torch.full((5, 1), 0.3, dtype=torch.float64), points(5)
    state = CNF(field, 2).start(x)
    exact, sketch = CNF(field, 2)(t, state), CNF(field, 2, trace="hutchinson")
    every = [torch.tensor(signs, dtype=torch.float64).expand(5, 2) for signs in itertools.product((-1, 1), repeat=2)]
    mean = torch.stack([sketch(t, state, probe) for probe in every]).mean(0)
    torch.testing.assert_close(mean, exact, rtol=1e-12, atol=1e-12)
    jacobian = [torch.autograd.functional.jacobian(lambda y, i=i: field(t[i], y), x[i]) for i in range(5)]
    torch.testing.assert_close(exact[:, 2], torch.stack([j.trace() for j in jacobian]), rtol=1e-12, atol=1e-12)


def test_a_probe_is_a_function_of_its_seed(field: nn.Module) -> None:
    flow, x = CNF(field, 2, trace="hutchinson"), points(8)
    first, again, other = (flow.log_prob(x, seed=seed, engine="eager") for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(flow.probe(x, 5).unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_density_integrates_to_one(field: nn.Module, scale: float) -> None:
    """The midpoint rule on [-8, 8]^2, accurate beyond the solver's 1e-6 for so smooth a density."""
    flow = CNF(lambda t, y: scale * torch.tanh(field(t, y)), 2)
    step = 16.0 / 120
    axis = -8.0 + step * (torch.arange(120, dtype=torch.float64) + 0.5)
    where = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(where, rtol=1e-6, atol=1e-6, engine="eager").exp().sum() * step**2
    assert float(mass) == pytest.approx(1.0, abs=1e-4)


def test_gradients_are_finite_differences(field: nn.Module) -> None:
    """Of points and weights, at fixed steps."""
    names = [name for name, _ in field.named_parameters()]

    def log_prob(x: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        flow = CNF(lambda t, y: torch.func.functional_call(field, given, (t, y)), 2)
        return flow.log_prob(x, dt=0.25, adjoint="direct", engine="eager")

    weights = [p.detach().clone().requires_grad_() for p in field.parameters()]
    torch.autograd.gradcheck(log_prob, (points(3).requires_grad_(), *weights), rtol=1e-5, atol=1e-8)


def test_adjoints_agree(field: nn.Module) -> None:
    flow, gradients = CNF(field, 2), []
    for adjoint in ("direct", "recompute"):
        loss = flow.log_prob(points(4), adjoint=adjoint, engine="eager").sum()
        gradients.append(torch.autograd.grad(loss, list(field.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_samples_go_back_to_the_normals_they_came_from(field: nn.Module) -> None:
    flow = CNF(field, 2, time=0.8)
    with torch.no_grad():
        x = flow.sample(7, seed=3, **TIGHT)
        back = solve(flow, flow.start(x), [0.0, flow.time], **TIGHT).ys[-1]
    z = torch.randn(7, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(back[:, :2], z, rtol=0, atol=1e-7)
    assert torch.equal(x, flow.sample(7, seed=3, **TIGHT))


def test_samples_of_a_linear_flow_have_its_covariance() -> None:
    matrix = MATRIX.float()
    x = CNF(lambda t, y: y @ matrix.T, 2).sample(20_000, seed=0, engine="eager").double()
    forth = torch.linalg.inv(torch.matrix_exp(MATRIX))
    torch.testing.assert_close(x.T.cov(), forth @ forth.T, rtol=0.06, atol=0.03)


def test_penalties_see_the_point_and_not_its_account(field: nn.Module) -> None:
    flow, x, ts = CNF(field, 2), points(4), [0.0, 1.0]
    parts = (Kinetic(part=2), Jacobian(part=2))
    ours = solve(flow, flow.start(x), ts, dt=0.25, regularize=parts, seed=0, engine="eager").penalties
    plain = solve(field, x, ts, dt=0.25, regularize=(Kinetic(), Jacobian()), seed=0, engine="eager").penalties
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-10, atol=0, msg=name)


def test_a_field_that_knows_its_trace_can_be_differentiated_in_time() -> None:
    flow = CNF(linear, 2, trace=known)
    found = solve(flow, flow.start(points(3)), [0.0, 1.0], regularize=Taylor(2, part=2), engine="eager")
    alone = solve(linear, points(3), [0.0, 1.0], regularize=Taylor(2), engine="eager")
    torch.testing.assert_close(found.penalties["taylor"], alone.penalties["taylor"], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: CNF(linear, 0), "size must be >= 1"),
        (lambda: CNF(linear, 2, time=-1.0), "time > 0"),
        (lambda: CNF(linear, 2, trace="exat"), "trace: give 'exact'"),  # type: ignore[arg-type]
        (lambda: CNF(linear, 2).log_prob(torch.zeros(3, 3)), r"x must be \[\*batch, 2\]"),
        (lambda: CNF(linear, 2)(torch.zeros(()), torch.zeros(3, 2)), "use flow.start"),
        (lambda: CNF(linear, 2, trace="hutchinson").log_prob(torch.zeros(3, 2)), "pass seed="),
        (lambda: CNF(linear, 2, trace="hutchinson")(torch.zeros(()), torch.zeros(3, 3)), "needs its probe"),
        (lambda: CNF(linear, 2).sample(0, seed=0), "n must be at least 1"),
    ],
)
def test_misuse_is_refused(misuse: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misuse()


def test_the_base_is_the_unit_normal() -> None:
    still = CNF(lambda t, y: 0.0 * y, 3)
    x = torch.ones(2, 3, dtype=torch.float64)
    want = torch.full((2,), -1.5 - 1.5 * math.log(2 * math.pi), dtype=torch.float64)
    torch.testing.assert_close(still.log_prob(x, engine="eager"), want)
