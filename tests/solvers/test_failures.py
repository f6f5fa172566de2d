"""A sample that fails is nobody's loss but its own: not in values, not in gradients, on no engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import Local, SDETerm, solve
from sciode.solvers.brownian import sample_seeds

pytestmark = pytest.mark.usefixtures("forgetful", "traced_only")
DOUBLE = torch.float64
Y0 = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [3.0, 4.0]], dtype=DOUBLE)
WELL = [0, 2]
HOWS: list[dict[str, Any]] = [
    {"method": "midpoint", "dt": 0.1}, {"method": "midpoint"}, {"method": "bosh3", "dt": 0.1}, {"method": "tsit5"},
    {"method": "milstein", "dt": 0.1}, {"method": "sriw1"}, {"method": "reversibleheun", "dt": 0.1},
]  # fmt: skip
ENGINES = ("eager", "compiled")
CASES = [
    *((how, 0.48, adjoint) for how in HOWS for adjoint in ("direct", "recompute")),
    # From the start on: what a loop hands on begins as a slope, or as a twin.
    *((HOWS[i], -1.0, adjoint) for i in (0, 3, 6) for adjoint in ("direct", "recompute")),
]
Case = Callable[[Tensor, Tensor, Tensor], Any]


def term(how: dict[str, Any], w: Tensor, since: float) -> Any:
    """y' = -w y, with noise where the method wants some; NaN for states beyond 100 from a time on."""

    def sick(t: Tensor, y: Tensor) -> Tensor:
        # The NaN is where a gradient with respect to w meets it: 0 * NaN.
        return -w * torch.where((y[:, :1] > 100) & (t > since), torch.nan, y)

    def noise(t: Tensor, y: Tensor) -> Tensor:
        return 0.3 * w * torch.cos(y)

    if how["method"] in ("midpoint", "heun3", "bosh3", "tsit5"):
        return sick
    return SDETerm(sick, noise, calculus="stratonovich" if how["method"] == "reversibleheun" else "ito")


def solved(how: dict[str, Any], w: Tensor, y0: Tensor, seeds: Tensor, since: float, **more: Any) -> Any:
    options: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "batch_dims": 1, **how, **more}
    return solve(term(how, w, since), y0, [0.0, 0.3, 1.0], seed=seeds, throw=False, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("how", "since", "adjoint"), CASES, ids=str)
def test_a_failed_sample_leaves_the_others_the_gradient_they_have_alone(
    how: dict[str, Any], since: float, adjoint: str, engine: str
) -> None:
    """Methods that do not look at the end of a step reach a state whose field is NaN, and stay there."""

    def gradient(chosen: list[int], engine: str) -> tuple[Tensor, ...]:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        y0 = Y0[chosen].requires_grad_()
        found = solved(how, w, y0, sample_seeds(1, 3)[chosen], since, adjoint=adjoint, engine=engine)
        assert found.stats.engine == engine
        assert found.status.tolist() == [3 if i == 1 else 0 for i in chosen]
        return torch.autograd.grad(found.ys[-1].square().sum(), (w, y0))

    shared, own = gradient([0, 1, 2], engine)
    alone = [gradient([i], "eager") for i in WELL]
    torch.testing.assert_close(shared, alone[0][0] + alone[1][0], rtol=1e-9, atol=0)
    torch.testing.assert_close(own[WELL], torch.cat([alone[0][1], alone[1][1]]), rtol=1e-9, atol=0)
    # What is shown of a sample that has failed has no gradient.
    assert torch.equal(own[1], torch.zeros(2, dtype=DOUBLE))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("since", [-1.0, 0.48])
@pytest.mark.parametrize("how", [HOWS[i] for i in (0, 2, 5)], ids=str)
def test_second_derivatives_know_nothing_of_a_failed_sample(how: dict[str, Any], since: float, engine: str) -> None:
    def second(chosen: list[int], engine: str, adjoint: str) -> Tensor:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        found = solved(how, w, Y0[chosen], sample_seeds(1, 3)[chosen], since, adjoint=adjoint, engine=engine)
        assert found.stats.engine == engine
        (slope,) = torch.autograd.grad(found.ys[-1].square().sum(), w, create_graph=True)
        return torch.autograd.grad(slope, w)[0]

    alone = sum(second([i], "eager", "direct") for i in WELL)
    torch.testing.assert_close(second([0, 1, 2], engine, "recompute"), alone, rtol=1e-9, atol=0)


