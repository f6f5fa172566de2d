"""`SDETerm(prior_drift=)`: the divergence of path laws against closed forms, under every engine and adjoint."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode import SDETerm, solve
from sciode.timeseries.latent import steered

A, B, S, X = 0.4, 1.1, 0.7, 1.5
DT, STEPS = 0.05, 20


def ornstein(**changes: Any) -> SDETerm:
    """Posterior -b z dt + s dW, prior -a z dt + s dW."""
    return SDETerm(lambda t, z: -B * z, lambda t, z: torch.full_like(z, S), prior_drift=lambda t, z: -A * z, **changes)


def kl(term: SDETerm, samples: int = 4, width: int = 1, **how: Any) -> Tensor:
    start = torch.full((samples, width), X, dtype=torch.float64)
    options: dict[str, Any] = {"dt": DT, "method": "euler", "seed": 5, "engine": "eager"} | how
    return solve(term, start, [0.0, DT * STEPS], **options).penalties["kl"]


def test_its_mean_is_the_divergence_of_the_two_euler_chains() -> None:
    """(a - b)^2 / (2 s^2) times the sum of dt E z_n^2, a geometric recursion."""
    found, second, total = kl(ornstein(), 20_000), X**2, 0.0
    for _ in range(STEPS):
        total += second * DT
        second = (1 - B * DT) ** 2 * second + S**2 * DT
    want = (A - B) ** 2 / (2 * S**2) * total
    assert found.shape == (20_000,)
    assert abs(float(found.mean()) - want) < 4 * float(found.std()) / math.sqrt(20_000)


def test_it_is_what_an_augmented_state_adds_up_path_by_path() -> None:
    """The latent SDE writes the same integral into its state, without a division."""

    def steer(t: Tensor, z: Tensor) -> Tensor:
        return (A - B) * z / S

    term = steered(lambda t, z: -A * z, steer, lambda t, z: torch.full_like(z, S))
    increments = torch.randn(STEPS, 6, 3, generator=torch.Generator().manual_seed(0)).double() * math.sqrt(DT)
    padded = torch.cat((increments[..., :2], torch.zeros(STEPS, 6, 1).double()), -1)
    start = torch.tensor([X, -X, 0.0]).double().expand(6, 3).contiguous()
    how: dict[str, Any] = {"dt": DT, "method": "euler", "engine": "eager"}
    augmented = solve(term, start, [0.0, DT * STEPS], noise=padded, **how).ys[-1, :, -1]
    found = solve(ornstein(), start[:, :2].contiguous(), [0.0, DT * STEPS], noise=increments[..., :2], **how)
    torch.testing.assert_close(found.penalties["kl"], augmented, rtol=1e-12, atol=1e-14)


def test_more_components_add_up_and_equal_drifts_add_nothing_even_without_noise() -> None:
    one, three = kl(ornstein(), 4000).mean(), kl(ornstein(), 4000, 3).mean()
    assert float(three / one) == pytest.approx(3, rel=0.1)
    silent = SDETerm(lambda t, z: -z, lambda t, z: 0 * z, prior_drift=lambda t, z: -z)
    assert (kl(silent) == 0).all()
    apart = SDETerm(lambda t, z: -z, lambda t, z: 0 * z, prior_drift=lambda t, z: -2 * z)
    assert kl(apart).isinf().all()


@pytest.mark.parametrize(("method", "calculus"), [("milstein", "ito"), ("heun", "stratonovich"), ("sriw1", "ito")])
def test_other_methods_and_adaptive_steps_find_it_to_the_order_of_their_steps(method: str, calculus: Any) -> None:
    level, time = S**2 / (2 * B), DT * STEPS
    exact = level * time + (X**2 - level) * -math.expm1(-2 * B * time) / (2 * B)
    want = (A - B) ** 2 / (2 * S**2) * exact
    steps: dict[str, Any] = {"dt": 0.01}
    if method == "sriw1":
        steps = {"dt": None, "rtol": 1e-3, "atol": 1e-3}
    found = kl(ornstein(calculus=calculus), 4000, method=method, **steps)
    assert abs(float(found.mean()) - want) < 4 * float(found.std()) / math.sqrt(4000) + 0.03 * want


class Net(nn.Module):
    """Posterior, prior and diffusion with weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.drift, self.prior, self.noise = (nn.Linear(2, 2) for _ in range(3))

    def term(self) -> SDETerm:
        return SDETerm(
            lambda t, z: self.drift(z),
            lambda t, z: self.noise(z).sigmoid() + 0.5,
            prior_drift=lambda t, z: self.prior(z),
        )


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_the_gradient_reaches_the_prior_under_every_adjoint(adjoint: Any, seeded: Any) -> None:
    """It is reached by the prior alone: no gradient is silently missing."""
    with seeded(0):
        net = Net().double()
    start = torch.ones(3, 2, dtype=torch.float64)
    increments = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.3
    names = [name for name, _ in net.named_parameters()]

    def penalty(*weights: Tensor) -> Tensor:
        how: dict[str, Any] = {"dt": 0.1, "method": "euler", "adjoint": adjoint, "engine": "eager"}
        for name, weight in zip(names, weights, strict=True):
            net.get_parameter(name).data.copy_(weight.detach())
        return solve(net.term(), start, [0.0, 0.4], noise=increments, **how).penalties["kl"].sum()

    weights = [p.detach().clone() for p in net.parameters()]
    grads = torch.autograd.grad(penalty(*weights), list(net.parameters()))
    for place, grad in enumerate(grads):
        bent = [w.clone() for w in weights]
        bent[place].view(-1)[0] += 1e-6
        low = [w.clone() for w in weights]
        low[place].view(-1)[0] -= 1e-6
        slope = (penalty(*bent) - penalty(*low)).detach() / 2e-6
        assert float(grad.view(-1)[0]) == pytest.approx(float(slope), rel=1e-5, abs=1e-8), names[place]
        assert float(grad.abs().max()) > 0
    penalty(*weights)


