"""The Brownian tree: its law exactly, as sums over its nodes, and in samples; one path however it is asked for."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciode import sample_seeds
from sciode.solvers.brownian import BrownianTree, levels_for

LOW, SPAN = -0.5, 2.0


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tree(seeds: Any = 0, samples: int = 1, channels: int = 1, levels: int = 12, **options: Any) -> BrownianTree:
    seeds = sample_seeds(seeds, samples) if isinstance(seeds, int) else seeds
    settled = {"low": times(LOW), "span": times(SPAN), "area": True, "dtype": torch.float64, **options}
    return BrownianTree(seeds, channels, levels=levels, **settled)


def covariance(levels: int, points: Tensor) -> Tensor:
    """Of W and of its integral at the points, [2 n, 2 n], from the factors of the normals that each is the sum of."""
    places = tree(levels=levels)._places(points[:, None])
    nodes, n = places.nodes[..., 0], len(points)
    factors = torch.cat((places.path[..., 0], places.area[..., 0]), dim=2)
    nodes = torch.cat((nodes, nodes), dim=1)
    total = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
    for node in nodes.unique():
        mine = torch.where(nodes == node, factors, 0.0).sum(1)
        total += mine.T @ mine
    return total


def brownian(points: Tensor) -> Tensor:
    """The same of Brownian motion: E W_s W_t = s, E W_s A_t = s (t - s/2) or t^2/2, E A_s A_t = s^2 (3 t - s)/6."""
    t = points - LOW
    s, u = t[:, None], t[None]
    small, large = torch.minimum(s, u), torch.maximum(s, u)
    cross = torch.where(s < u, s * (u - s / 2), u * u / 2)
    areas = small * small * (3 * large - small) / 6
    return torch.cat((torch.cat((small, cross), 1), torch.cat((cross.T, areas), 1)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(LOW, LOW + SPAN), min_size=1, max_size=5), st.sampled_from([8, 12, 29]))
def test_its_covariances_are_those_of_brownian_motion_to_rounding(points: list[float], levels: int) -> None:
    """At any times that no leaf holds two of."""
    leaf = SPAN / 2**levels
    kept = [p for i, p in enumerate(points) if all(math.floor((p - LOW) / leaf) != math.floor((q - LOW) / leaf)
                                                   for q in points[:i])]  # fmt: skip
    chosen = times(*kept)
    torch.testing.assert_close(covariance(levels, chosen), brownian(chosen), rtol=1e-12, atol=1e-12)


def test_increments_and_areas_have_their_law_on_arbitrary_intervals() -> None:
    """Normal (Kolmogorov and Smirnov's distance), uncorrelated, and independent on disjoint intervals."""
    samples = 40_000
    path = tree(1, samples, channels=3)
    parts = [path.over(times(t), times(dt)) for t, dt in ((-0.3, 0.7), (0.4, 0.0123), (0.4123, 1.0))]
    unit = [
        x[:, c] / math.sqrt(dt * share)
        for part, dt in zip(parts, (0.7, 0.0123, 1.0), strict=True)
        for x, share in zip(part, (1.0, 1 / 12), strict=True)
        for c in range(3)
    ]
    table = torch.stack(unit)
    for row in table:
        sorted_row, index = row.sort().values, torch.arange(samples, dtype=torch.float64)
        normal = torch.special.ndtr(sorted_row)
        distance = torch.maximum((normal - index / samples).abs(), ((index + 1) / samples - normal).abs()).max()
        # Exceeded with probability 2 exp(-2 * 1.95^2) = 1e-3, by one of 18 rows of a wrong law at once.
        assert float(distance) < 1.95 / math.sqrt(samples)
    off = table @ table.T / samples - torch.eye(len(table), dtype=torch.float64)
    assert float(off.abs().max()) < 5 * math.sqrt(2 / samples)
    # Squares too: uncorrelated is not yet independent.
    squares = (table**2 - 1) / math.sqrt(2)
    off = squares @ squares.T / samples
    assert float((off - torch.diag(torch.diag(off))).abs().max()) < 5 / math.sqrt(samples)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**28), min_size=3, max_size=3, unique=True), st.booleans())
def test_neighbouring_intervals_add_up_by_chens_relation(parts: list[int], back: bool) -> None:
    # Binary fractions, whose sums and differences have no rounding: a path is so rough that a time's would show.
    s, t, u = sorted((LOW + SPAN * p / 2**28 for p in parts), reverse=back)
    path = tree(2, 4, channels=2, levels=20)
    (w1, h1), (w2, h2), (w, h) = (path.over(times(a), times(b) - times(a)) for a, b in ((s, t), (t, u), (s, u)))
    torch.testing.assert_close(w1 + w2, w, rtol=0, atol=1e-13)
    first, second, whole = t - s, u - t, u - s
    combined = first * h1 + second * h2 + 0.5 * (second * w1 - first * w2)
    torch.testing.assert_close(combined, whole * h, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [1, 5])
