"""Balancing and sampling: each scheme against the law that it is made from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.pde import Box, resampled, weighted
from sciode.pinn import (
    NTK,
    R3,
    RAD,
    Causal,
    Condition,
    Face,
    GradientAnnealing,
    Names,
    Network,
    Numbers,
    Problem,
    ReLoBRaLo,
    ResidualAttention,
    SelfAdaptive,
    dirichlet,
    single,
    solve,
    strips,
)
from sciode.pinn.adaptive import sizes
from sciode.pinn.balance import Moment
from sciode.pinn.loss import Loss
from sciode.pinn.representation import representation_of
from sciode.pinn.terms import groups_of
from sciode.training import LBFGS, Adam

LIKE = torch.zeros((), dtype=torch.float64)


def _decay(x: Tensor) -> Tensor:
    return torch.exp(-x[..., 1:]) * torch.sin(math.pi * x[..., :1])


def heat() -> Problem:
    """u_t = u_xx / pi^2 with the solution e^-t sin pi x."""
    start = dirichlet(Face("t", -1), _decay, name="initial")
    walls = dirichlet(Face("x"), lambda x: torch.zeros_like(x[..., :1]), name="walls")
    return Problem(
        "heat", Names(("x", "t"), ("u",)), Box((0, 0), (1, 2)), lambda d, p: d.u_t - d.u_xx / math.pi**2,
        (start, walls), exact=_decay, time="t",
    )  # fmt: skip


def moment(problem: Problem, arms: int = 2, numbers: Numbers | None = None) -> Moment:
    """What a scheme sees of two arms."""
    of = representation_of(problem, single(problem.domain), Network(6, 2), LIKE)
    loss = Loss(groups_of(of, ()))
    theta = of.initial(range(arms), LIKE)
    samples = loss.draw(numbers or Numbers(32, 12, 1), 0, theta)
    base = torch.ones(arms, len(loss.names), dtype=torch.float64)
    return Moment(loss, theta, samples, base, loss.measure(theta, samples, base), 5)


def test_ntk_factors_are_ratios_of_exact_traces() -> None:
    """tr K_t by the Jacobian, row after row; Hutchinson's estimate comes near to it with many draws."""
    now = moment(heat(), 1, Numbers(10, 6, 1))
    traces = []
    for group, sample in zip(now.loss.groups, now.samples, strict=True):

        def rows(theta: Tensor, group: Any = group, sample: Any = sample) -> Tensor:
            found = next(iter(group.residuals(theta[None], sample).values()))
            return found.flatten() / math.sqrt(found.numel())

        traces.append(torch.func.jacrev(rows)(now.theta[0]).square().sum())
    exact = sum(traces) / torch.stack(traces)
    found = NTK(draws=400).update({}, now)["factors"][0]
    torch.testing.assert_close(found, exact, rtol=0.15, atol=0)


def test_annealed_factors_make_conditions_pull_as_the_equation_does() -> None:
    """Against slopes of each term alone; a mean over all looks of a ratio that stays is the ratio."""
    now = moment(heat())
    base = now.base * torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64)
    now = now._replace(base=base)
    slopes = []
    for place in range(3):
        alone = torch.zeros_like(base)
        alone[:, place] = base[:, place]
        slopes.append(now.loss.measure(now.theta, now.samples, alone).gradient)
    ratio = slopes[0].abs().amax(1) / slopes[2].abs().mean(1)
    scheme = GradientAnnealing(keep=0.75)
    memory = scheme.begin(base, torch.zeros(()))
    once = scheme.update(memory, now)["factors"]
    torch.testing.assert_close(once[:, 2], 0.75 + 0.25 * ratio)
    for _ in range(150):
        memory = scheme.update(memory, now)
    torch.testing.assert_close(memory["factors"][:, 2], ratio)
    assert memory["factors"][:, :2].eq(1.0).all()
    capped = GradientAnnealing(keep=0.0, most=1.5).update(memory, now)["factors"][:, 2]
    torch.testing.assert_close(capped, ratio.clamp(max=1.5))
    assert float(ratio.max()) > 1.5


def test_annealing_lets_be_what_pulls_at_nothing_or_at_infinity() -> None:
    """Walls that are fulfilled exactly, and a slope of the root at 0."""

    def rooted(d: Any, p: Any, g: Tensor) -> Tensor:
        return torch.sqrt(0 * d.u)

    still = Condition("walls", Face("x"), lambda d, p, g: 0 * d.u, lambda x: 0 * x[..., :1])
    steep = Condition("steep", Face("t", -1), rooted, lambda x: 0 * x[..., :1])
    now = moment(replace(heat(), conditions=(still, steep)))
    factors = GradientAnnealing(keep=0.5).update({"factors": torch.full_like(now.base, 7.0)}, now)["factors"]
    assert factors.eq(7.0).all()


def test_relobralo_weighs_most_what_has_fallen_least() -> None:
    now, scheme = moment(heat()), ReLoBRaLo(alpha=0.0, stay=0.0)
    before = now.measured.terms.clone()
    before[:, 0] *= 4
    memory = {"factors": torch.ones_like(before), "first": before, "last": before}
    factors = scheme.update(memory, now)["factors"]
    share = torch.softmax(torch.tensor([0.25, 1.0, 1.0], dtype=torch.float64), 0) * 3
    torch.testing.assert_close(factors, share.expand_as(factors))
    assert ReLoBRaLo(alpha=1.0, stay=1.0).update(memory, now)["factors"].eq(1.0).all()


