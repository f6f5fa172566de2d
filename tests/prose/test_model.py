"""The transformer: what it may see and what must not reach it, at any length and in any order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.prose.attention import Attention, rotated
from sciode.prose.model import PRESETS, Shape, Transformer
from sciode.training import isolated_rng


def made(**changes: Any) -> Transformer:
    with isolated_rng(0):
        return Transformer(replace(PRESETS["tiny"], **changes)).double().eval().requires_grad_(False)


def batch(model: Transformer, frames: int = 7, words: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    times = torch.rand(3, frames, generator=draw, dtype=torch.float64).sort(1).values
    values = torch.randn(3, frames, 3, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 50.0, 0.1])
    values[2, :, 2] = 0.0
    symbols = torch.randint(5, len(model.vocabulary.words), (3, words), generator=draw)
    return times, values, symbols, torch.tensor([3, 3, 2])


def test_the_order_of_frames_does_not_count_and_that_of_words_does() -> None:
    model = made()
    times, values, symbols, components = batch(model)
    turned = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    ask = torch.linspace(0, 2, 5, dtype=torch.float64).expand(3, -1)
    first = model.predict(model.read(times, values, symbols, components), ask)
    second = model.predict(model.read(times[:, turned], values[:, turned], symbols, components), ask)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    other = model.predict(model.read(times, values, symbols.flip(1), components), ask)
    assert float((first - other).abs().max()) > 1e-6


@pytest.mark.parametrize("sees", ["own", "all"])
def test_padding_changes_nothing(sees: str) -> None:
    model = made(sees=sees)
    times, values, symbols, components = batch(model)
    longer = torch.cat((symbols, torch.full((3, 6), model.vocabulary.ids["pad"])), 1)
    written = symbols[:, :4]
    found = [
        (model.predict(fused, times), model.score_next(fused, written))
        for fused in (model.read(times, values, one, components) for one in (symbols, longer))
    ]
    for short, long in zip(*found, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-9, atol=1e-9)


def test_each_time_is_answered_alone() -> None:
    model = made()
    fused = model.read(*batch(model))
    ask = torch.linspace(0, 2, 6, dtype=torch.float64).expand(3, -1)
    torch.testing.assert_close(model.predict(fused, ask)[:, 2:3], model.predict(fused, ask[:, 2:3]))


def test_what_is_written_later_does_not_reach_earlier_scores() -> None:
    model = made()
    times, values, symbols, components = batch(model)
    fused, other = model.read(times, values, symbols, components), symbols.clone()
    other[:, 5:] = 6
    first, second = model.score_next(fused, symbols), model.score_next(fused, other)
    torch.testing.assert_close(first[:, :5], second[:, :5], rtol=1e-9, atol=1e-9)
    assert float((first[:, 5:] - second[:, 5:]).abs().max()) > 1e-6


@pytest.mark.parametrize(("reads", "deaf_to"), [("data", "symbols"), ("symbols", "values")])
def test_a_twin_hears_one_side_alone(reads: str, deaf_to: str) -> None:
    model = made(reads=reads)
    times, values, symbols, components = batch(model)
    changed = (symbols.flip(1), values) if deaf_to == "symbols" else (symbols, values + torch.sin(9 * times)[..., None])
    first, second = (
        model.read(times, values, symbols, components),
        model.read(times, changed[1], changed[0], components),
    )
    if reads == "data":
        torch.testing.assert_close(model.predict(first, times), model.predict(second, times))
    written = symbols[:, :4]
    torch.testing.assert_close(model.score_next(first, written), model.score_next(second, written))


def test_decoders_attend_to_the_tokens_that_they_see() -> None:
    """What is changed of the fused tokens reaches those decoders that see it, and no others."""
    for sees, reached in (("own", (True, False)), ("all", (True, True))):
        model = made(sees=sees)
        fused = model.read(*batch(model))
        ask, written = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.long)
        for name, own in (("data", 0), ("symbols", 1)):
            other = fused._replace(**{name: getattr(fused, name).flip(2)})
            moved = [
                not torch.allclose(model.predict(fused, ask), model.predict(other, ask)),
                not torch.allclose(model.score_next(fused, written), model.score_next(other, written)),
            ]
            assert moved == [reached[own], reached[1 - own]]


def test_a_twin_that_knows_no_symbols_writes_none() -> None:
    model = made(reads="data", writes=False)
    fused = model.read(*batch(model))
    assert model.weights < made(reads="data").weights and fused.symbols.shape[1] == 0
    with pytest.raises(ValueError, match="writes no equations"):
        model.score_next(fused, torch.zeros(3, 1, dtype=torch.long))


@pytest.mark.parametrize("count", [1, 8, 13])
def test_attention_hears_what_counts_alone(count: int) -> None:
    """Against a softmax over those tokens."""
    draw = torch.Generator().manual_seed(0)
    with isolated_rng(0):
        attention = Attention(8, 2, False).double()
    q, k, v = (torch.randn(2, 2, length, 4, generator=draw, dtype=torch.float64) for length in (3, count, count))
    heard = torch.rand(2, count, generator=draw) < 0.5
    heard[:, 0] = True
    found = attention.joined(q, k, v, heard)
    for row in range(2):
        own = heard[row]
        chances = (q[row] @ k[row][:, own].mT / 2.0).softmax(-1)
        expected = attention.out((chances @ v[row][:, own]).transpose(0, 1).flatten(1))
        torch.testing.assert_close(found[row], expected)


def test_a_component_that_is_scaled_and_shifted_is_answered_so_but_for_what_sizes_tell() -> None:
    """With the token of sizes taken out, u -> a u + b of a component is that of the answer."""
    model = made()
    last = model.sizes[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    times, values, symbols, components = batch(model)
    moved = values * torch.tensor([3.0, 0.2, 7.0]) + torch.tensor([1.0, -5.0, 0.3])
    moved[2, :, 2] = 0.0
    first = model.predict(model.read(times, values, symbols, components), times)
    second = model.predict(model.read(times, moved, symbols, components), times)
    expected = first * torch.tensor([3.0, 0.2, 7.0]) + torch.tensor([1.0, -5.0, 0.3])
    torch.testing.assert_close(second[:2], expected[:2], rtol=1e-8, atol=1e-8)


def test_products_of_rotated_vectors_know_distances_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 8, generator=draw).expand(-1, -1, 12, -1) for _ in range(2))
    products = rotated(q)[0, 0] @ rotated(k)[0, 0].T
    for apart in range(-5, 6):
        line = products.diagonal(apart)
        torch.testing.assert_close(line, line[:1].expand_as(line), rtol=1e-4, atol=1e-4)


def test_presets_have_the_sizes_that_they_claim() -> None:
    with torch.device("meta"):
        small, paper = Transformer(PRESETS["small"]), Transformer(PRESETS["paper"])
    assert round(small.weights / 1e6) == 14
    assert round(paper.weights / 1e6) == 105


def test_shapes_that_make_no_sense_are_refused() -> None:
    wrong: list[dict[str, Any]] = [{"width": 30}, {"heads": 0}, {"reads": "nothing"}, {"sees": "nothing"},
                                   {"sees": "all", "reads": "symbols"}]  # fmt: skip
    for changes in wrong:
        with pytest.raises(ValueError):
            Shape(**changes)
