"""SDE methods: strong and weak order against exact solutions, torchsde as oracle, and misuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import SDETerm, Status, methods, sample_seeds, solve
from sciode.solvers.tableaux import stochastic

A, B = 0.4, 0.8
ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def wiener(steps: int, samples: int, channels: int, seed: int = 0) -> Tensor:
    """Increments [steps, samples, channels] of Brownian motions over [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, samples, channels, generator=generator, dtype=torch.float64) / math.sqrt(steps)


def coarser(noise: Tensor, steps: int) -> Tensor:
    """The same path on a grid of fewer steps."""
    return noise.reshape(steps, -1, *noise.shape[1:]).sum(1)


@dataclass(frozen=True)
class Exact:
    """An SDE from y0 at t = 0 whose solution at t = 1 is a function of W(1) [B, m]."""

    term: SDETerm
    y0: tuple[float, ...]
    solution: Callable[[Tensor], Tensor]
    channels: int = 1


def column(matrix: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: (y @ matrix.T).unsqueeze(-1)


PROBLEMS = {
    "ito diagonal": Exact(
        SDETerm(lambda t, y: A * y, lambda t, y: B * y), (1.0,), lambda w: torch.exp(A - B * B / 2 + B * w)
    ),
    "stratonovich diagonal": Exact(
        SDETerm(lambda t, y: A * y, lambda t, y: B * y, calculus="stratonovich"), (1.0,), lambda w: torch.exp(A + B * w)
    ),
    # Kloeden & Platen, section 4.4: dX = (1 / sqrt(1 + t) - X / (2 (1 + t))) dt + dW / (2 sqrt(1 + t)).
    "additive": Exact(
        SDETerm(
            lambda t, y: (1 + t) ** -0.5 - y / (2 * (1 + t)),
            lambda t, y: (0.5 * (1 + t) ** -0.5 * torch.ones_like(y)).unsqueeze(-1),
            noise="additive",
        ),
        (1.0,),
        lambda w: (1 + 1 + 0.5 * w) / math.sqrt(2),
    ),
    "ito scalar": Exact(
        SDETerm(lambda t, y: -0.5 * y, column(ROTATION), noise="scalar"),
        (1.0, 0.0),
        lambda w: torch.cat((torch.cos(w), torch.sin(w)), dim=1),
    ),
    "stratonovich scalar": Exact(
        SDETerm(lambda t, y: torch.zeros_like(y), column(ROTATION), noise="scalar", calculus="stratonovich"),
        (1.0, 0.0),
        lambda w: torch.cat((torch.cos(w), torch.sin(w)), dim=1),
    ),
    "commutative general": Exact(
        SDETerm(
            lambda t, y: A * y,
            lambda t, y: torch.cat((B * y, -0.5 * y), dim=1).unsqueeze(1),
            noise="general",
            calculus="stratonovich",
        ),
        (1.0,),
        lambda w: torch.exp(A + B * w[:, :1] - 0.5 * w[:, 1:]),
        channels=2,
    ),
}

STRONG = [
    ("euler", "ito diagonal", 0.5),
    ("euler", "ito scalar", 0.5),
    ("euler", "additive", 1.0),
    ("milstein", "ito diagonal", 1.0),
    ("milstein", "ito scalar", 1.0),
    ("milstein", "stratonovich diagonal", 1.0),
    ("milstein", "stratonovich scalar", 1.0),
    ("milstein", "additive", 1.0),
    ("heun", "stratonovich diagonal", 1.0),
    ("heun", "stratonovich scalar", 1.0),
    ("heun", "commutative general", 1.0),
    ("reversibleheun", "stratonovich diagonal", 1.0),
    ("reversibleheun", "commutative general", 1.0),
]


def squared_errors(method: str, problem: Exact, noise: Tensor, steps: int) -> Tensor:
    """|y_steps - y(1)|^2 of every sample [B]."""
    y0 = torch.tensor(problem.y0, dtype=torch.float64).expand(noise.shape[1], -1)
    ys = solve(problem.term, y0, [0.0, 1.0], method=method, dt=1 / steps, noise=coarser(noise, steps)).ys
    return (ys[-1] - problem.solution(noise.sum(0))).square().sum(1)


def slope(errors: Tensor, groups: int = 20) -> tuple[float, float]:
    """Mean and standard error, over independent groups of samples, of the slope of log2(rms error); errors [levels, B].

    Level k has 2^k times the steps of level 0.
    """
    rms = errors.reshape(errors.shape[0], groups, -1).mean(-1).sqrt().log2()
    slopes = (rms[0] - rms[-1]) / (errors.shape[0] - 1)
    return float(slopes.mean()), float(slopes.std() / math.sqrt(groups))


@pytest.mark.parametrize(("method", "name", "order"), STRONG)
def test_strong_order(method: str, name: str, order: float) -> None:
    problem, levels = PROBLEMS[name], (64, 128, 256, 512)
    noise = wiener(levels[-1], 4000, problem.channels)
    measured, uncertainty = slope(torch.stack([squared_errors(method, problem, noise, n) for n in levels]))
    assert uncertainty < 0.05
    # What is left of the next order's term at these steps, beside three standard errors.
    assert abs(measured - order) < 0.05 + 3 * uncertainty


def test_the_order_claimed_is_the_order_measured_for_the_noise_the_claim_is_about() -> None:
    for method in methods("sde").keys() - stochastic().keys():
        measured = [order for m, name, order in STRONG if m == method and "additive" not in name]
        assert measured
        assert set(measured) == {methods("sde")[method].order}


@pytest.mark.parametrize("method", ["euler", "milstein", "heun", "reversibleheun"])
def test_strong_order_one_for_an_ornstein_uhlenbeck_process(method: str) -> None:
    """Its solution, int exp(t - 1) dW, is no function of W(1): here it is a sum over a far finer grid."""
    finest, levels = 4096, (32, 64, 128, 256)
    noise = wiener(finest, 2000, 1)
    middles = (torch.arange(finest, dtype=torch.float64) + 0.5) / finest
    exact = torch.einsum("n,nbm->bm", torch.exp(middles - 1), noise)
    term = SDETerm(lambda t, y: -y, lambda t, y: torch.ones_like(y).unsqueeze(-1), noise="additive")
    problem = Exact(term, (0.0,), lambda w: exact)
    measured, uncertainty = slope(torch.stack([squared_errors(method, problem, noise, n) for n in levels]))
    assert uncertainty < 0.05
    assert abs(measured - 1) < 0.05 + 3 * uncertainty


@pytest.mark.parametrize("method", ["heun", "reversibleheun"])
def test_general_noise_costs_half_an_order_and_exactly_the_levy_area(method: str) -> None:
    """dx = dW1, dy = x o dW2: what a step misses of y is the Levy area, of variance h^2 / 4, so E error^2 = h / 4."""

    def diffusion(t: Tensor, y: Tensor) -> Tensor:
        return torch.diag_embed(torch.stack((torch.ones_like(y[:, 0]), y[:, 0]), dim=1))

    term = SDETerm(lambda t, y: torch.zeros_like(y), diffusion, noise="general", calculus="stratonovich")
    samples, finest, levels = 4000, 2048, (8, 16, 32)
    noise = wiener(finest, samples, 2)
    x = noise[..., 0].cumsum(0) - noise[..., 0] / 2
    exact = (x * noise[..., 1]).sum(0)
    errors = []
    for steps in levels:
        solution = solve(term, torch.zeros(samples, 2, dtype=torch.float64), [0, 1], method=method, dt=1 / steps,
                         noise=coarser(noise, steps))  # fmt: skip
        errors.append((solution.ys[-1, :, 1] - exact).square())
        if method == "heun":
            expected = (1 / steps - 1 / finest) / 4
            spread = float(errors[-1].std()) / math.sqrt(samples)
            assert abs(float(errors[-1].mean()) - expected) < 4 * spread
    measured, uncertainty = slope(torch.stack(errors))
    assert abs(measured - 0.5) < 0.05 + 3 * uncertainty


def test_euler_has_weak_order_one_in_the_mean_of_an_ornstein_uhlenbeck_process() -> None:
    """The paths of dW and -dW average to the mean of the discrete process, so no sampling error is left."""
    rate, y0 = 2.0, torch.full((2, 1), 3.0, dtype=torch.float64)
    term = SDETerm(lambda t, y: -rate * y, lambda t, y: 0.7 * torch.ones_like(y))
    errors = []
    for steps in (64, 128, 256):
        half = wiener(steps, 1, 1)
        mean = solve(term, y0, [0.0, 1.0], dt=1 / steps, noise=torch.cat((half, -half), dim=1)).ys[-1].mean()
        errors.append(abs(float(mean) - 3 * math.exp(-rate)))
    for coarse, fine in itertools.pairwise(errors):
        assert abs(math.log2(coarse / fine) - 1) < 0.05


@pytest.mark.parametrize("method", ["euler", "milstein", "heun", "reversibleheun"])
def test_the_stationary_law_of_an_ornstein_uhlenbeck_process(method: str) -> None:
    """dy = -y dt + sqrt(2) dW is N(0, 1) in the long run; a step of 0.01 is off by less than 1 %."""
    samples = 20_000
    term = SDETerm(lambda t, y: -y, lambda t, y: math.sqrt(2) * torch.ones_like(y).unsqueeze(-1), noise="additive")
    y = solve(term, torch.zeros(samples, 1, dtype=torch.float64), [0, 4], method=method, dt=0.02, seed=1).ys[-1]
    assert abs(float(y.mean())) < 4 / math.sqrt(samples)
    assert abs(float(y.var()) - 1) < 0.012 + 4 * math.sqrt(2 / samples)


# ---- torchsde as oracle


class Sde(torch.nn.Module):
    """A torchsde object, time-dependent and nonlinear, for any of its noise types."""

    def __init__(self, noise_type: str, sde_type: str) -> None:
        super().__init__()
        self.noise_type, self.sde_type = noise_type, sde_type

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(y.roll(1, 1)) - y + t

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        if self.noise_type == "diagonal":
            return 0.3 * torch.cos(y) + 0.1 * t
        if self.noise_type == "additive":
            return (0.2 + t) * torch.linspace(0.1, 0.6, 6).to(y).reshape(3, 2).expand(len(y), 3, 2)
        columns = [0.3 * torch.cos(y), 0.1 * torch.sin(y.roll(1, 1)) + 0.2 * t]
        return torch.stack(columns[: 1 if self.noise_type == "scalar" else 2], dim=-1)


def given_brownian(increments: Tensor, dt: float) -> Any:
    """A torchsde Brownian motion that hands out given increments, found by the time a step begins."""
    torchsde = pytest.importorskip("torchsde")

    class Given(torchsde.BaseBrownian):  # type: ignore[misc, name-defined]
        dtype = increments.dtype
        device = increments.device
        shape = increments.shape[1:]
        levy_area_approximation = "none"

        def __repr__(self) -> str:
            return "Given()"

        def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Tensor:
            assert abs(float(tb - ta) - dt) < 1e-12
            return increments[round(float(ta) / dt)]

    return Given()


ORACLES = [
    ("euler", "euler", "ito", ("diagonal", "additive", "scalar", "general"), {}),
    ("milstein", "milstein", "ito", ("diagonal", "scalar"), {"grad_free": True}),
    ("milstein", "milstein", "ito", ("additive",), {}),
    ("milstein", "milstein", "stratonovich", ("diagonal", "scalar"), {"grad_free": True}),
    ("heun", "heun", "stratonovich", ("diagonal", "additive", "scalar", "general"), {}),
    ("reversibleheun", "reversible_heun", "stratonovich", ("diagonal", "additive", "scalar", "general"), {}),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "calculus", "noise_type", "options"),
    [(o, t, c, n, options) for o, t, c, noises, options in ORACLES for n in noises],
)
def test_torchsde_takes_the_same_steps_on_the_same_increments(
    ours: str, theirs: str, calculus: str, noise_type: str, options: dict[str, Any]
) -> None:
    torchsde = pytest.importorskip("torchsde")
    sde, steps = Sde(noise_type, calculus), 32
    channels = {"diagonal": 3, "scalar": 1}.get(noise_type, 2)
    noise = wiener(steps, 5, channels)
    y0 = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    ts = torch.linspace(0, 1, 6, dtype=torch.float64)
    bm = given_brownian(noise, 1 / steps)
    want = torchsde.sdeint(sde, y0, ts, bm=bm, method=theirs, dt=1 / steps, options=dict(options))
    # The torchsde object is handed over as it is.
    got = solve(sde, y0, ts, method=ours, dt=1 / steps, noise=noise).ys
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_milstein_with_the_exact_derivative_differs_by_a_higher_order() -> None:
    """torchsde's default takes g' from autograd: the two differ by O(h^(3/2)) a step, by O(h) at the end."""
    torchsde = pytest.importorskip("torchsde")
    sde, y0 = Sde("diagonal", "ito"), torch.linspace(-1, 1, 300, dtype=torch.float64).reshape(100, 3)
    noise, differences = wiener(512, 100, 3), []
    for steps in (32, 512):
        rows = coarser(noise, steps)
        bm = given_brownian(rows, 1 / steps)
        ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
        theirs = torchsde.sdeint(sde, y0, ts, bm=bm, method="milstein", dt=1 / steps)
        ours = solve(sde, y0, ts, method="milstein", dt=1 / steps, noise=rows).ys
        differences.append(float((ours - theirs)[-1].detach().square().mean().sqrt()))
    # Strong order 1 at least: 16 times smaller, less the sampling error of an rms over 300 components.
    assert 0 < differences[1] < differences[0] / 12


