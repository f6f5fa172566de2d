"""Fixed steps for u' = L u + N(t, u): the claimed orders, diffusion exactly, times that are met, nothing aliased."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.pde.semilinear import SCHEMES, march

F64 = torch.float64
DECAY = torch.tensor([0.0, -0.7, -40.0], dtype=F64)


def forced(t: Tensor, u: Tensor) -> Tensor:
    """With u = sin t + cos(k t) as the exact solution, whatever L is, by a term that is quadratic in u."""
    exact = solution(t)
    k = torch.arange(3, dtype=F64)
    slope = t.cos() - k * (k * t).sin()
    return slope - DECAY * exact + exact**2 - u**2


def solution(t: Tensor | float) -> Tensor:
    t = torch.as_tensor(t, dtype=F64)
    return t.sin() + (torch.arange(3, dtype=F64) * t).cos()


def error(scheme: str, dt: float) -> float:
    *_, last = march(DECAY, forced, solution(0.0), [0.0, 1.0], dt, scheme=scheme)
    return float((last - solution(1.0)).abs().max())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_has_the_order_that_it_claims(scheme: str) -> None:
    order, _ = SCHEMES[scheme]
    errors = [error(scheme, dt) for dt in (1 / 80, 1 / 160, 1 / 320)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.15)


def test_without_a_rate_diffusion_is_exact_in_one_step_and_crank_nicolson_of_second_order() -> None:
    start = torch.ones(3, dtype=F64)
    *_, last = march(DECAY, nothing, start, [0.0, 2.0], 2.0)
    torch.testing.assert_close(last, (2.0 * DECAY).exp(), rtol=1e-13, atol=1e-16)
    wrong = []
    for dt in (0.005, 0.0025):
        *_, last = march(DECAY, nothing, start, [0.0, 0.2], dt, scheme="cn")
        wrong.append(float((last - (0.2 * DECAY).exp()).abs().max()))
    assert math.log2(wrong[0] / wrong[1]) == pytest.approx(2.0, abs=0.1)


def test_times_between_do_not_matter_where_they_are_multiples_of_the_step() -> None:
    few = list(march(DECAY, forced, solution(0.0), [0.0, 0.5, 1.0], 0.01))
    many = list(march(DECAY, forced, solution(0.0), [0.01 * k for k in range(101)], 0.01))
    for one, other in zip(few, many[::50], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_a_gap_is_cut_into_even_steps_no_longer_than_dt() -> None:
    seen: list[float] = []

    def watched(t: Tensor, u: Tensor) -> Tensor:
        seen.append(float(t))
        return forced(t, u)

    list(march(DECAY, watched, solution(0.0), [0.0, 0.25, 0.3], 0.1, scheme="cn"))
    assert seen == pytest.approx([0.0, 0.25 / 3, 0.5 / 3, 0.25])


def nothing(t: Tensor, u: Tensor) -> Tensor:
    return torch.zeros_like(u)


def test_small_losses_of_every_step_keep_their_bits_in_single_precision() -> None:
    """A factor near 1 is rounded alike in every step, so that its error grows with their number; increments' don't."""
    decay = torch.linspace(-1.0, -0.5, 50)
    exact = decay.double().exp()
    *_, last = march(decay, nothing, torch.ones(50), [0.0, 1.0], 1e-3)
    factors = (1e-3 * decay).exp().double() ** 1000
    assert float((last - exact).abs().max()) < 0.2 * float((factors - exact).abs().max())


def test_results_are_apart_from_one_another() -> None:
    start = solution(0.0)
    results = list(march(DECAY, forced, start, [0.0, 0.1, 0.2], 0.1))
    assert len({result.data_ptr() for result in results}) == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scheme": "ifkr4"}, "ifrk4"),
        ({"dt": 0.0}, "dt is 0.0"),
        ({"ts": [0.0, 0.0]}, "increasing"),
        ({"ts": [0.0, math.nan]}, "finite"),
        ({"ts": []}, "the initial time first"),
        ({"capture": -1}, "capture is -1"),
    ],
)
def test_misuse_says_the_mend(wrong: dict[str, Any], message: str) -> None:
    sensible: dict[str, Any] = {"ts": [0.0, 1.0], "dt": 0.1}
    with pytest.raises(ValueError, match=message):
        list(march(DECAY, forced, solution(0.0), **{**sensible, **wrong}))


def test_a_real_state_does_not_lose_the_imaginary_part_of_its_decay() -> None:
    turning = torch.tensor([1.0j], dtype=torch.complex128)
    with pytest.raises(ValueError, match="give start as complex"):
        list(march(turning, lambda t, u: 0.0 * u, torch.ones(1, dtype=torch.float64), [0.0, 1.0], 0.1))
    found = list(march(turning, lambda t, u: 0.0 * u, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], 0.1))[-1]
    assert abs(abs(complex(found)) - 1.0) < 1e-12 and abs(complex(found).imag) > 0.5
