"""Beams, chance and fits: the likeliest system is found, all are systems, and numbers come back from data."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciode.prose import (
    PRESETS,
    SYSTEMS,
    Drawing,
    Expression,
    Grammar,
    Memory,
    Programs,
    Transformer,
    Vocabulary,
    constant,
    draw,
    variables,
)
from sciode.prose.metrics import right_hand_error, solved
from sciode.prose.model import Fused
from sciode.prose.refine import Fit, misfit, refine
from sciode.prose.writing import Writing, write
from sciode.training import isolated_rng

VOCABULARY = Vocabulary(2)
GRAMMAR = Grammar(VOCABULARY)


def by_table(seed: int):
    """Scores that look at the last token and the place, from a table of random numbers."""
    table = torch.randn(40, len(VOCABULARY.words), len(VOCABULARY.words), generator=torch.Generator().manual_seed(seed))

    def scores(ids: Tensor) -> Tensor:
        return 2 * table[ids.shape[1] - 1, ids[:, -1]]

    return scores


def log_probability(scores, equations: tuple[Expression, ...], longest: int) -> float:
    state, ids, total = GRAMMAR.begin(torch.tensor([len(equations)]), longest), [VOCABULARY.ids["start"]], 0.0
    for one in VOCABULARY.encoded(equations):
        logs = scores(torch.tensor([ids])).double().masked_fill(~GRAMMAR.allowed(state), -torch.inf).log_softmax(-1)
        total += float(logs[0, one])
        state, ids = GRAMMAR.advanced(state, torch.tensor([one])), [*ids, one]
    return total


def test_enough_beams_find_the_likeliest_system_of_all() -> None:
    """With four tokens there is one component of one symbol, or a function of one; all are tried."""
    scores, longest = by_table(3), 3
    leaves = [Expression((f"u_{k}",)) for k in range(2)] + [Expression((float(k),)) for k in range(11)]
    every = leaves + [
        Expression((name, *one.symbols)) for name in ("neg", "inv", "sin", "cos", "pow2") for one in leaves
    ]
    best = max(every, key=lambda one: log_probability(scores, (one,), longest))
    found = write(scores, GRAMMAR, torch.tensor([1]), Writing(beams=64, longest=longest))
    assert found.equations[0][0] == (best,)
    assert float(found.scores[0, 0]) == pytest.approx(log_probability(scores, (best,), longest))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_beams_are_systems_in_order_with_their_probabilities(temperature: float) -> None:
    scores = by_table(0)
    found = write(scores, GRAMMAR, torch.tensor([1, 2, 2]), Writing(5, temperature, 20))
    assert found.scores.shape == (3, 5) and bool((found.scores.diff(dim=1) <= 0).all())
    for own, totals, count in zip(found.equations, found.scores.tolist(), (1, 2, 2), strict=True):
        for equations, total in zip(own, totals, strict=True):
            assert len(equations) == count
            assert total == pytest.approx(log_probability(scores, equations, 20), rel=1e-9)


def test_sequences_drawn_by_chance_come_as_often_as_they_should() -> None:
    scores, longest = by_table(5), 2
    found = write(scores, GRAMMAR, torch.tensor([1]), Writing(4000, 1.0, longest), seed=1)
    names = [one[0].symbols[0] for one in found.equations[0]]
    leaves = [Expression((f"u_{k}",)) for k in range(2)] + [Expression((float(k),)) for k in range(11)]
    for one in leaves:
        chance = float(torch.tensor(log_probability(scores, (one,), longest)).exp())
        spread = (chance * (1 - chance) / 4000) ** 0.5
        assert abs(names.count(one.symbols[0]) / 4000 - chance) < 4.5 * spread + 1e-3


def test_a_sample_is_written_the_same_among_others() -> None:
    scores = by_table(2)
    alone = write(scores, GRAMMAR, torch.tensor([2]), Writing(3, longest=16))
    among = write(scores, GRAMMAR, torch.tensor([1, 2]), Writing(3, longest=16))
    assert alone.equations[0] == among.equations[1]


def test_numbers_come_back_from_clean_trajectories() -> None:
    """From numbers that are 10 % off, of four different systems at once; errors elsewhere fall tenfold at least."""
    how = Drawing(("lorenz", "sprott_b", "thomas", "aizawa"), equations=1, starts=1, frames=96, end=3.0, engine="eager")
    samples = list(draw(how, 4))
    values, true = torch.cat([one.values for one in samples]), [one.equations[0] for one in samples]
    wrong = [
        tuple(one.with_constants([c * (1.1 if k % 2 else 0.9) for k, c in enumerate(one.constants)]) for one in system)
        for system in true
    ]
    found = refine(wrong, how.times, values, Fit(steps=4))
    u = torch.randn(4, 50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right, before, after = (Programs(systems, 3)(u) for systems in (true, wrong, found.equations))
    errors = [((one - right).square().sum((1, 2)) / right.square().sum((1, 2))).sqrt() for one in (before, after)]
    assert bool((errors[1] < 0.1 * errors[0]).all()), errors
    assert bool((found.after < found.before).all())


def test_a_fit_never_makes_it_worse_and_what_blows_up_stays_as_it_was() -> None:
    times = torch.linspace(0, 1, 20, dtype=torch.float64)
    x = torch.exp(-times)[None, :, None]
    (u,) = variables(1)
    growing = (1e6 * u**2,)
    found = refine([(-1.0 * u,), growing], times, x.expand(2, -1, -1), Fit(10))
    assert found.equations[1] == growing or bool(found.after[1] < found.before[1])
    assert bool((found.after <= found.before).logical_or(found.before.isnan()).all())


def test_the_misfit_of_the_truth_is_that_of_the_solver() -> None:
    how = Drawing(("thomas",), equations=2, starts=1, frames=60, end=3.0, engine="eager")
    (samples,) = draw(how, 0)
    programs = Programs([samples.equations[k] for k in samples.owner.tolist()], 3)
    assert float(misfit(programs, how.times, samples.values, Fit(steps=4)).max()) < 1e-8


def test_uneven_or_few_times_are_refused() -> None:
    (u,) = variables(1)
    times = torch.tensor([0.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    with pytest.raises(ValueError, match="even"):
        refine([(u,)], times, torch.ones(1, 7, 1))
    with pytest.raises(ValueError, match="even"):
        refine([(u,)], times[:2], torch.ones(1, 2, 1))
    with pytest.raises(ValueError):
        Writing(beams=0)
    with pytest.raises(ValueError):
        Fit(ahead=0)


def test_every_system_is_written_where_scores_insist() -> None:
    """Scores that know the answer: the grammar lets each of the fifteen systems through, with its numbers."""
    vocabulary = Vocabulary(5)
    grammar = Grammar(vocabulary)
    systems = [tuple(e.bound(one.nominal) for e in one.equations) for one in SYSTEMS.values()]
    answers = [vocabulary.encoded(one) for one in systems]
    longest = max(map(len, answers))

    def scores(ids: Tensor) -> Tensor:
        found = torch.zeros(len(ids), len(vocabulary.words))
        for row, answer in zip(found, answers, strict=True):
            if ids.shape[1] <= len(answer):
                row[answer[ids.shape[1] - 1]] = 50.0
        return found

    found = write(scores, grammar, torch.tensor([len(one) for one in systems]), Writing(1, longest=longest))
    for written, answer in zip(itertools.chain(*found.equations), answers, strict=True):
        assert vocabulary.encoded(written) == answer


@pytest.mark.parametrize(("reads", "sees"), [("both", "own"), ("both", "all"), ("data", "own")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_memory_writes_what_the_whole_sequence_would(reads: str, sees: str, temperature: float) -> None:
    """Keys and values that are kept follow their beams: the same systems, to rounding the same probabilities."""
    with isolated_rng(0):
        shape = replace(PRESETS["tiny"], dimension=2, reads=reads, sees=sees)
        model = Transformer(shape).double().eval().requires_grad_(False)
    draws = torch.Generator().manual_seed(0)
    times = torch.rand(3, 7, generator=draws, dtype=torch.float64).sort(1).values
    values = torch.randn(3, 7, 2, generator=draws, dtype=torch.float64)
    symbols = torch.randint(5, len(model.vocabulary.words), (3, 9), generator=draws)
    symbols[0, 4:] = model.vocabulary.ids["pad"]
    components, how = torch.tensor([2, 1, 2]), Writing(3, temperature, 24)
    fused = model.read(times, values, symbols, components)
    every = Fused(*(part.repeat_interleave(3, 0) for part in fused))
    slow = write(lambda ids: model.score_next(every, ids)[:, -1], Grammar(model.vocabulary), components, how)
    memory = Memory(model, fused, 3)
    quick = write(memory.scores, Grammar(model.vocabulary), components, how, follow=memory.follow)
    assert slow.equations == quick.equations
    torch.testing.assert_close(slow.scores, quick.scores, rtol=1e-9, atol=1e-9)


def test_a_loose_fit_mends_a_sign_and_a_tight_one_cannot() -> None:
    """u' = -u + v^2 written with + u, which has no number of its own; v' = 0.5 is right."""
    u, v = variables(2)
    true, wrong = (v**2 - u, constant(0.5)), (v**2 + u, constant(0.5))
    times = torch.linspace(0, 2, 40, dtype=torch.float64)
    path = solved([true], torch.tensor([[1.0, -0.5]], dtype=torch.float64), times).values
    points = torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = {}
    for loose in (True, False):
        found = refine([wrong], times, path, Fit(60, loose=loose))
        errors[loose] = float(right_hand_error(found.equations, [true], points))
    assert errors[True] < 1e-2 < 0.5 < errors[False]


def test_a_fit_is_the_likeliest_one_for_numbers_near_those_that_are_written() -> None:
    """u' = c: the misfit is m + a (c - best)^2, so that the posterior's peak has a closed form between both."""
    times = torch.linspace(0, 2, 40, dtype=torch.float64)
    noise = 0.02 * torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, gap, written = (0.55 * times + noise)[None, :, None], float(times[1]), 0.5
    errors, weights = [], []
    for k in range(1, 5):
        # Starts are followed for four frames: the slopes that each lag sees.
        errors.append((values[0, k : 36 + k, 0] - values[0, :36, 0]) / (k * gap))
        weights.append((k * gap) ** 2)
    slopes, weight = torch.stack(errors), torch.tensor(weights, dtype=torch.float64)[:, None]
    best = float((slopes * weight).sum() / (weight.sum() * 36))
    least, curved = float(((slopes - best) ** 2 * weight).mean()), float(weight.mean())
    found = {}
    for spread in (1e-3, 0.05, 1e3):
        pull = least / (curved * 40 * (spread * written) ** 2)
        (equations,) = refine([(constant(written),)], times, values, Fit(80, spread=spread)).equations
        found[spread] = equations[0].constants[0]
        assert found[spread] == pytest.approx((best + pull * written) / (1 + pull), abs=1e-6)
    assert written < found[1e-3] < found[0.05] < found[1e3] == pytest.approx(best, abs=1e-6)
    assert found[1e-3] - written < 0.1 * (best - written)
