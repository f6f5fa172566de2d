"""Opponents: a Fourier operator on a lattice, an implicit field of codes, and what each refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sciode.data.flow import Space
from sciode.observers import QuadraticLaw, Reading
from sciode.observers.arrays import as_flows
from sciode.observers.gridded import FourierOperator, GridSteps, Lattice, SpectralConvolution
from sciode.observers.implicit import CodedField, ImplicitField, auto_decoded
from sciode.observers.simulator import MeshGraphNet
from sciode.training import isolated_rng

BOX = Space("periodic", (0.0, 0.0), (1.0, 2.0))
PLANE = Space("plane", (0.0, 0.0), (1.0, 2.0))
SPHERE = Space("sphere")


def smooth(x: torch.Tensor, space: Space) -> torch.Tensor:
    if space.kind == "sphere":
        return (2.0 * x.double() @ torch.tensor([1.0, 2.0, 2.0]).double() / 3.0).sin()
    return (2 * torch.pi * x[:, 0]).sin() * (torch.pi * x[:, 1]).cos()


@pytest.mark.parametrize("space", [BOX, PLANE, SPHERE], ids=["periodic", "plane", "sphere"])
def test_a_lattice_reads_back_what_it_grids(space: Space) -> None:
    rng = torch.Generator().manual_seed(0)
    if space.kind == "sphere":
        points = torch.randn(500, 3, generator=rng)
        points = points / points.norm(dim=1, keepdim=True)
    else:
        points = torch.rand(500, 2, generator=rng) * torch.tensor([1.0, 2.0])
    lattice = Lattice(space, (48, 24) if space.kind == "sphere" else (32, 32))
    image = lattice.gridded(points, smooth(points, space)[:, None])
    assert image.shape == (1, *lattice.shape)
    on_grid = smooth(lattice.points(), space).unflatten(0, lattice.shape)
    assert (image[0] - on_grid).abs().mean() < 0.01
    back = lattice.read(on_grid[None, None].numpy(), points.numpy())
    assert np.abs(back[0, :, 0] - smooth(points, space).numpy()).mean() < 1e-3


def test_a_spectral_convolution_is_linear_and_commutes_with_shifts() -> None:
    with isolated_rng(0):
        layer = SpectralConvolution(3, (4, 4)).double()
    image = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(1)).double()
    moved = layer(image.roll((3, 2), (2, 3)))
    assert torch.allclose(moved, layer(image).roll((3, 2), (2, 3)), atol=1e-10)
    assert torch.allclose(layer(2 * image + image.roll(1, 2)), 2 * layer(image) + layer(image.roll(1, 2)), atol=1e-10)
    short = torch.zeros(1, 3, 10, 10).double()
    short[..., ::2], short[..., 1::2] = 1.0, -1.0  # a wave beyond the kept ones
    assert layer(short).abs().max() < 1e-10


def test_grid_steps_add_increments() -> None:
    with isolated_rng(0):
        net = GridSteps(1, torch.zeros(2, 8, 8), 4, 1, (2, 2))
    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    states = net(start, 3)
    assert states.shape == (2, 4, 1, 8, 8) and torch.equal(states[:, 0], start)
    assert torch.allclose(net(states[:, 1], 1)[:, 1], states[:, 2], atol=1e-6)


def decaying(positions: Any, times: Any, a: Any) -> Any:
    return a * (np.cos(2 * np.pi * positions[:, 0]) * np.exp(-times[:, None] / 4.0))[..., None]


@pytest.mark.parametrize(
    "net",
    [
        FourierOperator(width=8, layers=1, modes=3, side=8, length=7, epochs=30, batch_size=4, lr=1e-2, device="cpu"),
        ImplicitField(code=4, width=16, layers=2, length=7, epochs=60, batch_size=4, lr=3e-2, device="cpu"),
    ],
    ids=["Fourier operator", "implicit field"],
)
def test_decay_is_foreseen_between_sensors(net: Any) -> None:
    """a cos(2 pi x) exp(-t / 4): far better than persistence."""
    rng = np.random.default_rng(0)
    positions, times = rng.random((40, 2)) * [1.0, 2.0], np.arange(7.0)
    sizes = rng.permutation(np.linspace(-2, 2, 16))
    flows = as_flows(positions, times, np.stack([decaying(positions, times, a) for a in sizes]), None, BOX)
    net.fit_flows(flows)
    asked = rng.random((50, 2)) * [1.0, 2.0]
    truth = decaying(asked, times, 1.3)
    found = net.predict(asked, times, Reading(positions, decaying(positions, times, 1.3)[0]))
    assert found.shape == truth.shape
    assert np.mean((found - truth) ** 2) < 0.1 * np.mean((truth[:1] - truth) ** 2)


def test_codes_are_found_by_descent() -> None:
    with isolated_rng(0):
        field = CodedField(1, 4, 3, 16, 2)
    x = torch.rand(2, 60, 2, generator=torch.Generator().manual_seed(0))
    true = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    readings = field.decoded(true.unsqueeze(1), x, BOX)[:, 0].detach()
    readings[0, :5] = torch.nan
    found = auto_decoded(field, torch.zeros(2, 3), x, readings, BOX, 400, 3e-2)
    again = field.decoded(found.unsqueeze(1), x, BOX)[:, 0]
    there = readings.isfinite()
    assert (again - readings)[there].square().mean() < 1e-3 * readings[there].var()


def test_missing_readings_and_other_dimensions_are_refused() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 4, 9, 1))
    values[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="none may be missing"):
        FourierOperator(length=4, epochs=1, device="cpu").fit_flows(
            as_flows(rng.random((9, 2)), np.arange(4.0), values, None, BOX)
        )
    uneven = as_flows(rng.random((9, 2)), [0.0, 1.0, 2.5, 3.0], rng.normal(size=(4, 4, 9, 1)), None, BOX)
    with pytest.raises(ValueError, match="evenly apart"):
        FourierOperator(length=4, epochs=1, device="cpu").fit_flows(uneven)
    line = Space("plane", (0.0,), (1.0,))
    with pytest.raises(ValueError, match="two dimensions"):
        FourierOperator(length=4, epochs=1, device="cpu").fit_flows(
            as_flows(rng.random((9, 1)), np.arange(4.0), values, None, line)
        )


OPPONENTS = {
    "Fourier operator": FourierOperator(width=4, layers=1, modes=2, side=8, length=6, epochs=1, device="cpu"),
    "implicit field": ImplicitField(code=3, width=8, layers=1, length=6, epochs=1, descent=5, device="cpu"),
    "MeshGraphNet": MeshGraphNet(width=8, layers=1, length=6, epochs=1, device="cpu"),
    "quadratic law": QuadraticLaw(side=8, forced=1, rounds=(1,), ahead=(1,), length=6, device="cpu"),
}
RNG = np.random.default_rng(0)
PLACES, VALUES = RNG.random((12, 2)), RNG.normal(size=(4, 6, 12, 1))


@pytest.fixture(scope="module", params=OPPONENTS)
def opponent(request: pytest.FixtureRequest) -> Any:
    net: Any = OPPONENTS[request.param]
    with pytest.raises(RuntimeError, match="not fitted: fit it first"):
        net.predict(PLACES, [0.0], Reading(PLACES, VALUES[0, 0]))
    return net.fit_flows(as_flows(PLACES, np.arange(6.0), VALUES, None, BOX))


def test_times_are_asked_in_any_order_and_more_than_once(opponent: Any) -> None:
    start = Reading(PLACES, VALUES[0, 0], 2.0)
    told = opponent.predict(PLACES, [2.0, 3.0, 5.0], start)
    assert not np.allclose(told[0], told[2])
    np.testing.assert_allclose(opponent.predict(PLACES, [5.0, 2.0, 3.0, 5.0], start), told[[2, 0, 1, 2]], atol=1e-5)
    np.testing.assert_allclose(opponent.predict(PLACES, 2.0, start), told[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("places", "times", "given", "said"),
    [
        (np.full((3, 2), np.nan), [0.0], Reading(PLACES, VALUES[0, 0]), "positions must be finite numbers"),
        (PLACES[:0], [0.0], Reading(PLACES, VALUES[0, 0]), "one place at least"),
        (PLACES[:, :1], [0.0], Reading(PLACES, VALUES[0, 0]), r"positions are \[Q, 2\]"),
        (PLACES[0], [0.0], Reading(PLACES, VALUES[0, 0]), r"positions are \[Q, 2\]"),
        (PLACES, [-1.0, 2.0], Reading(PLACES, VALUES[0, 0]), "not before the readings at 0"),
        (PLACES, [1.0], Reading(PLACES, VALUES[0, 0], 1.5), "not before the readings at 1.5"),
        (PLACES, [np.nan], Reading(PLACES, VALUES[0, 0]), "times are"),
        (PLACES, [[0.0]], Reading(PLACES, VALUES[0, 0]), "times are"),
        (PLACES, [], Reading(PLACES, VALUES[0, 0]), "one at least"),
        (PLACES, [0.0], Reading(PLACES, VALUES[0, 0, :, 0]), "a reading has positions"),
        (PLACES, [0.0], Reading(PLACES + np.nan, VALUES[0, 0]), "positions must be finite"),
        (PLACES, [0.0], Reading(PLACES, VALUES[0, 0] + np.nan), "says nothing"),
        (PLACES, [0.0], VALUES[0, 0], "give Reading"),
    ],
    ids=[
        "places that are no numbers", "no place", "places of a line", "a single place", "a time before",
        "a later start", "a time that is no number", "a table of times", "no time", "readings without channels",
        "sensors nowhere", "silence", "no reading",
    ],
)  # fmt: skip
def test_what_an_opponent_cannot_be_asked_is_said(
    opponent: Any, places: Any, times: Any, given: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        opponent.predict(places, times, given)


def test_a_silent_sensor_is_left_out_by_all_but_the_one_that_grids(opponent: Any) -> None:
    first = VALUES[0, 0].copy()
    first[3] = np.nan
    if isinstance(opponent, FourierOperator):
        with pytest.raises(ValueError, match="leave silent sensors out"):
            opponent.predict(PLACES, [1.0], Reading(PLACES, first))
    else:
        assert np.isfinite(opponent.predict(PLACES, [0.0, 1.0], Reading(PLACES, first))).all()
