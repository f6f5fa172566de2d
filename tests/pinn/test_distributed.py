"""Runs on several processes: the same network on all ranks, the serial numbers where pieces are divided, one folder."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from sciode.pde import Box
from sciode.pinn import (
    CONDITIONS,
    NTK,
    R3,
    RAD,
    Causal,
    Face,
    Names,
    Network,
    Numbers,
    Periodic,
    Problem,
    Redraw,
    ReLoBRaLo,
    Unknown,
    dirichlet,
    observed,
    progress,
    solve,
    strips,
    windows,
)
from sciode.pinn.distributed import Averaged, Divided, averaged, divided
from sciode.pinn.loss import Loss
from sciode.pinn.representation import representation_of
from sciode.pinn.terms import groups_of
from sciode.training import LBFGS, Adam, Broyden, LevenbergMarquardt, NewtonCG

BOX = Box((0, 0), (1, 1))
THIRDS, HALVES = strips(BOX, 1, [0.3, 0.6]), strips(BOX, 0, [0.5])


def _exact(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * (x[..., :1] - x[..., 1:]))


def problem() -> Problem:
    """u_t + c u_x = 0, periodic, with c to be found: the conditions touch some of the pieces only."""
    places = torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.25
    seen = observed(places, _exact(places)[:, 0])
    return Problem(
        "moving", Names(("x", "t"), ("u",)), BOX, lambda d, p: d.u_t + p.c * d.u_x,
        (dirichlet(Face("t", -1), _exact, name="initial"), Periodic("x", 1), seen),
        unknowns={"c": Unknown(0.7)}, exact=_exact, time="t",
    )  # fmt: skip


SAME: dict[str, Any] = {
    "conditions": [("average", "flux"), ("value", "residual continuity")], "network": Network(5, 1),
    "numbers": Numbers(30, 8, 6),
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "Adam and L-BFGS": {"decomposition": THIRDS, "stages": [Adam(4, lr=1e-2), LBFGS(5)]},
    "across a period": {"decomposition": HALVES, "stages": [Adam(6, lr=1e-2)], "chunk": 7},
    "Broyden": {"decomposition": THIRDS, "stages": [Broyden(4)]},
    "NewtonCG": {"decomposition": THIRDS, "stages": [NewtonCG(2, rank=5, sweeps=8)]},
    "least squares": {"decomposition": THIRDS, "stages": [Adam(3), LevenbergMarquardt(3, form="normal")]},
    "least squares, nothing formed": {
        "decomposition": THIRDS,
        "stages": [Adam(3), LevenbergMarquardt(2, form="free", rank=0, sweeps=6)],
    },
    "causal": {"decomposition": THIRDS, "stages": [Adam(6, lr=1e-2)], "causal": Causal(2.0, 5)},
    "ReLoBRaLo": {"decomposition": THIRDS, "stages": [Adam(6, lr=1e-2)], "balance": ReLoBRaLo(alpha=0.5, stay=0.5)},
    "RAD": {"decomposition": THIRDS, "stages": [Adam(7, lr=1e-2)], "redraw": Redraw(3, RAD())},
    "R3": {"decomposition": THIRDS, "stages": [Adam(7, lr=1e-2)], "redraw": Redraw(3, R3())},
}


def _spread(work: Callable[[int, Path], Any], folder: Path, size: int = 2) -> list[Any]:
    """What `work(rank, folder)` returns on each of some processes."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(work, rank, size, folder)) for rank in range(size)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join(240)
    assert [one.exitcode for one in ranks] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _rank(work: Callable[[int, Path], Any], rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    torch.save(work(rank, folder), folder / f"{rank}.pt")
    dist.destroy_process_group()


def _all_divided(rank: int, folder: Path) -> dict[str, Tensor]:
    return {name: solve(problem(), **SAME, **run, share=divided()).theta for name, run in RUNS.items()}


@pytest.mark.parametrize(("size", "cut"), [(2, THIRDS), (3, THIRDS), (2, HALVES)])
def test_what_ranks_evaluate_sums_to_the_loss_and_is_no_more_than_their_pieces(size: int, cut: Any) -> None:
    """Losses, gradients and terms of the parts against the whole; points of the equation are in one part each."""
    of = representation_of(problem(), cut, Network(5, 1), torch.zeros((), dtype=torch.float64))
    loss = Loss(groups_of(of, list(CONDITIONS)))
    theta = of.initial((0, 1), torch.zeros((), dtype=torch.float64))
    samples = loss.draw(Numbers(30, 8, 6), 0, theta)
    weights = torch.rand(2, len(loss.names), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = loss.measure(theta, samples, weights)
    parts = [[Divided(rank, size).own(one, cut.size) for one in samples] for rank in range(size)]
    measured = [loss.measure(theta, part, weights) for part in parts]
    for name in ("loss", "gradient", "terms"):
        total = sum(getattr(one, name) for one in measured)
        torch.testing.assert_close(total, getattr(whole, name), rtol=1e-11, atol=1e-12)
    inner = [part[0].data["points"] for part in parts]
    assert torch.equal(torch.cat(inner, 1), samples[0].data["points"])
    assert max(one.shape[1] for one in inner) == math.ceil(cut.size / size)


@pytest.mark.slow
def test_divided_pieces_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    found = _spread(_all_divided, tmp_path)
    for name, run in RUNS.items():
        alone = solve(problem(), **SAME, **run).theta
        for theta in found:
            torch.testing.assert_close(
                theta[name], alone, rtol=1e-7, atol=1e-9, msg=lambda said, n=name: f"{n}: {said}"
            )


def _stopped(rank: int, folder: Path) -> dict[str, Tensor]:
    """A run, and the same one interrupted and taken up again, on points that go where the residual is large."""
    found = {}
    step, stops = Adam.step, [19]
    seen: list[int] = []

    def watched(self: Adam, memory: Any, objective: Any, k: int) -> Any:
        if k in stops:
            raise KeyboardInterrupt
        seen.append(k)
        return step(self, memory, objective, k)

    progress._SECONDS = 0.0
    for share in (averaged(), divided()):
        how: dict[str, Any] = {**SAME, "stages": [Adam(24, lr=1e-2), LBFGS(2)], "redraw": Redraw(5, RAD())}
        kept = folder / type(share).__name__
        found[f"{kept.name} whole"] = solve(problem(), THIRDS, share=share, **how).theta
        Adam.step, stops[:] = watched, [19]  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            solve(problem(), THIRDS, share=share, folder=kept, **how)
        seen.clear()
        stops.clear()
        found[f"{kept.name} resumed"] = solve(problem(), THIRDS, share=share, folder=kept, **how).theta
        Adam.step = step  # type: ignore[method-assign]
        assert seen == list(range(16, 24))
        try:
            solve(problem(), THIRDS, share=share, folder=kept if rank else None, **how)
        except ValueError as error:
            assert "some a folder and some none" in str(error)
            found[f"{kept.name} refused"] = torch.ones(())
    return found


@pytest.mark.slow
def test_ranks_keep_one_folder_and_go_on_each_with_its_own_points(tmp_path: Path) -> None:
    first, second = _spread(_stopped, tmp_path)
    for kind in ("Averaged", "Divided"):
        assert [path.name for path in (tmp_path / kind).iterdir()] == ["pinn.safetensors"]
        assert f"{kind} refused" in first and f"{kind} refused" in second
        torch.testing.assert_close(first[f"{kind} whole"], second[f"{kind} whole"], rtol=1e-12, atol=1e-13)
        for found in (first, second):
            torch.testing.assert_close(found[f"{kind} resumed"], first[f"{kind} whole"], rtol=1e-9, atol=1e-11)


def _averaged(rank: int, folder: Path) -> dict[str, Tensor]:
    found = solve(problem(), THIRDS, **SAME, stages=[NewtonCG(1, rank=4, sweeps=5)], share=averaged())
    squares = solve(problem(), THIRDS, **SAME, stages=[LevenbergMarquardt(2, form="normal")], share=averaged())
    return {"theta": found.theta, "loss": torch.tensor(found.history[0].loss), "squares": squares.theta}


@pytest.mark.slow
def test_averaged_points_are_means_of_what_ranks_see_alone(tmp_path: Path) -> None:
    """Losses before the first step against those of each rank's points, which its seed alone says."""
    first, second = _spread(_averaged, tmp_path)
    for name in ("theta", "squares"):
        torch.testing.assert_close(first[name], second[name], rtol=1e-12, atol=1e-13)
    alone = torch.tensor(solve(problem(), THIRDS, **SAME, stages=[Adam(1)]).history[0].loss)
    assert not torch.allclose(first["loss"], alone)
    torch.testing.assert_close(first["loss"], alone, rtol=0.3, atol=0)


def test_misuse_says_the_mend() -> None:
    for make in (averaged, divided):
        with pytest.raises(ValueError, match="torchrun"):
            make()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"stages": [LevenbergMarquardt(form="woodbury")]}, "all rows in one process"),
        ({"balance": NTK()}, "one rank's points"),
        ({"limits": [1.0]}, "leave out limits"),
        ({"share": Divided(0, 4)}, "3 pieces leave some of 4 ranks without"),
        ({"share": Divided(0, 2), "decomposition": windows(THIRDS)}, "windows are heard at all points"),
    ]
    for changes, says in wrong:
        with pytest.raises(ValueError, match=says):
            solve(
                problem(), **{"decomposition": THIRDS, "share": Averaged(0, 1), "stages": [Adam(1)], **SAME, **changes}
            )
