"""Misuse is refused before the first step, with the argument's name and the mend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import PID, Fixed, ODETerm, Save, SDETerm, Tableau, solve

NAN, INF = math.nan, math.inf
Y0 = torch.ones(3, 2, dtype=torch.float64)


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


def noise(t: Tensor, y: Tensor) -> Tensor:
    return 0.1 * y


def matrix(t: Tensor, y: Tensor) -> Tensor:
    return 0.1 * y.unsqueeze(-1).expand(*y.shape, 2)


def refuse(match: str, field: Any = decay, y0: Any = Y0, ts: Any = (0.0, 1.0), **how: Any) -> None:
    with pytest.raises(ValueError, match=match):
        solve(field, y0, ts, **how)


@pytest.mark.parametrize(
    ("ts", "match"),
    [
        ([0.0, 1.0, 1.0], "^ts: .*strictly increasing or strictly decreasing"),
        ([0.0, 1.0, 0.5], "^ts: .*strictly increasing"),
        ([0.0], "^ts: .*at least two times"),
        ([0.0, NAN, 1.0], "^ts: NaN may only fill the end.*move the valid times"),
        ([NAN, 1.0], "^ts: NaN may only fill the end"),
        ([0.0, INF], "^ts: .*finite"),
        (torch.zeros(4, 2), r"^ts: expected shape \[T\] or \[T, \*batch\] = \[T, 3\], got \[4, 2\]"),
        (torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]), "^ts: .*same way for all samples"),
        (torch.tensor([0.0, 1.0], requires_grad=True), r"^ts: .*detach\(\)"),
    ],
)
def test_times(ts: Any, match: str) -> None:
    refuse(match, ts=ts)


@pytest.mark.parametrize(
    ("y0", "match"),
    [
        (torch.tensor([[1.0, NAN]]), "^y0: contains NaN or infinity; clean"),
        (torch.tensor([[1.0, INF]]), "^y0: contains NaN or infinity; clean"),
        (torch.ones(3, 2, dtype=torch.int64), r"^y0: .*use y0\.float\(\)"),
        ([1.0, 2.0], r"^y0\[0\]: expected a tensor, got float; use torch\.as_tensor"),
        ((), "^y0: the state is empty; pass a tensor"),
        ({}, "^y0: the state is empty; pass a tensor"),
        ({"a": Y0, "b": torch.tensor([[NAN]])}, r"^y0\['b'\]: (contains|torch\.float32)"),
        ((Y0, Y0.float()), r"^y0\[1\]: torch\.float32 .*one dtype and device"),
        ((Y0, Y0.to("meta")), r"^y0\[1\]: .*meta.*one dtype and device"),
        ((Y0, Y0[:2]), "^batch_dims: .*different batch shapes.*pass batch_dims="),
        (None, "^y0: "),
    ],
)
def test_states(y0: Any, match: str) -> None:
    refuse(match, field=lambda t, y: y, y0=y0)


@pytest.mark.parametrize("shape", [(0,), (0, 2), (3, 0)])
def test_a_state_without_entries(shape: tuple[int, ...]) -> None:
    refuse("^y0: .*(empty|no entries|no samples)", y0=torch.ones(shape))


@pytest.mark.parametrize(
    ("field", "match"),
    [
        (lambda t, y: y[:, :1], r"^field: .*shape \(3, 1\); expected the state's \(3, 2\)"),
        (lambda t, y: y.sum(), r"^field: .*shape \(\); expected the state's"),
        (lambda t, y: y.float(), r"^field: .*torch\.float32, the state torch\.float64; cast"),
        (lambda t, y: torch.ones(3, 2, dtype=torch.float64, device="meta"), "^field: .*on meta.*move the field or y0"),
        (lambda t, y: 1.0, "^field: .*is a float; return a tensor"),
        (lambda t, y: None, "^field: .*return"),
        (lambda t, y: (y, y), "^field: returned 2 leaves for a state of 1; return the same nesting"),
        ("decay", r"^field: expected a callable f\(t, y\), got str"),
    ],
)
def test_what_a_field_returns(field: Any, match: str) -> None:
    refuse(match, field=field)


def test_what_a_field_of_a_nested_state_returns() -> None:
    y0 = {"x": Y0, "v": Y0}
    refuse("^field: returned 1 leaves for a state of 2", field=lambda t, y: y["x"], y0=y0)
    refuse(r"^field: output\['v'\].*shape", field=lambda t, y: {"x": y["x"], "v": y["v"][:, :1]}, y0=y0)
    refuse("^field: .*nesting", field=lambda t, y: (y["x"], y["v"]), y0=y0)


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [-1e-3, NAN, INF])
def test_tolerances(name: str, value: float) -> None:
    refuse(f"^{name}: must be a non-negative number", **{name: value})


def test_a_tree_of_tolerances_has_the_states_leaves() -> None:
    def field(t: Tensor, y: Any) -> Any:
        return y

    refuse(
        "^atol: expected a number or a tree like y0 with 2 leaves, got 3",
        field=field,
        y0=(Y0, Y0),
        atol=(1.0, 1.0, 1.0),
    )
    refuse("^rtol: must be a non-negative number", field=field, y0=(Y0, Y0), rtol=(1e-3, -1.0))


def test_an_rtol_below_rounding_warns() -> None:
    with pytest.warns(UserWarning, match="rtol=1e-09 .*use float64 or a larger rtol"):
        solve(decay, Y0.float(), [0.0, 0.1], rtol=1e-9, throw=False)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("dorpi5", "dopri5"), ("tsit", "tsit5"), ("RK_4", "rk4"), ("rk44", "rk4"), ("mid-point", "midpoint")],
)
def test_an_unknown_method_is_answered_with_the_one_that_was_meant(given: str, meant: str) -> None:
    refuse(f"^method: unknown '.*'.*Did you mean '{meant}'", method=given)


def test_methods_of_the_other_kind() -> None:
    sde = SDETerm(decay, noise)
    refuse("^method: 'milstein' solves SDEs, the term is an ODE; use .*tsit5", method="milstein", dt=0.1)
    refuse("^method: 'tsit5' solves ODEs, the term is an SDE; use .*milstein", field=sde, method="tsit5", dt=0.1)
    refuse("^method: expected a name, a Tableau or a Stepper, got int", method=5)
    table = Tableau(name="mine", order=1, c=(0,), a=((),), b=(1,))
    refuse("^method: 'mine' solves ODEs, the term is an SDE; choose", field=sde, method=table, dt=0.1)


def test_sde_methods_and_their_noise() -> None:
    general = SDETerm(decay, matrix, noise="general")
    refuse("^method: 'milstein' needs .*noise.*use 'euler'", field=general, method="milstein", dt=0.1)
    stratonovich = SDETerm(decay, noise, calculus="stratonovich")
    refuse("^method: 'euler' converges to the ito.*use one of 'heun'", field=stratonovich, method="euler", dt=0.1)
    refuse("^diffusion: scalar noise has one.*noise='general'", field=SDETerm(decay, matrix, noise="scalar"), dt=0.1)
    refuse("^diffusion: output.*shape", field=SDETerm(decay, matrix), dt=0.1)
    refuse("^dt: 'euler' .*takes fixed steps; pass dt=", field=SDETerm(decay, noise))
    refuse("^y0: complex SDE states", field=SDETerm(decay, noise), y0=Y0 + 0j, dt=0.1)
    for wrong in ({"noise": "diag"}, {"calculus": "itoo"}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: .*Did you mean"):
            SDETerm(decay, noise, **wrong)  # type: ignore[arg-type]


def test_seeds_and_increments() -> None:
    sde = SDETerm(decay, noise)
    refuse("^seed: expected an int", field=sde, dt=0.1, seed="1")
    refuse("^seed: expected an int64 tensor", field=sde, dt=0.1, seed=torch.arange(2))
    refuse(r"^noise: expected increments \[10, 3, 2\]", field=sde, dt=0.1, noise=torch.zeros(9, 3, 2))
    refuse("^noise: pass either", field=sde, dt=0.1, seed=1, noise=torch.zeros(10, 3, 2))
    refuse("^noise: an ODE has none; pass an SDETerm", noise=torch.zeros(10, 3, 2))


def test_steps_and_controllers() -> None:
    refuse("^dt: 'rk4' has no error estimate and takes fixed steps; pass dt=", method="rk4")
    refuse("^dt: 'rk4' has no error estimate", method="rk4", controller=PID())
    refuse(r"^dt: fixed steps need no controller.*PID\(first_step=", dt=0.1, controller=PID())
    refuse("^dt: expected a positive number, got -0.1; backward time follows from decreasing ts", dt=-0.1)
    refuse("^dt: expected a positive number", dt=NAN)
    refuse(r"^controller: expected PID\(\.\.\.\) or Fixed", controller="pid")
    refuse("^max_steps: expected a positive integer, got 0", max_steps=0)
    refuse("^max_steps: expected a positive integer", max_steps=1e3)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"factormin": 1.5}, "factormin < 1"),
        ({"factormax": 0.5}, "1 < factormax"),
        ({"safety": 1.5}, "safety <= 1"),
        ({"dtmin": -1.0}, "dtmin must be positive"),
        ({"dtmax": 0.0}, "dtmax must be positive"),
        ({"first_step": -0.1}, "first_step must be positive"),
        ({"dtmin": 1.0, "dtmax": 0.1}, "dtmin=1.0 exceeds dtmax=0.1"),
        ({"force_dtmin": True}, "force_dtmin=True needs dtmin="),
    ],
)
def test_a_pid_controller_refuses_to_exist(how: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=f"^PID: .*{match}"):
        PID(**how)


def test_fixed_refuses_to_exist() -> None:
    with pytest.raises(ValueError, match=r"^dt: expected a positive number"):
        Fixed(0.0)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"save": "step"}, "^save: .*Did you mean 'steps'"),
        ({"save": Save("tss")}, r"^save\.at: .*Did you mean 'ts'"),  # type: ignore[arg-type]
        ({"adjoint": "backsolv"}, "^adjoint: .*Did you mean 'backsolve'"),
        ({"engine": "eagr"}, "^engine: .*Did you mean 'eager'"),
        ({"regularize": "errors"}, "^regularize: .*Did you mean 'error'"),
        (
            {"adjoint": "backsolve", "regularize": "error"},
            "^adjoint: backsolve cannot differentiate regularizers.*recompute",
        ),
        ({"adjoint": "backsolve", "save": "steps"}, "^adjoint: backsolve .*save='ts'"),
        ({"method": "heun", "regularize": "stiffness"}, "^regularize: 'heun' has no two stages.*use tsit5"),
    ],
)
def test_names_of_options(how: dict[str, Any], match: str) -> None:
    refuse(match, **how)


@pytest.mark.parametrize("batch_dims", [-1, 3])
def test_more_batch_axes_than_there_are(batch_dims: int) -> None:
    refuse(rf"^batch_dims: {batch_dims} leading axes, but y0 has shapes", batch_dims=batch_dims)


def test_samples_that_influence_each_other() -> None:
    def mean_field(t: Tensor, y: Tensor) -> Tensor:
        return y.mean(0, keepdim=True) - y

    refuse(r"^samples influence each other: pass batch_dims=0 or coupled=True", field=mean_field)
    assert solve(mean_field, Y0, [0.0, 1.0], batch_dims=0).status.ndim == 0
    assert solve(mean_field, Y0, [0.0, 1.0], coupled=True).status.tolist() == [0, 0, 0]


class Towards:
    """y' = target - y; the target is zero, or the mean of the batch."""

    def __init__(self, mean: bool) -> None:
        self.mean = mean

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        return self.mean * y.mean(0, keepdim=True) - y


