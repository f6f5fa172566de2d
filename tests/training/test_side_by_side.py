"""Minimisers of many functions at once: exact minima, each arm as if alone, faults that stay with their arm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciode.training import LBFGS, Adam, Minimiser, NewtonCG
from sciode.training.quasi_newton import _pushed, _turned
from sciode.training.side_by_side import CONVERGED, GOING, NONFINITE


class Functions:
    """Losses [arms] written in torch, with gradients and Hessian products by autograd."""

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        self.value = value

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        leaf = theta.detach().requires_grad_()
        loss = self.value(leaf)
        return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]

    def curvature(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        leaf = theta.detach().requires_grad_()
        slope = torch.autograd.grad(self.value(leaf).sum(), leaf, create_graph=True)[0]
        return lambda v: torch.autograd.grad(slope, leaf, v, retain_graph=True)[0]


def rosenbrock(theta: Tensor) -> Tensor:
    x, y = theta[:, :-1], theta[:, 1:]
    return (100 * (y - x**2) ** 2 + (1 - x) ** 2).sum(1)


def ran(how: Minimiser, function: Functions, theta: Tensor) -> dict[str, Tensor]:
    memory = how.begin(theta)
    for k in range(how.iterations):
        memory = how.step(memory, function, k)
        if not bool((memory["state"] == GOING).any()):
            break
    return memory


STARTS = torch.tensor([[-1.2, 1.0, 0.5, -0.3], [0.0, 0.0, 0.0, 0.0], [2.0, -1.0, 1.5, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("how", [LBFGS(200, tolerance=1e-9), NewtonCG(200, rank=3, damping=1e-8, renew=5)])
def test_second_order_methods_find_rosenbrocks_valley_floor(how: Minimiser) -> None:
    found = ran(how, Functions(rosenbrock), STARTS)
    # In four dimensions there is a second, local minimum near (-1, 1, 1, 1).
    _, gradient = Functions(rosenbrock)(found["theta"])
    assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize(
    "how", [Adam(30, lr=0.05, schedule="cosine"), LBFGS(25, history=4), NewtonCG(8, rank=3, renew=3, damping=1e-4)]
)
def test_an_arm_among_others_is_what_it_is_alone(how: Minimiser) -> None:
    together = ran(how, Functions(rosenbrock), STARTS)
    for arm in range(len(STARTS)):
        alone = ran(how, Functions(rosenbrock), STARTS[arm : arm + 1])
        torch.testing.assert_close(together["theta"][arm], alone["theta"][0], rtol=1e-9, atol=1e-11)


def test_adam_is_torchs_adam() -> None:
    mine = ran(Adam(20, lr=0.03), Functions(rosenbrock), STARTS)["theta"]
    leaf = STARTS.clone().requires_grad_()
    other = torch.optim.Adam([leaf], 0.03)
    for _ in range(20):
        other.zero_grad()
        rosenbrock(leaf).sum().backward()
        other.step()
    torch.testing.assert_close(mine, leaf.detach(), rtol=1e-10, atol=1e-12)


def test_a_quadratic_takes_one_step_of_newton() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    matrix = factor @ factor.mT + torch.eye(6, dtype=torch.float64)
    at = torch.randn(2, 6, generator=generator, dtype=torch.float64)

    def value(theta: Tensor) -> Tensor:
        off = theta - at
        return 0.5 * (off * (matrix @ off.unsqueeze(-1))[..., 0]).sum(1)

    found = ran(NewtonCG(1, damping=1e-13, rank=2, tolerance=1e-13), Functions(value), torch.zeros_like(at))
    torch.testing.assert_close(found["theta"], at, rtol=1e-8, atol=1e-8)


def test_lbfgs_ends_on_a_quadratic_within_its_dimension_and_a_few() -> None:
    scales = torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)
    found = ran(LBFGS(40, tolerance=1e-8), Functions(lambda theta: (scales * theta**2).sum(1)), STARTS)
    assert found["state"].tolist() == [CONVERGED] * 3
    assert float(found["theta"].abs().max()) < 1e-7


def test_lbfgs_turns_gradients_by_the_matrix_that_its_pairs_make() -> None:
    """B <- (I - r s y') B (I - r y s') + r s s', r = 1 / s'y, from c I with c = s'y / y'y of the newest pair."""
    draw = torch.Generator().manual_seed(0)
    size, arms, history = 7, 3, 4
    root = torch.randn(arms, size, size, generator=draw, dtype=torch.float64)
    curved = root @ root.mT + torch.eye(size, dtype=torch.float64)
    memory = LBFGS(history=history).begin(torch.zeros(arms, size, dtype=torch.float64))
    pairs: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(arms)]
    for k in range(6):
        step = torch.randn(arms, size, generator=draw, dtype=torch.float64)
        change = (curved @ step.unsqueeze(-1)).squeeze(-1)
        # The second arm leaves out every other pair; the third forgets all of them once.
        kept, failed = torch.tensor([True, k % 2 == 0, k != 3]), torch.tensor([False, False, k == 3])
        memory |= _pushed(memory, step, change, kept, failed)
        for arm, own in enumerate(pairs):
            if failed[arm]:
                own.clear()
            elif kept[arm]:
                own.append((step[arm], change[arm]))
        gradient = torch.randn(arms, size, generator=draw, dtype=torch.float64)
        found = _turned(memory, gradient)
        for arm, own in enumerate(pairs):
            eye = torch.eye(size, dtype=torch.float64)
            scale = float(own[-1][0] @ own[-1][1] / (own[-1][1] @ own[-1][1])) if own else 1.0
            dense = scale * eye
            for s, y in own[-history:]:
                left = eye - torch.outer(s, y) / (s @ y)
                dense = left @ dense @ left.T + torch.outer(s, s) / (s @ y)
            torch.testing.assert_close(found[arm], dense @ gradient[arm], rtol=1e-9, atol=1e-11)


def test_an_arm_of_lbfgs_does_not_wait_for_the_search_of_another() -> None:
    """A parabola takes its steps at the first try; another arm, which begins far too short, has to look for long."""
    scales = torch.tensor([[0.5], [1e-8]], dtype=torch.float64)
    evaluations = 12
    functions = Functions(lambda theta: (scales[: len(theta)] * theta**2).sum(1))
    start = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    both, alone = (ran(LBFGS(evaluations, tolerance=0.0), functions, start[:arms]) for arms in (2, 1))
    torch.testing.assert_close(both["theta"][0], alone["theta"][0], rtol=0, atol=0)
    assert float(both["theta"][0].abs()) < 1e-12 and float(both["theta"][1]) > 1e-3


@pytest.mark.parametrize("how", [Adam(300, lr=0.05), LBFGS(20), NewtonCG(20)])
def test_an_arm_that_breaks_keeps_its_last_good_weights_and_others_go_on(how: Minimiser) -> None:
    """The first arm's function ends in NaN below 0.5, towards which it falls; the second is a parabola."""

    def value(theta: Tensor) -> Tensor:
        cliff = theta[0, :1].clamp(max=1e9).sum() * torch.where(theta[0, 0].detach() < 0.5, torch.nan, 1.0)
        return torch.stack((cliff, (theta[1] - 3).square().sum()))

    found = ran(how, Functions(value), torch.tensor([[1.0], [1.0]], dtype=torch.float64))
    assert 0.5 <= float(found["theta"][0]) <= 1.0
    assert abs(float(found["theta"][1]) - 3) < 0.3
    if isinstance(how, Adam):
        assert found["state"].tolist() == [NONFINITE, GOING]


@pytest.mark.parametrize("how", [Adam(300, lr=0.05), LBFGS(20), NewtonCG(20)])
def test_an_arm_that_is_not_finite_from_the_start_does_not_stop_the_others(how: Minimiser) -> None:
    """Not even a Hessian of NaN, whose sketch is decomposed in one batch with those of the others."""

    def value(theta: Tensor) -> Tensor:
        return (theta - 3).square().sum(1) * torch.tensor([torch.nan, 1.0], dtype=torch.float64)

    start = torch.ones(2, 2, dtype=torch.float64)
    found = ran(how, Functions(value), start)
    assert int(found["state"][0]) == NONFINITE and torch.equal(found["theta"][0], start[0])
    assert float((found["theta"][1] - 3).abs().max()) < 0.3


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Adam(0), "iterations"),
        (lambda: Adam(schedule="step"), "cosine"),
        (lambda: LBFGS(history=0), "history"),
        (lambda: NewtonCG(damping=0.0), "damping"),
    ],
)
def test_misuse_says_the_mend(make: Callable[[], Minimiser], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