@pytest.mark.parametrize("how", [HOWS[0], HOWS[2]], ids=str)
def test_the_tape_of_a_kernel_is_walked_back_without_a_failed_sample(how: dict[str, Any]) -> None:
    pytest.importorskip("triton", reason="the kernel engine writes Triton")

    def gradient(chosen: list[int], engine: str) -> Tensor:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        found = solved(how, w, Y0[chosen], sample_seeds(1, 3)[chosen], 0.48, adjoint="recompute", engine=engine)
        assert found.stats.engine == engine
        assert found.status.tolist() == [3 if i == 1 else 0 for i in chosen]
        return torch.autograd.grad(found.ys[-1].square().sum(), w)[0]

    torch.testing.assert_close(gradient([0, 1, 2], "kernel"), gradient(WELL, "eager"), rtol=1e-9, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_an_output_within_a_step_looks_at_the_ends_of_no_other_sample(adjoint: str, engine: str) -> None:
    """The dense output of midpoint has a slope at the end of the step, where the other sample's field is NaN."""
    ts = torch.tensor([[0.0, 0.0], [0.45, 0.3], [1.0, 1.0]], dtype=DOUBLE)

    def gradient(chosen: list[int], engine: str) -> Tensor:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        options: dict[str, Any] = {"dt": 0.1, "method": "midpoint", "batch_dims": 1, "throw": False}
        found = solve(term(options, w, 0.48), Y0[chosen], ts[:, chosen], adjoint=adjoint, engine=engine, **options)
        assert found.stats.engine == engine
        return torch.autograd.grad(found.ys[:, 0].square().sum(), w)[0]

    torch.testing.assert_close(gradient([0, 1], engine), gradient([0], "eager"), rtol=1e-9, atol=0)


@pytest.mark.parametrize("since", [-1.0, 0.48])
def test_the_adjoint_equation_leaves_a_failed_sample_out(since: float) -> None:
    def gradient(chosen: list[int]) -> tuple[Tensor, ...]:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        y0, how = Y0[chosen].requires_grad_(), {"method": "midpoint", "dt": 0.1}
        found = solved(how, w, y0, sample_seeds(1, 3)[chosen], since, adjoint="backsolve", engine="eager")
        return torch.autograd.grad(found.ys[-1].square().sum(), (w, y0))

    (shared, own), (expected, kept) = gradient([0, 1, 2]), gradient(WELL)
    torch.testing.assert_close(shared, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(own[WELL], kept, rtol=1e-9, atol=0)
    assert torch.equal(own[1], torch.zeros(2, dtype=DOUBLE))


@pytest.mark.parametrize("since", [-1.0, 0.48])
@pytest.mark.parametrize("chosen", [[0, 1, 2], [1]], ids=["among others", "alone"])
@pytest.mark.parametrize(
    "local", [Local(), Local(state="frozen"), Local(at="accepted", step="solver"), Local(state="attached")], ids=str
)
def test_a_local_step_of_a_failed_sample_is_none(local: Local, chosen: list[int], since: float) -> None:
    def penalty(chosen: list[int]) -> tuple[Tensor, ...]:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        how, seeds = {"method": "tsit5"}, sample_seeds(1, 3)[chosen]
        found = solved(how, w, Y0[chosen], seeds, since, regularize=local, engine="eager").penalties["local"]
        (gradient,) = torch.autograd.grad(found.sum() + 0 * w, w)
        return found.detach(), gradient

    measured, gradient = penalty(chosen)
    well = [i for i in chosen if i != 1]
    # The random time hangs on the first sample's seed.
    expected = penalty(well)[1] if well else torch.zeros((), dtype=DOUBLE)
    assert float(measured[chosen.index(1)]) == 0.0
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("chosen", [[0, 1, 2], [1]], ids=["among others", "alone"])
@pytest.mark.parametrize("how", [HOWS[0], HOWS[1]], ids=str)
def test_an_output_that_cannot_be_interpolated_is_none(how: dict[str, Any], chosen: list[int], engine: str) -> None:
    """It lies in the step to where the field is NaN, and midpoint's dense output asks for the slope there."""
    sick = term(how, torch.tensor(0.7, dtype=DOUBLE), 0.48)
    times = torch.linspace(0.0, 1.0, 41, dtype=DOUBLE)
    options: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "batch_dims": 1, "throw": False, "engine": engine, **how}
    found, i = solve(sick, Y0[chosen], times, **options), chosen.index(1)
    assert found.stats.engine == engine and int(found.status[i]) == 3
    assert bool(torch.isfinite(found.ys).all())
    exact = Y0[1] * torch.exp(-0.7 * times).unsqueeze(-1)
    right = ((found.ys[:, i] - exact).abs() < 0.01 * exact).all(-1)
    assert torch.equal(found.valid[:, i], found.valid[:, i] & right)
    assert 0.3 < float(times[found.valid[:, i]].max()) < 0.6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize(
    ("how", "inside"),
    [(HOWS[0], (0.42, 0.45, 0.5)), (HOWS[1], (0.3, 0.45)), ({"method": "heun3", "dt": 0.1}, (0.45,))],
    ids=str,
)
def test_an_output_that_cannot_be_interpolated_has_no_gradient_either(
    how: dict[str, Any], inside: tuple[float, ...], adjoint: str, engine: str
) -> None:
    """The slope that its dense output asks for is NaN: it must not reach what all samples share as 0 * NaN."""

    def solution(chosen: list[int], engine: str, adjoint: str) -> tuple[Any, list[Tensor]]:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        y0 = Y0[chosen].requires_grad_()
        options: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "batch_dims": 1, "throw": False, **how}
        times = [0.0, *inside, 1.0]
        found = solve(term(options, w, 0.48), y0, times, adjoint=adjoint, engine=engine, **options)
        assert found.stats.engine == engine
        gradients = torch.autograd.grad(found.ys.square().sum((0, 2))[[i != 1 for i in chosen]].sum(), (w, y0))
        return found, list(gradients)

    found, (shared, own) = solution([0, 1, 2], engine, adjoint)
    _, (expected, kept) = solution(WELL, "eager", "direct")
    assert found.status.tolist() == [0, 3, 0] and not bool(found.valid[:, 1].all())
    torch.testing.assert_close(shared, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(own, torch.stack([kept[0], torch.zeros(2, dtype=DOUBLE), kept[1]]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", [HOWS[0], HOWS[3], HOWS[4], HOWS[5]], ids=str)
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_a_sample_whose_arguments_are_to_blame_fails_alone(how: dict[str, Any], adjoint: str, engine: str) -> None:
    """No state heals its field: one argument is NaN, of another the square root is; the third belongs to all."""
    scale = torch.tensor([[1.0], [torch.nan], [2.0]], dtype=DOUBLE)
    power = torch.tensor([0.5, -1.0, 0.3], dtype=DOUBLE)

    def outcome(chosen: list[int], engine: str, adjoint: str) -> tuple[Any, tuple[Tensor, ...]]:
        w = torch.tensor([0.7, 0.4, 0.2], dtype=DOUBLE, requires_grad=True)
        args = {"scale": scale[chosen].requires_grad_(), "w": w, "power": power[chosen].requires_grad_()}
        y0 = Y0[chosen].requires_grad_()

        def drift(t: Tensor, y: Tensor, args: dict[str, Tensor]) -> Tensor:
            return -args["w"].sum() * args["scale"] * args["power"].sqrt().unsqueeze(-1) * y

        def noise(t: Tensor, y: Tensor, args: dict[str, Tensor]) -> Tensor:
            return 0.1 * args["w"][0] * args["scale"] * torch.cos(y)

        field = drift if how["method"] in ("midpoint", "tsit5") else SDETerm(drift, noise)
        options: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "batch_dims": 1, "throw": False, **how}
        seeds = sample_seeds(1, 3)[chosen]
        found = solve(field, y0, [0.0, 0.3, 1.0], args=args, seed=seeds, adjoint=adjoint, engine=engine, **options)
        assert found.stats.engine == engine
        loss = found.ys.square().sum((0, 2))[[i != 1 for i in chosen]].sum()
        return found, torch.autograd.grad(loss, (w, y0, args["scale"], args["power"]))

    found, (shared, *own) = outcome([0, 1, 2], engine, adjoint)
    alone, (expected, *kept) = outcome(WELL, "eager", "direct")
    assert found.status.tolist() == [0, 3, 0]
    torch.testing.assert_close(found.ys[:, WELL], alone.ys, rtol=1e-9, atol=0)
    assert torch.equal(found.ys[:, 1], Y0[1].expand(3, 2))
    torch.testing.assert_close(shared, expected, rtol=1e-9, atol=0)
    for gradient, of_others in zip(own, kept, strict=True):
        torch.testing.assert_close(gradient[WELL], of_others, rtol=1e-9, atol=0)
        assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))


