"""Global switches are borrowed and given back."""

from __future__ import annotations

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


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for absent in ("cuda:99", "nowhere"):
        with pytest.raises(ValueError, match="not available"):
            choose_device(absent)
