"""Philox4x32-10 against its published answers and against plain integers; its normals against their law."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sciode.solvers.brownian.philox import normals, philox, words

ONES = 0xFFFFFFFF

# Random123's kat_vectors, philox4x32 with 10 rounds (Salmon, Moraes, Dror, Shaw, SC 2011): counter, key, answer.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

word = st.integers(0, ONES)


def whole(x: int) -> Tensor:
    return torch.tensor(x, dtype=torch.int64)


def by_integers(key: tuple[int, ...], counter: tuple[int, ...]) -> tuple[int, ...]:
    """The ten rounds in Python's unbounded integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b // 2**32) ^ c1 ^ k0, b % 2**32, (a // 2**32) ^ c3 ^ k1, a % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def draw(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    low, high = words(torch.arange(count))
    return philox(words(whole(2024)), (low, high, 0, 0))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_the_published_answers(counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]) -> None:
    got = philox((whole(key[0]), whole(key[1])), tuple(whole(c) for c in counter))
    assert tuple(int(w) for w in got) == answer


@given(key=st.tuples(word, word), counter=st.tuples(word, word, word, word))
def test_any_key_and_counter_as_in_unbounded_integers(key: tuple[int, int], counter: tuple[int, ...]) -> None:
    got = philox((whole(key[0]), whole(key[1])), counter)
    assert tuple(int(w) for w in got) == by_integers(key, counter)


def test_a_batch_is_its_entries_one_by_one() -> None:
    keys = torch.tensor([3, ONES - 1])[:, None], torch.tensor([ONES, 0])[:, None]
    counters = torch.tensor([0, 1, ONES])
    got = torch.stack(philox(keys, (counters, 5, counters, ONES)))
    assert got.shape == (4, 2, 3)
    for i in range(2):
        for j, c in enumerate((0, 1, ONES)):
            key = int(keys[0][i, 0]), int(keys[1][i, 0])
            assert tuple(got[:, i, j].tolist()) == by_integers(key, (c, 5, c, ONES))


@given(x=st.integers(-(2**63), 2**63 - 1))
def test_words_are_the_bits_of_a_64_bit_integer_negative_ones_too(x: int) -> None:
    low, high = words(whole(x))
    assert int(low) == x % 2**32
    assert int(high) == (x // 2**32) % 2**32


def test_the_words_are_uniform() -> None:
    for drawn in draw(50_000):
        assert stats.kstest((drawn.double().numpy() + 0.5) / 2**32, "uniform").pvalue > 1e-3
        assert int(drawn.min()) >= 0
        assert int(drawn.max()) <= ONES


def test_the_normals_are_normal_and_uncorrelated() -> None:
    z = normals(draw(50_000), torch.float64)
    assert z.shape == (50_000, 4)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    # Cosine and sine share a radius: uncorrelated is not enough, their squares must be uncorrelated as well.
    for values in (z, z * z):
        correlation = torch.corrcoef(values.T) - torch.eye(4)
        assert float(correlation.abs().max()) < 4.5 / math.sqrt(50_000)


def test_the_tails_have_the_mass_they_should() -> None:
    z = normals(draw(50_000), torch.float64).flatten()
    for bound in (2.0, 3.0, 4.0):
        probability = math.erfc(bound / math.sqrt(2))
        assert stats.binomtest(int((z.abs() > bound).sum()), z.numel(), probability).pvalue > 1e-3


def test_float32_and_float64_agree_to_rounding() -> None:
    words_ = draw(50_000)
    single, double = normals(words_, torch.float32), normals(words_, torch.float64)
    assert single.dtype == torch.float32
    # r = sqrt(-2 log u): where u rounds to 1, r itself, sqrt(2 ulp) of float32, is lost; elsewhere it is rounding.
    difference = (single.double() - double).abs()
    eps = torch.finfo(torch.float32).eps
    assert float(difference.max()) < math.sqrt(2 * eps)
    assert float(difference.square().mean().sqrt()) < 10 * eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_extreme_words_give_finite_normals_within_the_documented_bound(dtype: torch.dtype) -> None:
    ends = torch.tensor([0, ONES])
    grid = torch.cartesian_prod(ends, ends, ends, ends).T
    z = normals((grid[0], grid[1], grid[2], grid[3]), dtype)
    assert bool(torch.isfinite(z).all())
    assert 6.7 < float(z.abs().max()) < 6.8
