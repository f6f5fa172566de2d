"""Times, distances and losses: laws, limits, and what their least value is reached by."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from sciode.diffusion import EDM, PREDICTIONS, RectifiedFlow, VPLinear
from sciode.diffusion.networks import Preconditioned
from sciode.diffusion.training import (
    drop_labels,
    elementwise_huber,
    flow_loss,
    log_normal,
    preconditioned_loss,
    prediction_loss,
    pseudo_huber,
    pyramid,
    reflow_pairs,
    squared,
    straighten,
    stratified,
    u_shaped,
    uniform,
)
from sciode.testing import GaussianMixture

GRID = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
DISTANCES = {"squared": squared, "vector": pseudo_huber(), "element": elementwise_huber(), "pyramid": pyramid(2)}


def _two(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return a, b


def test_u_shaped_times_have_the_density_of_two_exponentials() -> None:
    a = 4.0
    t = u_shaped(a)(GRID).numpy()
    rising = stats.truncexpon(b=a, scale=1 / a)
    # Half of the mixture falls, half rises: F(t) = (G(t) + 1 - G(1 - t)) / 2.
    found = 0.5 * (rising.cdf(t) + 1 - rising.cdf(1 - t))
    assert abs(found - GRID.numpy()).max() < 1e-4
    torch.testing.assert_close(u_shaped(a)(GRID) + u_shaped(a)(1 - GRID), torch.ones_like(GRID))
    torch.testing.assert_close(u_shaped(1e-6)(GRID), GRID, rtol=0, atol=2e-5)


def test_log_normal_levels_are_a_normal_cut_at_the_ends() -> None:
    schedule = EDM()
    logs = log_normal(schedule, t_end=0.002)(GRID).log().numpy()
    low, high = math.log(0.002), math.log(80)
    law = stats.truncnorm((low + 1.2) / 1.2, (high + 1.2) / 1.2, loc=-1.2, scale=1.2)
    assert abs(law.cdf(logs) - GRID.numpy()).max() < 1e-9
    t = log_normal(VPLinear(), -0.4, 1.5)(GRID)
    assert float(t.min()) >= 1e-3 - 1e-9 and float(t.max()) <= 1 + 1e-9


def test_strata_hold_one_number_each() -> None:
    u = stratified(50, torch.Generator().manual_seed(0))
    assert sorted((u * 50).floor().int().tolist()) == list(range(50))
    assert float(uniform(2.0, 4.0)(u).mean()) == pytest.approx(3, abs=0.02)


def test_laws_without_sense_are_refused() -> None:
    for call in (lambda: uniform(1, 1), lambda: u_shaped(0.0), lambda: log_normal(VPLinear(), deviation=0.0)):
        with pytest.raises(ValueError, match="expected"):
            call()


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_zero_at_equality_symmetric_and_a_number_a_sample(name: str) -> None:
    distance, (a, b) = DISTANCES[name], _two(5, 1, 4, 4)
    assert not distance(a, a).any()
    torch.testing.assert_close(distance(a, b), distance(b, a))
    torch.testing.assert_close(distance(a, b)[2:3], distance(a[2:3], b[2:3]))


def test_pseudo_huber_is_a_square_near_by_and_a_length_far_off() -> None:
    a, b = _two(4, 10)
    d, c = a - b, 0.00054 * 10
    near, far = pseudo_huber()(1e-6 * a, 1e-6 * b), pseudo_huber()(1e6 * a, 1e6 * b)
    torch.testing.assert_close(near, (1e-6 * d).square().sum(1) / (2 * c) / 10, rtol=1e-4, atol=0)
    torch.testing.assert_close(far, (1e6 * d).norm(dim=1) / 10, rtol=1e-6, atol=0)
    torch.testing.assert_close(pseudo_huber()(a, b), ((d.square().sum(1) + c**2).sqrt() - c) / 10, rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_exact_model_of_a_point_has_no_loss(prediction: str) -> None:
    """Where all data are one point, noise can be seen; a mixture's exact model is tested by its minimum below."""
    x0, eps = _two(8, 3)
    x0 = x0[:1].expand(8, 3)
    t = torch.linspace(0.05, 0.9, 8, dtype=torch.float64)
    schedule = RectifiedFlow()

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen = (x - (1 - t[:, None]) * x0) / t[:, None]
        kinds = {"eps": seen, "x0": x0, "v": (1 - t[:, None]) * seen - t[:, None] * x0, "score": -seen / t[:, None]}
        return kinds.get(prediction, seen - x0)

    assert float(prediction_loss(model, x0, eps, t, schedule, prediction).max()) < 1e-20


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_exact_model_of_a_mixture_is_the_minimum(prediction: str) -> None:
    """The gradient of the loss along any direction vanishes there: E[(model - target) g(x)] = 0."""
    mixture, schedule = GaussianMixture.random(2, seed=0), VPLinear()
    n = 200_000
    x0, (eps, _) = mixture.draw(n, seed=1), _two(n, 2, seed=2)
    exact = mixture.model(schedule, prediction)
    t = torch.full((n,), 0.4, dtype=torch.float64)
    best = float(prediction_loss(exact, x0, eps, t, schedule, prediction).mean())
    for push in (0.2, -0.2):
        worse = prediction_loss(lambda x, t, p=push: exact(x, t) + p * torch.tanh(x), x0, eps, t, schedule, prediction)
        # In the mean p^2 E tanh^2, 0.04 times some 0.3, less what 200,000 draws leave of the cross term.
        assert float(worse.mean()) - best > 0.005


