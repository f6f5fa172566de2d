"""Minimisers of many functions at once: exact minima, each arm as if alone, faults that stay with their arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.training import LBFGS, Adam, Broyden, Minimiser, NewtonCG
from sciode.training.broyden import UPDATES
from sciode.training.lbfgs import _pushed, _turned
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


SCALED = [Broyden(200, name, tolerance=1e-9) for name in UPDATES]


@pytest.mark.parametrize("how", [LBFGS(200, tolerance=1e-9), NewtonCG(200, rank=3, damping=1e-8, renew=5), *SCALED])
def test_second_order_methods_find_rosenbrocks_valley_floor(how: Minimiser) -> None:
    found = ran(how, Functions(rosenbrock), STARTS)
    # In four dimensions there is a second, local minimum near (-1, 1, 1, 1).
    _, gradient = Functions(rosenbrock)(found["theta"])
    assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize(
    "how",
    [
        Adam(30, lr=0.05, schedule="cosine"),
        LBFGS(25, history=4),
        NewtonCG(8, rank=3, renew=3, damping=1e-4),
        *(Broyden(25, name) for name in UPDATES),
    ],
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


def test_betas_may_be_a_list() -> None:
    betas: Any = [0.8, 0.99]
    assert Adam(betas=betas) == Adam(betas=(0.8, 0.99)) and hash(Adam(betas=betas)) == hash(Adam(betas=(0.8, 0.99)))


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


@pytest.mark.parametrize("name", UPDATES)
def test_an_inverse_hessian_turns_the_last_change_into_the_last_step_and_stays_positive(name: str) -> None:
    """The secant equation H y = s after every step of a valley, symmetry, and no eigenvalue below 0."""
    how, function = Broyden(40, name), Functions(rosenbrock)
    memory, scaled = how.begin(STARTS), 0
    for k in range(how.iterations):
        before, memory = memory, how.step(memory, function, k)
        gradient = before["gradient"] if k else function(STARTS)[1]
        step, change = memory["theta"] - before["theta"], memory["gradient"] - gradient
        counted = (step * change).sum(1) > 1e-12 * change.square().sum(1)
        turned = (memory["inverse"] @ change.unsqueeze(-1))[..., 0]
        torch.testing.assert_close(turned[counted], step[counted], rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(memory["inverse"], memory["inverse"].mT, rtol=1e-9, atol=1e-12)
        assert bool((torch.linalg.eigvalsh(memory["inverse"]) > 0).all())
        scaled += int(counted.sum())
    assert scaled > 50


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_of_the_inverse_is_the_inverse_of_broydens_update(name: str) -> None:
    """B+ = tau (B - Bs s^T B / s.Bs + theta w w^T) + y y^T / y.s with phi = (1 - theta) / (1 + a theta)."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    factor, gradient, s = draw(4, 5, 5), draw(4, 5), draw(4, 5)
    inverse = factor @ factor.mT + 0.1 * torch.eye(5, dtype=torch.float64)
    direction = -(inverse @ gradient.unsqueeze(-1))[..., 0]
    s = 0.7 * direction
    y = -0.4 * gradient + 0.05 * draw(4, 5)
    y = torch.where(((s * y).sum(1) > 0)[:, None], y, -0.4 * gradient)
    never, always = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    found = Broyden(1, name)._updated(inverse, gradient, direction, s, y, never, always)
    for arm in range(4):
        old = torch.linalg.inv(inverse[arm])
        step, change = s[arm], y[arm]
        sy, bs = step @ change, old @ step
        b, h = (step @ bs) / sy, (change @ inverse[arm] @ change) / sy
        tau, phi = (float(part) for part in UPDATES[name](b[None], h[None], 5))
        theta = (1 - phi) / (1 + (float(b * h) - 1) * phi)
        w = (step @ bs).sqrt() * (change / sy - bs / (step @ bs))
        new = tau * (old - torch.outer(bs, bs) / (step @ bs) + theta * torch.outer(w, w))
        new = new + torch.outer(change, change) / sy
        torch.testing.assert_close(torch.linalg.inv(found[arm]), new, rtol=1e-7, atol=1e-8)


def test_updates_meet_what_is_known_of_them() -> None:
    """BFGS scales nothing; self-scaled BFGS shrinks B by 1 / b where b > 1; where b = 1, Broyden's choice is BFGS."""
    b = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    h = torch.tensor([3.0, 2.0, 1.5], dtype=torch.float64)
    assert all(part.eq(1).all() for part in UPDATES["bfgs"](b, h, 7))
    tau, phi = UPDATES["ssbfgs"](b, h, 7)
    assert tau.tolist() == [1.0, 1.0, 0.25] and phi.eq(1).all()
    tau, phi = UPDATES["ssbroyden"](b, h, 7)
    assert float(tau[1]) == pytest.approx(1.0) and float(phi[1]) == pytest.approx(1.0)
    assert bool((tau > 0).all()) and bool((tau <= 1).all())


@pytest.mark.parametrize("how", [Adam(300, lr=0.05), LBFGS(20), NewtonCG(20), Broyden(20)])
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


@pytest.mark.parametrize("how", [Adam(300, lr=0.05), LBFGS(20), NewtonCG(20), Broyden(20)])
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
        (lambda: Broyden(update="bfsg"), "bfgs"),
        (lambda: NewtonCG(damping=0.0), "damping"),
    ],
)
def test_misuse_says_the_mend(make: Callable[[], Minimiser], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
