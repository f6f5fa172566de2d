"""The theory of stable neural SDEs, measured: signs, contraction, Gibbs laws, how far an input shift moves the law."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sciode import SolveError, solve
from sciode.timeseries import EQUATIONS, StableFields
from sciode.training import isolated_rng


def fields(equation: str, hidden: int, form: Any = "paper", channels: int = 2, layers: int = 1) -> StableFields:
    with isolated_rng(0):
        return StableFields(channels, hidden, layers, form, equation=equation).double().requires_grad_(False)


def constant(net: StableFields, sigma: float, drift: Callable[[Tensor], Tensor] | None = None) -> StableFields:
    """sigma(t) = sigma; the drift's network becomes a function of z itself (relu(z + 100) - 100 = z for z > -100)."""
    last = [part for part in net.sigma.modules() if isinstance(part, nn.Linear)][-1]
    last.weight.zero_()
    last.bias.fill_(sigma)
    if drift is not None:
        hidden = net.embed_control.out_features
        for layer in (net.embed_state, net.embed_both, net.embed_control):
            layer.weight.zero_()
            layer.bias.zero_()
        net.embed_state.weight[:, -hidden:] = torch.eye(hidden)
        net.embed_both.weight[:, :hidden] = torch.eye(hidden)
        net.embed_both.bias.fill_(100.0)
        net.gamma = nn.Sequential(Shifted(drift))
    return net


