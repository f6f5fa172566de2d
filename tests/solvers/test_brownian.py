"""The Brownian path behind a seed: its law, its grid, and that it is the same path however it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from sciode import SDETerm, Solution, sample_seeds, solve
from sciode.solvers.brownian import CounterNoise, Ending
from sciode.solvers.start import fixed_steps

Seeded = Callable[[int], AbstractContextManager[None]]

WIENER = SDETerm(lambda t, y: torch.zeros_like(y), lambda t, y: torch.ones_like(y))
DIVIDES, CUT = 0.125, 0.3


def walk(
    samples: int, ts: Any, dt: float, channels: int = 1, dtype: torch.dtype = torch.float64, **options: Any
) -> Solution:
    """Brownian motions [T, samples, channels] from 0, by Euler steps of dy = dW, which adds up increments."""
    return solve(WIENER, torch.zeros(samples, channels, dtype=dtype), ts, dt=dt, method="euler", **options)


def increments(samples: int, ts: Any, dt: float, channels: int = 1, **options: Any) -> Tensor:
    """Every step's increment [steps, samples, channels]."""
    return walk(samples, ts, dt, channels, save="steps", **options).ys.diff(dim=0)


def lengths(span: float, dt: float) -> list[float]:
    whole = math.floor(span / dt + 1e-9)
    rest = span - whole * dt
    return [dt] * whole + ([rest] if rest > 1e-9 else [])


def check_law(steps: Tensor, sizes: list[float]) -> None:
    """Steps [N, B] are independent N(0, size): KS of each, and no correlation of values or of squares."""
    assert steps.shape[0] == len(sizes)
    z = steps / torch.tensor(sizes, dtype=steps.dtype).sqrt()[:, None]
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    samples = z.shape[1]
    for row in z:
        assert stats.chi2.sf(float(row.square().sum()), samples) > 1e-4
        assert stats.chi2.cdf(float(row.square().sum()), samples) > 1e-4
    for values in (z, z.square()):
        correlation = torch.corrcoef(values) - torch.eye(len(sizes))
        assert float(correlation.abs().max()) < 5 / math.sqrt(samples)


@pytest.mark.parametrize("dt", [DIVIDES, CUT])
@pytest.mark.parametrize("ts", [[0.0, 1.0], [1.0, 0.0], [-3.0, -2.0]])
def test_increments_are_independent_with_the_variance_of_their_step(ts: list[float], dt: float) -> None:
    check_law(increments(20_000, ts, dt, seed=5)[..., 0], lengths(1.0, dt))


def test_a_large_sample_of_one_step_is_normal() -> None:
    steps = increments(200_000, [0.0, 0.01], 0.01, seed=11)
    assert stats.kstest(steps.flatten().numpy() / 0.1, "norm").pvalue > 1e-3


def test_samples_channels_and_steps_are_independent_of_one_another() -> None:
    steps = increments(2, [0.0, 20.0], 1e-3, channels=5, seed=2).reshape(-1, 10)
    for values in (steps, steps.square()):
        correlation = torch.corrcoef(values.T) - torch.eye(10)
        assert float(correlation.abs().max()) < 5 / math.sqrt(steps.shape[0])
        lagged = torch.corrcoef(torch.cat((values[1:], values[:-1]), dim=1).T)[:10, 10:]
        assert float(lagged.abs().max()) < 5 / math.sqrt(steps.shape[0])


def test_paths_of_neighbouring_seeds_are_independent() -> None:
    columns = [increments(1, [0.0, 10.0], 1e-3, seed=seed).flatten() for seed in (0, 1, 2, 2**32, 2**32 + 1)]
    correlation = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert float(correlation.abs().max()) < 5 / math.sqrt(10_000)


@pytest.mark.parametrize("dt", [DIVIDES, CUT])
@pytest.mark.parametrize("ts", [[0.0, 2.0], [2.0, 0.0]])
def test_a_sample_has_the_same_path_alone_and_in_any_batch(ts: list[float], dt: float) -> None:
    large = walk(1000, ts, dt, channels=3, seed=9, save="steps").ys
    small = walk(7, ts, dt, channels=3, seed=9, save="steps").ys
    assert torch.equal(large[:, :7], small)
    for i in (0, 5, 999):
        alone = walk(1, ts, dt, channels=3, seed=sample_seeds(9, i + 1)[i:], save="steps").ys
        assert torch.equal(alone[:, 0], large[:, i])