def test_a_compiled_solve_measures_the_same(seeded: Any) -> None:
    with seeded(0):
        net = Net()
    found = []
    for engine in ("eager", "compiled"):
        net.zero_grad()
        how: dict[str, Any] = {"dt": 0.1, "method": "euler", "engine": engine, "seed": 3}
        solution = solve(net.term(), torch.ones(3, 2), [0.0, 0.4], **how)
        solution.penalties["kl"].sum().backward()
        assert solution.stats.engine == engine
        found.append((solution.penalties["kl"], [p.grad for p in net.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_states_of_several_parts_and_args_are_taken() -> None:
    term = SDETerm(
        lambda t, y, a: {"u": -a * y["u"], "v": 0 * y["v"]},
        lambda t, y, a: {name: torch.ones_like(part) for name, part in y.items()},
        prior_drift=lambda t, y, a: {"u": 0 * y["u"], "v": a + 0 * y["v"]},
    )
    start = {"u": torch.zeros(2, 1), "v": torch.zeros(2, 3)}
    found = solve(term, start, [0.0, 1.0], dt=1.0, args=torch.tensor(2.0), batch_dims=1, seed=0)
    torch.testing.assert_close(found.penalties["kl"], torch.full((2,), 0.5 * 3 * 4))


def plain(t: Tensor, z: Tensor) -> Tensor:
    return z


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SDETerm(torch.sin, torch.cos, prior_drift=3), "prior_drift: expected a callable"),  # type: ignore
        (lambda: SDETerm(torch.sin, torch.cos, noise="general", prior_drift=torch.sin), "one more component"),
        (lambda: kl(SDETerm(plain, plain, prior_drift=lambda t, z: z[0])), "prior_drift: output has shape"),
        (lambda: kl(ornstein(), adjoint="backsolve"), "nor a prior's divergence"),
        (lambda: kl(SDETerm(plain, plain), regularize="kl"), "kl"),
    ],
)
def test_misuse_says_the_mend(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