class Shifted(nn.Module):
    def __init__(self, drift: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.drift = drift

    def forward(self, moved: Tensor) -> Tensor:
        return self.drift(moved - 100.0)


def walk(net: StableFields, z: Tensor, dt: float, steps: int, control: Tensor | None = None, seeds: Any = 0) -> Tensor:
    """z after `steps` Euler steps, by default under a control that is 0; one stream of noise a sample."""
    x = torch.zeros(len(z), 1, net.embed_control.in_features).double() if control is None else control
    tables = net.tables(x.expand(-1, steps + 1, -1), dt)
    how: Any = {"dt": dt, "method": "euler", "seed": seeds, "batch_dims": 1, "engine": "eager"}
    return solve(net.term(), z, [0.0, steps * dt], args=tables, **how).ys[-1]


@pytest.mark.parametrize("form", ["paper", "clipped"])
@pytest.mark.parametrize("equation", list(EQUATIONS))
def test_the_fields_are_the_written_equation(equation: str, form: Any) -> None:
    """Term by term, as the paper and its code write them."""
    net, draw, k, dt = fields(equation, 5, form, layers=2), torch.Generator().manual_seed(1), 3, 0.25
    x = torch.randn(4, 7, 2, generator=draw, dtype=torch.float64)
    z = torch.randn(4, 5, generator=draw, dtype=torch.float64)
    tables, t = net.tables(x, dt), torch.full((4, 1), k * dt).double()
    phase = torch.tensor([math.sin(k * dt), math.cos(k * dt)], dtype=torch.float64)
    clock = equation != "langevin"
    z_in = net.embed_state(torch.cat([phase.expand(4, 2), z], -1) if clock else z)
    gamma = net.gamma(net.embed_both(torch.cat([z_in, net.embed_control(x[:, k])], -1)).relu())
    noise = net.sigma(phase).expand_as(z) * (z if equation != "langevin" else 1.0)
    if form == "paper":
        drift = z * gamma if equation == "geometric" else gamma
    else:
        drift = (gamma * z.tanh() if equation == "geometric" else gamma).tanh()
        noise = (net.gate.sigmoid() * noise).tanh()
    torch.testing.assert_close(net.drift(t, z, tables), drift, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.diffusion(t, z, tables), noise, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("form", ["paper", "clipped"])
def test_the_geometric_equation_keeps_signs_in_small_steps(form: Any) -> None:
    """A step multiplies z by 1 + gamma dt + sigma dW: here 9 standard deviations would change a sign. What is clipped
    multiplies it by no less, for |tanh(a z)| <= |a z|."""
    dt, sigma = 0.01, 1.0
    net = constant(fields("geometric", 4, form), sigma, lambda z: 0.8 * (3 * z).sin())
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert (1 - 0.8 * dt) / (sigma * math.sqrt(dt)) > 9
    assert torch.equal(walk(net, z, dt, 300).sign(), z.sign())
    # In steps a hundred times as long a standard deviation is as large as what it is added to.
    assert not torch.equal(walk(net, z, 1.0, 3).sign(), z.sign())


def test_the_geometric_drift_explodes_where_gamma_grows_and_the_clipped_one_does_not() -> None:
    """gamma = z without noise: z' = z^2 is infinite at t = 1 / z(0). The solver says so; nothing hides it."""
    z = torch.ones(3, 1, dtype=torch.float64)
    with pytest.raises(SolveError, match="NaN or infinite"):
        walk(constant(fields("geometric", 1), 0.0, lambda z: z), z, 0.01, 300)
    assert walk(constant(fields("geometric", 1, "clipped"), 0.0, lambda z: z), z, 0.01, 300).abs().max() < 5


def test_the_geometric_equation_is_geometric_brownian_motion() -> None:
    """With constant gamma and sigma log z(T) is normal with mean (gamma - sigma^2 / 2) T and variance sigma^2 T."""
    gamma, sigma, dt, steps, samples = 0.3, 0.5, 0.002, 500, 4000
    net = constant(fields("geometric", 1), sigma, lambda z: torch.full_like(z, gamma))
    grown = walk(net, torch.ones(samples, 1).double(), dt, steps).log().squeeze(1)
    time = dt * steps
    normal = stats.norm((gamma - sigma**2 / 2) * time, sigma * math.sqrt(time))
    assert stats.kstest(grown.numpy(), normal.cdf).pvalue > 0.01


def exponent(net: StableFields, z: Tensor, apart: Tensor, dt: float, steps: int) -> tuple[float, float]:
    """The mean over samples of log |difference| / T of two paths under the same noise, and its standard error."""
    seeds = torch.arange(len(z)).repeat(2)
    first, second = walk(net, torch.cat((z, z + apart)), dt, steps, seeds=seeds).chunk(2)
    rates = ((first - second).norm(dim=1) / apart.norm(dim=1)).log() / (dt * steps)
    return float(rates.mean()), float(rates.std()) / math.sqrt(len(z))


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.2])
def test_linear_noise_adds_minus_half_its_square_to_the_lyapunov_exponent(sigma: float) -> None:
    """gamma = L z: the exponent is L - sigma^2 / 2, above 0 without noise, below it where L < sigma^2 / 2."""
    lipschitz, dt = 0.3, 0.01
    net = constant(fields("linear", 1), sigma, lambda z: lipschitz * z)
    z = torch.ones(1000, 1).double()
    found, error = exponent(net, z, 0.1 * z, dt, 1000)
    # Euler's chain: the mean of log |1 + L dt + sigma sqrt(dt) N|, by quadrature.
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    chain = float(
        (weights * np.log(abs(1 + lipschitz * dt + sigma * math.sqrt(dt) * nodes))).sum() / weights.sum() / dt
    )
    assert abs(found - chain) < 4 * error + 1e-9
    assert chain == pytest.approx(lipschitz - sigma**2 / 2, abs=0.02)


@pytest.mark.parametrize("sigma", [0.9, 1.2])
def test_a_drift_of_lipschitz_constant_below_half_sigma_squared_contracts(sigma: float) -> None:
    """One dimension, the bound of the theorem: exponent <= L - sigma^2 / 2 < 0, for a bent drift."""
    lipschitz = 0.35
    net = constant(fields("linear", 1), sigma, lambda z: lipschitz * (2 * z).sin() / 2 + 0.2)
    draw = torch.Generator().manual_seed(3)
    z = torch.randn(1000, 1, generator=draw).double()
    found, error = exponent(net, z, torch.ones_like(z), 0.01, 1000)
    assert found < lipschitz - sigma**2 / 2 + 4 * error < 0


def test_with_a_noise_for_each_component_coupled_ones_contract_less_than_the_scalar_bound_says() -> None:
    """gamma = L (z2, z1): each component has its own noise, which turns the difference about, and the exponent lies
    above L - sigma^2 / 2, here above 0 though L < sigma^2 / 2. What holds for H components, because the fourth powers
    of a direction sum to at least 1/H, is exponent <= L + sigma^2 (1/2 - 1/H)."""
    lipschitz, sigma = 0.5, 1.2
    net = constant(fields("linear", 2), sigma, lambda z: lipschitz * z.flip(-1))
    z = torch.ones(1000, 2).double()
    found, error = exponent(net, z, torch.tensor([1.0, 0.5]).expand(1000, 2).double(), 0.01, 2000)
    assert lipschitz < sigma**2 / 2
    assert 4 * error < found < lipschitz + 4 * error