def test_a_channel_s_path_does_not_depend_on_how_many_follow() -> None:
    assert torch.equal(increments(3, [0.0, 1.0], 0.1, 9, seed=1)[..., :2], increments(3, [0.0, 1.0], 0.1, 2, seed=1))


@pytest.mark.parametrize("ts", [[0.0, 1.0], [1.0, 0.0]])
def test_permuting_the_seeds_permutes_the_paths(ts: list[float]) -> None:
    seeds, order = sample_seeds(4, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    straight = walk(6, ts, CUT, seed=seeds, save="steps").ys
    assert torch.equal(walk(6, ts, CUT, seed=seeds[order], save="steps").ys, straight[:, order])
    assert not torch.equal(straight[:, order], straight)


def test_an_int_stands_for_its_sample_seeds() -> None:
    assert torch.equal(walk(4, [0.0, 1.0], 0.1, seed=7).ys, walk(4, [0.0, 1.0], 0.1, seed=sample_seeds(7, 4)).ys)
    scalar = torch.tensor(7)
    assert torch.equal(walk(4, [0.0, 1.0], 0.1, seed=7).ys, walk(4, [0.0, 1.0], 0.1, seed=scalar).ys)


def test_sample_seeds_are_distinct_and_a_prefix_of_more() -> None:
    seeds = sample_seeds(0, 10_000)
    assert seeds.dtype == torch.int64
    assert len(set(seeds.tolist())) == 10_000
    assert torch.equal(seeds[:10], sample_seeds(0, 10))
    assert not set(seeds.tolist()) & set(sample_seeds(1, 10_000).tolist())


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_every_64_bit_seed_is_a_seed(seed: int) -> None:
    path = walk(3, [0.0, 1.0], 0.1, seed=seed)
    assert path.seed == seed
    assert torch.equal(path.ys, walk(3, [0.0, 1.0], 0.1, seed=seed).ys)
    assert not torch.equal(path.ys, walk(3, [0.0, 1.0], 0.1, seed=123).ys)


def test_a_generator_is_drawn_from_once_and_the_seed_is_reported() -> None:
    first = walk(3, [0.0, 1.0], 0.1, seed=torch.Generator().manual_seed(8))
    generator = torch.Generator().manual_seed(8)
    second, third = (walk(3, [0.0, 1.0], 0.1, seed=generator) for _ in range(2))
    assert torch.equal(first.ys, second.ys)
    assert not torch.equal(second.ys, third.ys)
    assert torch.equal(walk(3, [0.0, 1.0], 0.1, seed=third.seed).ys, third.ys)


def test_without_a_seed_manual_seed_rules_and_the_seed_is_reported(seeded: Seeded) -> None:
    with seeded(3):
        first, other = walk(3, [0.0, 1.0], 0.1), walk(3, [0.0, 1.0], 0.1)
    with seeded(3):
        again = walk(3, [0.0, 1.0], 0.1)
    assert torch.equal(first.ys, again.ys)
    assert not torch.equal(first.ys, other.ys)
    assert torch.equal(walk(3, [0.0, 1.0], 0.1, seed=first.seed).ys, first.ys)


def test_a_given_seed_draws_nothing_from_the_global_stream() -> None:
    before = torch.get_rng_state()
    walk(3, [0.0, 1.0], 0.1, seed=1)
    walk(3, [0.0, 1.0], 0.1, seed=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [1.5, "7", True, torch.zeros(2, dtype=torch.int64), torch.zeros(3)])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"^seed: "):
        walk(3, [0.0, 1.0], 0.1, seed=seed)


def test_backward_returns_the_forward_increments_in_reverse_where_dt_divides() -> None:
    forward = increments(5, [0.0, 1.0], DIVIDES, 3, seed=6)
    backward = increments(5, [1.0, 0.0], DIVIDES, 3, seed=6)
    torch.testing.assert_close(backward, -forward.flip(0), rtol=0, atol=1e-14)


