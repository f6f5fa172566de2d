"""Gradients of a loss on the sample: exact where that is claimed, at the memory that is claimed, and never missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode.diffusion import Adjoint, Checkpoint, ClassifierFree, Discrete, RectifiedFlow, VPLinear, sample, sampler
from sciode.testing import GaussianMixture, PeakMemory

EXACT = ["direct", "checkpoint", Checkpoint(3), Checkpoint(50), "auto", "reversible"]
SCHEDULE = VPLinear()


class Net(nn.Module):
    """eps = x sigma-ish + a small network of (x, t, c)."""

    def __init__(self, dim: int = 3, width: int = 16) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2 * dim + 1, width), nn.Tanh(), nn.Linear(width, dim)).double()

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        c = torch.zeros_like(x) if c is None else c.expand_as(x)
        return 0.8 * x + 0.3 * self.inner(torch.cat((x, c, t[:, None]), 1))


@pytest.fixture
def net(seeded) -> Net:
    with seeded(0):
        return Net()


def _start(batch: int = 4, dim: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gradients(net: Net, gradient: Any, **options: Any) -> tuple[list[Tensor], str | None]:
    """Of a loss, with respect to noise, conditioning (no leaf) and every weight; and the route."""
    x, raw = _start().requires_grad_(), _start(1, seed=2).requires_grad_()
    cond = {"c": 2 * raw}
    found = sample(net, x, SCHEDULE, cond=cond, gradient=gradient, return_info=True, **options)
    loss = (found.x * _start(seed=3)).sum() + found.x.square().sum()
    return list(torch.autograd.grad(loss, [x, raw, *net.parameters()])), found.gradient


def _gap(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest relative difference of a tensor's gradient."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["bdia", "belm", "edict"])
@pytest.mark.parametrize("gradient", EXACT, ids=str)
def test_exact_routes_are_the_tape(name: str, gradient: Any, net: Net) -> None:
    options = {"sampler": name, "steps": 12, "t_end": 0.05}
    wanted, direct = _gradients(net, "direct", **options)
    found, route = _gradients(net, gradient, **options)
    named = "checkpoint" if isinstance(gradient, Checkpoint) else "direct" if gradient == "auto" else gradient
    assert direct == "direct" and route == named
    assert _gap(found, wanted) < 1e-9


@pytest.mark.parametrize("name", ["dpm++-3m", "unipc-3", "ddpm", "rk-tsit5", "edm-churn"])
@pytest.mark.parametrize("gradient", ["checkpoint", Checkpoint(4)], ids=str)
def test_segments_differentiate_any_sampler_with_a_grid(name: str, gradient: Any, net: Net) -> None:
    options = {"sampler": name, "steps": 9, "seed": 3}
    assert _gap(_gradients(net, gradient, **options)[0], _gradients(net, "direct", **options)[0]) < 1e-12


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
def test_gradients_are_finite_differences(gradient: str, net: Net) -> None:
    x, direction = _start(), _start(seed=7)

    def loss(x: Tensor) -> Tensor:
        return sample(net, x, SCHEDULE, sampler="bdia", steps=20, gradient=gradient).cos().sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf), leaf)
    width = 1e-5
    with torch.no_grad():
        wanted = (loss(x + width * direction) - loss(x - width * direction)) / (2 * width)
    assert float((slope * direction).sum()) == pytest.approx(float(wanted), rel=1e-7)


@pytest.mark.parametrize("steps", [10, 100])
def test_float32_gradients_through_inversion_stay_within_a_hundred_thousandth(steps: int, net: Net) -> None:
    """The bar: rounding does not grow on the way back, so that a hundred steps are as good as ten."""
    net.float()
    x = _start().float().requires_grad_()
    options: dict[str, Any] = {"sampler": "bdia", "steps": steps}
    both = []
    for gradient in ("direct", "reversible"):
        found = sample(net, x, SCHEDULE, gradient=gradient, **options)
        both.append(list(torch.autograd.grad(found.square().sum(), [x, *net.parameters()])))
    assert _gap(both[1], both[0]) < 1e-5


def test_the_memory_of_the_sample_has_a_gradient_too(net: Net) -> None:
    """A loss on the state before the last, which exact inversion starts from."""
    grads = []
    for gradient in ("direct", "reversible"):
        x = _start().requires_grad_()
        found = sample(net, x, SCHEDULE, sampler="bdia", steps=7, gradient=gradient, return_info=True)
        grads.append(torch.autograd.grad((found.memory * found.x).sum(), x))
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-10, atol=1e-12)


def _peak(net: Net, gradient: Any, steps: int) -> int:
    x = _start(32).requires_grad_()
    with PeakMemory() as peak:
        sample(net, x, SCHEDULE, sampler="bdia", steps=steps, gradient=gradient).square().sum().backward()
    return peak.bytes


def test_memory_through_inversion_does_not_grow_with_the_steps(seeded) -> None:
    """The bar: the peak of 100 steps is at most 1.15 of that of 10; a tape's is ten times as large."""
    with seeded(0):
        net = Net(width=64)
    few, many = (_peak(net, "reversible", n) for n in (10, 100))
    assert many <= 1.15 * few
    tape, states = _peak(net, "direct", 100), _peak(net, "checkpoint", 100)
    assert tape > 5 * _peak(net, "direct", 10) and states < 0.2 * tape
    assert _peak(net, Checkpoint(10), 100) < states