def test_backward_it_is_the_same_path(samples: int) -> None:
    path = tree(3, samples, channels=2)
    (w, h), (v, k) = path.over(times(0.1), times(0.7)), path.over(times(0.1) + times(0.7), times(-0.7))
    torch.testing.assert_close(v, -w, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(k, h, rtol=1e-11, atol=1e-13)
    assert not bool(path.over(times(0.3), times(0.0)).any())


def test_a_sample_has_its_path_in_any_batch_and_lane() -> None:
    seeds = sample_seeds(4, 6)
    starts, lengths = torch.linspace(-0.5, 0.5, 6).double(), torch.linspace(0.01, 0.9, 6).double()
    together = tree(seeds, channels=3).over(starts, lengths)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        tree(seeds[order], channels=3).over(starts[order], lengths[order]), together[:, order], rtol=0, atol=1e-14
    )
    for i in range(6):
        alone = tree(seeds[i : i + 1], channels=3).over(starts[i : i + 1], lengths[i : i + 1])
        torch.testing.assert_close(alone, together[:, i : i + 1], rtol=0, atol=1e-14)
    own = tree(seeds, channels=3, low=starts - 0.5, span=torch.ones(6).double()).over(starts, 0.4 * lengths)
    one = tree(seeds[2:3], channels=3, low=starts[2:3] - 0.5, span=times(1.0)).over(starts[2:3], 0.4 * lengths[2:3])
    torch.testing.assert_close(one, own[:, 2:3], rtol=0, atol=1e-14)


def test_channels_samples_and_seeds_have_paths_of_their_own() -> None:
    path = tree(5, 2, channels=3).over(times(0.0), times(0.5))[0]
    assert path.flatten().unique().numel() == 6
    assert not torch.equal(path, tree(6, 2, channels=3).over(times(0.0), times(0.5))[0])


def test_a_finer_tree_has_the_same_path_at_coarse_times() -> None:
    grid = LOW + SPAN * torch.arange(17, dtype=torch.float64)[:, None] / 16
    coarse, fine = (tree(7, 3, levels=levels).path(grid) for levels in (4, 20))
    torch.testing.assert_close(coarse, fine, rtol=0, atol=1e-14)


def test_the_bridge_is_the_path_less_its_chord() -> None:
    path = tree(8, 3, channels=2)
    theta = torch.tensor([[0.0], [0.25], [1.0]], dtype=torch.float64)
    start, dt = times(0.2), times(0.6)
    bridge = path.bridge(start, dt, theta)
    assert not bool(bridge[0].any()) and not bool(bridge[2].any())
    quarter = path.path(times(0.35)[:, None])[0] - path.path(times(0.2)[:, None])[0]
    torch.testing.assert_close(bridge[1], quarter - 0.25 * path.over(start, dt)[0], rtol=0, atol=1e-14)


def test_its_integral_is_that_of_the_path() -> None:
    """By the trapezoid over 4096 points, whose error has a spread of sqrt(h / 12) / 4096 of the step."""
    path, n = tree(9, 20, levels=16), 4096
    fine = 0.1 + 0.8 * torch.arange(n + 1, dtype=torch.float64) / n
    values = path.path(fine[:, None])[..., 0]
    w, h = path.over(times(0.1), times(0.8))[..., 0]
    mean = torch.trapezoid(values - values[:1], dx=1 / n, dim=0)
    torch.testing.assert_close(mean - w / 2, h, rtol=0, atol=6 * math.sqrt(0.8 / 12) / n)


def test_traced_and_on_arrays_it_is_the_same() -> None:
    path = tree(10, 4, channels=3, levels=22)
    start, dt = torch.linspace(-0.4, 0.9, 4).double(), torch.linspace(0.001, 0.5, 4).double()
    traced = torch.compile(lambda t, h: path.over(t, h), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(start, dt), path.over(start, dt), rtol=0, atol=1e-14)
    # At times that few halvings make, an array's sums stop where nothing is added any more.
    start, dt = torch.tensor([-0.5, 0.25, 1.0, 1.5]).double(), torch.tensor([2.0, 0.375, -1.0, -0.125]).double()
    assert path._depth((start + 0.5) * 2**21) <= 3
    torch.testing.assert_close(traced(start, dt), path.over(start, dt), rtol=0, atol=1e-14)


def test_a_time_has_one_value_whatever_else_is_asked_for() -> None:
    path, coarse = tree(12, 3, channels=2, levels=26), times(0.25, 0.375)[:, None]
    alone, along = path.path(coarse), path.path(torch.cat((coarse, times(0.3)[:, None])))
    assert torch.equal(along[:2], alone)


def test_rounding_of_a_time_moves_nothing_at_the_end_of_a_leaf() -> None:
    """A path is so rough that 1e-16 in time is 1e-8 in W; steps of few bits end where leaves do."""
    path, span = tree(11, 3, levels=26), 0.7
    path = dataclasses.replace(path, span=times(span))
    ends = LOW + span * torch.tensor([3, 5, 11]).double() / 64
    for shifted in (torch.nextafter(ends, ends + 1), torch.nextafter(ends, ends - 1)):
        assert torch.equal(path.path(shifted[:, None]), path.path(ends[:, None]))


def test_far_from_zero_a_short_step_has_the_area_of_where_it_really_ends() -> None:
    """At 1e9 times are 1.2e-7 apart, 12 % of this step: an area over the step as wished for is mostly the path."""
    step, low = 1e-6, 1e9
    path = tree(13, 20_000, low=times(low), span=times(1.0), levels=26)
    w, h = path.over(times(low + 0.7), times(step))
    taken = times(low + 0.7 + step) - times(low + 0.7)
    for part, share in ((w, 1.0), (h, 1 / 12)):
        torch.testing.assert_close(part.square().mean(), taken[0] * share, rtol=0.05, atol=0)


def test_levels_follow_the_dtype_and_the_smallest_step() -> None:
    assert levels_for(torch.float32) < levels_for(torch.float64) <= 29
    for span, dtmin in itertools.product((1.0, 50.0), (1e-3, 1e-8)):
        assert SPAN / 2 ** levels_for(torch.float64, span, dtmin) <= 1.0
        if span / dtmin < 2**26:
            assert 4 * span / 2 ** levels_for(torch.float64, span, dtmin) <= dtmin
    assert levels_for(torch.float32, 1e9, 1e-9) == 29
