"""Controlled differential equations: exact solutions, reparametrisation, gradients, orders, and what drives them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sciode import CDETerm, HermitePath, LinearPath, NaturalCubicPath, RectilinearPath, solve

NAN, B, L, C, H = math.nan, 3, 8, 2, 3
PATHS = {"hermite": HermitePath, "linear": LinearPath, "natural": NaturalCubicPath, "rectilinear": RectilinearPath}
SMOOTH = ["hermite", "natural"]


def readings(seed: int = 0, missing: float = 0.0, length: int = L) -> tuple[Tensor, Tensor]:
    """Values [B, L, C] and uneven times [B, L], float64; the last series is two rows shorter."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(B, length, C, generator=draw, dtype=torch.float64)
    times = (0.2 + torch.rand(B, length, generator=draw, dtype=torch.float64)).cumsum(1)
    times = times - times[:, :1]
    values = torch.where(torch.rand(values.shape, generator=draw) < missing, NAN, values)
    values[-1, -2:], times[-1, -2:] = NAN, NAN
    return values, times


def weights(channels: int = C, seed: int = 1) -> Tensor:
    """A matrix [C, H, H] a channel, of spectral norm below 1."""
    draw = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(channels, H, H, generator=draw, dtype=torch.float64)


def begin(seed: int = 2) -> Tensor:
    return torch.randn(B, H, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(matrices: Tensor) -> Any:
    """f(t, z) [B, H, C] of dz = sum_c A_c z dX_c."""
    return lambda t, z: torch.einsum("chk,bk->bhc", matrices, z)


def own_ends(times: Tensor) -> Tensor:
    """Every series from its start to its own last time [2, B]."""
    return torch.stack((times[:, 0], times.nan_to_num(nan=-math.inf).amax(1)))


@pytest.mark.parametrize("name", SMOOTH)
def test_one_channel_is_a_matrix_exponential_of_the_rise(name: str) -> None:
    """dz = A z dX has z(T) = exp(A (X(T) - X(0))) z(0), whatever X does between."""
    values, times = readings()
    path = PATHS[name](values[..., :1], times)
    found = solve(CDETerm(linear(weights(1)), path), begin(), own_ends(times), rtol=1e-9, atol=1e-11).ys[-1]
    last = (~times.isnan()).sum(1) - 1
    rise = values[torch.arange(B), last, 0] - values[:, 0, 0]
    want = torch.matrix_exp(rise[:, None, None] * weights(1)[0]) @ begin().unsqueeze(-1)
    # The tolerance is local, a step; there are some hundred.
    torch.testing.assert_close(found, want.squeeze(-1), rtol=1e-6, atol=1e-7)


def test_lines_give_a_product_of_exponentials_one_a_piece() -> None:
    values, _ = readings()
    values[-1, -2:] = 0.5
    times = torch.arange(L, dtype=torch.float64)
    term = CDETerm(linear(weights()), LinearPath(values, times))
    want = begin().unsqueeze(-1)
    for step in values.diff(dim=1).unbind(1):
        want = torch.matrix_exp(torch.einsum("bc,chk->bhk", step, weights())) @ want
    errors = [
        float((solve(term, begin(), [0.0, L - 1.0], method="midpoint", dt=dt).ys[-1] - want.squeeze(-1)).abs().max())
        for dt in (1 / 32, 1 / 64, 1 / 128)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("name", ["linear", "rectilinear"])
def test_another_clock_along_the_same_trace_gives_the_same_state(name: str) -> None:
    """Of lines only the order of the corners matters: warp time, drop a rest, and z(T) stays."""
    values, times = readings()
    values[-1, -2:], times[-1, -2:] = 0.0, times[-1, -3] + torch.tensor([1.0, 2.0])
    fast = torch.arange(L, dtype=torch.float64).expand(B, L)
    field = linear(weights())
    if name == "linear":
        found = [
            solve(CDETerm(field, LinearPath(values, t)), begin(), own_ends(t), rtol=1e-8, atol=1e-10).ys[-1]
            for t in (times, times.square() + times, fast)
        ]
    else:
        # The values' channels alone, time left out of the field: how long the rests were is forgotten.
        blind = linear(torch.cat((torch.zeros(1, H, H), weights())))
        ends = [0.0, 2.0 * L - 2]
        found = [
            solve(CDETerm(blind, RectilinearPath(values, t)), begin(), ends, method="midpoint", dt=1 / 4).ys[-1]
            for t in (times, times.square() + times, fast)
        ]
    for other in found[1:]:
        # Steps over a corner are of first order, however small: some accuracy is lost there.
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


def test_a_field_of_the_time_channel_alone_is_an_ode() -> None:
    times = readings()[1]
    path = HermitePath(times.unsqueeze(-1), times)
    ts = own_ends(times)
    found = solve(CDETerm(lambda t, z: (-z + torch.sin(t)).unsqueeze(-1), path), begin(), ts, rtol=1e-8, atol=1e-9)
    want = solve(lambda t, z: -z + torch.sin(t), begin(), ts, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.ys, want.ys, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_gradients_are_finite_differences(adjoint: str) -> None:
    values, times = readings()
    path = HermitePath(values, times)

    def last(z: Tensor, matrices: Tensor) -> Tensor:
        term = CDETerm(lambda t, z, a: linear(a)(t, z), path)
        options: Any = {"args": matrices, "method": "rk4", "dt": 0.2, "adjoint": adjoint, "engine": "eager"}
        return solve(term, z, own_ends(times), **options).ys[-1]

    assert torch.autograd.gradcheck(last, (begin().requires_grad_(), weights().requires_grad_()))


@pytest.mark.parametrize("name", list(PATHS))
def test_the_gradient_reaches_the_control(name: str) -> None:
    values, times = (x[:2, :4] for x in readings())

    def last(values: Tensor) -> Tensor:
        path = PATHS[name](values, times)
        term = CDETerm(linear(weights(1 + C if name == "rectilinear" else C)), path)
        ts = torch.tensor([0.0, float(times.max())], dtype=torch.float64)
        return solve(term, begin()[:2], ts, method="midpoint", dt=0.25, adjoint="direct", engine="eager").ys[-1]

    assert torch.autograd.gradcheck(last, (values.clone().requires_grad_(),))


def test_a_control_that_requires_grad_is_never_silently_left_out() -> None:
    values, times = (x[:2] for x in readings())
    term = CDETerm(linear(weights()), HermitePath(values.clone().requires_grad_(), times))
    with pytest.raises(ValueError, match="computed before the solve"):
        solve(term, begin()[:2], [0.0, 1.0], adjoint="recompute")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda path: solve(CDETerm(linear(weights()), path), begin()[:2], [0.0, 1.0]), "3 paths for 2 samples"),
        (lambda path: solve(CDETerm(linear(weights(3)), path), begin(), [0.0, 1.0]), "a column a channel"),
        (lambda path: solve(CDETerm(lambda t, z: z, path), begin(), [0.0, 1.0]), "a column a channel"),
        (lambda path: solve(CDETerm(linear(weights()), path), (begin(),), [0.0, 1.0]), "one tensor"),
        (lambda path: CDETerm(linear(weights()), begin()), "expected a control path"),  # type: ignore[arg-type]
        (lambda path: CDETerm(begin(), path), "expected a callable"),  # type: ignore[arg-type]
    ],
)
def test_misuse_says_what_is_expected(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong(HermitePath(*readings()))


def test_samples_that_look_at_one_another_are_found() -> None:
    path = HermitePath(*readings())
    with pytest.raises(ValueError, match="influence each other"):
        solve(CDETerm(lambda t, z: (z - z.mean(0)).unsqueeze(-1).expand(-1, -1, C), path), begin(), [0.0, 1.0])


def test_without_a_batch_there_is_one_path() -> None:
    values, times = readings()
    one = CDETerm(lambda t, z: linear(weights())(t, z.unsqueeze(0))[0], HermitePath(values[:1], times[0]))
    alone = solve(one, begin()[0], [0.0, 1.0], rtol=1e-8, atol=1e-9)
    many = solve(CDETerm(linear(weights()), HermitePath(values, times)), begin(), [0.0, 1.0], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(alone.ys[-1], many.ys[-1, 0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", list(PATHS))
@pytest.mark.parametrize("missing", [0.0, 0.5, 0.9])
def test_the_derivative_is_that_of_the_path(name: str, missing: float) -> None:
    path = PATHS[name](*readings(3, missing))
    t = torch.linspace(0.013, float(own_ends(readings(3)[1])[1].max()) + 0.5, 203, dtype=torch.float64)
    near = (t[None, :, None] - path.times[:, None, :]).abs().amin((0, 2)) > 1e-4  # away from kinks
    slope = (path.evaluate(t + 1e-6) - path.evaluate(t - 1e-6)) / 2e-6
    torch.testing.assert_close(path.derivative(t)[:, near], slope[:, near], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.5, 0.8])
def test_natural_splines_are_those_of_scipy_through_each_channel_s_own_readings(missing: float) -> None:
    values, times = readings(4, missing, 12)
    path = NaturalCubicPath(values, times)
    for b in range(B):
        for c in range(C):
            own = ~values[b, :, c].isnan()
            knots, seen = times[b, own].numpy(), values[b, own, c].numpy()
            t = torch.linspace(0, 12, 301, dtype=torch.float64)
            if len(knots) > 1:
                inside = np.clip(t.numpy(), knots[0], knots[-1])
                kind = "natural" if len(knots) > 2 else "not-a-knot"
                want = CubicSpline(knots, seen, bc_type=kind)(inside)
            else:
                want = np.full(len(t), seen[0] if len(seen) else 0.0)
            np.testing.assert_allclose(path.evaluate(t)[b, :, c].numpy(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_lines_are_numpy_s_through_each_channel_s_own_readings(missing: float) -> None:
    values, times = readings(5, missing, 12)
    path, t = LinearPath(values, times), torch.linspace(0, 12, 301, dtype=torch.float64)
    for b in range(B):
        for c in range(C):
            own = ~values[b, :, c].isnan()
            want = np.interp(t.numpy(), times[b, own].numpy(), values[b, own, c].numpy())
            np.testing.assert_allclose(path.evaluate(t)[b, :, c].numpy(), want, rtol=1e-12, atol=1e-12)


def test_the_slope_of_lines_is_that_of_the_piece_to_the_right_and_at_the_end_to_the_left() -> None:
    values, times = torch.tensor([[[0.0], [1.0], [4.0]]]), torch.tensor([0.0, 1.0, 2.0])
    path = LinearPath(values, times)
    assert path.derivative(torch.tensor([0.0, 0.5, 1.0, 2.0, 2.5]))[0, :, 0].tolist() == [1.0, 1.0, 3.0, 3.0, 0.0]


def test_rectilinear_paths_move_time_first_and_then_the_values() -> None:
    values = torch.tensor([[[1.0, NAN], [NAN, 5.0], [3.0, 6.0], [NAN, NAN]]])
    times = torch.tensor([[0.0, 2.0, 2.5, NAN]])
    path = RectilinearPath(values, times)
    want = [[0, 1, 0], [2, 1, 0], [2, 1, 5], [2.5, 1, 5], [2.5, 3, 6], [2.5, 3, 6]]
    assert path.evaluate(torch.arange(6.0))[0].tolist() == want
    # What comes later changes nothing of what has been read.
    other = values.clone()
    other[0, 2] = torch.tensor([-9.0, 7.0])
    s = torch.linspace(0, 3, 31)
    assert torch.equal(RectilinearPath(other, times).evaluate(s), path.evaluate(s))
