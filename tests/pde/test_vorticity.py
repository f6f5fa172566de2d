"""Vorticity on a periodic square: exact solutions, balances, orders, and no flow that depends on another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.pde.problems import taylor_green
from sciode.pde.vorticity import diagonal_forcing, random_vorticity, simulate_vorticity, velocity_of

F64 = torch.float64
VISCOSITY = 1e-3


def grid(n: int, side: float = 1.0) -> tuple[Tensor, Tensor]:
    x = side / n * torch.arange(n, dtype=F64)
    return x[:, None], x[None, :]


def lively(n: int, flows: int = 2, size: float = 5.0) -> Tensor:
    """Fields that turn over in about a fifth of the unit of time."""
    return size / 0.19 * random_vorticity(n, range(flows), alpha=4.0)


def enstrophy(w: Tensor) -> Tensor:
    return 0.5 * w.square().mean((-2, -1))


def energy(w: Tensor) -> Tensor:
    return 0.5 * velocity_of(w).square().sum(-1).mean((-2, -1))


@pytest.mark.parametrize("scheme", ["ifrk4", "cn"])
@pytest.mark.parametrize("side", [1.0, 2.5])
def test_a_taylor_green_vortex_decays_exactly(scheme: str, side: float) -> None:
    """w = sin(k x) sin(m y) is carried along its own lines: exp(-nu (k^2 + m^2) t) is all that happens to it."""
    x, y = grid(16, side)
    k, m = 2.0 * math.pi / side * 2, 2.0 * math.pi / side * 3
    start = ((k * x).sin() * (m * y).sin())[None]
    ts = [0.0, 0.3, 1.0]
    dt = 0.25 if scheme == "ifrk4" else 1e-3
    found = simulate_vorticity(start, ts, viscosity=0.01, dt=dt, side=side, scheme=scheme)
    exact = torch.stack([math.exp(-0.01 * (k**2 + m**2) * t) * start for t in ts])
    torch.testing.assert_close(found, exact, rtol=0.0, atol=1e-12 if scheme == "ifrk4" else 1e-6)


def test_it_agrees_with_the_vortices_of_the_equations_table() -> None:
    """The curl of the velocity of `taylor_green`, which neural fields are held to."""
    problem = taylor_green()
    low, side = problem.lower[0], problem.upper[0] - problem.lower[0]
    x, y = grid(32, side)
    points = torch.stack(torch.broadcast_tensors(low + x, low + y), -1)
    velocity = torch.func.vmap(torch.func.vmap(problem.initial))(points)
    slopes = torch.func.vmap(torch.func.vmap(torch.func.jacrev(problem.initial)))(points)
    vorticity = slopes[..., 1, 0] - slopes[..., 0, 1]
    torch.testing.assert_close(velocity_of(vorticity, side), velocity, rtol=0.0, atol=1e-12)


def test_parallel_lines_held_up_by_a_force_stay_as_they_are() -> None:
    """f = nu k^2 w balances viscosity in w = sin(k . x)."""
    x, y = grid(24)
    w = (2.0 * math.pi * (x + 2.0 * y)).sin()
    forcing = 0.02 * 20.0 * math.pi**2 * w
    found = simulate_vorticity(w[None], [0.0, 2.0], viscosity=0.02, dt=0.05, forcing=forcing)
    torch.testing.assert_close(found[1, 0], w, rtol=0.0, atol=1e-6)
    # A constant force has no curl: a mean vorticity stays what it was.
    pushed = simulate_vorticity(w[None] + 3.0, [0.0, 1.0], viscosity=0.02, dt=0.05, forcing=forcing + 7.0)
    assert float(pushed[1].mean()) == pytest.approx(3.0, abs=1e-12)


def test_parallel_flow_under_the_sets_forcing_grows_as_one_mode_does() -> None:
    """From rest, f of one wave gives w = f (1 - exp(-nu k^2 t)) / (nu k^2): nothing is advected."""
    forcing, rest = diagonal_forcing(16), torch.zeros(1, 16, 16, dtype=F64)
    decay = VISCOSITY * 8.0 * math.pi**2
    found = simulate_vorticity(rest, [0.0, 5.0], viscosity=VISCOSITY, dt=0.05, forcing=forcing)
    torch.testing.assert_close(found[1, 0], forcing * (1.0 - math.exp(-5.0 * decay)) / decay, rtol=1e-8, atol=1e-10)
    assert float(forcing.abs().max()) == pytest.approx(0.1 * math.sqrt(2.0), rel=1e-2)


@pytest.mark.parametrize(("scheme", "order", "steps"), [("ifrk4", 4, (20, 40, 80)), ("cn", 1, (200, 400, 800))])
def test_the_order_in_the_step(scheme: str, order: int, steps: tuple[int, ...]) -> None:
    start = lively(32)
    how: dict[str, Any] = {"viscosity": VISCOSITY, "forcing": diagonal_forcing(32)}
    reference = simulate_vorticity(start, [0.0, 0.2], dt=0.2 / 320, **how)[-1]
    errors = [
        float((simulate_vorticity(start, [0.0, 0.2], dt=0.2 / k, scheme=scheme, **how)[-1] - reference).abs().max())
        for k in steps
    ]
    rates = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(rates, order, atol=0.35 if order == 4 else 0.15)


def test_convergence_in_space_is_faster_than_any_power() -> None:
    """Waves up to 5 at first, viscous: the errors at points that all grids share fall faster at each doubling."""
    coarse = lively(16)
    hat = torch.fft.rfft2(coarse)

    def on(n: int) -> Tensor:
        padded = torch.zeros(2, n, n // 2 + 1, dtype=hat.dtype)
        padded[:, :6, :6], padded[:, -5:, :6] = hat[:, :6, :6], hat[:, -5:, :6]
        return torch.fft.irfft2(padded, s=(n, n)) * (n / 16) ** 2

    def run(n: int) -> Tensor:
        return simulate_vorticity(on(n), [0.0, 0.25], viscosity=0.01, dt=0.25 / 100)[-1, :, :: n // 16, :: n // 16]

    torch.testing.assert_close(on(32)[:, ::2, ::2], coarse, rtol=0.0, atol=1e-12)
    reference = run(128)
    errors = [float((run(n) - reference).abs().max()) for n in (16, 32, 64)]
    gains = np.divide(errors[:-1], errors[1:])
    assert gains[0] > 16 and gains[1] > 10 * gains[0]
    assert errors[2] < 1e-6 * float(reference.abs().max())


def test_without_viscosity_energy_and_enstrophy_are_kept_but_for_the_error_of_the_step() -> None:
    """Of order 5 for Runge-Kutta of order 4 and a system that keeps quadratic forms; products must not alias."""
    start = lively(32)
    for invariant in (energy, enstrophy):
        drifts = []
        for k in (15, 30):
            ends = simulate_vorticity(start, [0.0, 0.5], viscosity=0.0, dt=0.5 / k)
            drifts.append(float((invariant(ends[1]) / invariant(ends[0]) - 1.0).abs().max()))
        assert drifts[1] < 1e-6 and drifts[0] / drifts[1] > 2**4.5


def test_energy_falls_by_what_viscosity_takes_and_grows_by_what_the_force_gives() -> None:
    """dE/dt = -2 nu Z + mean(psi f), with Z the enstrophy and psi the stream function; by quadrature in time."""
    start, forcing = lively(32), 20.0 * diagonal_forcing(32)
    ts = [0.005 * k for k in range(41)]
    flows = simulate_vorticity(start, ts, viscosity=0.01, dt=0.0025, forcing=forcing)
    # f is of one wave, k^2 = 8 pi^2: mean(psi f) = mean(w Lap^-1 f) = mean(w f) / k^2.
    given = (flows * forcing).mean((-2, -1)) / (8.0 * math.pi**2)
    power = given - 2.0 * 0.01 * enstrophy(flows)
    simpson = torch.tensor([1.0, *[4.0, 2.0] * 19, 4.0, 1.0], dtype=F64) * 0.005 / 3.0
    change = energy(flows[-1]) - energy(flows[0])
    torch.testing.assert_close((simpson[:, None] * power).sum(0), change, rtol=1e-5, atol=1e-9)
    assert float(change.abs().min()) > 1e-3


def test_the_first_frame_is_the_start_without_the_waves_from_n_thirds_up() -> None:
    x, y = grid(24)
    low, high = (2.0 * math.pi * 7 * x).sin() * (2.0 * math.pi * 7 * y).cos(), (2.0 * math.pi * 8 * (x + y)).sin()
    found = simulate_vorticity((low + high)[None], [0.0], viscosity=0.0, dt=0.1)
    torch.testing.assert_close(found[0, 0], low, rtol=0.0, atol=1e-13)


def test_products_alias_into_no_kept_wave() -> None:
    """Waves 10 and 9 of 32: their product's 19 would look like -13, which is dropped; exact on a grid twice as fine."""
    waves = [(10, 0), (0, 10), (9, 3), (-4, 10)]

    def on(n: int) -> Tensor:
        x, y = grid(n)
        return sum((2.0 * math.pi * (k * x + m * y) + k).sin() for k, m in waves)[None]  # type: ignore[index]

    coarse = simulate_vorticity(on(32), [0.0, 1e-3], viscosity=0.0, dt=1.0, scheme="cn")[1]
    fine = simulate_vorticity(on(64), [0.0, 1e-3], viscosity=0.0, dt=1.0, scheme="cn")[1]
    cut = torch.fft.rfft2(fine)[:, :, :11] / 4.0
    found = torch.fft.rfft2(coarse)
    torch.testing.assert_close(found[:, :11, :11], cut[:, :11], rtol=0.0, atol=1e-9)
    torch.testing.assert_close(found[:, -10:, :11], cut[:, -10:], rtol=0.0, atol=1e-9)
    assert float((fine - on(64)).abs().max()) > 1e-4


