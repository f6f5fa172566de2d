"""ODE-RNNs: gaps of no length, readings that are not there, the order of things, and what is solved between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode.nn import Autonomous, OdeRnn, SolveGaps, StepGaps, mlp

BATCH, LENGTH, CHANNELS, SIZE = 5, 7, 3, 4
TIGHT = SolveGaps({"rtol": 1e-9, "atol": 1e-9, "engine": "eager"})
EVOLVE = [StepGaps(), StepGaps("rk4", 2), TIGHT]


@pytest.fixture
def build(seeded: Any) -> Any:
    with seeded(0):
        field = Autonomous(mlp([SIZE, 8, SIZE], nn.Tanh)).double()
        cell = nn.GRUCell(2 * CHANNELS, SIZE).double()

    def made(evolve: Any = EVOLVE[0], backward: bool = False) -> OdeRnn:
        return OdeRnn(field, cell, SIZE, evolve=evolve, backward=backward)

    return made


def series() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    times = torch.rand(BATCH, LENGTH, generator=draw, dtype=torch.float64).sort(-1).values
    values = torch.randn(BATCH, LENGTH, CHANNELS, generator=draw, dtype=torch.float64)
    seen = torch.rand(BATCH, LENGTH, CHANNELS, generator=draw) < 0.5
    seen[:, -1] &= (torch.arange(BATCH) % 2 == 0)[:, None]  # some are shorter
    seen[2] = False  # nothing is known of one
    return times, values, seen


@pytest.mark.parametrize("backward", [False, True])
def test_what_is_masked_changes_no_bit(build: Any, backward: bool) -> None:
    times, values, seen = series()
    net = build(backward=backward)
    plain = net(times, values, seen, until=0.0)
    for other in (torch.nan, 1e30, -7.0):
        altered = net(times, torch.where(seen, values, other), seen, until=0.0)
        assert torch.equal(altered.last, plain.last)
        assert torch.equal(altered.states, plain.states)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("evolve", EVOLVE[:2], ids=str)
def test_a_point_without_a_reading_is_passed_over(build: Any, evolve: Any, backward: bool) -> None:
    """With or without it, whatever its time, even NaN: bit for bit."""
    times, values, seen = series()
    net = build(evolve, backward)
    plain = net(times, values, seen, until=0.5)
    clock = torch.cat((times[:, :3], torch.full((BATCH, 1), torch.nan), times[:, 3:]), 1)
    wide = torch.cat((values[:, :3], values[:, :1], values[:, 3:]), 1)
    mask = torch.cat((seen[:, :3], torch.zeros_like(seen[:, :1]), seen[:, 3:]), 1)
    assert torch.equal(net(clock, wide, mask, until=0.5).last, plain.last)


@pytest.mark.parametrize("evolve", EVOLVE, ids=str)
def test_a_gap_of_no_length_changes_nothing(build: Any, evolve: Any) -> None:
    net = build(evolve)
    h = torch.randn(BATCH, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    at = torch.full((BATCH, 1), 0.3, dtype=torch.float64)
    assert torch.equal(evolve(net.field, h, at, at), h)
    times, values, seen = series()
    together = net(torch.zeros_like(times), values, seen).last
    alone = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    for i in range(LENGTH):
        x = torch.cat((torch.where(seen[:, i], values[:, i], 0.0), seen[:, i].double()), -1)
        alone = torch.where(seen[:, i].any(-1, keepdim=True), net.cell(x, alone), alone)
    assert torch.equal(together, alone)


def test_between_readings_the_state_is_the_exponential_of_a_linear_field(build: Any) -> None:
    matrix = torch.tensor([[-0.5, 1.0], [-1.0, -0.2]], dtype=torch.float64)
    h = torch.tensor([[1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)
    t0, t1 = torch.tensor([[0.0], [0.4]]).double(), torch.tensor([[1.0], [-0.3]]).double()
    want = torch.stack([torch.matrix_exp((b - a) * matrix) @ x for a, b, x in zip(t0, t1, h, strict=True)])
    errors = [float((StepGaps("rk4", n)(lambda t, y: y @ matrix.T, h, t0, t1) - want).abs().max()) for n in (4, 8)]
    assert errors[0] / errors[1] == pytest.approx(16.0, rel=0.2)
    torch.testing.assert_close(TIGHT(lambda t, y: y @ matrix.T, h, t0, t1), want, rtol=1e-7, atol=1e-8)


def test_the_field_is_told_the_time() -> None:
    """h' = 3 t^2 has h(t1) - h(t0) = t1^3 - t0^3, forth and back; rk4 is exact."""
    h = torch.zeros(2, 1, dtype=torch.float64)
    t0, t1 = torch.tensor([[0.2], [1.0]]).double(), torch.tensor([[0.9], [0.1]]).double()
    for evolve in (StepGaps("rk4"), TIGHT):
        torch.testing.assert_close(evolve(lambda t, y: 3 * t**2 + 0 * y, h, t0, t1), t1**3 - t0**3)


