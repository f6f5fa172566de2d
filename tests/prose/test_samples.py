"""Trajectories of drawn systems: another solver's, their own equations', and the same for the same seed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from sciode.prose import SYSTEMS, Drawing, Programs, System, Vocabulary, draw, equations_of, filled, kept, noisy
from sciode.prose.samples import PARTS, numbers_of, part_of
from sciode.prose.vocabulary import on_grid

FEW: dict[str, Any] = {"equations": 2, "starts": 3, "frames": 20, "engine": "eager"}


@pytest.mark.parametrize("name", ["lorenz", "duffing", "double_pendulum", "aizawa", "lorenz_96_5"])
def test_trajectories_are_those_of_lsoda(name: str) -> None:
    """Within 1 % up to t = 2, before chaos takes over what tolerances leave."""
    how = Drawing((name,), **{**FEW, "end": 2.0})
    (found,) = draw(how, 1)
    assert len(found.values) + found.left_out == 6
    for values, owner in zip(found.values.numpy(), found.owner.tolist(), strict=True):
        equations = found.equations[owner]

        def field(t: float, y: np.ndarray, equations=equations) -> list[float]:
            u = [torch.tensor(one, dtype=torch.float64) for one in y]
            return [float(one.at(u)) for one in equations]

        times = how.times.numpy()
        other = solve_ivp(field, (0, 2.0), values[0], "LSODA", times, rtol=1e-8, atol=1e-9).y.T
        assert np.linalg.norm(values - other) < 0.01 * np.linalg.norm(other)


def test_an_equation_says_the_slope_of_its_own_trajectory() -> None:
    """Labels and data agree, numbers being rounded before the solve: central differences against the tokens' field."""
    exact: dict[str, Any] = {"engine": "eager", "rtol": 1e-9, "atol": 1e-10}
    how = Drawing(("thomas", "sprott_b", "four_wing"), equations=2, starts=2, frames=801, end=1.0, **exact)
    samples = list(draw(how, 3))
    vocabulary = Vocabulary(3)
    systems = [vocabulary.decoded(vocabulary.encoded(one)) for one in equations_of(samples)]
    values = torch.cat([one.values for one in samples])
    step = float(how.times[1])
    slope = (values[:, 2:] - values[:, :-2]) / (2 * step)
    torch.testing.assert_close(slope, Programs(systems, 3)(values[:, 1:-1]), rtol=1e-3, atol=1e-3)


def test_a_system_is_the_same_whatever_others_are_drawn() -> None:
    alone, both = list(draw(Drawing(("thomas",), **FEW), 5)), list(draw(Drawing(("lorenz", "thomas"), **FEW), 5))
    assert torch.equal(alone[0].values, both[1].values) and alone[0].equations == both[1].equations
    other = next(draw(Drawing(("thomas",), **FEW), 6))
    assert not torch.equal(alone[0].values, other.values)


def test_numbers_lie_around_their_nominal_values_and_time_begins_at_zero() -> None:
    (found,) = draw(Drawing(("duffing",), equations=40, starts=1, frames=2, end=0.1, engine="eager"), 0)
    for equations in found.equations:
        for drawn, one in zip(equations, SYSTEMS["duffing"].equations, strict=True):
            nominal = one.bound(SYSTEMS["duffing"].nominal).constants
            for number, around in zip(drawn.constants, nominal, strict=True):
                assert abs(number - around) <= 0.1 * abs(around) * (1 + 1e-9) + 0.006 * abs(around)
    assert found.values[:, 0, 0].eq(0).all() and found.values[:, 0, 1:].abs().max() <= 2


def test_what_grows_beyond_is_left_out_and_counted() -> None:
    how = Drawing(("chen_lee",), **{**FEW, "most": 3.0})
    (found,) = draw(how, 0)
    assert found.left_out > 0 and len(found.values) + found.left_out == 6
    assert (found.values.abs() < 3.0).all()


def test_noise_is_as_large_as_asked_and_each_trajectorys_own() -> None:
    values = torch.stack([torch.full((400, 3), 1.0), torch.full((400, 3), 100.0)]).double()
    apart = (noisy(values, 0.02, 0) - values).square().mean((1, 2)).sqrt()
    torch.testing.assert_close(apart, torch.tensor([0.02, 2.0], dtype=torch.float64), rtol=0.1, atol=0)
    assert torch.equal(noisy(values, 0.0, 0), values)
    with pytest.raises(ValueError, match="level"):
        noisy(values, -1.0, 0)


SEEDS = st.integers(0, 2**32)
KINDS = ("train", "validation", "test")


@given(st.sampled_from(sorted(SYSTEMS)), SEEDS, SEEDS, SEEDS)
def test_sets_of_numbers_of_training_validation_and_tests_never_meet(name: str, a: int, b: int, c: int) -> None:
    one = SYSTEMS[name]
    train, validation, test = (
        set(map(tuple, numbers_of(one.nominal, one.spread, 150, seed, part).tolist()))
        for seed, part in zip((a, b, c), KINDS, strict=True)
    )
    assert not train & test and not train & validation and not validation & test