def test_backward_walks_the_forward_path_where_dt_does_not_divide() -> None:
    forward = increments(5, [0.0, 1.0], CUT, 3, seed=6)
    backward = increments(5, [1.0, 0.0], CUT, 3, seed=6)
    torch.testing.assert_close(backward.sum(0), -forward.sum(0), rtol=0, atol=1e-14)
    # Grids 0, 0.3, 0.6, 0.9, 1 and 1, 0.7, 0.4, 0.1, 0: forward [0.3, 0.6] is what backward [0.4, 0.1] and [0.7, 0.4]
    # leave over, so they share 0.2 and 0.1 of it; the covariance of two increments is the length of their overlap.
    many_f = increments(40_000, [0.0, 1.0], CUT, seed=6)[..., 0]
    many_b = increments(40_000, [1.0, 0.0], CUT, seed=6)[..., 0]
    forward_cells = [(0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.0)]
    backward_cells = [(0.7, 1.0), (0.4, 0.7), (0.1, 0.4), (0.0, 0.1)]
    for x, (a, b) in zip(many_f, forward_cells, strict=True):
        for y, (c, d) in zip(many_b, backward_cells, strict=True):
            overlap = max(0.0, min(b, d) - max(a, c))
            spread = math.sqrt(((b - a) * (d - c) + overlap**2) / 40_000)
            assert abs(float((x * y).mean()) + overlap) < 4.5 * spread


@pytest.mark.parametrize("dt", [DIVIDES, CUT])
def test_a_resumed_solve_is_the_long_solve(dt: float) -> None:
    first = walk(4, [0.0, 1.0], dt, 2, seed=3)
    rest = solve(WIENER, None, [1.0, 1.5, 2.0], resume=first)
    long = walk(4, [0.0, 1.5, 2.0], dt, 2, seed=3)
    assert torch.equal(rest.ys[1:], long.ys[1:])
    assert torch.equal(rest.ys[0], first.ys[-1])


@pytest.mark.parametrize("dt", [DIVIDES, CUT])
def test_resuming_twice_is_resuming_once(dt: float) -> None:
    first = walk(4, [0.0, 0.5], dt, 2, seed=3)
    second = solve(WIENER, None, [0.5, 1.1], resume=first)
    third = solve(WIENER, None, [1.1, 2.0], resume=second)
    assert torch.equal(third.ys[-1], walk(4, [0.0, 2.0], dt, 2, seed=3).ys[-1])


@pytest.mark.parametrize("dt", [DIVIDES, CUT])
def test_a_solve_resumed_backward_goes_on_with_fresh_increments_of_the_right_law(dt: float) -> None:
    first = walk(20_000, [2.0, 1.0], dt, seed=3)
    rest = solve(WIENER, None, [1.0, 0.0], resume=first).ys[:, :, 0]
    early, late = first.ys[-1, :, 0], rest[-1] - rest[0]
    assert torch.equal(rest[0], early)
    check_law(torch.stack((early, late)), [1.0, 1.0])


def test_more_output_times_change_nothing_of_the_path() -> None:
    few = walk(4, [0.0, 1.0], CUT, seed=3)
    many = walk(4, torch.linspace(0, 1, 23, dtype=torch.float64), CUT, seed=3)
    assert torch.equal(few.ys[-1], many.ys[-1])


def test_samples_with_times_of_their_own_keep_their_paths() -> None:
    ts = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.7, 2.1]], dtype=torch.float64)
    together = walk(3, ts, CUT, seed=sample_seeds(2, 3)).ys
    for i in range(3):
        alone = walk(1, ts[:, i], CUT, seed=sample_seeds(2, 3)[i : i + 1]).ys
        assert torch.equal(together[:, i], alone[:, 0])


def test_float32_and_float64_walk_the_same_path() -> None:
    single = walk(50, [0.0, 1.0], 0.01, seed=3, dtype=torch.float32, save="steps").ys
    double = walk(50, [0.0, 1.0], 0.01, seed=3, save="steps").ys
    # 100 increments of size 0.1, each wrong by at most sqrt(2 eps) 0.1 where Box-Muller's radius vanishes.
    assert float((single.double() - double).abs().max()) < 1e-3


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dt", [DIVIDES, CUT])
def test_a_block_is_its_steps_one_by_one(sign: int, dt: float) -> None:
    count = len(lengths(1.0, dt))
    ending = Ending(np.array([count]), np.array([lengths(1.0, dt)[-1]]))
    noise = CounterNoise(sample_seeds(1, 3), 5, dt, sign, ending, ending, torch.float64)
    together = noise.block(0, count)
    assert together.shape == (count, 3, 5)
    assert torch.equal(together, torch.cat([noise.block(n, 1) for n in range(count)]))
    assert torch.equal(together, torch.cat([noise.block(torch.tensor([n]), 1) for n in range(count)]))


