"""Every library is asked the same question: one vector field, written for PyTorch and for JAX."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciode.bench.problems import Problem, neural_ode, van_der_pol

PROBLEMS = [
    neural_ode(batch=5, dim=3, hidden=7, outputs=4),
    neural_ode(batch=5, dim=3, hidden=7, outputs=4, dtype=torch.float64),
    van_der_pol(batch=5, outputs=4),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: f"{problem.name}-{problem.y0.dtype}")
def test_the_jax_field_is_the_torch_field(problem: Problem) -> None:
    # NumPy stands for jax.numpy: the field uses only what both have.
    y = torch.randn(problem.y0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(problem.y0)
    with torch.no_grad():
        ours = problem.bound(problem.ts[0], y).numpy()
    args = None if problem.args is None else problem.args.numpy()
    weights = tuple(weight.numpy() for weight in problem.weights)
    theirs = problem.jax_field(np, 0.0, y.numpy(), args, weights)
    np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-6)
    for row in range(len(y)):
        one = problem.jax_field(np, 0.0, y[row].numpy(), None if args is None else args[row], weights)
        np.testing.assert_allclose(one, ours[row], rtol=1e-6, atol=1e-6)


def test_van_der_pol_has_the_slope_of_its_equation() -> None:
    problem = van_der_pol(batch=2)
    y = torch.tensor([[2.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    # mu = 0.5: 0.5 (1 - 4) 3 - 2 = -6.5; mu = 10: 10 (1 - 0) 1 - 0 = 10.
    assert problem.bound(problem.ts[0], y).tolist() == [[3.0, -6.5], [1.0, 10.0]]


def test_both_precisions_of_the_network_round_the_same_weights() -> None:
    single, double = neural_ode(batch=2), neural_ode(batch=2, dtype=torch.float64)
    pairs = zip((single.y0, *single.weights), (double.y0, *double.weights), strict=True)
    assert all(torch.equal(small, large.to(torch.float32)) for small, large in pairs)