def switched(mean: bool) -> Any:
    return lambda t, y: mean * y.mean(0, keepdim=True) - y


def wrapped(mean: bool) -> Any:
    inner = (lambda y: y.mean(0, keepdim=True) - y) if mean else (lambda y: -y)
    return lambda t, y: inner(y)


@pytest.mark.parametrize("make", [switched, wrapped, lambda mean: Towards(mean).field], ids=["flag", "inner", "method"])
def test_one_code_that_closes_over_another_function_is_looked_at_again(make: Any) -> None:
    assert solve(make(False), Y0, [0.0, 1.0]).status.tolist() == [0, 0, 0]
    refuse(r"^samples influence each other", field=make(True))


def test_one_code_that_closes_over_other_numbers_is_looked_at_once() -> None:
    calls: list[float] = []

    def make(rate: float, scale: Tensor) -> Any:
        def field(t: Tensor, y: Tensor) -> Tensor:
            calls.append(rate)
            return -rate * scale * y

        return field

    for rate in (1.0, 2.0, 3.0):
        solve(make(rate, torch.tensor(rate)), Y0, [0.0, 1.0], dt=0.5, method="euler")
    later = calls.count(2.0)
    assert [calls.count(rate) for rate in (1.0, 2.0, 3.0)] == [later + 1, later, later]