# ---- shapes of states and noise


def test_diagonal_noise_written_as_general_noise_is_the_same_equation() -> None:
    y0 = torch.ones(4, 3, dtype=torch.float64)
    diagonal = SDETerm(lambda t, y: -y, lambda t, y: torch.cos(y), calculus="stratonovich")
    general = SDETerm(
        lambda t, y: -y, lambda t, y: torch.diag_embed(torch.cos(y)), noise="general", calculus="stratonovich"
    )
    first, second = (solve(term, y0, [0, 1], dt=0.1, seed=3).ys for term in (diagonal, general))
    torch.testing.assert_close(first, second, rtol=1e-13, atol=1e-13)


def test_general_noise_of_a_state_with_two_axes() -> None:
    y0 = torch.zeros(5, 2, 3, dtype=torch.float64)
    loading = torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4)
    term = SDETerm(lambda t, y: torch.zeros_like(y), lambda t, y: loading.expand(5, 2, 3, 4), noise="general")
    rows = wiener(10, 5, 4)
    solution = solve(term, y0, [0, 1], dt=0.1, noise=rows)
    torch.testing.assert_close(solution.ys[-1], torch.einsum("ijk,bk->bij", loading, rows.sum(0)))


@pytest.mark.parametrize("method", ["euler", "milstein"])
def test_a_tuple_of_states_is_their_concatenation(method: str) -> None:
    def drift(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return -y[0], y[0].sum(1, keepdim=True)

    def diffusion(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return 0.5 * y[0], torch.cos(y[1])

    def joined(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: torch.cat(function(t, (y[:, :2], y[:, 2:])), dim=1)

    y0 = torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    a, b = solve(SDETerm(drift, diffusion), y0, [0, 1], dt=0.1, seed=2, method=method).ys
    term = SDETerm(joined(drift), joined(diffusion))
    flat = solve(term, torch.cat(y0, dim=1), [0, 1], dt=0.1, seed=2, method=method).ys
    assert (a.shape, b.shape) == ((2, 4, 2), (2, 4, 1))
    assert torch.equal(torch.cat((a, b), dim=2), flat)


def test_a_dict_of_states_under_general_noise() -> None:
    y0 = {"x": torch.zeros(3, 2, dtype=torch.float64), "v": torch.zeros(3, 1, dtype=torch.float64)}
    term = SDETerm(
        lambda t, y: {k: torch.zeros_like(x) for k, x in y.items()},
        lambda t, y: {k: torch.ones(*x.shape, 4, dtype=x.dtype) for k, x in y.items()},
        noise="general",
    )
    rows = wiener(10, 3, 4)
    ys = solve(term, y0, [0, 1], dt=0.1, noise=rows).ys
    for name in y0:
        torch.testing.assert_close(ys[name][-1], rows.sum((0, 2))[:, None].expand_as(y0[name]))


def test_two_batch_axes_and_none() -> None:
    term = SDETerm(lambda t, y: -y, lambda t, y: 0.5 * torch.ones_like(y))
    seeds = sample_seeds(4, 6)
    grid = solve(term, torch.ones(2, 3, 2), [0, 1], dt=0.1, seed=seeds.reshape(2, 3), batch_dims=2)
    rows = solve(term, torch.ones(6, 2), [0, 1], dt=0.1, seed=seeds)
    assert grid.status.shape == (2, 3)
    assert torch.equal(grid.ys.reshape(2, 6, 2), rows.ys)
    vector = solve(term, torch.ones(2), [0, 1], dt=0.1, seed=4)
    assert torch.equal(vector.ys, rows.ys[:, 0])


def test_between_grid_points_the_path_is_a_straight_line() -> None:
    term = SDETerm(lambda t, y: -y, lambda t, y: torch.ones_like(y))
    y0 = torch.ones(3, 1, dtype=torch.float64)
    a, b = solve(term, y0, [0.0, 0.1, 0.2], dt=0.1, seed=1).ys[1:]
    between = solve(term, y0, [0.0, 0.13, 0.2], dt=0.1, seed=1).ys[1]
    torch.testing.assert_close(between, 0.7 * a + 0.3 * b)


@pytest.mark.parametrize("method", ["heun", "milstein", "reversibleheun"])
def test_a_failing_sample_leaves_the_others_untouched(method: str) -> None:
    def drift(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((y[:, :1] > 100) & (t > 0.45), torch.nan, -y)

    term = SDETerm(drift, lambda t, y: 0.1 * torch.cos(y), calculus="stratonovich")
    y0 = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    seeds = sample_seeds(1, 3)
    options: dict[str, Any] = {"method": method, "dt": 0.1}
    ts = [0.0, 0.2, 1.0]
    solution = solve(term, y0, ts, seed=seeds, throw=False, **options)
    assert solution.status.tolist() == [Status.SUCCESS, Status.NONFINITE, Status.SUCCESS]
    assert solution.valid.tolist() == [[True, True, True], [True, True, True], [True, False, True]]
    healthy = torch.tensor([0, 2])
    assert torch.equal(solution.ys[:, healthy], solve(term, y0[healthy], ts, seed=seeds[healthy], **options).ys)
    assert bool(torch.isfinite(solution.ys).all())


@pytest.mark.parametrize("method", ["euler", "milstein", "heun", "reversibleheun"])
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_the_gradient_is_the_finite_difference_of_the_same_path(method: str, adjoint: str) -> None:
    calculus = "ito" if method in ("euler", "milstein") else "stratonovich"
    term = SDETerm(lambda t, y, a: -a[0] * y, lambda t, y, a: a[1] * torch.cos(y), calculus=calculus)
    y0 = torch.tensor([[0.3], [-0.7]], dtype=torch.float64)

    def loss(a: Tensor) -> Tensor:
        solution = solve(term, y0, [0, 1], args=a, method=method, dt=0.13, seed=5, adjoint=adjoint)
        return solution.ys[-1].square().sum()

    a = torch.tensor([0.5, 0.4], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(loss, (a,))


# ---- misuse


def diffusing(noise: str = "diagonal", calculus: str = "ito") -> SDETerm:
    extra = 0 if noise == "diagonal" else {"scalar": 1}.get(noise, 2)
    return SDETerm(
        lambda t, y: -y,
        lambda t, y: torch.cos(y) if not extra else torch.cos(y).unsqueeze(-1).expand(*y.shape, extra),
        noise=noise,  # type: ignore[arg-type]
        calculus=calculus,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
@pytest.mark.parametrize(
    ("method", "calculus", "mend"),
    [("euler", "stratonovich", "heun"), ("heun", "ito", "euler"), ("reversibleheun", "ito", "euler")],
)
def test_a_method_of_the_other_calculus_is_refused(method: str, calculus: str, mend: str, noise: str) -> None:
    with pytest.raises(ValueError, match=rf"^method: '{method}' converges to the .*{mend}"):
        solve(diffusing(noise, calculus), torch.ones(2, 1), [0, 1], method=method, dt=0.1, seed=0)


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
@pytest.mark.parametrize("method", ["euler", "heun", "milstein", "reversibleheun"])
def test_additive_noise_has_one_calculus(method: str, calculus: str) -> None:
    constant = torch.tensor([[0.5, 0.2]], dtype=torch.float64)
    term = SDETerm(
        lambda t, y: -y,
        lambda t, y: constant.expand(*y.shape, 2),
        noise="additive",
        calculus=calculus,  # type: ignore[arg-type]
    )
    other = SDETerm(term.drift, term.diffusion, noise="additive")
    y0 = torch.ones(2, 1, dtype=torch.float64)
    first, second = (solve(t, y0, [0, 1], method=method, dt=0.1, seed=0).ys for t in (term, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_milstein_refuses_general_noise(calculus: str) -> None:
    with pytest.raises(ValueError, match=r"^method: 'milstein' needs diagonal or scalar or additive noise.*'heun'"):
        solve(diffusing("general", calculus), torch.ones(2, 1), [0, 1], method="milstein", dt=0.1, seed=0)


def test_without_a_method_the_calculus_chooses() -> None:
    y0 = torch.ones(2, 1)
    for calculus, method in (("ito", "euler"), ("stratonovich", "heun")):
        default = solve(diffusing(calculus=calculus), y0, [0, 1], dt=0.1, seed=0).ys
        assert torch.equal(default, solve(diffusing(calculus=calculus), y0, [0, 1], method=method, dt=0.1, seed=0).ys)


REFUSED = [
    ({"noise": "diagnal"}, "diagonal"),
    ({"calculus": "itô"}, "ito"),
    ({"drift": 3}, "^drift: expected a callable"),
    ({"diffusion": None}, "^diffusion: expected a callable"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_term_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    settings = {"drift": torch.neg, "diffusion": torch.cos, **change}
    with pytest.raises(ValueError, match=message):
        SDETerm(**settings)


@pytest.mark.parametrize(
    ("noise", "shape", "message"),
    [
        ("diagonal", (2, 4), "^diffusion: .*expected the state's"),
        ("diagonal", (2, 3, 1), "^diffusion: .*expected the state's"),
        ("general", (2, 3), "^diffusion: .*one axis for the Brownian motions"),
        ("general", (3, 2, 3), "^diffusion: .*one axis for the Brownian motions"),
        ("additive", (2, 3), "^diffusion: .*one axis for the Brownian motions"),
        ("scalar", (2, 3, 2), "^diffusion: scalar noise has one Brownian motion, got 2; use noise='general'"),
    ],
)
def test_a_diffusion_of_the_wrong_shape_is_refused(noise: Any, shape: tuple[int, ...], message: str) -> None:
    term = SDETerm(lambda t, y: -y, lambda t, y: torch.ones(shape), noise=noise)
    with pytest.raises(ValueError, match=message):
        solve(term, torch.ones(2, 3), [0, 1], dt=0.1, seed=0, batch_dims=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "^dt: 'euler' has no error estimate and takes fixed steps; pass dt="),
        ({"dt": 0.0}, "dt"),
        ({"dt": -0.1}, "dt"),
        ({"dt": math.nan}, "dt"),
        ({"dt": 0.1, "method": "tsit5"}, "^method: 'tsit5' solves ODE"),
        ({"dt": 0.1, "method": "eulr"}, "euler"),
        ({"dt": 0.1, "adjoint": "backsolve"}, None),
    ],
)
def test_options_that_do_not_go_with_an_sde_are_refused(options: dict[str, Any], message: str | None) -> None:
    y0 = torch.ones(2, 1, requires_grad=message is None)
    with pytest.raises(ValueError, match=message or "^adjoint: backsolve is for ODEs"):
        solve(diffusing(), y0, [0, 1], seed=0, **options)


def test_noise_for_an_ode_and_complex_states_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^noise: an ODE has none"):
        solve(lambda t, y: -y, torch.ones(2, 1), [0, 1], dt=0.1, noise=torch.zeros(10, 2, 1))
    with pytest.raises(ValueError, match=r"^y0: complex"):
        solve(diffusing(), torch.ones(2, 1, dtype=torch.complex64), [0, 1], dt=0.1, seed=0)