def test_evaluations_are_counted_once_there_and_once_back(net: Net) -> None:
    calls = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return net(x, t)

    for gradient, wanted in (("direct", 8), ("checkpoint", 16), ("reversible", 16), (Checkpoint(3), 24)):
        calls.clear()
        x = _start().requires_grad_()
        sample(counted, x, SCHEDULE, sampler="bdia", steps=8, gradient=gradient).sum().backward()
        assert len(calls) <= wanted and (wanted - len(calls) < 4)


def test_the_adjoint_tends_to_the_gradient_of_the_steps_as_they_get_finer(case, net: Net) -> None:
    """The continuous gradient is that of the flow: its gap to the discrete one falls at the sampler's order."""
    settings = Adjoint(rtol=1e-6, atol=1e-8)
    gaps = []
    for steps in (20, 40, 80):
        options = {"sampler": "dpm++-2m", "steps": steps, "t_end": 0.05}
        wanted, _ = _gradients(net, "direct", **options)
        found, route = _gradients(net, settings, **options)
        assert route == "adjoint"
        gaps.append(_gap(found, wanted))
    assert gaps[0] > 2.5 * gaps[1] > 6 * gaps[2]


def test_the_adjoint_of_a_gaussian_is_its_flow_map(case) -> None:
    """x_t = sqrt(L_t / L_s) x_s for N(0, e): the gradient of a linear loss is that factor, whatever the steps were."""
    e = torch.tensor([0.25, 4.0], dtype=torch.float64)
    model = GaussianMixture([1.0], [[0.0, 0.0]], torch.diag(e)[None]).model(SCHEDULE)
    x = _start(3, 2).requires_grad_()
    spread = [SCHEDULE.alpha(t) ** 2 * e + SCHEDULE.sigma(t) ** 2 for t in (1.0, 1e-3)]
    found = sample(model, x, SCHEDULE, steps=400, gradient=Adjoint(1e-9, 1e-11))
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(slope, (spread[1] / spread[0]).sqrt().expand(3, 2), rtol=1e-6, atol=1e-9)