def test_reading_backward_is_reading_the_mirrored_series_forward(build: Any) -> None:
    times, values, seen = series()
    back = build(backward=True)(times, values, seen, until=0.0)
    # An autonomous field that is run back in time is its negative, run forth.
    forth = build()
    forth.field = Autonomous(lambda h: -back_field(h))
    back_field = build().field.function
    mirrored = forth(1.0 - times.flip(-1), values.flip(-2), seen.flip(-2), until=1.0)
    torch.testing.assert_close(mirrored.last, back.last, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(mirrored.states.flip(-2), back.states, rtol=1e-12, atol=1e-14)


def test_samples_keep_to_themselves_and_permute(build: Any) -> None:
    times, values, seen = series()
    order = torch.tensor([3, 0, 4, 2, 1])
    for backward in (False, True):
        net = build(backward=backward)
        whole = net(times, values, seen, until=0.0)
        shuffled = net(times[order], values[order], seen[order], until=0.0)
        torch.testing.assert_close(shuffled.last, whole.last[order], rtol=1e-12, atol=1e-14)
        alone = net(times[:1], values[:1], seen[:1], until=0.0)
        torch.testing.assert_close(alone.states[0], whole.states[0], rtol=1e-12, atol=1e-14)


def test_who_was_never_read_stays_at_zero(build: Any) -> None:
    times, values, seen = series()
    for backward in (False, True):
        found = build(backward=backward)(times, values, seen, until=0.0)
        assert torch.equal(found.states[2], torch.zeros(LENGTH, SIZE, dtype=torch.float64))
        assert torch.equal(found.last[2], torch.zeros(SIZE, dtype=torch.float64))


def test_the_state_goes_on_to_the_time_that_was_asked_for(build: Any) -> None:
    times, values, seen = series()
    seen[:] = True
    net = build(StepGaps("rk4"), backward=True)
    stays, goes = net(times, values, seen).last, net(times, values, seen, until=0.0).last
    assert torch.equal(goes, net.evolve(net.field, stays, times[:, :1], torch.zeros(BATCH, 1, dtype=torch.float64)))


@pytest.mark.parametrize("evolve", [StepGaps("rk4"), SolveGaps({"dt": 0.25, "engine": "eager"})], ids=str)
def test_gradients_are_finite_differences(build: Any, evolve: Any) -> None:
    times, values, seen = (x[:2, :3] for x in series())
    net = build(evolve, backward=True)
    torch.autograd.gradcheck(
        lambda x: net(times, x, seen, until=0.0).last, (values.clone().requires_grad_(),), rtol=1e-5, atol=1e-8
    )
    weights = list(net.parameters())
    assert all(g is not None for g in torch.autograd.grad(net(times, values, seen).last.sum(), weights))


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda net: net(torch.zeros(2, 3), torch.zeros(2, 4, 1), torch.ones(2, 4, 1) > 0), "times must be"),
        (lambda net: net(torch.zeros(2, 3), torch.zeros(2, 3, 1), torch.ones(2, 3, 1)), "mask of bool"),
        (lambda net: StepGaps("eulr"), "no explicit method is called 'eulr'"),
        (lambda net: StepGaps(steps=0), "steps must be at least 1"),
        (lambda net: OdeRnn(net.field, net.cell, 0), "size must be at least 1"),
    ],
)
def test_misuse_is_refused(build: Any, misuse: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misuse(build())