def test_the_preconditioned_loss_is_that_of_the_data_prediction_with_edms_weight(seeded) -> None:
    with seeded(0):
        network = torch.nn.Linear(3, 3, dtype=torch.float64)

    class Net(torch.nn.Module):
        def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
            return network(x) * level[:, None]

    schedule, d, (x0, eps) = VPLinear(), 0.5, _two(6, 3)
    t = torch.linspace(0.01, 1, 6, dtype=torch.float64)
    model = Preconditioned(Net(), schedule, deviation=d, prediction="x0")
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    weight = (sigma**2 + alpha**2 * d**2) / (sigma * d) ** 2
    expected = weight * prediction_loss(model, x0, eps, t, schedule, "x0")
    torch.testing.assert_close(preconditioned_loss(model, x0, eps, t), expected, rtol=1e-8, atol=0)


def test_labels_are_dropped_at_the_share_that_was_asked_for() -> None:
    label = torch.arange(10).repeat(10_000)
    dropped = drop_labels(label, 10, 0.2, torch.Generator().manual_seed(0))
    lost = dropped == 10
    assert torch.equal(dropped[~lost], label[~lost])
    # Three standard errors of 100,000 draws.
    assert float(lost.double().mean()) == pytest.approx(0.2, abs=0.004)


def test_the_loss_of_a_straight_flow_is_zero_and_its_terms_are_those_of_the_recipe() -> None:
    x0, eps = _two(6, 1, 4, 4)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)

    def straight(x: Tensor, t: Tensor) -> Tensor:
        return eps - x0

    for premetric in (None, squared):
        assert float(flow_loss(straight, x0, eps, t, premetric=premetric).max()) < 1e-12

    def wrong(x: Tensor, t: Tensor) -> Tensor:
        return eps - x0 + 1

    huber = pseudo_huber()(x0 + 1, x0)
    torch.testing.assert_close(flow_loss(wrong, x0, eps, t), huber)
    # x_hat is off by t, so that its mean square is t^2.
    torch.testing.assert_close(flow_loss(wrong, x0, eps, t, premetric=squared), (1 - t) * huber + t**2)
    torch.testing.assert_close(flow_loss(wrong, x0, eps, t, premetric=squared, divide=True), (1 - t) * huber + t)


def test_a_flow_is_straightened_by_its_loss_at_the_times_of_a_law_told_whatever_the_pairs_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = {name: torch.randn(50, 3, generator=generator) for name in ("eps", "x0")} | {"label": torch.arange(50)}
    seen: list[Tensor] = []

    def off(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(t)
        return pairs["eps"] - pairs["x0"] + label[:, None]

    found = straighten(uniform(0.2, 0.3), premetric=squared)(off, None, pairs, generator)
    assert 0.2 <= float(seen[0].min()) < float(seen[0].max()) <= 0.3
    wanted = flow_loss(lambda x, t: off(x, t, pairs["label"]), pairs["x0"], pairs["eps"], seen[0], premetric=squared)
    torch.testing.assert_close(found, wanted.mean())


def test_reflow_pairs_are_the_ends_of_the_ode_and_can_be_made_in_parts() -> None:
    mixture, schedule = GaussianMixture.random(2, seed=0), VPLinear()
    options = {"sampler": "unipc-3", "nfe": 40}
    pairs = reflow_pairs(mixture.model(schedule), schedule, (12, 2), batch=5, seed=3, **options)
    again = reflow_pairs(mixture.model(schedule), schedule, (7, 2), batch=7, seed=3, **options)
    torch.testing.assert_close(pairs["x0"][:7], again["x0"])
    start = pairs["eps"].double() * float(schedule.sigma(1.0))
    ends = mixture.end_of_ode(start, schedule, 1.0, 1e-3, 1e-9)
    torch.testing.assert_close(pairs["x0"].double(), ends, rtol=0, atol=2e-3)


def test_the_noise_of_a_pair_is_its_own_where_the_sampler_draws_too() -> None:
    mixture, schedule = GaussianMixture.random(2, seed=0), VPLinear()
    options: dict[str, Any] = {"sampler": "ddpm", "nfe": 5, "seed": 3}
    pairs = reflow_pairs(mixture.model(schedule), schedule, (6, 2), batch=4, **options)
    again = reflow_pairs(mixture.model(schedule), schedule, (5, 2), batch=5, **options)
    torch.testing.assert_close(pairs["x0"][:5], again["x0"])
    with pytest.raises(ValueError, match="one a pair"):
        reflow_pairs(mixture.model(schedule), schedule, (6, 2), cond={"y": torch.zeros(2)}, **options)