def test_the_adjoint_of_a_sample_does_not_depend_on_its_batch(net: Net) -> None:
    """Steps are chosen by each sample's own error: a row's gradient is that of the row alone, at any tolerance."""
    x, c = _start(), _start(seed=2)
    x[0] *= 30.0

    def grads(rows: slice) -> list[Tensor]:
        start, told = x[rows].clone().requires_grad_(), c[rows].clone().requires_grad_()
        found = sample(net, start, SCHEDULE, cond={"c": told}, steps=20, gradient=Adjoint(1e-2, 1e-3))
        return list(torch.autograd.grad(found.square().sum(), [start, told, *net.parameters()]))

    whole, alone = grads(slice(None)), [grads(slice(b, b + 1)) for b in range(4)]
    for i in range(2):
        torch.testing.assert_close(whole[i], torch.cat([g[i] for g in alone]), rtol=1e-10, atol=1e-12)
    for n in range(2, len(whole)):
        torch.testing.assert_close(whole[n], sum(g[n] for g in alone), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("method", "rtol"), [("tsit5", 1e-5), ("dopri5", 1e-5), ("bosh3", 1e-5), ("heun", 1e-4)])
def test_the_adjoint_of_any_method_with_an_error_is_within_ten_tolerances(method: str, rtol: float, net: Net) -> None:
    """Of the discrete gradient of steps that are finer than that."""
    options = {"sampler": "unipc-3", "steps": 100, "t_end": 0.05}
    wanted, _ = _gradients(net, "direct", **options)
    found, _ = _gradients(net, Adjoint(rtol, 1e-2 * rtol, method=method), **options)
    assert _gap(found, wanted) < 10 * rtol


ROUTES = ["direct", "checkpoint", "reversible", "adjoint", "auto"]


@pytest.mark.parametrize("gradient", ROUTES)
def test_weights_get_theirs_however_the_model_reaches_them(gradient: str, net: Net) -> None:
    """By a closure and without any input that requires grad."""
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return scale * net(x, t)

    found = sample(model, _start(), SCHEDULE, sampler="bdia", steps=6, gradient=gradient)
    found.sum().backward()
    assert scale.grad is not None and float(scale.grad.abs()) > 0
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("gradient", ["reversible", "adjoint"])
def test_what_would_be_lost_is_refused(gradient: str, net: Net) -> None:
    """An encoder's output in a closure; and a tensor that joins after the first evaluation."""
    leaf = torch.ones(3, dtype=torch.float64, requires_grad=True)
    made, x = 2 * leaf, _start().requires_grad_()
    options: dict[str, Any] = {"sampler": "bdia", "steps": 6, "gradient": gradient}
    with pytest.raises(ValueError, match="pass it through cond="):
        sample(lambda x, t: net(x, t) * made, x, SCHEDULE, **options)
    late = sample(lambda x, t: net(x, t) * (leaf if float(t[0]) < 0.5 else 1.0), x, SCHEDULE, **options)
    with pytest.raises(RuntimeError, match="pass it through cond="):
        late.sum().backward()


def test_segments_find_tensors_that_were_computed_before(net: Net) -> None:
    leaf = torch.ones(3, dtype=torch.float64, requires_grad=True)
    for gradient in ("checkpoint", Checkpoint(3), "direct"):
        made = 2 * leaf
        found = sample(lambda x, t, made=made: net(x, t) * made, _start(), SCHEDULE, steps=6, gradient=gradient)
        (slope,) = torch.autograd.grad(found.sum(), leaf)
        assert float(slope.abs().min()) > 0