def test_a_flow_is_the_same_alone_and_in_a_batch() -> None:
    start, forcing = lively(32, 3), diagonal_forcing(32)
    forces = torch.stack([forcing, 2.0 * forcing, 0.0 * forcing])
    together = simulate_vorticity(start, [0.0, 0.3], viscosity=VISCOSITY, dt=0.01, forcing=forces)
    for k in range(3):
        alone = simulate_vorticity(start[k : k + 1], [0.0, 0.3], viscosity=VISCOSITY, dt=0.01, forcing=forces[k])
        torch.testing.assert_close(together[:, k], alone[:, 0], rtol=0.0, atol=1e-11)


def test_single_precision_follows_double() -> None:
    start, forcing = lively(32), diagonal_forcing(32)
    double = simulate_vorticity(start, [0.0, 0.5], viscosity=VISCOSITY, dt=0.005, forcing=forcing)
    single = simulate_vorticity(start.float(), [0.0, 0.5], viscosity=VISCOSITY, dt=0.005, forcing=forcing)
    assert single.dtype == torch.float32
    assert float((single - double).norm() / double.norm()) < 1e-5


def test_random_fields_have_the_variances_of_their_covariance() -> None:
    """Every mode's variance over many seeds, within five standard errors; none that is dropped."""
    fields, side = random_vorticity(16, range(4000), side=2.0), 2.0
    power = (torch.fft.fft2(fields) / 16**2).abs().square().mean(0)
    k = torch.fft.fftfreq(16, 1.0 / 16, dtype=F64)
    square = (2.0 * math.pi / side) ** 2 * (k[:, None] ** 2 + k[None, :] ** 2)
    expected = 7.0**3 * (square + 49.0) ** -2.5 / side**2
    drawn = (k.abs()[:, None] < 16 / 3) & (k.abs()[None, :] < 16 / 3) & (square > 0)
    # |c|^2 of a complex normal has the standard deviation of its mean.
    torch.testing.assert_close(power[drawn], expected[drawn], rtol=5.0 / math.sqrt(4000), atol=0.0)
    assert float(power[~drawn].max()) < 1e-20


