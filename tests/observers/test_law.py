"""A law of motion from sensors: fields between grid points, equations with known coefficients, and faults."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sciode.data.flow import Flow, FlowSet, Space
from sciode.observers import Observer, QuadraticLaw, Reading
from sciode.observers.law import Law, grid_of
from sciode.pde.vorticity import diagonal_forcing, random_vorticity, simulate_vorticity
from sciode.training import save_checkpoint

SQUARE = Space("periodic", (0.0, 0.0), (1.0, 1.0))
LINE = Space("periodic", (-1.0,), (3.0,))


def travelling(count: int, frames: int, speed: float, sensors: int, gaps: np.ndarray | None = None) -> FlowSet:
    """Sums of waves on a line of length 4 that travel at one speed and die out at exp(-0.075 n^2 t)."""
    rng = np.random.default_rng(3)
    places = np.sort(rng.uniform(-1.0, 3.0, (sensors, 1)), axis=0)
    times = np.arange(frames) * 0.2 if gaps is None else np.cumsum(gaps)
    flows = []
    for _ in range(count):
        size, phase = rng.normal(size=3), rng.uniform(0.0, 2.0 * np.pi, 3)
        values = np.add.reduce([
            size[n - 1] * np.exp(-0.3 * n**2 * times[:, None] / 4)
            * np.sin(0.5 * np.pi * n * (places[:, 0] - speed * times[:, None]) + phase[n - 1])
            for n in (1, 2, 3)
        ])  # fmt: skip
        flows.append(Flow.from_arrays(places, times, values[..., None].astype(np.float32)))
    return FlowSet("waves", tuple(flows), ("u",), ("",), LINE)


def test_waves_are_read_between_the_points_of_the_grid_exactly() -> None:
    grid = grid_of(SQUARE, 16, 1, torch.device("cpu"))
    places = torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def field(x: torch.Tensor) -> torch.Tensor:
        return 0.5 + (2.0 * math.pi * (3.0 * x[:, 0] - 2.0 * x[:, 1])).sin() + (10.0 * math.pi * x[:, 1]).cos()

    torch.testing.assert_close(grid.reading(places, SQUARE) @ field(grid.points(SQUARE)), field(places))


def test_the_terms_hold_the_equation_of_vorticity() -> None:
    """u . grad w, with u = (psi_y, -psi_x) of -Lap psi = w, is a sum of two products of the terms."""
    n, viscosity = 24, 2e-3
    grid = grid_of(SQUARE, n, 1, torch.device("cpu"))
    law, top = Law(1, grid), (n - 1) // 3
    terms = len(grid.symbols)
    assert terms == 7
    # In units of the box: 1 and 2 are slopes / (2 pi top), 5 and 6 slopes of the stream function times 2 pi.
    square = torch.zeros(terms, terms)
    square[1, 6], square[2, 5] = -top, top
    coefficients = torch.zeros_like(law.coefficients)
    coefficients[: law.sizes[0]] = square[law.upper[0], law.upper[1]]
    coefficients[sum(law.sizes[:2]) + 1] = -viscosity * (2.0 * math.pi * top) ** 2
    start = 3.0 * random_vorticity(n, [1, 2])
    truth = simulate_vorticity(start, [0.0, 0.5, 1.0], viscosity=viscosity, dt=0.02)
    kept = grid.back(grid.forward(start.float()))
    found = law.run(coefficients, kept.unsqueeze(1), torch.full((2, 2), 0.5), 25)[:, 1:, 0]
    missed = (found - truth[1:].transpose(0, 1)).square().mean() / truth.square().mean()
    assert float(missed) < 1e-9


def test_travelling_waves_are_foreseen_and_so_far_as_no_window_was() -> None:
    flows = travelling(8, 12, 0.7, 24)
    law = QuadraticLaw(side=16, forced=1, steps=4, rounds=(5,), ahead=(1,), length=12, device="cpu")
    law.fit_flows(flows[:6], flows[6:])
    test = travelling(9, 30, 0.7, 24)[8]
    asked = test.points.numpy()[::2]
    reading = Reading(test.points.numpy(), test.values[0].numpy(), float(test.times[0]))
    found = law.predict(asked, test.times.numpy(), reading)
    truth = test.values[:, ::2].numpy()
    assert np.square(found - truth).mean() < 1e-4 * np.square(truth[0]).mean()


def test_uneven_frames_and_missing_readings_are_no_harm() -> None:
    gaps = np.random.default_rng(0).uniform(0.1, 0.3, 12)
    flows = travelling(8, 12, 0.7, 24, gaps)
    holed = []
    for flow in flows:
        values = flow.values.clone()
        values[5, 3] = torch.nan
        holed.append(Flow(flow.points, flow.times, values))
    flows = FlowSet("waves", tuple(holed), ("u",), ("",), LINE)
    law = QuadraticLaw(side=16, forced=1, steps=4, rounds=(5,), ahead=(1,), length=12, device="cpu")
    law.fit_flows(flows[:6], flows[6:])
    assert law.history_.epochs[law.history_.best_epoch].validation_loss < 1e-3
    first = flows[7]
    values = first.values[0].double().numpy()
    values[2] = np.nan
    at = np.array([first.times[0], first.times[7]])
    found = law.predict(first.points.numpy(), at, Reading(first.points.numpy(), values, float(at[0])))
    assert np.square(found[1] - first.values[7].numpy()).mean() < 1e-2 * float(first.values[0].square().mean())


def test_a_law_is_found_from_forced_vorticity_and_a_seed_is_repeated() -> None:
    n, ts = 16, [0.5 * k for k in range(7)]
    forcing = diagonal_forcing(n, 0.1)
    fields = simulate_vorticity(
        3.0 * random_vorticity(n, range(6)), ts, viscosity=5e-3, dt=0.05, forcing=forcing
    ).transpose(0, 1).flatten(2)  # fmt: skip
    x = torch.arange(n) / n
    points = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    chosen = torch.randperm(n * n, generator=torch.Generator().manual_seed(1))[:140]
    times = torch.tensor(ts, dtype=torch.float64)
    flows = tuple(Flow(points[chosen], times, one[:, chosen, None].float()) for one in fields)
    sensors = FlowSet("w", flows, ("w",), ("",), SQUARE)
    how = {"side": 16, "steps": 4, "rounds": (4,), "ahead": (1,), "length": 7, "starts": 6, "device": "cpu"}
    law, again = (QuadraticLaw(**how).fit_flows(sensors[:4], sensors[4:]) for _ in range(2))
    assert torch.equal(law.network_.coefficients, again.network_.coefficients)
    still = float((sensors[4].values[-1] - sensors[4].values[0]).square().mean() / sensors[4].values.var())
    assert law.history_.epochs[law.history_.best_epoch].validation_loss < 0.05 * still


def test_what_a_law_cannot_be_found_from_is_said() -> None:
    plane = FlowSet("p", travelling(2, 5, 1.0, 8).flows, ("u",), ("",), Space("plane", (-1.0,), (3.0,)))
    with pytest.raises(ValueError, match="periodic box"):
        QuadraticLaw(device="cpu").fit_flows(plane)
    for wrong, said in (
        ({"rounds": (3,)}, "same stages"), ({"ahead": (0, 1)}, "ahead and rounds >= 1"), ({"side": 2}, "side must be"),
        ({"forced": 16}, "forced must lie"), ({"steps": 1.5}, "whole numbers"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            QuadraticLaw(device="cpu", **wrong).fit_flows(travelling(4, 6, 1.0, 8))  # type: ignore[arg-type]
    silent = travelling(4, 6, 1.0, 8)
    for flow in silent:
        flow.values[:, 2] = torch.nan
    with pytest.raises(ValueError, match="read by all sensors"):
        QuadraticLaw(side=16, length=6, device="cpu").fit_flows(silent[:2], silent[2:])


def test_what_a_law_cannot_be_asked_is_said() -> None:
    flows = travelling(4, 6, 1.0, 8)
    law = QuadraticLaw(side=8, forced=1, rounds=(1,), ahead=(1,), length=6, device="cpu")
    places, values = flows[0].points.numpy(), flows[0].values[0].numpy()
    with pytest.raises(RuntimeError, match="not fitted: fit it first"):
        law.predict(places, [0.0], Reading(places, values))
    law.fit_flows(flows[:3], flows[3:])
    for where, when, given, said in (
        (places[:, 0], [0.0], Reading(places, values), "positions are"),
        (places, [-1.0], Reading(places, values), "not before the readings"),
        (places, [0.0], Reading(places, values[:3]), "a reading has positions"),
        (places, [0.0], values, "is no Reading"),
    ):
        with pytest.raises(ValueError, match=said):
            law.predict(where, when, given)  # type: ignore[arg-type]


def test_a_law_foretells_the_same_from_its_file_and_other_files_are_refused(tmp_path: Path) -> None:
    flows = travelling(4, 6, 1.0, 8)
    law = QuadraticLaw(space=LINE, side=8, forced=1, rounds=(2,), ahead=(1,), length=6, device="cpu")
    with pytest.raises(RuntimeError, match="fit it first"):
        law.save(tmp_path / "law.safetensors")
    law.fit_flows(flows[:3], flows[3:]).save(tmp_path / "law.safetensors")
    loaded = QuadraticLaw.load(tmp_path / "law.safetensors", device="cpu")
    reading = Reading(flows[0].points.numpy(), flows[0].values[0].numpy(), 0.2)
    asked = np.array([[-0.7], [0.1], [2.9]])
    assert np.array_equal(law.predict(asked, [0.5, 0.2], reading), loaded.predict(asked, [0.5, 0.2], reading))
    assert (loaded.rounds, loaded.space, loaded.channels_) == ((2,), LINE, ("u",))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        QuadraticLaw.load(other)
    save_checkpoint(other, {"w": torch.zeros(1)}, {"parameters": {}})
    with pytest.raises(ValueError, match="holds no estimator"):
        QuadraticLaw.load(other)
    with pytest.raises(ValueError, match="holds no observer"):
        Observer.load(tmp_path / "law.safetensors")
    with pytest.raises(FileNotFoundError):
        QuadraticLaw.load(tmp_path / "none.safetensors")
