"""Models in limits where something simpler is known: no noise, prior = posterior, Ornstein-Uhlenbeck, a plain GRU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode import solve
from sciode.timeseries import Batch, build
from sciode.timeseries.attention import MTAND
from sciode.timeseries.controlled import NeuralCDE
from sciode.timeseries.free import NaiveSDE, NeuralODE
from sciode.timeseries.latent import LatentODE, LatentSDE, steered
from sciode.timeseries.recurrent import GruD, OdeRnnModel, last_read

B, T, C, N, H, DT = 4, 6, 2, 12, 5, 0.25


def made(kind: Any, *args: Any, **options: Any) -> Any:
    """With weights from a seed, in double."""
    from sciode.training import isolated_rng

    with isolated_rng(1):
        return kind(*args, **options).double()


def batch(complete: bool = True) -> Batch:
    draw = torch.Generator().manual_seed(0)
    times = torch.rand(B, T, generator=draw).double().sort(1).values * N * DT
    times[:, 0] = 0.0
    values = torch.randn(B, T, C, generator=draw).double()
    if not complete:
        values = torch.where(torch.rand(values.shape, generator=draw) < 0.4, torch.nan, values)
        values[:, 3], values[1, 4:], times[1, 4:] = torch.nan, torch.nan, torch.nan
    return Batch(values, times, torch.randn(B, N + 1, C, generator=draw).double(), DT, times.nan_to_num().amax(1))


def queries() -> Tensor:
    return torch.linspace(0, N * DT, 7).double().expand(B, -1)


@torch.no_grad()
def silence(*layers: nn.Linear) -> None:
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()


def test_a_naive_sde_without_noise_is_the_neural_ode() -> None:
    noisy = made(NaiveSDE, C, H, form="clipped")
    smooth = made(NeuralODE, C, H, solver={"method": "euler", "dt": DT})
    smooth.initial, smooth.drift = noisy.initial, noisy.drift
    silence(noisy.noise.net[-1])
    q = torch.arange(N + 1).double().mul(DT).expand(B, -1)
    b = batch()._replace(ends=torch.full((B,), N * DT).double())
    found, want = noisy(b, q, 0), smooth(b, q, 0)
    torch.testing.assert_close(found.states, want.states, rtol=1e-13, atol=1e-13)


def test_a_neural_cde_under_a_control_that_stands_still_is_an_ode_in_time() -> None:
    net, b = made(NeuralCDE, C, H), batch()
    control = b.path()[:, :1].expand(-1, N + 1, -1)
    found = net(b._replace(control=control), queries(), 0).states
    field = lambda t, z: net.columns(t, z)[..., 0]  # noqa: E731
    want = solve(field, net.initial(control[:, 0]), queries()[0], rtol=1e-9, atol=1e-10).ys.transpose(0, 1)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4)  # third order, steps of 1/4


def test_a_latent_ode_s_divergence_is_that_of_two_normal_laws() -> None:
    net, b = made(LatentODE, C, H), batch(False)
    start, _ = net.encoder(b, 0)
    mean, spread = net.encoder.law(net.encoder.rnn(*b.clocked(), until=0.0).last).chunk(2, -1)
    law = torch.distributions.Normal(mean, (0.5 * spread).exp())
    want = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, torch.ones_like(mean))).sum(1)
    torch.testing.assert_close(start.kl, want)
    many = Batch(*(x.repeat(2000, *[1] * (x.ndim - 1)) if isinstance(x, Tensor) else x for x in b))  # type: ignore
    draws = net.encoder(many, 0)[0].drawn.unflatten(0, (2000, B))
    assert ((draws.mean(0) - mean).abs() < 4.5 * law.stddev / math.sqrt(2000)).all()
    assert (((draws - mean) / law.stddev).square().mean(0) - 1).abs().max() < 4.5 * math.sqrt(2 / 2000)


def test_a_posterior_that_is_not_steered_is_the_prior_and_diverges_by_its_start_alone() -> None:
    net, b = made(LatentSDE, C, H), batch(False)
    silence(net.net[-1])
    found = net(b, queries(), 3)
    torch.testing.assert_close(found.kl, net.encoder(b, 3)[0].kl, rtol=0, atol=0)
    assert (made(LatentSDE, C, H)(b, queries(), 3).kl > found.kl).all()


def test_a_latent_sde_is_steered_up_to_its_last_reading_only() -> None:
    """Queries far beyond the end change nothing of the divergence."""
    net, b = made(LatentSDE, C, H), batch(False)
    near, far = net(b, None, 3), net(b, queries() + 5.0, 3)
    torch.testing.assert_close(near.kl, far.kl, rtol=1e-12, atol=1e-13)


def test_the_path_divergence_of_two_ornstein_uhlenbeck_laws_is_the_closed_form() -> None:
    """Prior dz = -a z dt + s dW, posterior -b z dt + s dW from x: (a - b)^2 / (2 s^2) times the integral of E z^2."""
    a, b, s, x, dt, steps, samples = 0.4, 1.1, 0.7, 1.5, 0.02, 100, 20_000
    term = steered(lambda t, z: -a * z, lambda t, z: (a - b) * z / s, lambda t, z: torch.full_like(z, s))
    start = torch.tensor([x, 0.0]).double().expand(samples, 2).contiguous()
    ends = solve(term, start, [0.0, dt * steps], dt=dt, method="euler", seed=5, engine="eager").ys[-1]
    second, total = x**2, 0.0
    for _ in range(steps):
        total += second * dt
        second = (1 - b * dt) ** 2 * second + s**2 * dt
    chain = (a - b) ** 2 / (2 * s**2) * total
    assert abs(float(ends[:, 1].mean()) - chain) < 4 * float(ends[:, 1].std()) / math.sqrt(samples)
    assert abs(float(ends[:, 0].square().mean()) - second) < 4 * float(ends[:, 0].square().std()) / math.sqrt(samples)
    level, time = s**2 / (2 * b), dt * steps
    exact = (a - b) ** 2 / (2 * s**2) * (level * time + (x**2 - level) * -math.expm1(-2 * b * time) / (2 * b))
    assert chain == pytest.approx(exact, rel=2 * b * dt)


def test_gru_d_with_every_reading_and_no_decay_is_a_gru() -> None:
    net, b = made(GruD, C, H), batch()
    silence(net.fade_state)
    with torch.no_grad():
        net.fade_rate.zero_()
        net.fade_bias.zero_()
    h = torch.zeros(B, H).double()
    for k in range(T):
        h = net.cell(torch.cat((b.values[:, k], torch.ones(B, C)), -1), h)
    assert torch.equal(net(b, None, 0).last, h)


def test_gru_d_s_readings_and_state_decay_as_they_are_written() -> None:
    """One series, two channels, read by hand."""
    net = made(GruD, 2, H)
    nan = math.nan
    values = torch.tensor([[[1.0, nan], [nan, 2.0], [3.0, nan]]]).double()
    times = torch.tensor([[0.0, 0.5, 2.0]]).double()
    b = Batch(values, times, None, DT, times[:, -1])
    h, last, when = torch.zeros(1, H).double(), [0.0, 0.0], [0.0, 0.0]
    for k in range(3):
        waited = times[0, k] - torch.tensor(when).double()
        seen = values[0, k].isfinite()
        faded = (-(net.fade_rate * waited + net.fade_bias).relu()).exp() * torch.tensor(last).double()
        x = torch.where(seen, values[0, k].nan_to_num(), faded)
        fade = (-net.fade_state(waited).relu()).exp()
        h = net.cell(torch.cat((x, seen.double())).unsqueeze(0), fade * h)
        for c in range(2):
            if seen[c]:
                last[c], when[c] = float(values[0, k, c]), float(times[0, k])
    found = net(b, torch.tensor([[2.0, 3.5]]).double(), 0)
    torch.testing.assert_close(found.last, h)
    waited = 3.5 - torch.tensor(when).double()
    torch.testing.assert_close(found.states[:, 1], (-net.fade_state(waited).relu()).exp() * h)


def test_an_ode_rnn_solved_gap_by_gap_is_the_one_that_is_stepped() -> None:
    net, b = made(OdeRnnModel, C, H), batch(False)
    stepped, solved_ = net(b, queries(), 0), net(b, queries(), 0, engine="eager", regularize="kinetic")
    torch.testing.assert_close(solved_.states, stepped.states, rtol=1e-11, atol=1e-12)
    # h' = f(h): the energy of a gap of no length is none.
    energy = solved_.penalties["kinetic"]
    assert energy.shape == (B,) and (energy > 0).all()


def test_last_read_is_what_a_loop_finds() -> None:
    b = batch(False)
    here = b.seen.any(-1)
    rows = last_read(b.times.nan_to_num(), here, queries())
    for i in range(B):
        for k, q in enumerate(queries()[i]):
            own = [j for j in range(T) if here[i, j] and b.times[i, j] <= q]
            assert rows[i, k] == (own[-1] if own else -1)


@pytest.mark.parametrize("name", ["mtand", "grud", "odernn", "latentode", "latentsde"])
def test_the_time_of_a_row_without_a_reading_is_not_looked_at(name: str) -> None:
    """Bit for bit, be it a number or NaN."""
    net, b = build(name, C, H).double(), batch(False)
    empty = ~b.seen.any(-1)
    assert empty.any()
    plain = net(b, queries(), 0)
    for other in (torch.nan, 0.0, 2.9):
        found = net(b._replace(times=torch.where(empty, other, b.times)), queries(), 0)
        assert torch.equal(found.states, plain.states) and torch.equal(found.last, plain.last)


def test_attention_is_an_average_of_what_is_there() -> None:
    """A channel that is constant where it is read is that constant everywhere: weights sum to 1, gaps do not count."""
    net = made(MTAND, 1, H)
    attention, b = net.read, batch(False)
    caught = {}
    attention.out.register_forward_pre_hook(lambda module, args: caught.update(x=args[0]))
    times, values, seen = b.clocked()
    with torch.no_grad():
        wide = made(MTAND, C, H).read
        wide.out.register_forward_pre_hook(lambda module, args: caught.update(x=args[0]))
        wide(queries(), times, torch.where(seen, 2.5, 0.0 * values), seen)
    heads = caught["x"][..., :-C]
    torch.testing.assert_close(heads, torch.full_like(heads, 2.5) * seen.any(1, keepdim=True).repeat(1, 1, 2))
