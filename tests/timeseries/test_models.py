"""Every model in `MODELS`: the future, the batch, padding, gaps, gradients, and what is asked of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.timeseries import MODELS, Batch, Paths, SequenceModel, build
from sciode.timeseries.controlled import NeuralCDE

B, T, C, N, H, S, DT = 5, 7, 3, 16, 6, 2, 0.25
CASES = [
    (name, form) for name, kind in MODELS.items() for form in (("paper", "clipped") if kind.formed else ("paper",))
]
every_model = pytest.mark.parametrize(("name", "form"), CASES, ids=[f"{name}-{form}" for name, form in CASES])
SOLVED = [case for case in CASES if case[0] not in ("grud", "mtand")]


def model(name: str, form: Any, static: int = 0) -> SequenceModel:
    return build(name, C, H, 2, static=static, form=form, seed=3).double()


def batch(seed: int = 0, static: bool = False) -> Batch:
    """Times on multiples of dt / 2, half the readings missing, series of different lengths."""
    draw = torch.Generator().manual_seed(seed)
    slots = torch.stack([torch.randperm(2 * N - 1, generator=draw)[: T - 1].sort().values + 1 for _ in range(B)])
    times = torch.cat((torch.zeros(B, 1), slots * DT / 2), 1).double()
    values = torch.randn(B, T, C, generator=draw, dtype=torch.float64)
    values = torch.where(torch.rand(values.shape, generator=draw) < 0.5, torch.nan, values)
    values[:, 0, 0] = 1.0
    values[1, 4:], times[1, 4:] = torch.nan, torch.nan
    values[2, 1:], times[2, 1:] = torch.nan, torch.nan  # a single point
    values[3, :, 1] = torch.nan  # a channel that is never seen
    control = torch.randn(B, N + 1, C, generator=draw, dtype=torch.float64)
    ends = times.nan_to_num(nan=0.0).amax(1).clamp(min=DT)
    return Batch(values, times, control, DT, ends, torch.randn(B, S, generator=draw).double() if static else None)


def queries(seed: int = 1) -> Tensor:
    """In no order, on the grid and off it, two of them equal, one none, some past the series' ends."""
    found = N * DT * torch.rand(B, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found[:, 1], found[:, 2], found[1, 4] = found[:, 0], 2 * DT, torch.nan
    found[:, 5] = 0.0
    return found


def seeds() -> Tensor:
    return torch.arange(10, 10 + B)


def run(net: SequenceModel, b: Batch, q: Tensor | None = None, seed: Any = None, **options: Any) -> Paths:
    return net(b, queries() if q is None else q, seeds() if seed is None else seed, **options)


def same(found: Paths, wanted: Paths, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found.states, wanted.states, rtol=rtol, atol=atol)
    torch.testing.assert_close(found.last, wanted.last, rtol=rtol, atol=atol)
    if wanted.kl is not None:
        torch.testing.assert_close(found.kl, wanted.kl, rtol=rtol, atol=atol)


@every_model
def test_draws_differ_where_a_model_says_that_it_is_noisy_and_nowhere_else(name: str, form: str) -> None:
    net, b = model(name, form), batch()
    one, other = (run(net, b, seed=seed).states for seed in (1, 2))
    assert torch.equal(one, other) != net.noisy


@every_model
def test_the_paths_have_their_shapes_and_everything_is_finite(name: str, form: str) -> None:
    for static in (False, True):
        net, b = model(name, form, S * static), batch(static=static)
        found = run(net, b)
        assert found.states.shape == (B, 6, H) and found.last.shape == (B, H) and net.hidden == H
        assert found.status.tolist() == [0] * B and found.nfe.shape == (B,)
        assert found.states.isfinite().all() and found.last.isfinite().all()
        # One time asked twice: equal to rounding, as a product may sum each of its rows in another order.
        torch.testing.assert_close(found.states[:, 0], found.states[:, 1], rtol=0, atol=1e-14)
        assert (found.states[1, 4] == 0).all()
        alone = net(b, None, seeds())
        assert alone.states.shape == (B, 0, H)
        assert found.kl is None or (found.kl.shape == (B,) and (found.kl > 0).all())


@every_model
def test_what_is_asked_for_changes_no_state(name: str, form: str) -> None:
    """The end's state is that of the query at the end; other queries change nothing."""
    net, b = model(name, form), batch()
    tight(net)
    whole, alone = run(net, b), net(b, None, seeds())
    torch.testing.assert_close(alone.last, whole.last, rtol=1e-6, atol=1e-8)
    at_end = net(b, b.ends.unsqueeze(1), seeds())
    assert torch.equal(at_end.states[:, 0], at_end.last)
    for k in range(6):
        one = run(net, b, queries()[:, k : k + 1])
        torch.testing.assert_close(one.states[:, 0], whole.states[:, k], rtol=1e-6, atol=1e-8)


def tight(net: SequenceModel) -> None:
    """An adaptive solver that stops later takes other steps at its end: bound what that changes."""
    if "rtol" in getattr(net, "solver", {}):
        net.solver = {"rtol": 1e-8, "atol": 1e-10}  # type: ignore[assignment]


@pytest.mark.parametrize("name", [name for name, _ in CASES if build(name, 1, 2).causal])
def test_the_future_does_not_touch_the_states_before_it(name: str) -> None:
    """Bit for bit: values, times, control and ends after a grid time are altered, the states up to it are not."""
    net, b, cut = model(name, "clipped"), batch(), 6 * DT
    later = b.times > cut
    values = torch.where(later.unsqueeze(-1), 1.0 - b.values.nan_to_num(nan=-3.0), b.values)
    control = b.control.clone()  # type: ignore[union-attr]
    control[:, 7:] += 100.0
    moved = torch.where(later, b.times + 0.1, b.times)
    q = torch.where(queries() <= cut, queries(), torch.nan)
    q[:, 0] = cut
    fixed = b._replace(ends=torch.full((B,), N * DT - DT).double())
    other = fixed._replace(values=values, times=moved, control=control)
    before, after = run(net, fixed, q), run(net, other, q)
    assert torch.equal(before.states, after.states)
    assert not torch.equal(before.last, after.last) or name in ("nsde", "node")


@every_model
def test_models_that_are_not_causal_say_so(name: str, form: str) -> None:
    """The same alteration changes an early state: the flag is not only caution."""
    net, b = model(name, form), batch()
    values = torch.where((b.times > 6 * DT).unsqueeze(-1), 1.0 - b.values, b.values)
    control = b.control.clone()  # type: ignore[union-attr]
    control[:, 7:] += 1.0
    q = torch.full((B, 1), 2 * DT).double()
    early = [run(net, x, q).states[0] for x in (b, b._replace(values=values, control=control))]
    assert torch.equal(*early) == net.causal


@every_model
def test_a_permuted_batch_gives_permuted_paths(name: str, form: str) -> None:
    net, b, order = model(name, form), batch(static=True), torch.tensor([3, 0, 4, 2, 1])
    net = model(name, form, S)
    parts = (x[order] if isinstance(x, Tensor) else x for x in b)
    whole = run(net, b)
    shuffled = run(net, Batch(*parts), queries()[order], seeds()[order])  # type: ignore[arg-type]
    want = Paths(*(x[order] if isinstance(x, Tensor) else x for x in whole))  # type: ignore[arg-type]
    same(shuffled, want)


@every_model
def test_padding_and_rows_without_a_reading_change_nothing(name: str, form: str) -> None:
    net, b = model(name, form), batch()
    more = torch.full((B, 3), torch.nan).double()
    wide = b._replace(
        values=torch.cat((b.values, torch.full((B, 3, C), torch.nan).double()), 1),
        times=torch.cat((b.times, more), 1),
        control=torch.cat((b.control, 7.0 + torch.zeros(B, 4, C).double()), 1),  # type: ignore[arg-type]
    )
    same(run(net, wide), run(net, b))
    empty = b._replace(
        values=torch.cat((b.values[:, :1], torch.full((B, 1, C), torch.nan).double(), b.values[:, 1:]), 1),
        times=torch.cat((b.times[:, :1], torch.full((B, 1), 0.01).double(), b.times[:, 1:]), 1),
    )
    same(run(net, empty), run(net, b))


@every_model
def test_a_series_alone_is_that_series_among_others(name: str, form: str) -> None:
    net, b, whole = model(name, form), batch(), run(model(name, form), batch())
    for i in range(B):
        alone = Batch(*(x[i : i + 1] if isinstance(x, Tensor) else x for x in b))  # type: ignore[arg-type]
        found = run(net, alone, queries()[i : i + 1], seeds()[i : i + 1])
        same(found, Paths(*(x[i : i + 1] if isinstance(x, Tensor) else x for x in whole)))  # type: ignore[arg-type]


@every_model
def test_a_series_without_any_reading_is_a_state_too(name: str, form: str) -> None:
    net, b = model(name, form), batch()
    values = b.values.clone()
    values[0] = torch.nan
    found = run(net, b._replace(values=values))
    assert found.states.isfinite().all() and found.last.isfinite().all() and found.status.tolist() == [0] * B
    found.last.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@every_model
def test_gradients_reach_every_parameter_and_are_finite(name: str, form: str) -> None:
    net, b = model(name, form, S), batch(static=True)
    found = run(net, b)
    loss = found.states.square().sum() + found.last.square().sum()
    (loss if found.kl is None else loss + found.kl.sum()).backward()
    for label, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), label
        assert parameter.grad.abs().max() > 0, label


