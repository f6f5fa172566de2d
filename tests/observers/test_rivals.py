"""Opponents: a Fourier operator on a lattice, an implicit field of codes, and what each refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sciode.data.flow import Space
from sciode.observers import Reading
from sciode.observers.arrays import as_flows
from sciode.observers.gridded import FourierOperator, GridSteps, Lattice, SpectralConvolution
from sciode.observers.implicit import CodedField, ImplicitField, auto_decoded
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


def test_an_implicit_field_is_asked_for_times_in_any_order_and_more_than_once() -> None:
    rng = np.random.default_rng(0)
    positions, values = rng.random((12, 2)), rng.normal(size=(4, 6, 12, 1))
    net = ImplicitField(code=3, width=8, layers=1, length=6, epochs=1, descent=5, device="cpu")
    net.fit_flows(as_flows(positions, np.arange(6.0), values, None, BOX))
    start = Reading(positions, values[0, 0])
    told = net.predict(positions, [0.0, 1.0, 3.0], start)
    assert not np.allclose(told[0], told[2])
    assert np.array_equal(net.predict(positions, [3.0, 0.0, 1.0, 3.0], start), told[[2, 0, 1, 2]])
    assert np.array_equal(net.predict(positions, [0.0], start), told[:1])
