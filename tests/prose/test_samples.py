"""Trajectories of drawn systems: another solver's, their own equations', and the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciode.prose import SYSTEMS, Drawing, Programs, Vocabulary, draw, equations_of, noisy

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
    how = Drawing(("thomas", "sprott_b", "four_wing"), equations=2, starts=2, frames=401, end=1.0, engine="eager")
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


def test_unknown_systems_and_empty_drawings_are_refused() -> None:
    with pytest.raises(ValueError, match="lorenz"):
        Drawing(("lorentz",))
    with pytest.raises(ValueError, match="sizes"):
        Drawing(starts=0)