@every_model
def test_readings_that_are_not_there_have_no_gradient_and_those_that_are_have(name: str, form: str) -> None:
    net, b = model(name, form), batch()
    values, control = b.values.clone().requires_grad_(), b.control.clone().requires_grad_()  # type: ignore[union-attr]
    if isinstance(net, NeuralCDE):
        net.solver["adjoint"] = "direct"  # what a path that requires grad needs
    run(net, b._replace(values=values, control=control)).last.sum().backward()
    grad = values.grad if net.reads == "values" else control.grad
    assert grad is not None and grad.isfinite().all() and grad.abs().sum() > 0
    if net.reads == "values":
        assert (grad[b.values.isnan()] == 0).all()


@pytest.mark.parametrize(("name", "form"), SOLVED)
def test_the_same_seed_gives_the_same_paths_and_another_seed_others(name: str, form: str) -> None:
    net, b = model(name, form), batch()
    first, second, third = run(net, b, seed=7), run(net, b, seed=7), run(net, b, seed=8)
    assert torch.equal(first.states, second.states) and torch.equal(first.last, second.last)
    random = name in ("lnsde", "lsde", "gsde", "nsde", "latentode", "latentsde")
    assert torch.equal(first.last, third.last) != random


@pytest.mark.parametrize("name", ["node", "ncde", "odernn", "latentode"])
def test_regularizers_are_passed_on_to_the_solver(name: str) -> None:
    """Kinetic energy: its gradient reaches the field; the paths are those without it."""
    net, b = model(name, "paper"), batch()
    plain, found = run(net, b), run(net, b, regularize="kinetic")
    same(found, plain)
    energy = found.penalties["kinetic"]
    assert energy.shape == (B,) and (energy >= 0).all() and (energy > 0).any()
    energy.sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