def test_a_table_that_all_samples_share_is_not_taken_for_arguments_of_each() -> None:
    """Three samples of three components: a matrix has the batch's first axis, too, and other rows change the rest."""
    table = torch.tensor([[-1.0, 0.5, 0.0], [0.0, -1.0, 0.3], [0.2, 0.0, -1.0]], dtype=DOUBLE)
    own = torch.tensor([[1.0], [torch.nan], [2.0]], dtype=DOUBLE)
    y0 = torch.eye(3, dtype=DOUBLE) + 1

    def field(t: Tensor, y: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        return args[1] * (y @ args[0].T)

    found = solve(field, y0, [0.0, 1.0], args=(table, own), batch_dims=1, throw=False, engine="eager", rtol=1e-9)
    assert found.status.tolist() == [0, 3, 0]
    for i in WELL:
        torch.testing.assert_close(found.ys[-1, i], torch.matrix_exp(own[i] * table) @ y0[i], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_a_kept_dense_output_is_nan_in_the_step_that_cannot_be_interpolated_and_its_gradient_is_not(
    adjoint: str,
) -> None:
    def between(chosen: list[int]) -> tuple[Tensor, Tensor]:
        w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        options: dict[str, Any] = {"dt": 0.1, "method": "midpoint", "batch_dims": 1, "throw": False, "engine": "eager"}
        found = solve(term(options, w, 0.48), Y0[chosen], [0.0, 1.0], save="dense", adjoint=adjoint, **options)
        states = found.interpolate(torch.tensor([0.05, 0.45, 0.77]))
        return states.detach(), torch.autograd.grad(states[:, [i != 1 for i in chosen]].square().sum(), w)[0]

    (states, shared), (_, expected) = between([0, 1, 2]), between(WELL)
    assert bool(torch.isfinite(states[0, 1]).all()) and bool(torch.isnan(states[1:, 1]).all())
    torch.testing.assert_close(shared, expected, rtol=1e-9, atol=0)