def test_residual_attention_stays_below_its_bound_and_peaks_where_the_residual_does() -> None:
    now, scheme = moment(heat()), ResidualAttention(decay=0.9, rate=0.1)
    squares = now.loss.squares(now.theta, now.samples[0])
    memory = scheme.begin(now.base, squares)
    for _ in range(200):
        memory = scheme.update(memory, now)
    limit = squares.sqrt() / squares.sqrt().amax((1, 2), keepdim=True)
    torch.testing.assert_close(memory["points"].sqrt(), limit, rtol=1e-6, atol=1e-6)


def test_self_adaptive_weights_ascend_by_the_squared_residual() -> None:
    now = moment(heat())
    squares = now.loss.squares(now.theta, now.samples[0])
    found = SelfAdaptive(rate=0.3).update({"points": torch.ones_like(squares)}, now)["points"]
    torch.testing.assert_close(found, 1 + 0.3 * squares)


def test_causal_weights_are_one_in_the_first_slab_and_fall_by_what_is_left_before() -> None:
    now, causal = moment(heat(), numbers=Numbers(256, 8, 1)), Causal(0.7, 4)
    squares = now.loss.squares(now.theta, now.samples[0])
    found = causal.weights(squares, now.samples[0], now.loss.groups[0].problem)
    times = now.samples[0].data["points"][0, 0, :, 1]
    total = torch.zeros(2, dtype=torch.float64)
    for slab in range(4):
        rows = (times >= slab * 0.5) & (times < (slab + 1) * 0.5)
        expected = torch.exp(-0.7 * total)[:, None].expand(-1, int(rows.sum()))
        torch.testing.assert_close(found[:, 0, rows], expected)
        total = total + squares[:, 0, rows].mean(1)


def test_adaptive_points_of_an_arm_are_drawn_by_its_own_residual() -> None:
    """RAD with density r^4: the mean of r among the points is sum r^5 / sum r^4 of the candidates. R3: what is above
    the mean stays."""
    now = moment(heat())
    numbers, inside = Numbers(200, 8, 1), now.loss.groups[0].of.decomposition.inside
    old = inside(200, "sobol", 0)[None]
    before = sizes(now.loss, now.theta, old)
    drawn = RAD(power=4.0, floor=0.0).points(now.loss, now.theta, old, numbers, 1)
    assert drawn.shape == (2, 1, 200, 2) and not torch.equal(drawn[0], drawn[1])
    candidates = sizes(now.loss, now.theta, inside(2000, "sobol", 1)[None])
    expected = (candidates**5).sum((1, 2)) / (candidates**4).sum((1, 2))
    found = sizes(now.loss, now.theta, drawn).mean((1, 2))
    # Stratified draws scatter by no more than independent ones.
    spread = ((candidates**6).sum((1, 2)) / (candidates**4).sum((1, 2)) - expected**2).sqrt()
    assert bool(((found - expected).abs() < 3 * spread / math.sqrt(200)).all())
    assert bool((expected - before.mean((1, 2)) > 3 * spread / math.sqrt(200)).any())
    new = R3().points(now.loss, now.theta, old, numbers, 1)
    stays = (new == old).all(-1)
    assert torch.equal(stays, before > before.mean(-1, keepdim=True))


def test_rad_takes_the_candidates_that_the_sampler_of_one_domain_takes() -> None:
    """The density p ~ r^2 + mean r^2 / 2 with known r, over many draws; and rows do not look at one another."""
    size = torch.stack((torch.linspace(0, 1, 50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)))
    chosen = resampled(size, 20_000, 3, 2.0, 0.5)
    chance = size**2 / (size**2).mean(1, keepdim=True) + 0.5
    for row in range(2):
        counts = torch.bincount(chosen[row], minlength=50) / 20_000
        torch.testing.assert_close(counts.double(), chance[row] / chance[row].sum(), rtol=0, atol=1e-4)
    assert torch.equal(resampled(size[0], 9, 1), resampled(size, 9, 1)[0])
    box = Box(0.0, 1.0)
    taken = weighted(box, lambda x: x, 9, "grid", 50, 1, dtype=torch.float64)
    centres = (np.arange(50) + 0.5) / 50
    torch.testing.assert_close(
        taken.points[:, 0], torch.from_numpy(centres)[resampled(torch.from_numpy(centres), 9, 1)]
    )


BALANCED = [
    {"balance": NTK(20)},
    {"balance": GradientAnnealing()},
    {"balance": ReLoBRaLo()},
    {"balance": ResidualAttention()},
    {"balance": SelfAdaptive()},
    {"causal": Causal()},
]


@pytest.mark.parametrize("changes", BALANCED)
def test_a_balanced_run_learns(changes: dict[str, Any]) -> None:
    found = solve(
        heat(), strips(Box((0, 0), (1, 2)), 1, [1.0]), network=Network(8, 2), numbers=Numbers(80, 20, 10),
        stages=[Adam(60, lr=1e-2), LBFGS(40)], conditions=("average", "flux"), **changes,
    )  # fmt: skip
    assert float(found.error) < 0.25 and found.status[0] in ("budget", "stuck")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: NTK(0), "every"),
        (lambda: GradientAnnealing(keep=1.0), "keep"),
        (lambda: ReLoBRaLo(alpha=2.0), "alpha"),
        (lambda: ResidualAttention(decay=1.0), "decay"),
        (lambda: SelfAdaptive(rate=0.0), "rate"),
        (lambda: Causal(slabs=1), "slabs"),
        (lambda: RAD(floor=-1.0), "floor"),
    ],
)
def test_misuse_says_the_mend(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
