"""Partial differential equations as trees of derivatives: what the families' own solvers do, and what models read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciode.prose import FAMILIES, PRESETS, Course, Grammar, Memory, Reading, Training, Transformer, Writing, write
from sciode.prose.families import random_fields
from sciode.prose.fields import ORDERS, READS, FieldDrawing, derivative, equations_of_family, filled_fields
from sciode.prose.metrics import terms_of
from sciode.prose.trees import constant, cos, sin, square, variable
from sciode.training import isolated_rng


def slopes(u: Tensor, order: int, length: float) -> Tensor:
    k = 2 * math.pi / length * torch.arange(u.shape[-1] // 2 + 1, dtype=torch.float64)
    return torch.fft.irfft((1j * k) ** order * torch.fft.rfft(u), n=u.shape[-1])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_trees_of_derivatives_say_what_the_terms_of_the_family_do(name: str) -> None:
    family = FAMILIES[name]
    u = random_fields(family, 1, 128, torch.Generator().manual_seed(1))[0]
    u[1:] = torch.cos(math.pi * torch.arange(128) / 64)
    jets = [slopes(own, order, family.length) for own in u for order in range(ORDERS)]
    for field, tree in enumerate(equations_of_family(family)):
        wanted = torch.zeros(128, dtype=torch.float64)
        for term in family.terms:
            if term.field == field:
                inner = torch.as_tensor(term.expression.at(u.unbind(0), family.nominal)).expand(128)
                wanted = wanted + slopes(inner, term.order, family.length)
        found = torch.as_tensor(tree.at(jets, family.nominal)).expand(128)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * (1 + float(wanted.abs().max())))


def test_derivatives_follow_the_rules_of_sum_product_and_chain() -> None:
    u, slope = variable(0), variable(1)
    assert derivative(constant(3.0)) is None and derivative(square(constant(2.0))) is None
    assert derivative(-0.5 * square(u)) == -(u * slope)
    assert derivative(sin(u)) == cos(u) * slope
    assert derivative(2.0 - u) == -slope
    with pytest.raises(ValueError, match="order 4"):
        derivative(variable(ORDERS - 1))
    with pytest.raises(ValueError, match="no rule"):
        derivative(1.0 / u)


SMALL = FieldDrawing(("heat", "burgers", "wave"), equations=2, starts=2, frames=12)


def test_a_pool_of_fields_holds_first_fields_and_their_equations() -> None:
    pool = filled_fields(SMALL, 0)
    assert pool.values.shape == (12, 12, 32) and pool.names == SMALL.families and pool.left_out == 0
    for number, name in enumerate(SMALL.families):
        ids = [one for one in pool.targets[pool.owner[pool.system == number][0]].tolist() if one]
        said = pool.vocabulary.decoded(ids)
        meant = [one.bound(FAMILIES[name].nominal) for one in equations_of_family(FAMILIES[name])]
        assert terms_of(said) == terms_of(meant)
    other = filled_fields(replace(SMALL, part="test"), 0)
    assert not {tuple(row) for row in pool.targets.tolist()} & {tuple(row) for row in other.targets.tolist()}


def test_a_model_of_fields_learns_and_writes_equations_that_are_such() -> None:
    pool = filled_fields(SMALL, 0)
    with isolated_rng(0):
        model = Transformer(replace(PRESETS["tiny"], dimension=32))
    course = Course(steps=12, batch=8, lr=3e-3, warmup=2, every=1, reading=Reading(6, 6), average=0.5)
    seen: list[float] = []
    training = Training({"full": model}, lambda _: pool, course, tell=lambda one: seen.append(one["full"]["symbols"]))
    training.run()
    training.judge()
    assert sum(seen[-3:]) < sum(seen[:3])
    batch = pool.rows(torch.arange(12), Reading(6, 0), torch.Generator().manual_seed(0))
    fused = model.read(batch.times, batch.values, batch.symbols, batch.components)
    assert model.predict(fused, batch.ask).shape == (12, 6, 32)
    memory = Memory(model, fused, 2)
    counts = torch.tensor([1] * 8 + [2] * 4)
    found = write(memory.scores, Grammar(model.vocabulary, reads=READS), counts, Writing(2), follow=memory.follow)
    for own, count in zip(found.equations, counts.tolist(), strict=True):
        for system in own:
            assert len(system) == count
            read = {int(str(one)[2:]) for tree in system for one in tree.symbols if str(one).startswith("u_")}
            assert all(place < READS for place in read)


def test_families_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="burgers"):
        FieldDrawing(("burger",))
    with pytest.raises(ValueError, match="divide"):
        FieldDrawing(points=48)
    with pytest.raises(ValueError, match="derivatives"):
        FieldDrawing(points=8)