def test_auto_takes_segments_where_a_tape_does_not_fit(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    from sciode.diffusion.gradients import carry

    wanted, route = _gradients(net, "auto", steps=8)
    assert route == "direct"
    monkeypatch.setattr(carry, "free_bytes", lambda device: 10_000)
    found, route = _gradients(net, "auto", steps=8)
    assert route == "checkpoint" and _gap(found, wanted) < 1e-12


def test_nothing_to_differentiate_says_so(case, net: Net) -> None:
    for gradient in ("auto", "checkpoint", "reversible"):
        found = sample(case.model, case.x, SCHEDULE, sampler="bdia", steps=4, gradient=gradient, return_info=True)
        assert found.gradient is None and not found.x.requires_grad
    with torch.no_grad():
        assert sample(net, case.x, SCHEDULE, steps=4, gradient="checkpoint", return_info=True).gradient is None


@pytest.mark.parametrize("gradient", ["direct", "auto", "checkpoint"])
def test_second_derivatives_where_there_is_a_tape(gradient: str, case) -> None:
    x = case.x[:2].clone().requires_grad_()
    found = sample(case.model, x, SCHEDULE, steps=5, gradient=gradient)
    (slope,) = torch.autograd.grad(found.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x)
    direction, width = _start(2, seed=5), 1e-5

    def norm(x: Tensor) -> float:
        x = x.detach().requires_grad_()
        loss = sample(case.model, x, SCHEDULE, steps=5).square().sum()
        return float(torch.autograd.grad(loss, x)[0].square().sum())

    wanted = (norm(x + width * direction) - norm(x - width * direction)) / (2 * width)
    assert float((second * direction).sum()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible", "adjoint"])
def test_guidance_passes_gradients_of_both_branches(gradient: str, net: Net) -> None:
    raw = _start(1, seed=4).requires_grad_()
    grads = []
    for route in ("direct", gradient):
        guidance = ClassifierFree(2.0, {"c": torch.zeros(1, 3, dtype=torch.float64)})
        found = sample(
            net, _start(), SCHEDULE, sampler="bdia", steps=200 if gradient == "adjoint" else 9, cond={"c": raw.sin()},
            guidance=guidance, gradient=route,
        )  # fmt: skip
        grads.append(torch.autograd.grad(found.square().sum(), [raw, *net.parameters()]))
    assert _gap(list(grads[1]), list(grads[0])) < (0.02 if gradient == "adjoint" else 1e-9)


def test_a_start_from_pure_noise_is_differentiated_through_its_first_step(net: Net) -> None:
    """Zero terminal SNR: the first evaluation is of the data prediction, before the sampler's own steps."""
    alphas = torch.linspace(0.99, 0.0, 50, dtype=torch.float64)
    schedule = Discrete(alphas)
    grads = []
    for gradient in ("direct", "checkpoint"):
        x = _start().requires_grad_()
        found = sample(net, x, schedule, prediction="x0", steps=6, t_end=1.0, gradient=gradient)
        grads.append(torch.autograd.grad(found.sum(), x)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-12, atol=1e-12)


def test_misuse_says_the_mend(case, net: Net) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"gradient": "reversibel"}, "Did you mean 'reversible'"),
        ({"gradient": "reversible"}, "use bdia, belm or edict"),
        ({"gradient": "adjoint", "sampler": "ddpm"}, "use 'checkpoint'"),
        ({"gradient": "checkpoint", "sampler": "adaptive-tsit5"}, "use 'direct'"),
    ]
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            sample(net, case.x, SCHEDULE, **options)
    with pytest.raises(ValueError, match="log-SNR infinite"):
        given: dict[str, Any] = {"prediction": "flow", "sampler": "flow-euler", "grid": "uniform", "t_start": 1.0}
        sample(net, case.x, RectifiedFlow(), gradient="adjoint", **given)
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoint(0)
    with pytest.raises(ValueError, match="Did you mean 'tsit5'"):
        Adjoint(method="tsit")
    for method, said in (("euler", "no error estimate"), ("tsit", "Did you mean")):
        with pytest.raises(ValueError, match=said):
            Adjoint(method=method)
    with pytest.raises(ValueError, match="rtol > 0"):
        Adjoint(rtol=0.0)
    with pytest.warns(UserWarning, match="multiplies rounding"):
        x = case.x.clone().requires_grad_()
        sample(net, x, SCHEDULE, sampler=sampler("bdia", gamma=0.6), steps=60, gradient="reversible")
