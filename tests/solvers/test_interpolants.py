"""The Hermite control path against its definition, against torchcde, and against what it must not read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sciode.solvers.interpolants import HermitePath

NAN = float("nan")


def random_case(seed: int, missing: float, batch: int = 3, length: int = 9, channels: int = 2) -> tuple[Tensor, Tensor]:
    """Values [B, L, C] with NaN at rate `missing`, and uneven times [L], float64."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, length, channels, generator=generator, dtype=torch.float64)
    lost = torch.rand(values.shape, generator=generator) < missing
    steps = 0.2 + torch.rand(length, generator=generator, dtype=torch.float64)
    return torch.where(lost, NAN, values), steps.cumsum(0)


cases = st.tuples(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.7, 0.95])).map(lambda c: random_case(*c))


def torchcde_spline(values: Tensor, times: Tensor) -> object:
    """torchcde's cubic Hermite spline with backward differences."""
    torchcde = pytest.importorskip("torchcde")
    return torchcde.CubicSpline(torchcde.hermite_cubic_coefficients_with_backward_differences(values, times), times)


def fine(times: Tensor, count: int = 101) -> Tensor:
    return torch.linspace(float(times[0]), float(times[-1]), count, dtype=torch.float64)


def test_complete_data_give_torchcde_s_path_and_derivative() -> None:
    values, times = random_case(0, missing=0.0)
    path, oracle = HermitePath(values, times), torchcde_spline(values, times)
    query = fine(times)
    for t, found, slope in zip(query, path.evaluate(query).unbind(1), path.derivative(query).unbind(1), strict=True):
        torch.testing.assert_close(found, oracle.evaluate(t), rtol=1e-12, atol=1e-12)  # type: ignore[attr-defined]
        torch.testing.assert_close(slope, oracle.derivative(t), rtol=1e-11, atol=1e-11)  # type: ignore[attr-defined]


def test_with_gaps_each_channel_is_torchcde_s_path_through_its_own_readings() -> None:
    values, times = random_case(1, missing=0.5, length=14)
    path = HermitePath(values, times)
    for sample in range(values.shape[0]):
        for channel in range(values.shape[2]):
            seen = ~values[sample, :, channel].isnan()
            own, clock = values[sample, seen, channel], times[seen]
            oracle, query = torchcde_spline(own.unsqueeze(-1), clock), fine(clock)
            wanted = torch.stack([oracle.evaluate(t)[0] for t in query])  # type: ignore[attr-defined]
            found = path.evaluate(query)[sample, :, channel]
            # torchcde starts its first interval with that interval's secant; ours has come from the leading constant.
            inner = query >= (clock[0] if seen[0] else clock[1])
            torch.testing.assert_close(found[inner], wanted[inner], rtol=1e-11, atol=1e-11)


def test_a_leading_gap_is_filled_as_torchcde_fills_it() -> None:
    values, times = random_case(2, missing=0.0)
    values[:, 0] = NAN
    path, oracle = HermitePath(values, times), torchcde_spline(values, times)
    query = fine(times)
    wanted = torch.stack([oracle.evaluate(t) for t in query], 1)  # type: ignore[attr-defined]
    torch.testing.assert_close(path.evaluate(query), wanted, rtol=1e-11, atol=1e-11)


@given(cases)
def test_the_path_runs_through_every_reading(case: tuple[Tensor, Tensor]) -> None:
    values, times = case
    found, seen = HermitePath(values, times).evaluate(times), ~values.isnan()
    torch.testing.assert_close(found[seen], values[seen], rtol=1e-12, atol=1e-12)
    assert found.isfinite().all()


@given(cases, st.integers(0, 7))
def test_values_after_a_channel_s_next_reading_are_not_read(case: tuple[Tensor, Tensor], row: int) -> None:
    values, times = case
    later = values.clone()
    later[:, row + 1 :] += 1.0
    before, after = HermitePath(values, times), HermitePath(later, times)
    for sample in range(values.shape[0]):
        for channel in range(values.shape[2]):
            seen = torch.nonzero(~values[sample, : row + 1, channel].isnan()).flatten()
            if len(seen) == 0:
                continue
            query = fine(times[: int(seen[-1]) + 1], 20).clamp(max=times[seen[-1]])
            torch.testing.assert_close(
                before.evaluate(query)[sample, :, channel], after.evaluate(query)[sample, :, channel], rtol=0, atol=0
            )


@given(cases)
def test_empty_rows_change_nothing(case: tuple[Tensor, Tensor]) -> None:
    values, times = case
    between = (times[:-1] + times[1:]) / 2
    order = torch.cat([times, between]).argsort()
    gaps = torch.full((values.shape[0], len(between), values.shape[2]), NAN, dtype=values.dtype)
    padded = torch.cat([values, gaps], 1)[:, order]
    query = fine(times)
    found = HermitePath(padded, torch.cat([times, between])[order]).evaluate(query)
    torch.testing.assert_close(found, HermitePath(values, times).evaluate(query), rtol=0, atol=1e-13)


