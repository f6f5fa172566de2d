"""Neural LNSDE: the folded tables are the written equation, and the equation has its properties."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciode.timeseries import LinearNoiseSDE, SDEClassifier
from sciode.timeseries.linear_noise import Form
from sciode.training import isolated_rng

B, N, C, H, DT = 5, 12, 3, 8, 0.25


def model(form: Form = "clipped", layers: int = 2) -> LinearNoiseSDE:
    with isolated_rng(0):
        return LinearNoiseSDE(C, H, layers, form).double()


def control(seed: int = 1, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(B, N + 1, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def state(seed: int = 2, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(B, H, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ends() -> Tensor:
    return torch.tensor([12, 7, 12, 3, 1], dtype=torch.float64) * DT


def affine(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def written_fields(net: LinearNoiseSDE, k: int, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Drift and diffusion at the time k dt, term by term as the paper and its code write them."""
    phase = torch.tensor([math.sin(k * DT), math.cos(k * DT)], dtype=torch.float64)
    z_in = net.embed_state(torch.cat([phase.expand(len(z), 2), z], -1))
    mixed = net.embed_both(torch.cat([z_in, net.embed_control(x)], -1))
    drift, diffusion = net.gamma(mixed.relu()), net.sigma(phase) * z
    if net.form == "clipped":
        return drift.tanh(), (net.gate.sigmoid() * diffusion).tanh()
    return drift, diffusion


@pytest.mark.parametrize("form", ["paper", "clipped"])
@pytest.mark.parametrize("k", [0, 5, N])
def test_the_tables_are_the_written_equation(form: Form, k: int) -> None:
    net, x, z = model(form), control(), state()
    tables, t = net.tables(x, DT), torch.full((B, 1), k * DT, dtype=torch.float64)
    drift, diffusion = written_fields(net, k, z, x[:, k])
    torch.testing.assert_close(net.drift(t, z, tables), drift, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.diffusion(t, z, tables), diffusion, rtol=1e-12, atol=1e-13)


def test_a_tensor_table_and_separate_rows_give_the_same_field() -> None:
    net, z = model(), state()
    tables, t = net.tables(control(), DT), torch.full((B, 1), 4 * DT, dtype=torch.float64)
    stacked = tables._replace(drive=torch.stack(list(tables.drive)), sigma=torch.stack(list(tables.sigma)))
    assert torch.equal(net.drift(t, z, tables), net.drift(t, z, stacked))
    assert torch.equal(net.diffusion(t, z, tables), net.diffusion(t, z, stacked))


@pytest.mark.parametrize("form", ["paper", "clipped"])
def test_the_tables_of_a_compiled_loop_give_the_same_field_and_gradients(form: Form) -> None:
    """They are the same rows, in one tensor each."""
    found = []
    for stacked in (False, True):
        net, z = model(form), state()
        tables, t = net.tables(control(), DT, stacked=stacked), torch.full((B, 1), 4 * DT, dtype=torch.float64)
        assert isinstance(tables.drive, torch.Tensor) == stacked
        fields = net.drift(t, z, tables), net.diffusion(t, z, tables)
        (fields[0].sum() + fields[1].square().sum()).backward()
        named = [p.grad for name, p in net.named_parameters() if "initial" not in name]
        found.append((fields, [grad for grad in named if grad is not None]))
    assert len(found[0][1]) == len(found[1][1]) > 10
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-13)


def test_clipped_fields_are_bounded_by_one_however_large_the_state() -> None:
    net, t = model("clipped"), torch.zeros(B, 1, dtype=torch.float64)
    tables = net.tables(control(scale=1e3), DT)
    for field in (net.drift, net.diffusion):
        assert field(t, state(scale=1e6), tables).abs().max() <= 1


@pytest.mark.parametrize("form", ["paper", "clipped"])
def test_noise_is_linear_near_zero_and_leaves_zero_alone(form: Form) -> None:
    net, t = model(form), torch.zeros(B, 1, dtype=torch.float64)
    tables, z = net.tables(control(), DT), state()
    assert (net.diffusion(t, torch.zeros_like(z), tables) == 0).all()
    small = net.diffusion(t, 1e-6 * z, tables)
    torch.testing.assert_close(net.diffusion(t, 2e-6 * z, tables), 2 * small, rtol=1e-9, atol=0)