def test_given_increments_are_used_row_by_row_in_either_direction() -> None:
    rows = torch.arange(1.0, 9.0, dtype=torch.float64).reshape(4, 2, 1)
    for ts in ([0.0, 1.0], [1.0, 0.0]):
        assert torch.equal(increments(2, ts, 0.25, noise=rows), rows)
    assert walk(2, [0.0, 1.0], 0.25, noise=rows).seed is None


@pytest.mark.parametrize("shape", [(3, 2, 1), (5, 2, 1), (4, 3, 1), (4, 2, 2)])
def test_given_increments_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^noise: expected increments \[4, 2, 1\]"):
        walk(2, [0.0, 1.0], 0.25, noise=torch.zeros(shape))


def test_noise_and_seed_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^noise: pass either"):
        walk(2, [0.0, 1.0], 0.25, noise=torch.zeros(4, 2, 1), seed=1)


DRIFTING = SDETerm(lambda t, y: torch.ones_like(y), lambda t, y: torch.zeros_like(y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [1e-2, float(torch.tensor(1e-2)), 1e-3, float(torch.tensor(1e-3))])
def test_float32_times_and_steps_give_exactly_the_steps_they_mean(dtype: torch.dtype, dt: float) -> None:
    """torchsde adds up times in float32 and takes 101 steps of 0.01 to 1 (its issue 109)."""
    ts = torch.tensor([0.0, 1.0], dtype=torch.float32)
    solution = solve(DRIFTING, torch.zeros(2, 1, dtype=dtype), ts, dt=dt, seed=0)
    assert solution.stats.accepted.tolist() == [round(1 / dt)] * 2
    assert solution.stats.rejected.tolist() == [0, 0]
    # A sum of n terms in this dtype is off by at most n eps; dt itself by float32's rounding of it.
    bound = round(1 / dt) * torch.finfo(dtype).eps + torch.finfo(torch.float32).eps
    torch.testing.assert_close(solution.ys[-1], torch.ones(2, 1, dtype=dtype), rtol=0, atol=bound)


@pytest.mark.parametrize(("span", "steps"), [(0.7, 7), (0.3, 3), (0.75, 8), (0.05, 1), (0.1, 1)])
def test_steps_of_a_tenth_end_where_they_should(span: float, steps: int) -> None:
    for ts in ([0.0, span], [span, 0.0], [math.pi, math.pi + span]):
        solution = solve(DRIFTING, torch.zeros(1, 1, dtype=torch.float64), ts, dt=0.1, seed=0)
        assert solution.stats.accepted.tolist() == [steps]
        assert abs(float(solution.ys[-1]) - (ts[1] - ts[0])) < 1e-12


@pytest.mark.parametrize("steps", [1, 7, 1000, 100_000, 10_000_000])
@pytest.mark.parametrize("dt", [0.1, 1e-3, float(torch.tensor(0.1)), 1 / 3])
def test_a_multiple_of_the_step_is_whole_and_a_little_more_or_less_is_not(steps: int, dt: float) -> None:
    ending = fixed_steps(np.array([steps * dt, (steps + 0.01) * dt, (steps - 0.01) * dt]), dt)
    assert ending.cells.tolist() == [steps, steps + 1, steps]
    np.testing.assert_allclose(ending.cut / dt, [1.0, 0.01, 0.99], rtol=0, atol=1e-6)


def test_the_drift_and_the_diffusion_see_the_times_of_the_grid() -> None:
    seen: list[float] = []

    def drift(t: Tensor, y: Tensor) -> Tensor:
        seen.append(float(t.flatten()[0]))
        return torch.zeros_like(y)

    y0 = torch.zeros(1, 1, dtype=torch.float64)
    solve(SDETerm(drift, lambda t, y: torch.ones_like(y)), y0, [0.0, 1.0], dt=0.3, seed=0, batch_dims=1)
    torch.testing.assert_close(seen[1:], [0.0, 0.3, 0.6, 0.9], rtol=0, atol=1e-15)


@pytest.mark.parametrize("ts", [[0.0, 0.1, 0.2], [2.0, 1.9, 1.8]])
def test_resuming_to_an_end_inside_the_same_step_is_refused(ts: list[float]) -> None:
    first = walk(4, ts[:2], CUT, seed=3)
    with pytest.raises(
        ValueError, match=r"ts: the earlier solve ended inside a step of dt=0\.3.*choose a later last time"
    ):
        solve(WIENER, None, ts[1:], resume=first)