@pytest.mark.parametrize("well", ["quadratic", "double"])
def test_langevin_reaches_the_gibbs_law(well: str) -> None:
    """gamma = -U', constant sigma: the law of z(T) is that of density exp(-2 U / sigma^2), by Kolmogorov's test."""
    sigma, dt, steps, samples = 1.1, 0.01, 1500, 4000
    potential: dict[str, tuple[Any, Any]] = {
        "quadratic": (lambda z: z**2 / 2, lambda z: z),
        "double": (lambda z: (z**2 - 1) ** 2 / 2, lambda z: 2 * z * (z**2 - 1)),
    }
    energy, slope = potential[well]
    net = constant(fields("langevin", 1), sigma, lambda z: -slope(z))
    begun = torch.linspace(0.5, 1.5, samples, dtype=torch.float64).unsqueeze(1)  # on one side
    reached = walk(net, begun, dt, steps).squeeze(1).numpy()
    grid = np.linspace(-5, 5, 20_001)
    density = np.exp(-2 * energy(grid) / sigma**2)
    law = np.cumsum(density) / density.sum()

    def distance(values: np.ndarray) -> float:
        return float(stats.kstest(values, lambda z: np.interp(z, grid, law)).statistic)

    # At this size 1 of 1000 true samples lies further off than 1.95 / sqrt(n); Euler's own bias is of order dt.
    assert distance(reached) < 1.95 / math.sqrt(samples) + dt
    assert distance(begun.squeeze(1).numpy()) > 3 * (1.95 / math.sqrt(samples) + dt)


def test_langevin_s_variance_in_a_quadratic_well_is_that_of_euler_s_chain() -> None:
    """z' = -k z: the chain's stationary variance is sigma^2 / (2 k - k^2 dt)."""
    k, sigma, dt, samples = 1.5, 0.8, 0.05, 20_000
    net = constant(fields("langevin", 1), sigma, lambda z: -k * z)
    reached = walk(net, torch.zeros(samples, 1).double(), dt, 200).squeeze(1)
    want = sigma**2 / (2 * k - k**2 * dt)
    assert abs(float(reached.square().mean()) - want) < 4 * want * math.sqrt(2 / samples)


@pytest.mark.parametrize("equation", ["langevin", "linear"])
def test_an_input_shift_moves_the_law_no_further_than_the_lipschitz_constants_say(equation: str) -> None:
    """Under the same noise sqrt(E |z - z'|^2), which bounds Wasserstein's distance, is at most the Gronwall bound."""
    hidden, dt, steps, samples = 4, 0.05, 40, 500
    net = constant(fields(equation, hidden, layers=2), 0.5)
    draw = torch.Generator().manual_seed(4)
    control = torch.randn(1, steps + 1, 2, generator=draw).double().expand(samples, -1, -1)
    outer = math.prod(float(torch.linalg.matrix_norm(p.weight, 2)) for p in net.gamma if isinstance(p, nn.Linear))
    half = net.embed_both.weight
    state = float(torch.linalg.matrix_norm(half[:, :hidden] @ net.embed_state.weight[:, -hidden:], 2)) * outer
    input_ = float(torch.linalg.matrix_norm(half[:, hidden:] @ net.embed_control.weight, 2)) * outer
    rate = state + (0.5**2 / 2 if equation == "linear" else 0.0)
    z = torch.randn(samples, hidden, generator=draw).double()
    seeds, previous = torch.arange(samples), 0.0
    plain = walk(net, z, dt, steps, control, seeds)
    for shift in (0.1, 0.2, 0.4):
        moved = walk(net, z, dt, steps, control + shift, seeds)
        found = float((moved - plain).square().sum(1).mean().sqrt())
        size = shift * math.sqrt(2)  # of a shift of both channels
        assert previous < found <= input_ * size * math.expm1(rate * dt * steps) / rate
        previous = found