def test_a_random_field_is_a_function_of_its_seed_and_the_same_on_a_finer_grid() -> None:
    fields = random_vorticity(16, [3, (5, 1, 7)])
    assert torch.equal(random_vorticity(16, [(5, 1, 7)])[0], fields[1])
    assert not torch.allclose(fields[0], fields[1])
    fine = torch.fft.rfft2(random_vorticity(64, [3])) / 16.0
    coarse = torch.fft.rfft2(fields[:1])
    torch.testing.assert_close(fine[:, :6, :6], coarse[:, :6, :6], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"initial": torch.zeros(8, 8)}, "a batch of flows"),
        ({"initial": torch.zeros(1, 8, 6)}, "n even and >= 8"),
        ({"initial": torch.zeros(1, 9, 9)}, "n even and >= 8"),
        ({"initial": torch.zeros(1, 8, 8, dtype=torch.int64)}, "real"),
        ({"viscosity": -1.0}, "not well posed"),
        ({"forcing": torch.zeros(4, 4)}, "of the same grid"),
        ({"side": 0.0}, "side is 0.0"),
        ({"dt": -0.1}, "dt is -0.1"),
    ],
)
def test_misuse_says_the_mend(wrong: dict[str, Any], message: str) -> None:
    sensible: dict[str, Any] = {"initial": torch.zeros(1, 8, 8), "ts": [0.0, 1.0], "viscosity": 0.1, "dt": 0.1}
    with pytest.raises(ValueError, match=message):
        simulate_vorticity(**{**sensible, **wrong})


def test_a_field_without_continuity_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha > 1"):
        random_vorticity(16, [0], alpha=1.0)