def test_paper_noise_without_drift_is_geometric_brownian_motion() -> None:
    """dz = σ z dW: the mean of z(T) is z(0), and that of z(T)² is z(0)² (1 + σ² dt)^N for Euler's chain."""
    net, samples = model("paper"), 40_000
    with torch.no_grad():
        for part, level in ((net.gamma, 0.0), (net.sigma, 0.4)):
            last = affine(part)[-1]
            last.weight.zero_()
            last.bias.fill_(level)
        net.initial.weight.zero_()
        net.initial.bias.fill_(1.0)
        x = torch.zeros(samples, N + 1, C, dtype=torch.float64)
        z = net(x, DT, torch.full((samples,), N * DT, dtype=torch.float64), seed=0).ys[-1]
    second = (1 + 0.16 * DT) ** N
    fourth = (1 + 6 * 0.16 * DT + 3 * (0.16 * DT) ** 2) ** N
    count = z.numel()
    assert abs(z.mean() - 1) < 4 * math.sqrt((second - 1) / count)
    assert abs(z.square().mean() - second) < 4 * math.sqrt((fourth - second**2) / count)


def test_the_solve_is_euler_s_chain_and_stops_at_each_series_own_end() -> None:
    net, x = model(), control()
    seeds = torch.arange(B)
    whole = net(x, DT, torch.full((B,), N * DT, dtype=torch.float64), seeds, every=1)
    stopped = net(x, DT, ends(), seeds)
    for sample, end in enumerate(ends()):
        steps = round(float(end) / DT)
        torch.testing.assert_close(stopped.ys[-1, sample], whole.ys[steps, sample], rtol=1e-12, atol=1e-13)
    assert stopped.stats.nfe.tolist() == [round(float(end) / DT) + whole.stats.nfe[0].item() - N for end in ends()]
    still = net(x, DT, ends(), seeds, every=1).ys
    torch.testing.assert_close(still[-1], stopped.ys[-1], rtol=1e-12, atol=1e-13)


def test_series_that_end_together_walk_the_same_path_as_among_others() -> None:
    net, x, seeds = model(), control(), torch.arange(B)
    alike = torch.full((B,), 7 * DT, dtype=torch.float64)
    mixed = torch.cat([alike[:-1], torch.tensor([N * DT], dtype=torch.float64)])
    for every in (0, 1):
        together, apart = net(x, DT, alike, seeds, every=every), net(x, DT, mixed, seeds, every=every)
        torch.testing.assert_close(together.ys[-1, :-1], apart.ys[-1, :-1], rtol=1e-12, atol=1e-13)


def test_what_comes_after_a_series_end_does_not_touch_it() -> None:
    net, x = model(), control()
    later = x.clone()
    later[1, 8:] = 1e3
    before, after = net(x, DT, ends(), 0).ys[-1], net(later, DT, ends(), 0).ys[-1]
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["paper", "clipped"])
def test_every_parameter_gets_a_gradient(form: Form) -> None:
    with isolated_rng(0):
        net = SDEClassifier(C, 4, H, layers=2, form=form).double()
        logits, _ = net(control(), DT, ends(), 0)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        # BatchNorm takes the mean away, so a bias right before it has no influence: its gradient is zero by design.
        if name != "head.1.4.bias":
            assert parameter.grad.abs().max() > 1e-12, name


def test_the_gradient_is_the_derivative() -> None:
    net, x = model(), control()[:2, :4]
    horizon = torch.tensor([3.0, 2.0], dtype=torch.float64) * DT

    def final(weight: Tensor, path: Tensor) -> Tensor:
        parameters = dict(net.named_parameters()) | {"sigma.0.0.weight": weight}
        return torch.func.functional_call(net, parameters, (path, DT, horizon, 0)).ys[-1]

    assert torch.autograd.gradcheck(final, (affine(net.sigma)[0].weight.detach().requires_grad_(), x.requires_grad_()))


@pytest.mark.parametrize("wrong", [(0, 8, 2, "paper"), (3, 0, 2, "paper"), (3, 8, 0, "paper"), (3, 8, 2, "printed")])
def test_misuse_says_the_mend(wrong: tuple) -> None:
    with pytest.raises(ValueError, match="must be"):
        LinearNoiseSDE(*wrong)
