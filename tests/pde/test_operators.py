"""Operators against closed forms, and the identities of vector calculus on networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, grad, vmap

from sciode.nn import HardBoundary, PeriodicEmbedding, Siren, mlp
from sciode.pde import Box, curl, divergence, expansion, gradient, hessian, jacobian, laplacian, over, partial


def points(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, d)))


@pytest.fixture(scope="module")
def network(seeded) -> Callable[[int, int], Siren]:
    """A smooth field of d variables with c components."""

    def make(d: int, c: int) -> Siren:
        with seeded(3):
            return Siren(d, c, 12, 2, omega=3.0).double()

    return make


def plane(x: Tensor) -> Tensor:
    """(x^2 y, sin x cos y)."""
    return torch.stack((x[0] ** 2 * x[1], x[0].sin() * x[1].cos()))


def test_derivatives_in_the_plane_have_their_closed_forms() -> None:
    at = points(11, 2)
    x, y = at.T
    zero = torch.zeros_like(x)
    slopes = torch.stack((2 * x * y, x**2, x.cos() * y.cos(), -x.sin() * y.sin()), -1).reshape(-1, 2, 2)
    torch.testing.assert_close(over(jacobian(plane), at), slopes)
    torch.testing.assert_close(over(partial(plane, 1), at), slopes[..., 1])
    torch.testing.assert_close(over(divergence(plane), at), (2 * x * y - x.sin() * y.sin())[:, None])
    torch.testing.assert_close(over(curl(plane), at), (x.cos() * y.cos() - x**2)[:, None])
    bent = torch.stack((2 * y, -2 * x.sin() * y.cos()), -1)
    torch.testing.assert_close(over(laplacian(plane), at), bent)
    second = torch.stack((2 * y, 2 * x, 2 * x, zero), -1).reshape(-1, 2, 2)
    torch.testing.assert_close(over(hessian(lambda p: plane(p)[:1]), at), second)
    torch.testing.assert_close(over(gradient(lambda p: plane(p)[1:]), at), slopes[:, 1])


def test_a_rigid_rotation_turns_at_twice_its_rate() -> None:
    """u = w x r has curl 2 w and no divergence."""
    rate, at = torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64), points(5, 3)

    def turning(x: Tensor) -> Tensor:
        return torch.linalg.cross(rate, x)

    torch.testing.assert_close(over(curl(turning), at), (2 * rate).expand(5, 3))
    torch.testing.assert_close(over(divergence(turning), at), torch.zeros(5, 1, dtype=torch.float64))


@given(st.integers(1, 3), st.integers(0, 2**31))
def test_a_quadratic_form_has_its_matrix_for_derivatives(d: int, seed: int) -> None:
    """p = x A x: gradient (A + A') x, Hessian A + A', Laplacian 2 tr A."""
    generator = np.random.default_rng(seed)
    matrix, x = torch.from_numpy(generator.normal(size=(d, d))), torch.from_numpy(generator.normal(size=d))

    def form(x: Tensor) -> Tensor:
        return (x @ matrix @ x).reshape(1)

    twice = matrix + matrix.T
    torch.testing.assert_close(gradient(form)(x), twice @ x)
    torch.testing.assert_close(hessian(form)(x), twice)
    for taylor in (False, True):
        torch.testing.assert_close(laplacian(form, taylor=taylor)(x), twice.trace().reshape(1))


def test_no_source_in_a_curl_and_no_curl_in_a_gradient(network) -> None:
    at, potential = points(6, 3), network(3, 3)
    strength = over(jacobian(curl(potential)), at).abs().max()
    assert strength > 0.1
    torch.testing.assert_close(over(divergence(curl(potential)), at) / strength, torch.zeros(6, 1, dtype=torch.float64))
    for d in (2, 3):
        scalar, at = network(d, 1), points(6, d)
        turned = over(curl(gradient(scalar)), at)
        torch.testing.assert_close(turned, torch.zeros_like(turned))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_laplacian_is_the_divergence_of_the_gradient_and_the_trace_of_the_hessian(network, d: int) -> None:
    scalar, at = network(d, 1), points(6, d)
    bent = over(laplacian(scalar), at)
    torch.testing.assert_close(over(divergence(gradient(scalar)), at), bent)
    matrix = over(hessian(scalar), at)
    torch.testing.assert_close(matrix, matrix.mT)
    torch.testing.assert_close(matrix.diagonal(dim1=1, dim2=2).sum(1, keepdim=True), bent)


def test_curl_of_curl_is_gradient_of_divergence_less_laplacian(network) -> None:
    u, at = network(3, 3), points(4, 3)
    torch.testing.assert_close(
        over(curl(curl(u)), at), over(gradient(divergence(u)), at) - over(laplacian(u), at), rtol=1e-6, atol=1e-9
    )


def test_operators_are_linear_and_follow_the_product_rule(network) -> None:
    u, p, at = network(2, 2), network(2, 1), points(6, 2)

    def product(x: Tensor) -> Tensor:
        return p(x) * u(x)

    along = (over(gradient(p), at) * over(u, at)).sum(1, keepdim=True)
    torch.testing.assert_close(over(divergence(product), at), over(p, at) * over(divergence(u), at) + along)
    both = over(laplacian(lambda x: 2 * u(x) - plane(x)), at)
    torch.testing.assert_close(both, 2 * over(laplacian(u), at) - over(laplacian(plane), at))


def test_mixed_derivatives_commute(network) -> None:
    u, at = network(3, 2), points(5, 3)
    torch.testing.assert_close(over(partial(partial(u, 0), 2), at), over(partial(partial(u, 2), 0), at))
    same = sum(over(partial(partial(u, axis), axis), at) for axis in range(3))
    torch.testing.assert_close(same, over(laplacian(u), at))


def test_the_biharmonic_operator_of_a_wave() -> None:
    """sin(k x) is an eigenfunction: (|k|^2)^2."""
    wave, at = torch.tensor([1.0, 2.0], dtype=torch.float64), points(5, 2)

    def sine(x: Tensor) -> Tensor:
        return (wave @ x).sin().reshape(1)

    torch.testing.assert_close(over(laplacian(laplacian(sine)), at), 25 * over(sine, at))


def test_taylor_mode_is_the_same_laplacian(network, seeded) -> None:
    with seeded(0):
        periodic = Siren(2, 2, 12, 1, omega=4.0, embedding=PeriodicEmbedding([2.0, None])).double()
        usual = mlp([2, 8, 1], torch.nn.Tanh).double()
    wall = HardBoundary(usual, torch.zeros_like, Box((-1, -1), (1, 1)).vanishing)
    at = points(6, 2)
    for u in (network(2, 3), periodic, wall, plane, torch.ones_like):
        torch.testing.assert_close(over(laplacian(u, taylor=True), at), over(laplacian(u), at))


def test_taylor_mode_names_what_it_cannot_do(network) -> None:
    with pytest.raises(ValueError, match="no rule for 'special_bessel_j0'"):
        laplacian(torch.special.bessel_j0, taylor=True)(points(1, 2)[0])
    with pytest.raises(ValueError, match="taylor=False"):
        laplacian(divergence(network(2, 2)), taylor=True)(points(1, 2)[0])


def test_an_expansion_is_value_slopes_and_laplacian(network, seeded) -> None:
    """Also of fields without a rule for jets, of ones that are made by an operator, and of constants."""
    with seeded(0):
        periodic = Siren(2, 2, 12, 1, omega=4.0, embedding=PeriodicEmbedding([2.0, None])).double()
    at = points(6, 2)
    fields = (network(2, 3), periodic, plane, torch.ones_like, torch.special.bessel_j0, divergence(network(2, 2)))
    for u in fields:
        found = vmap(expansion(u))(at)
        for one, expected in zip(found, (over(u, at), over(jacobian(u), at), over(laplacian(u), at)), strict=True):
            torch.testing.assert_close(one, expected)
    with pytest.raises(ValueError, match="one point"):
        expansion(plane)(at)


def test_a_mistake_inside_a_field_is_told_as_it_is() -> None:
    def broken(x: Tensor) -> Tensor:
        raise ValueError("no such phase")

    with pytest.raises(ValueError, match="no such phase"):
        expansion(broken)(points(1, 2)[0])


@pytest.mark.parametrize("taylor", [False, True])
def test_parameters_have_the_gradient_of_an_equations_residual(network, taylor: bool) -> None:
    """Backward through the Laplacian against central differences, and point by point against the whole."""
    net, at = network(2, 1), points(7, 2)
    weights = dict(net.named_parameters())

    def residual(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        u = laplacian(lambda z: functional_call(net, weights, (z,)), taylor=taylor)(x)
        return (u - 1).square().sum()

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return vmap(residual, (None, 0))(weights, at).sum()

    each, whole = vmap(grad(residual), (None, 0))(weights, at), grad(loss)(weights)
    total = (over(laplacian(net, taylor=taylor), at) - 1).square().sum()
    # The last bias does not enter a Laplacian.
    taped = torch.autograd.grad(total, list(net.parameters()), materialize_grads=True)
    generator = np.random.default_rng(5)
    along = {name: torch.from_numpy(generator.normal(size=tuple(w.shape))) for name, w in weights.items()}
    step = 1e-6
    with torch.no_grad():
        up, down = (loss({name: w + s * along[name] for name, w in weights.items()}) for s in (step, -step))
    slope = sum((whole[name] * along[name]).sum() for name in weights)
    torch.testing.assert_close(slope, (up - down) / (2 * step), rtol=1e-6, atol=0)
    for name, direct in zip(weights, taped, strict=True):
        torch.testing.assert_close(each[name].sum(0), whole[name])
        torch.testing.assert_close(direct, whole[name])


def test_misuse_is_refused(network) -> None:
    one = points(1, 2)[0]
    with pytest.raises(ValueError, match="axes 0 to 1"):
        partial(plane, 2)(one)
    with pytest.raises(ValueError, match="gradient needs a scalar field"):
        over(gradient(plane), one[None])
    for operator in (divergence, curl):
        with pytest.raises(ValueError, match="needs a vector field"):
            operator(network(2, 3))(one)
    with pytest.raises(ValueError, match="curl is of two or three"):
        curl(network(1, 1))(one[:1])
    with pytest.raises(ValueError, match="points must be"):
        over(plane, one)
    for operator in (jacobian, laplacian, lambda u: partial(u, 0)):
        with pytest.raises(ValueError, match="takes one point"):
            operator(network(2, 1))(one[None])
