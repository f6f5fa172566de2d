"""Networks on pieces of a domain on a CUDA device: the CPU's losses to rounding, arms as if alone, all stages."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciode.lab import domain_plots
from sciode.pde import Box, Polygon, Slab
from sciode.pinn import (
    NTK,
    R3,
    RAD,
    Causal,
    Face,
    GradientAnnealing,
    Hard,
    Names,
    Network,
    Numbers,
    Periodic,
    Problem,
    Redraw,
    ReLoBRaLo,
    ResidualAttention,
    SelfAdaptive,
    Solution,
    Unknown,
    Walls,
    dirichlet,
    muon,
    observed,
    progress,
    soap,
    solve,
    strips,
    windows,
)
from sciode.pinn.engines import engine_of
from sciode.pinn.training import Target
from sciode.training import LBFGS, Adam, Broyden, LevenbergMarquardt, NewtonCG

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
BOX = Box((0, 0), (1, 1))
HALVES = strips(BOX, 1, [0.5])
ARMS = [("average", "flux"), ("value", "residual continuity", "tangential derivative"), ("gradient-enhanced residual",)]
SMALL: dict[str, Any] = {"network": Network(8, 2), "numbers": Numbers(32, 12, 12), "log": 1}


def _exact(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * (x[..., :1] - x[..., 1:]))


def _still(x: Tensor) -> Tensor:
    return torch.ones_like(x[..., :1])


def moving(**changes: Any) -> Problem:
    """u_t + u_x = 0 on [0, 1]^2 with the solution sin(2 pi (x - t)), periodic."""
    given: dict[str, Any] = {
        "conditions": (dirichlet(Face("t", -1), _exact, name="initial"), Periodic("x", 0)), "exact": _exact,
        "time": "t", **changes,
    }  # fmt: skip
    return Problem("moving", Names(("x", "t"), ("u",)), BOX, lambda d, p: d.u_t + d.u_x, **given)


def agree(problem: Problem, *given: Any, **how: Any) -> Solution:
    """Solve on both devices; the losses, terms and errors of every iteration are equal to rounding."""
    cpu, cuda = (solve(problem, *given, device=device, **{**SMALL, **how}) for device in ("cpu", DEVICE))
    assert cuda.theta.device.type == torch.device(DEVICE).type and cuda.status == cpu.status
    assert len(cuda.history) == len(cpu.history)
    for here, there in zip(cuda.history, cpu.history, strict=True):
        assert (here.stage, here.iteration) == (there.stage, there.iteration)
        for name in ("loss", "terms", "error"):
            ours, theirs = (torch.tensor(getattr(one, name), dtype=torch.float64) for one in (here, there))
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-10)
    return cuda


STAGES = {
    "Adam": Adam(20, lr=1e-2),
    "L-BFGS": LBFGS(10, history=5),
    "Broyden": Broyden(8),
    "NewtonCG": NewtonCG(3, rank=6, sweeps=10),
    "Levenberg-Marquardt": LevenbergMarquardt(5, damping=1e-2),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_on_the_device_takes_the_cpus_steps(name: str) -> None:
    agree(moving(), HALVES, conditions=ARMS, stages=[Adam(3, lr=1e-2), STAGES[name]])


@pytest.mark.parametrize("name", ["Adam", "L-BFGS", "Broyden", "NewtonCG"])
def test_an_arm_in_a_batch_is_the_arm_alone(name: str) -> None:
    how: dict[str, Any] = {**SMALL, "stages": [Adam(3, lr=1e-2), STAGES[name]], "device": DEVICE}
    together = solve(moving(), HALVES, conditions=ARMS, **how)
    for arm, names in enumerate(ARMS):
        alone = solve(moving(), HALVES, conditions=names, **how)
        torch.testing.assert_close(together.theta[arm], alone.theta[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("stage", [muon(20, 1e-2, 1e-2), soap(20)], ids=["muon", "soap"])
def test_optimisers_of_libraries_lower_the_loss_there(stage: Any) -> None:
    pytest.importorskip("pytorch_optimizer")
    found = solve(moving(), HALVES, stages=[stage], device=DEVICE, **SMALL)
    assert found.history[-1].loss[0] < 0.9 * found.history[0].loss[0] and found.status == ("budget",)


@pytest.mark.parametrize(
    "how",
    [
        {"balance": NTK(3)},
        {"balance": GradientAnnealing(3)},
        {"balance": ReLoBRaLo(alpha=0.5, stay=0.5)},
        {"balance": ResidualAttention()},
        {"balance": SelfAdaptive()},
        {"redraw": Redraw(4, RAD())},
        {"redraw": Redraw(4, R3())},
        {"causal": Causal()},
        {"chunk": 7},
    ],
)
def test_balances_points_and_chunks_are_the_cpus(how: dict[str, Any]) -> None:
    agree(moving(), HALVES, stages=[Adam(9, lr=1e-2)], **how)


def test_windows_hard_conditions_and_unknowns_are_the_cpus() -> None:
    places = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(
        "found", Names(("x", "t"), ("u",)), BOX, lambda d, p: d.u_t + p.speed * d.u_x,
        (observed(places, _exact(places)[:, 0]),), unknowns={"speed": Unknown(0.5, positive=True)},
        hard=Hard(lambda x: torch.sin(2 * math.pi * x[..., :1]), lambda x: x[..., 1:]), exact=_exact,
    )  # fmt: skip
    for cut in (windows(HALVES), HALVES):
        found = agree(problem, cut, stages=[Adam(10, lr=1e-2), LBFGS(5)])
        assert found.unknowns["speed"].device.type == torch.device(DEVICE).type


def test_fields_residuals_and_pictures_take_solutions_and_points_of_either_device() -> None:
    bend = Slab(Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2))), 0, 1)
    problem = Problem(
        "heat", Names(("x", "y", "t"), ("u",)), bend, lambda d, p: d.u_t - d.u_xx - d.u_yy,
        (dirichlet(Face("t", -1), _still, name="start"), dirichlet(Walls(), _still, name="walls")), exact=_still,
    )  # fmt: skip
    found = agree(problem, stages=[Adam(4)])
    points = bend.sample(30, 0, dtype=torch.float64)
    for read in (found, found.residual, lambda x: found.read("u_xy", x), lambda x: found.field()(x)):
        torch.testing.assert_close(read(points), read(points.to(DEVICE)))
        assert read(points).device.type == torch.device(DEVICE).type
    for of in ("u", "u_xx", "residual", "error"):
        domain_plots.field_map(Figure().subplots(), found, of, at={"t": 0.5}, side=11)
    domain_plots.history(Figure().subplots(), found)


def test_an_interrupted_run_goes_on_there_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    how: dict[str, Any] = {
        **SMALL,
        "stages": [Adam(9, lr=1e-2), LBFGS(4)],
        "redraw": Redraw(3, RAD()),
        "device": DEVICE,
    }
    whole = solve(moving(), HALVES, **how)
    advanced = Target.advanced

    def interrupted(self: Target, stage: Any, memory: Any, k: int) -> Any:
        if k == 5:
            raise KeyboardInterrupt
        return advanced(self, stage, memory, k)

    with monkeypatch.context() as patch:
        patch.setattr(Target, "advanced", interrupted)
        with pytest.raises(KeyboardInterrupt):
            solve(moving(), HALVES, folder=tmp_path, **how)
    torch.testing.assert_close(
        solve(moving(), HALVES, folder=tmp_path, **how).theta, whole.theta, rtol=1e-9, atol=1e-12
    )


def test_a_graph_in_a_cycle_that_is_left_behind_spoils_no_recording() -> None:
    """Python takes it away when it likes: here, in the middle of the next recording, if it were still there."""
    engine, calls = engine_of("capture", torch.device(DEVICE)), 0

    def program(x: Tensor) -> tuple[Tensor, ...]:
        nonlocal calls
        calls += 1
        if calls > 2:
            gc.collect()
        return (2 * x,)

    x = torch.arange(3.0, device=DEVICE)
    gc.disable()
    try:
        cycle: list[Any] = [engine.recorded(lambda x: (x + 1,), [x])]
        cycle.append(cycle)
        cycle[0](x)
        del cycle
        (found,) = engine.recorded(program, [x])(x)
    finally:
        gc.enable()
    assert calls == 3 and found.tolist() == [0.0, 2.0, 4.0]


def test_nan_stops_its_arm_there_and_no_other() -> None:
    """u_t + u_x / (t - 1/2) is infinite where the pieces meet; the mean of both fields is not."""
    told = dirichlet(Face("t", -1), lambda x: x[..., :1], name="initial")
    problem = Problem("singular", Names(("x", "t"), ("u",)), BOX, lambda d, p: d.u_t + d.u_x / (d.t - 0.5), (told,))
    found = solve(
        problem, HALVES, conditions=[("average", "flux"), ("average", "residual")], stages=[Adam(5)], device=DEVICE,
        **SMALL,
    )  # fmt: skip
    assert found.status[0] == "budget" and found.status[1].startswith("non-finite: residual")
    assert bool(found.theta.isfinite().all())
