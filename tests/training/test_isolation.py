"""Global switches are borrowed and given back."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch

from sciode.training import choose_device, derive_seed, isolated_rng, threads


def test_draws_inside_depend_on_the_tuple_alone_and_outside_nothing_moves() -> None:
    state = torch.get_rng_state()
    with isolated_rng(3, 1, 2):
        first = torch.randn(4)
    with isolated_rng(3, 1, 2):
        again = torch.randn(4)
    with isolated_rng(3, 2, 1):
        other = torch.randn(4)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_state_is_given_back_after_an_error_too() -> None:
    state, count = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), isolated_rng(0), threads(count + 1):
        torch.randn(2)
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == count


def test_threads_are_set_inside() -> None:
    with threads(2):
        assert torch.get_num_threads() == 2


def test_derived_seeds_are_distinct_and_fit_an_int64() -> None:
    seeds = {derive_seed(a, b, c) for a in range(6) for b in range(6) for c in range(6)}
    assert len(seeds) == 216
    assert all(0 <= seed < 2**63 for seed in seeds)
    with pytest.raises(ValueError, match=">= 0"):
        derive_seed(0, -1)


def test_zeros_at_the_end_of_a_short_path_do_not_count_and_nothing_else_is_the_same() -> None:
    assert derive_seed(5) == derive_seed(5, 0) == derive_seed(5, 0, 0) == derive_seed(5, 0, 0, 0)
    assert derive_seed(5, 1) == derive_seed(5, 1, 0) != derive_seed(5, 0, 1)
    # Beyond the four words of the pool they do.
    assert derive_seed(5, 1, 2, 3) != derive_seed(5, 1, 2, 3, 0)
    paths = [path for count in range(4) for path in product(range(4), repeat=count) if path[-1:] != (0,)]
    assert len({derive_seed(5, *path) for path in paths}) == len(paths)


def test_the_streams_of_a_training_run_are_apart_but_for_initial_weights_and_first_masks() -> None:
    """`fit` uses (0, epoch) for dropout, (1, epoch, step), (2,), (3, epoch); estimators 4 to 9, and () for weights.

    The last two share their state in epoch 0; both are drawn by laws of their own, and published tables hang on it.
    """
    epochs, steps, draws = range(5), range(5), range(5)
    used = [(), *((0, e) for e in epochs), *((1, e, s) for e in epochs for s in steps), (2,)]
    used += [(3, e) for e in epochs] + [(k, d) for k in (4, 6) for d in draws] + [(5, m) for m in draws if m]
    used += [(7, d, c) for d in draws for c in draws] + [(8,), (9,)]
    seeds = [derive_seed(11, *path) for path in used]
    alike = [(a, b) for (a, x), (b, y) in combinations(zip(used, seeds, strict=True), 2) if x == y]
    assert alike == [((), (0, 0))]


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for absent in ("cuda:99", "nowhere"):
        with pytest.raises(ValueError, match="not available"):
            choose_device(absent)