@given(cases, st.floats(-3, 3), st.floats(-3, 3))
def test_straight_lines_are_exact(case: tuple[Tensor, Tensor], slope: float, height: float) -> None:
    values, times = case
    line = (height + slope * times).view(1, -1, 1).expand_as(values)
    kept = torch.where(values.isnan(), NAN, line)
    kept[:, 0], kept[:, -1] = line[:, 0], line[:, -1]
    query = fine(times)
    path = HermitePath(kept, times)
    wanted = (height + slope * query).view(1, -1, 1).expand(3, -1, 2)
    torch.testing.assert_close(path.evaluate(query), wanted, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(path.derivative(query), torch.full_like(wanted, slope), rtol=1e-9, atol=1e-9)


def test_the_derivative_is_that_of_the_path_and_continuous_up_to_the_last_reading() -> None:
    values, times = random_case(3, missing=0.4)
    values[:, -1] = 0.3
    path = HermitePath(values, times)
    query = fine(times, 57)[1:-1]
    h = 1e-6
    numeric = (path.evaluate(query + h) - path.evaluate(query - h)) / (2 * h)
    torch.testing.assert_close(path.derivative(query), numeric, rtol=1e-5, atol=1e-5)
    inner = times[1:-1]
    torch.testing.assert_close(path.derivative(inner + 1e-12), path.derivative(inner), rtol=1e-8, atol=1e-8)


def test_before_the_first_and_after_the_last_reading() -> None:
    times = torch.arange(5, dtype=torch.float64)
    values = torch.tensor([NAN, 2.0, 3.0, NAN, NAN], dtype=torch.float64).view(1, 5, 1)
    query = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 2.5, 4.0, 9.0], dtype=torch.float64)
    first = HermitePath(values, times).evaluate(query).flatten()
    zero = HermitePath(values, times, leading="zero").evaluate(query).flatten()
    assert first.tolist() == pytest.approx([2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0])
    assert zero.tolist() == pytest.approx([0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0])
    assert HermitePath(values, times).derivative(2.5).item() == 0.0


def test_a_channel_without_any_reading_is_zero() -> None:
    values, times = random_case(4, missing=0.0)
    values[1, :, 0] = NAN
    for leading in ("first", "zero"):
        path = HermitePath(values, times, leading=leading)  # type: ignore[arg-type]
        assert (path.evaluate(fine(times))[1, :, 0] == 0).all()
        assert (path.derivative(fine(times))[1, :, 0] == 0).all()


def test_own_clocks_and_padding_give_each_series_its_own_path() -> None:
    values, times = random_case(5, missing=0.2)
    clocks = torch.stack([times, 2 * times, times - 1])
    values[1, 6:], clocks[1, 6:] = NAN, NAN
    together = HermitePath(values, clocks)
    for sample, end in enumerate([9, 6, 9]):
        alone = HermitePath(values[sample : sample + 1, :end], clocks[sample, :end])
        query = fine(clocks[sample, :end])
        torch.testing.assert_close(together.evaluate(query)[sample], alone.evaluate(query)[0], rtol=0, atol=0)
    own = torch.tensor([[1.0], [2.0], [0.5]], dtype=torch.float64)
    wanted = torch.stack([together.evaluate(float(t))[k] for k, t in enumerate(own)])
    torch.testing.assert_close(together.evaluate(own), wanted, rtol=0, atol=0)


def test_the_path_is_differentiable_in_the_readings() -> None:
    values, times = random_case(6, missing=0.4)
    seen = ~values.isnan()
    query = fine(times, 13)

    def path_of(readings: Tensor) -> Tensor:
        return HermitePath(torch.full_like(values, NAN).masked_scatter(seen, readings), times).evaluate(query)

    assert torch.autograd.gradcheck(path_of, values[seen].requires_grad_())


@pytest.mark.parametrize(
    ("values", "times", "says"),
    [
        (torch.zeros(2, 3), torch.arange(3.0), "values must be"),
        (torch.zeros(2, 3, 1), torch.arange(4.0), "times must be"),
        (torch.zeros(2, 3, 1), torch.tensor([0.0, 2.0, 1.0]), "strictly increase"),
        (torch.full((2, 3, 1), torch.inf), torch.arange(3.0), "infinities"),
        (torch.zeros(1, 3, 1), torch.tensor([[0.0, NAN, 1.0]]), "only trailing NaN"),
        (torch.zeros(1, 3, 1), torch.tensor([[0.0, 1.0, NAN]]), "NaN time"),
        (torch.zeros(1, 3, 1), torch.tensor([[NAN, NAN, NAN]]), "start with a number"),
    ],
)
def test_misuse_says_the_mend(values: Tensor, times: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        HermitePath(values, times)


def test_an_unknown_leading_rule_and_a_wrong_query_shape_are_refused() -> None:
    values, times = random_case(7, missing=0.0)
    with pytest.raises(ValueError, match="leading"):
        HermitePath(values, times, leading="last")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[B, 1\]"):
        HermitePath(values, times).evaluate(torch.zeros(3, 2, dtype=torch.float64))