def test_samples_cannot_be_coupled_and_have_their_own_times() -> None:
    refuse(r"^coupled: .*pass ts of shape \[T\]", ts=torch.tensor([[0.0] * 3, [1.0, 2.0, 3.0]]), coupled=True)


@pytest.mark.parametrize("adjoint", ["recompute", "backsolve"])
def test_a_captured_tensor_that_is_not_a_leaf(adjoint: str) -> None:
    encoded = 2 * torch.ones(2, dtype=torch.float64, requires_grad=True)
    refuse("^field: .*pass it through args=", field=lambda t, y: -encoded * y, adjoint=adjoint)


def test_a_solution_without_dense_output() -> None:
    with pytest.raises(ValueError, match=r'^interpolate: .*save="dense"'):
        solve(decay, Y0, [0.0, 1.0]).interpolate(0.5)


@pytest.mark.parametrize(
    "wrong", [{"rtol": -1.0}, {"method": "nope"}, {"save": "nope"}, {"dt": -1.0}, {"max_steps": 0}]
)
def test_a_refusal_costs_two_evaluations_at_most(wrong: dict[str, Any]) -> None:
    calls = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return -y

    refuse(f"^{next(iter(wrong))}: ", field=ODETerm(counted), **wrong)
    assert calls <= 2