@given(st.lists(st.floats(-1e3, 1e3).map(on_grid), min_size=1, max_size=8), st.data())
def test_one_in_seven_of_each_numbers_values_is_held_out_whatever_the_others(numbers: list[float], data: Any) -> None:
    place = data.draw(st.integers(0, len(numbers) - 1))
    parts = [part_of([*numbers[:place], digits / 100, *numbers[place + 1 :]]) for digits in range(100, 996)]
    assert [parts.count(kind) for kind in KINDS] == [640, 128, 128]
    # And evenly: none is farther from one that is held out than seven digits.
    assert all({"test", "validation"} <= set(parts[k : k + 7]) for k in range(len(parts) - 7))


def test_parts_cover_what_is_drawn_and_share_nothing() -> None:
    assert sum(len(PARTS[kind]) for kind in KINDS) == len(PARTS["all"]) == len(frozenset().union(*PARTS.values()))
    rows = numbers_of({"a": 1.0, "b": -2.0}, 0.1, 4000, 0).tolist()
    shares = [sum(part_of(row) == kind for row in rows) / 4000 for kind in KINDS]
    assert shares == pytest.approx([5 / 7, 1 / 7, 1 / 7], abs=0.03)


def test_a_part_without_sets_of_numbers_is_refused_and_no_numbers_are_in_all() -> None:
    with pytest.raises(ValueError, match="widen the spread"):
        numbers_of({"a": 1.0}, 1e-4, 3, 0, "test")
    assert all(numbers_of({}, 0.1, 3, 0, kind).shape == (3, 0) for kind in PARTS)


def test_a_system_of_your_own_is_drawn_beside_named_ones_and_told() -> None:
    own = System("swing", 2, lambda u, p: (u[1], -p.k * u[0]), {"k": 2.0})
    how = Drawing((own, "thomas"), **FEW)
    pool = filled(how, 0, 3)
    assert pool.names == how.names == ("swing", "thomas") and pool.components.tolist() == [2, 3]
    swing = pool.values[pool.system == 0].double()
    for values, equations in zip(swing, [pool.vocabulary.decoded(ids) for ids in told(pool, 0)], strict=True):
        energy = values[:, 1] ** 2 + abs(equations[1].constants[0]) * values[:, 0] ** 2
        torch.testing.assert_close(energy, energy[:1].expand_as(energy), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="names of their own"):
        Drawing((own, System("swing", 1, lambda u, p: (p.a * u[0],), {"a": 1.0})))


def test_a_pool_that_is_kept_is_the_same_and_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = System("swing", 2, lambda u, p: (u[1], -p.k * u[0]), {"k": 2.0})
    how = Drawing((own, "thomas"), **FEW)
    first = kept(how, 0, 3, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(importlib.import_module("sciode.prose.kept"), "filled", None)
        again = kept(how, 0, 3, tmp_path)
        assert torch.equal(first.values, again.values) and torch.equal(first.targets, again.targets)
        assert torch.equal(first.guesses.table, again.guesses.table) and again.left_out == first.left_out
    other = System("swing", 2, lambda u, p: (u[1], -p.k * u[0] * u[0]), {"k": 2.0})
    for changed, seed in ((how, 1), (Drawing((other, "thomas"), **FEW), 0), (Drawing((own,), **FEW), 0)):
        kept(changed, seed, 3, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def told(pool: Any, system: int) -> list[list[int]]:
    return [[one for one in ids if one] for ids in pool.targets[pool.owner[pool.system == system]].tolist()]


@pytest.mark.parametrize("part", KINDS)
def test_all_fifteen_systems_are_drawn_and_their_tokens_are_their_equations(part: str) -> None:
    how = Drawing(equations=2, starts=2, end=1.0, frames=12, engine="eager", part=part)
    pool = filled(how, 4, 5)
    assert pool.names == tuple(SYSTEMS) and set(pool.system.tolist()) == set(range(15))
    points = torch.rand(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for number, samples in enumerate(draw(how, 4)):
        size = SYSTEMS[samples.system].dimension
        said = [pool.vocabulary.decoded(ids) for ids in told(pool, number)]
        meant = [samples.equations[place] for place in samples.owner.tolist()]
        u = points[None].expand(len(said), -1, -1)
        torch.testing.assert_close(Programs(said, 5)(u), Programs(meant, 5)(u), rtol=1e-12, atol=1e-12)
        assert pool.components[number] == size and not pool.values[pool.system == number][..., size:].any()


def test_unknown_systems_and_empty_drawings_are_refused() -> None:
    with pytest.raises(ValueError, match="lorenz"):
        Drawing(("lorentz",))
    with pytest.raises(ValueError, match="test"):
        Drawing(part="tests")
    with pytest.raises(ValueError, match="sizes"):
        Drawing(starts=0)
