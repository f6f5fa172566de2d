"""`solve`: arms in a batch and alone, what is learnt, what is found, what goes wrong and is named."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.pde import Box
from sciode.pinn import (
    CPINN,
    NTK,
    R3,
    RAD,
    XPINN,
    Causal,
    Decomposition,
    Face,
    GradientAnnealing,
    Hard,
    Library,
    Names,
    Network,
    Numbers,
    Periodic,
    Problem,
    Redraw,
    ReLoBRaLo,
    ResidualAttention,
    SelfAdaptive,
    Unknown,
    Weights,
    dirichlet,
    muon,
    neumann,
    observed,
    progress,
    robin,
    soap,
    solve,
    strips,
    training,
    windows,
)
from sciode.pinn.loss import Loss
from sciode.pinn.representation import representation_of
from sciode.pinn.taylor import derivatives_of
from sciode.training import LBFGS, Adam, Broyden, LevenbergMarquardt, NewtonCG

SMALL = Numbers(64, 16, 16)
TINY = Network(8, 2)


def wave(x: Tensor) -> Tensor:
    return torch.sin(2 * x[..., :1]) + 0.5 * x[..., :1] ** 2


def line(**changes: Any) -> Problem:
    """u'' - u = f on [-1, 2] with the solution sin 2x + x^2 / 2."""

    def equation(d: Any, p: Any) -> Tensor:
        return d.u_xx - d.u - (-5 * torch.sin(2 * d.x) + 1 - 0.5 * d.x**2)

    given: dict[str, Any] = {"conditions": (dirichlet(Face("x"), wave),), "exact": wave, **changes}
    return Problem("line", Names(("x",), ("u",)), Box(-1, 2), equation, **given)


def moving(**changes: Any) -> Problem:
    """u_t + u_x = 0 on [0, 1]^2 with the solution sin(2 pi (x - t)), periodic."""

    def exact(x: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * (x[..., :1] - x[..., 1:]))

    given: dict[str, Any] = {
        "conditions": (dirichlet(Face("t", -1), exact, name="initial"), Periodic("x", 0)),
        "exact": exact,
        "time": "t",
        **changes,
    }
    return Problem("moving", Names(("x", "t"), ("u",)), Box((0, 0), (1, 1)), lambda d, p: d.u_t + d.u_x, **given)


def slopes(x: Tensor) -> Tensor:
    """The outward slope of `wave` at both ends."""
    return (2 * torch.cos(2 * x) + x) * torch.where(x > 0, 1.0, -1.0)


KINDS = {
    "first": (dirichlet(Face("x"), wave),),
    "second and first": (neumann(Face("x", 1), slopes), dirichlet(Face("x", -1), wave)),
    "third": (robin(Face("x"), 2.0, 1.0, lambda x: 2 * wave(x) + slopes(x)),),
}


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_of_all_kinds_lead_to_the_solution(kind: str) -> None:
    found = solve(
        line(conditions=KINDS[kind]),
        network=Network(10, 1),
        stages=[Adam(100, lr=1e-2), LevenbergMarquardt(iterations=50, damping=1e-3)],
        numbers=Numbers(64, 4, 1),
    )
    assert float(found.error) < 1e-4


@pytest.mark.parametrize("conditions", [XPINN, CPINN, ("value", "flux", "residual")])
def test_pieces_that_are_joined_solve_what_one_network_solves(conditions: tuple[str, ...]) -> None:
    problem = line()
    found = solve(
        problem,
        strips(Box(-1, 2), 0, [0.2]),
        conditions=conditions if conditions != XPINN else (*XPINN, "flux"),
        network=Network(8, 1),
        stages=[Adam(100, lr=1e-2), LevenbergMarquardt(iterations=30, damping=1e-3)],
        numbers=Numbers(64, 4, 4),
    )
    assert float(found.error) < 1e-3


def test_windows_sum_to_one_and_solve_with_hard_conditions() -> None:
    cut = windows(strips(Box(-1, 2), 0, [0.0, 1.0]))
    x = torch.linspace(-1, 2, 50, dtype=torch.float64)[:, None]
    torch.testing.assert_close(cut.window(x).sum(-1), torch.ones(50, dtype=torch.float64))

    def straight(x: Tensor) -> Tensor:
        low, high = (wave(torch.full_like(x, end)) for end in (-1.0, 2.0))
        return low + (x + 1) / 3 * (high - low)

    ends = Hard(straight, lambda x: (x + 1) * (2 - x))
    found = solve(
        line(conditions=(), hard=ends),
        cut,
        network=Network(6, 1),
        stages=[Adam(100, lr=1e-2), LevenbergMarquardt(iterations=25, damping=1e-3)],
        numbers=Numbers(48, 1, 1),
    )
    assert float(found.error) < 1e-4
    at_ends = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(found(at_ends)[0], wave(at_ends), rtol=1e-12, atol=1e-12)


def test_windows_are_heard_at_all_points_of_all_sets() -> None:
    """Derivatives of sum_s w_s u_s in two sets at once against differentiation of the field as a function."""
    cut = windows(strips(Box((0, 0), (1, 1)), 1, [0.5]))
    like = torch.zeros((), dtype=torch.float64)
    of = representation_of(moving(), cut, TINY, like)
    theta = of.initial((0, 1), like)
    points = Box((0, 0), (1, 1)).sample(10, 0, dtype=torch.float64).reshape(1, 2, 5, 2)
    asked = [(1, 1), (2, 0)]
    d = of.derivatives(theta, points, (0, 0), asked, of.extras(points, (0, 0), asked))
    nets = [of.network.series(theta, points.flatten(1, 2)[:, None], [s], asked, of.scaling, 1) for s in range(2)]
    shares = derivatives_of(cut.window, points.flatten(1, 2), asked)
    value = sum(shares[(0, 0)][..., s : s + 1] * nets[s][(0, 0)][:, 0] for s in range(2))
    torch.testing.assert_close(d.of((0, 0)).flatten(1, 2), value)
    step = 1e-4
    for orders, move in (((2, 0), (step, 0.0)), ((0, 1), (0.0, step))):
        ahead, behind = (
            of.at(theta, points[0].flatten(0, 1) + sign * torch.tensor(move, dtype=torch.float64)) for sign in (1, -1)
        )
        here = of.at(theta, points[0].flatten(0, 1))
        slope = (ahead - 2 * here + behind) / step**2 if orders == (2, 0) else (ahead - behind) / (2 * step)
        torch.testing.assert_close(d.of(orders).flatten(1, 2), slope, rtol=1e-4, atol=1e-5)


def test_windows_and_a_periodic_condition_meet() -> None:
    """Its term is the mean square of u(1, t) - u(0, t)."""
    cut = windows(strips(Box((0, 0), (1, 1)), 1, [0.5]))
    found = solve(moving(), cut, network=TINY, numbers=SMALL, stages=[Adam(1, lr=1e-9)])
    t = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    jump = found(torch.cat((t * 0 + 1, t), 1)) - found(torch.cat((t * 0, t), 1))
    periodic = found.history[-1].terms[0][found.terms.index("periodic")]
    assert periodic == pytest.approx(float(jump.square().mean()), rel=0.25) and periodic > 0


ARMS = [("average", "flux"), ("value", "residual continuity", "tangential derivative"), ("gradient-enhanced residual",)]


@pytest.mark.parametrize("stage", [Adam(12, lr=1e-2), LBFGS(6, history=5), Broyden(5), NewtonCG(2, rank=4, sweeps=5)])
@pytest.mark.parametrize(
    "balance", [None, ReLoBRaLo(alpha=0.5, stay=0.5), ResidualAttention(), NTK(5), GradientAnnealing(3)]
)
def test_arms_in_a_batch_are_arms_alone(stage: Any, balance: Any) -> None:
    problem = moving()
    cut = strips(Box((0, 0), (1, 1)), 1, [0.5])
    same: dict[str, Any] = {
        "network": TINY, "numbers": Numbers(20, 8, 8), "balance": balance,
        "stages": [Adam(5), stage] if balance is None else [stage],
        "redraw": Redraw(4, RAD()) if balance is None else None,
    }  # fmt: skip
    together = solve(problem, cut, conditions=ARMS, **same)
    assert together.theta.shape[0] == 3 and together.error.shape == (3,)
    for arm, names in enumerate(ARMS):
        alone = solve(problem, cut, conditions=names, **same)
        torch.testing.assert_close(together.theta[arm], alone.theta[0], rtol=1e-6, atol=1e-8)


def test_an_arm_without_conditions_is_two_networks_that_know_nothing_of_one_another() -> None:
    """The weights of an arm's left-out conditions are 0: whatever they come to does not move it."""
    problem, cut = moving(), strips(Box((0, 0), (1, 1)), 1, [0.5])
    masks = torch.zeros(2, 9)
    masks[1] = 1
    same: dict[str, Any] = {"network": TINY, "numbers": SMALL, "stages": [Adam(10)]}
    both, none = solve(problem, cut, conditions=masks, **same), solve(problem, cut, conditions=masks[:1], **same)
    torch.testing.assert_close(both.theta[0], none.theta[0], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(both.theta[0], both.theta[1])


def test_what_is_singular_on_an_interface_reaches_only_arms_that_look_at_it_there() -> None:
    """u_t + u_x / (t - 1/2) is infinite where the pieces meet; the mean of both fields is not."""
    told = dirichlet(Face("t", -1), lambda x: x[..., :1], name="initial")
    box, names = Box((0, 0), (1, 1)), Names(("x", "t"), ("u",))
    problem = Problem("singular", names, box, lambda d, p: d.u_t + d.u_x / (d.t - 0.5), (told,), time="t")
    same: dict[str, Any] = {"network": TINY, "numbers": SMALL, "stages": [Adam(5)]}
    cut = strips(box, 1, [0.5])
    both = solve(problem, cut, conditions=[("average", "flux"), ("average", "residual")], **same)
    alone = solve(problem, cut, conditions=("average", "flux"), **same)
    assert both.status[0] == "budget" and both.status[1].startswith("non-finite: residual")
    torch.testing.assert_close(both.theta[0], alone.theta[0], rtol=1e-9, atol=1e-12)


def test_chunks_change_memory_and_not_numbers() -> None:
    problem, cut = moving(), strips(Box((0, 0), (1, 1)), 1, [0.5])
    same: dict[str, Any] = {"network": TINY, "numbers": SMALL, "stages": [Adam(8, lr=1e-2)], "causal": Causal()}
    whole, parts = solve(problem, cut, **same), solve(problem, cut, chunk=7, **same)
    torch.testing.assert_close(whole.theta, parts.theta, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "stages", [(Adam(30, lr=1e-2), LevenbergMarquardt(iterations=15)), (Adam(200, lr=2e-2), LBFGS(150))]
)
def test_an_inverse_problem_finds_its_parameters(stages: Any) -> None:
    """u'' + k u = 0 from sin 3x: k = 9."""
    x = torch.linspace(0, 1, 25, dtype=torch.float64)[:, None]
    problem = Problem(
        "oscillator",
        Names(("x",), ("u",)),
        Box(0, 1),
        lambda d, p: d.u_xx + p.k * d.u,
        (observed(x, torch.sin(3 * x[:, 0])),),
        unknowns={"k": Unknown(4.0, positive=True)},
    )
    found = solve(
        problem, strips(Box(0, 1), 0, [0.5]), conditions=[("value", "flux")], network=TINY, stages=stages,
        numbers=Numbers(40, 1, 1), weights=Weights(data=100.0),
    )  # fmt: skip
    assert float(found.unknowns["k"]) == pytest.approx(9.0, rel=0.02)


@pytest.mark.parametrize("stage", [muon(60, 1e-2, 1e-2), soap(60)])
def test_optimisers_of_libraries_train_arms_apart(stage: Any) -> None:
    pytest.importorskip("pytorch_optimizer")
    same: dict[str, Any] = {"network": TINY, "conditions": [(), ()], "stages": [stage], "numbers": SMALL}
    together = solve(line(), seeds=(0, 1), **same)
    first, last = together.history[0].loss, together.history[-1].loss
    assert all(after < 0.5 * before for before, after in zip(first, last, strict=True))
    # Another neighbour, not a network alone: SOAP's rotations magnify the rounding of a batch of another size.
    assert torch.equal(together.theta[1], solve(line(), seeds=(7, 1), **same).theta[1])


@pytest.mark.parametrize(
    "changes",
    [{}, {"balance": ReLoBRaLo()}, {"balance": SelfAdaptive()}, {"redraw": Redraw(3, R3())}, {"causal": Causal()}],
)
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    same: dict[str, Any] = {
        "decomposition": strips(Box((0, 0), (1, 1)), 1, [0.5]), "network": TINY, "numbers": SMALL,
        "stages": [Adam(9, lr=1e-2), LBFGS(4)], **changes,
    }  # fmt: skip
    whole = solve(moving(), **same)
    step = Adam.step

    def interrupted(self: Adam, memory: Any, objective: Any, k: int) -> Any:
        if k == 5:
            raise KeyboardInterrupt
        return step(self, memory, objective, k)

    monkeypatch.setattr(Adam, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        solve(moving(), folder=tmp_path, **same)
    seen: list[int] = []

    def watched(self: Adam, memory: Any, objective: Any, k: int) -> Any:
        seen.append(k)
        return step(self, memory, objective, k)

    monkeypatch.setattr(Adam, "step", watched)
    resumed = solve(moving(), folder=tmp_path, **same)
    assert seen == [5, 6, 7, 8] and torch.equal(whole.theta, resumed.theta)
    with pytest.raises(ValueError, match="differs in network"):
        solve(moving(), folder=tmp_path, **{**same, "network": Network(9)})


def test_an_interrupted_stage_has_what_is_left_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 7 seconds, one a step, 5 are gone when it stops; an eighth step would be more than it was given."""
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    step, steps, stops = Adam.step, [0], [5]

    def timed(self: Adam, memory: Any, objective: Any, k: int) -> Any:
        if steps[0] in stops:
            raise KeyboardInterrupt
        steps[0] += 1
        return step(self, memory, objective, k)

    monkeypatch.setattr(Adam, "step", timed)
    monkeypatch.setattr(progress.Clock, "_now", lambda self: 100.0 * (not stops) + steps[0])
    same: dict[str, Any] = {"network": TINY, "numbers": SMALL, "stages": [Adam(20)], "limits": [7.0]}
    with pytest.raises(KeyboardInterrupt):
        solve(moving(), folder=tmp_path, **same)
    stops.clear()
    found = solve(moving(), folder=tmp_path, **same)
    assert steps[0] == found.history[-1].iteration == 7 and found.seconds == (7.0,)


def test_a_last_step_into_infinity_is_a_fault_and_not_a_result() -> None:
    """A rate of 1e200 in a stage of one step, after which nothing is evaluated any more but the result."""

    def make(matrices: Any, others: Any) -> Any:
        return [torch.optim.SGD([*matrices, *others], lr=1e200)]

    for stage in (Adam(1, lr=1e200), Library(make, 1)):
        found = solve(moving(), network=TINY, numbers=SMALL, stages=[stage])
        start = solve(moving(), network=TINY, numbers=SMALL, stages=[Adam(1, lr=1e-300)])
        assert found.status[0].startswith("non-finite: ") and bool(found.error.isfinite())
        torch.testing.assert_close(found.theta, start.theta)


def test_a_folder_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    """Not even where only a function, a piece, a time limit or a library's rate is another."""
    box = Box((0, 0), (1, 1))
    quarters = [Box((a, b), (a + 0.5, b + 0.5)) for a in (0, 0.5) for b in (0, 0.5)]
    cuts = [Decomposition(box, ((quarters[0], quarters[a]), (quarters[b], quarters[3]))) for a, b in ((1, 2), (2, 1))]
    bent = Decomposition(box, ((quarters[0], quarters[3]), (quarters[1], quarters[2])))

    def initial(scale: float) -> Problem:
        told = dirichlet(Face("t", -1), lambda x: scale * torch.sin(2 * math.pi * x[..., :1]), name="initial")
        return moving(conditions=(told, Periodic("x", 0)), exact=None)

    def other() -> Problem:
        return replace(initial(1.0), equation=lambda d, p: d.u_t + 2 * d.u_x)

    same: dict[str, Any] = {"decomposition": cuts[0], "network": TINY, "numbers": SMALL, "stages": [Adam(2)]}
    known = solve(initial(1.0), folder=tmp_path / "run", **same)
    again = solve(initial(1.0), folder=tmp_path / "run", **same)
    assert torch.equal(known.theta, again.theta) and again.seconds == known.seconds
    for problem, changes, says in (
        (initial(2.0), {}, "functions"),
        (other(), {}, "functions"),
        (initial(1.0), {"decomposition": cuts[1]}, "pieces"),
        (initial(1.0), {"decomposition": bent}, "pieces"),
        (initial(1.0), {"limits": [60.0]}, "limits"),
    ):
        with pytest.raises(ValueError, match=f"differs in .*{says}"):
            solve(problem, folder=tmp_path / "run", **{**same, **changes})
    solve(moving(), folder=tmp_path / "muon", network=TINY, numbers=SMALL, stages=[muon(1, lr=1e-3)])
    with pytest.raises(ValueError, match="differs in stages"):
        solve(moving(), folder=tmp_path / "muon", network=TINY, numbers=SMALL, stages=[muon(1, lr=1e-2)])


@pytest.mark.parametrize("stage", [Adam(3), LBFGS(3), Broyden(3), NewtonCG(2, rank=4, sweeps=5)])
def test_the_history_tells_the_loss_of_the_weights_and_not_of_a_line_searchs_last_try(stage: Any) -> None:
    """The entry of iteration k is the last one of a run of k iterations, on the same points."""
    same: dict[str, Any] = {"network": TINY, "numbers": SMALL, "log": 1}
    whole = solve(moving(), stages=[Adam(3, lr=1e-2), stage], **same)
    own = [entry for entry in whole.history if entry.stage == 1]
    assert [entry.iteration for entry in own] == list(range(stage.iterations + 1))
    for k in range(1, stage.iterations):
        short = solve(moving(), stages=[Adam(3, lr=1e-2), replace(stage, iterations=k)], **same)
        assert own[k].loss == pytest.approx(short.history[-1].loss, rel=1e-9)
        assert own[k].terms[0] == pytest.approx(short.history[-1].terms[0], rel=1e-9)
    if stage.still:
        losses = [entry.loss[0] for entry in own]
        assert all(b <= a for a, b in pairwise(losses))


def test_a_stage_that_runs_out_of_time_tells_how_far_it_came() -> None:
    stages = [LevenbergMarquardt(10**6, tolerance=0.0, damping=1e-3), muon(10**6)]
    found = solve(line(), network=Network(3, 1), numbers=Numbers(8, 2, 1), stages=stages, limits=[0.2, 0.2], log=10**6)
    reached = {entry.stage: entry.iteration for entry in found.history}
    assert 1 <= reached[0] < 10**5 and 1 <= reached[1] < 10**5


def test_least_squares_under_a_limit_take_the_steps_that_they_take_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that counts draws, 13 iterations: the damping goes on from one to the next."""
    drawn = [0]
    blocks = Loss.blocks

    def counted(self: Loss, *given: Any) -> Any:
        drawn[0] += 1
        return blocks(self, *given)

    monkeypatch.setattr(Loss, "blocks", counted)
    monkeypatch.setattr(progress.Clock, "_now", lambda self: float(drawn[0]))
    same: dict[str, Any] = {"network": Network(6, 1), "numbers": Numbers(24, 2, 1)}
    limited = solve(line(), stages=[LevenbergMarquardt(60, 0.0, 1e-2)], limits=[14.0], **same)
    free = solve(line(), stages=[LevenbergMarquardt(13, 0.0, 1e-2)], **same)
    assert limited.history[-1].iteration == 13 and torch.equal(limited.theta, free.theta)


def test_weights_of_terms_go_on_to_the_next_stage_and_weights_of_points_begin_anew_with_their_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, Tensor]] = []

    def noted(balance: Any, stages: list[Any]) -> dict[str, Tensor]:
        seen.clear()
        draw = training.Run.draw

        def drawn(self: training.Run, stage: int, number: int) -> None:
            draw(self, stage, number)
            seen.append(dict(self.memory))

        with monkeypatch.context() as patch:
            patch.setattr(training.Run, "draw", drawn)
            solve(moving(), network=TINY, numbers=SMALL, balance=balance, stages=stages)
        return seen[1]

    for second in (Adam(1), LBFGS(1), LevenbergMarquardt(1, damping=1e-3), muon(1)):
        factors = noted(ReLoBRaLo(alpha=0.5, stay=0.5), [Adam(3, lr=1e-2), second])["factors"]
        assert not torch.equal(factors, torch.ones_like(factors))
        assert not noted(SelfAdaptive(), [Adam(3, lr=1e-2), second])


def test_the_same_seed_gives_the_same_run_and_tests_know_other_points() -> None:
    same: dict[str, Any] = {"network": TINY, "numbers": SMALL, "stages": [Adam(5)]}
    first, second, other = (solve(moving(), seed=seed, **same) for seed in (0, 0, 1))
    assert torch.equal(first.theta, second.theta) and not torch.equal(first.theta, other.theta)
    assert first.status == ("budget",) and len(first.history) == 2


def _root(d: Any, p: Any) -> Tensor:
    return d.u_t + torch.sqrt(d.u - 0.2) * d.u_x


def test_a_residual_that_is_not_finite_is_named_and_the_last_good_weights_are_kept() -> None:
    """sqrt(u - 0.2) is NaN where u falls below 0.2, as the data ask for."""
    low = dirichlet(Face("t", -1), lambda x: torch.zeros_like(x[..., :1]), name="initial")
    start = Hard(lambda x: torch.ones_like(x[..., :1]), lambda x: torch.full_like(x[..., :1], 0.05))
    problem = Problem("root", Names(("x", "t"), ("u",)), Box((0, 0), (1, 1)), _root, (low,), hard=start)
    found = solve(problem, network=TINY, numbers=SMALL, stages=[Adam(200, lr=0.2), LBFGS(5)])
    assert "non-finite: equation, at iteration" in found.status[0] and "stage 0" in found.status[0]
    assert bool(found.theta.isfinite().all()) and float(found(problem.domain.sample(50, 0)).min()) >= 0.2 - 0.05


def test_an_equation_fails_when_the_problem_is_made_and_with_its_own_words() -> None:
    names, box = Names(("x",), ("u",)), Box(0, 1)
    with pytest.raises(AttributeError, match="u_y"):
        Problem("typo", names, box, lambda d, p: d.u_y)
    with pytest.raises(AttributeError, match="mu"):
        Problem("typo", names, box, lambda d, p: d.u_xx * p.mu)
    with pytest.raises(ValueError, match="one number a point"):
        Problem("shape", names, box, lambda d, p: d.u_xx[..., None])
    with pytest.raises(ZeroDivisionError):
        Problem("own", names, box, lambda d, p: d.u / 0 if False else d.u * (1 // 0))
    with pytest.raises(ValueError, match="exact must map"):
        Problem("exact", names, box, lambda d, p: d.u_xx, exact=lambda x: torch.cat((x, x), -1))


def test_conditions_that_contradict_one_another_are_named_before_anything_is_trained() -> None:
    conditions = (
        dirichlet(Face("t", -1), lambda x: torch.ones_like(x[..., :1]), name="start"),
        dirichlet(Face("x"), lambda x: torch.zeros_like(x[..., :1]), name="walls"),
    )
    with pytest.raises(ValueError, match="start and walls tell 1 and 0 at"):
        moving(conditions=conditions)
    assert moving(conditions=conditions, corners="ignore").conditions == conditions


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages": []}, "at least one"),
        ({"stages": ["adam"]}, "there are Adam"),
        ({"stages": "adam"}, "give a list"),
        ({"decomposition": strips(Box((0, 0), (1, 2)), 1, [0.5])}, "another domain"),
        ({"conditions": ("jump",)}, "interface condition"),
        ({"seeds": (0, 1)}, "one for each of 1 arms"),
        ({"weights": Weights(own=(("wall", 1.0),))}, "there is no term wall"),
        ({"balance": SelfAdaptive(), "redraw": Redraw(5, RAD())}, "points that stay"),
        ({"chunk": 0}, "chunk"),
        ({"network": 20}, "give Network"),
        ({"numbers": (8, 4, 4)}, "give Numbers"),
        ({"redraw": RAD()}, "give Redraw"),
        ({"limits": "long"}, "limits: give a list"),
        ({"dtype": torch.int64}, "dtype must be torch.float32"),
        ({"device": "gpu"}, "is not available here"),
        ({"share": "averaged"}, "give averaged"),
    ],
)
def test_misuse_says_the_mend(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        solve(moving(), **{"network": TINY, "numbers": SMALL, **changes})