@every_model
def test_engines_give_the_same_paths(name: str, form: str) -> None:
    net, b = model(name, form), batch()
    same(run(net, b, engine="eager"), run(net, b))


@pytest.mark.parametrize("name", ["lnsde", "nsde", "latentsde"])
def test_a_regularizer_that_euler_s_method_cannot_serve_is_refused_by_the_solver(name: str) -> None:
    with pytest.raises(ValueError, match="regularize"):
        run(model(name, "clipped"), batch(), regularize="kinetic")


@every_model
def test_a_state_that_is_not_finite_has_a_status(name: str, form: str) -> None:
    """Series 1 reads a value so large that its square overflows; it alone is marked, whatever becomes of it."""
    net, b = model(name, form), batch()
    values, control = b.values.clone(), b.control.clone()  # type: ignore[union-attr]
    values[1, 0, 0], control[1] = 1e308, 1e308
    found = run(net, b._replace(values=values, control=control))
    finite = found.states.isfinite().flatten(1).all(1) & found.last.isfinite().all(1)
    assert (found.status[~finite] != 0).all() and found.status[[0, 2, 3, 4]].tolist() == [0] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lnsde", "ncde", "latentsde"])
def test_a_compiled_loop_gives_the_same_paths_and_gradients(name: str) -> None:
    """Warnings are errors: none says that it fell back on another engine."""
    net, b = model(name, "clipped"), batch()
    found = []
    for engine in ("eager", "compiled"):
        net.zero_grad()
        paths = run(net, b, engine=engine)
        (paths.last.square().sum() + paths.states.square().sum()).backward()
        found.append([paths.last, paths.states, *(p.grad for p in net.parameters() if p.grad is not None)])
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["grud", "mtand"])
def test_without_a_solver_there_is_nothing_to_regularize(name: str) -> None:
    with pytest.raises(ValueError, match="no solver"):
        run(model(name, "paper"), batch(), regularize=("kinetic",))


@every_model
def test_misuse_says_what_is_wrong(name: str, form: str) -> None:
    net, b = model(name, form), batch()
    with pytest.raises(ValueError, match=">= 0"):
        run(net, b, -queries())
    with pytest.raises(ValueError, match="must be \\[B, Q\\]"):
        run(net, b, queries()[0])
    if net.reads == "control":
        with pytest.raises(ValueError, match="driven by a control"):
            run(net, b._replace(control=None))
    if name in ("lnsde", "lsde", "gsde", "ncde"):
        with pytest.raises(ValueError, match="make it longer"):
            run(net, b, queries() + N * DT)


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(ValueError, match="lnsde"):
        build("lnsd", C)


@every_model
def test_the_seed_fixes_the_weights(name: str, form: Any) -> None:
    first, second, third = (build(name, C, H, seed=s, form=form).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)
    assert math.isfinite(sum(float(x.sum()) for x in first.values()))
