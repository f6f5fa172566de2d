"""The preconditioning: exact targets give exact predictions, at every level, in every schedule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciode.diffusion import EDM, PREDICTIONS, RectifiedFlow, VPLinear, convert, sample
from sciode.diffusion.networks import Preconditioned, build
from sciode.diffusion.networks.preconditioned import network_target
from sciode.diffusion.training.denoising import level_of, noised, target_of

SCHEDULES = {"VPLinear": VPLinear(), "EDM": EDM(), "RectifiedFlow": RectifiedFlow()}


class _Known(nn.Module):
    """Puts out what it should for known data and noise, or zero."""

    def __init__(self, answer: Tensor | None = None) -> None:
        super().__init__()
        self.answer, self.seen = answer, torch.empty(0)

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen = level
        return torch.zeros_like(x) if self.answer is None else self.answer


def _pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_right_output_makes_the_right_prediction(name: str, prediction: str) -> None:
    schedule, (x0, eps) = SCHEDULES[name], _pair()
    t = torch.linspace(1e-3, schedule.t_max, 6, dtype=torch.float64)
    level = level_of(schedule, t, x0)
    x = noised(x0, eps, level)
    known = _Known(network_target(x0, eps, level.alpha, level.sigma, 0.5))
    model = Preconditioned(known, schedule, deviation=0.5, prediction=prediction)
    torch.testing.assert_close(model(x, t), target_of(prediction, x0, eps, level), rtol=1e-9, atol=1e-9)
    other = Preconditioned(known, schedule, deviation=0.5, prediction="x0")(x, t)
    if prediction == "eps":
        torch.testing.assert_close(convert(model(x, t), x, schedule, t, "eps", "x0"), other, rtol=1e-6, atol=1e-6)


def test_for_unit_data_and_a_variance_preserving_schedule_the_network_predicts_minus_v() -> None:
    (x0, eps), t = _pair(), torch.linspace(0.01, 1, 6, dtype=torch.float64)
    level = level_of(VPLinear(), t, x0)
    found = network_target(x0, eps, level.alpha, level.sigma, 1.0)
    torch.testing.assert_close(found, -target_of("v", x0, eps, level), rtol=1e-12, atol=1e-12)


def test_in_edms_own_schedule_the_coefficients_are_edms() -> None:
    """c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_noise = log(s) / 4, written out."""
    (x, output), d = _pair(), 0.5
    t = torch.tensor([0.002, 0.1, 0.5, 1.0, 10.0, 80.0], dtype=torch.float64)
    known = _Known(output)
    s = t[:, None]
    expected = d**2 / (s**2 + d**2) * x + s * d / (s**2 + d**2).sqrt() * output
    torch.testing.assert_close(Preconditioned(known, EDM(), deviation=d, prediction="x0")(x, t), expected)
    torch.testing.assert_close(known.seen, t.log() / 4)


def test_the_target_has_unit_variance_where_the_data_have_their_deviation() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(200_000, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    for alpha, sigma in ((1.0, 0.01), (0.7, 0.7), (0.01, 1.0)):
        # Standard error of a variance of 200,000: 0.003.
        assert float(network_target(0.5 * x0, eps, alpha, sigma, 0.5).var()) == pytest.approx(1, abs=0.015)


def test_a_network_in_another_schedules_time_sees_the_same_level() -> None:
    known = _Known()
    model = Preconditioned(known, VPLinear())
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x = torch.ones(3, 2, dtype=torch.float64)
    model(x, t)
    seen = known.seen
    flow = model.on(RectifiedFlow(), "flow")
    flow(x, RectifiedFlow().t_of(VPLinear().half_log_snr(t)))
    torch.testing.assert_close(known.seen, seen)
    assert flow.network is model.network


def test_both_ends_of_a_flow_are_finite() -> None:
    model = Preconditioned(_Known(), RectifiedFlow(), deviation=0.5, prediction="flow")
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    found = model(x, torch.tensor([0.0, 1.0]))
    assert found.isfinite().all()
    # At t = 1 the state is noise, of which an untrained network knows no data: the flow is the noise.
    torch.testing.assert_close(found[1], x[1])
    assert sample(model, x, RectifiedFlow(), prediction="flow", t_start=1.0, steps=3).isfinite().all()


def test_states_of_another_precision_than_the_weights_are_refused_before_they_reach_them() -> None:
    model, t = Preconditioned(build("mlp-points"), VPLinear()), torch.full((2,), 0.5)
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(ValueError, match="convert the network"):
            model(torch.zeros(2, 2, dtype=dtype), t)
    assert model.double()(torch.zeros(2, 2, dtype=torch.float64), t).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert model.float()(torch.zeros(2, 2, dtype=torch.bfloat16), t).isfinite().all()


def test_an_impossible_deviation_is_refused() -> None:
    with pytest.raises(ValueError, match="deviation"):
        Preconditioned(_Known(), VPLinear(), deviation=0.0)


def test_schedules_by_name_and_one_time_for_all_are_refused() -> None:
    with pytest.raises(ValueError, match="pass a schedule"):
        Preconditioned(_Known(), "vp-linear")  # type: ignore[arg-type]
    for t in (0.5, torch.tensor(0.5)):
        with pytest.raises(ValueError, match="one a sample"):
            Preconditioned(_Known(), VPLinear())(torch.zeros(2, 1), t)
