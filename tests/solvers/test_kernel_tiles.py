"""Fields of matrix products in the kernel engine, and clocks that are shared: what eager gives, to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciode import Save, SDETerm, Solution, Status, solve
from sciode.bench.problems import neural_ode
from sciode.bench.stochastic import neural_sde
from sciode.solvers import begin
from sciode.solvers.engines import witness
from sciode.solvers.engines.kernel import engine
from sciode.solvers.engines.kernel.source import Kernel, kernel_source
from sciode.solvers.terms import as_term

pytest.importorskip("triton", reason="the kernel engine writes Triton")
pytestmark = [
    pytest.mark.usefixtures("forgetful"),
    # Falling back unasked is a failure.
    pytest.mark.filterwarnings("error::sciode.solvers.engines.CompileNotice"),
]

TS = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


Kernels = list[Kernel]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """The kernels that a test wrote; none serves the next."""
    written: Kernels = []

    def write(design: Any, formula: Any) -> Kernel:
        written.append(kernel_source(design, formula))
        return written[-1]

    monkeypatch.setattr(engine, "kernel_source", write)
    yield written


def agree(*arguments: Any, **options: Any) -> Solution:
    with torch.no_grad():
        ours, eager = (solve(*arguments, engine=engine, **options) for engine in ("kernel", "eager"))
    assert (ours.stats.engine, eager.stats.engine) == ("kernel", "eager")
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-10)
    for name in ("valid", "status"):
        assert torch.equal(getattr(ours, name), getattr(eager, name)), name
    for name in ("nfe", "accepted", "rejected"):
        assert torch.equal(getattr(ours.stats, name), getattr(eager.stats, name)), name
    return ours


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Net(nn.Module):
    """Three layers; before them, what `how` says joins the state."""

    def __init__(self, size: int, hidden: int, how: str = "") -> None:
        super().__init__()
        more = {"": 0, "time": 1, "circle": 2, "own": 3}[how]
        self.how = how
        shapes = ((hidden, size + more), (hidden, hidden), (size, hidden))
        self.weights = nn.ParameterList([normal(*s, seed=i) / s[1] ** 0.5 for i, s in enumerate(shapes)])
        self.biases = nn.ParameterList([normal(s[0], seed=3 + i) for i, s in enumerate(shapes[:2])])

    def forward(self, t: Tensor, y: Tensor, own: Any = None) -> Tensor:
        """A network with activations that do not keep zero, so that padding has to be told apart."""
        if self.how == "time":
            y = torch.cat((t.expand(y.shape[0], 1), y), -1)
        if self.how == "circle":
            y = torch.cat((torch.sin(t), torch.cos(t), y), -1)
        if self.how == "own":
            y = torch.cat((y, own), -1)
        hidden = torch.sigmoid(F.linear(y, self.weights[0], self.biases[0]))
        return F.linear(F.softplus(F.linear(hidden, self.weights[1], self.biases[1])), self.weights[2]) + 0.5


def test_a_neural_ode_is_solved_in_tiles(kernels: Kernels) -> None:
    problem = neural_ode(batch=20, dtype=torch.float64)
    agree(problem.field, problem.y0, TS, method="dopri5")
    (kernel,) = kernels
    assert kernel.tiled and "tl.dot" in kernel.text


@pytest.mark.parametrize("how", ["", "time", "circle", "own"])
def test_what_is_joined_to_the_state_has_columns_of_its_own(kernels: Kernels, how: str) -> None:
    # 6 and 24 columns: both are padded, and 20 samples leave a tile of 16 and a part of one.
    args = normal(20, 3, seed=9) if how == "own" else None
    agree(Net(6, 24, how), normal(20, 6), TS, args=args, rtol=1e-6)
    assert all(kernel.tiled for kernel in kernels)


def test_a_network_of_one_output_is_a_sum_along_rows(kernels: Kernels) -> None:
    down, up = normal(1, 40), normal(40, 7, seed=1)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y * F.linear(torch.tanh(F.linear(y, up)), down).square() - y * y.square().mean(-1, keepdim=True)

    agree(field, normal(5, 7), TS)
    assert all(kernel.tiled for kernel in kernels)


def test_tolerances_of_components_and_times_of_samples_keep_their_place() -> None:
    rtol = torch.logspace(-6, -3, 6, dtype=torch.float64)
    own = torch.stack([TS * (1 + i / 3) for i in range(4)], 1)
    own[3:, 2] = torch.nan
    agree(Net(6, 24), normal(4, 6), own, rtol=rtol, atol=rtol * 0.1)


def test_a_tile_of_which_one_row_fails_solves_the_others() -> None:
    net = Net(6, 24)
    y0 = normal(5, 6)
    y0[2, 0] = 50.0

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((t > 0.5) & (y[..., :].abs().square().mean(-1, keepdim=True) > 100), torch.nan, net(t, y))

    ours = agree(field, y0, TS, method="rk4", dt=0.1, throw=False)
    assert ours.status.tolist() == [0, 0, int(Status.NONFINITE), 0, 0]


@pytest.mark.parametrize(("method", "calculus"), [("euler", "ito"), ("reversibleheun", "stratonovich")])
def test_a_neural_sde_walks_the_path_that_eager_walks(kernels: Kernels, method: str, calculus: Any) -> None:
    problem = neural_sde(batch=20, method=method).to(torch.float64)
    term = SDETerm(problem.field.f, problem.field.g, calculus=calculus)
    # 0.013 does not divide the interval: the last cell is cut.
    agree(term, problem.y0, TS, method=method, dt=0.013, seed=7, coupled=True)
    (kernel,) = kernels
    assert kernel.tiled


def test_seven_channels_of_noise_are_two_blocks_of_the_hash() -> None:
    drift, diffusion = Net(7, 20), Net(7, 20)
    agree(SDETerm(drift, diffusion), normal(18, 7), TS, dt=0.1, seed=1)
    agree(SDETerm(drift, diffusion), normal(18, 7), TS, dt=0.25, noise=normal(4, 18, 7, seed=3))


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("method", ["tsit5", "reversibleheun"])
def test_gradients_through_tiles_are_those_of_the_tape(method: str) -> None:
    net, y0 = Net(5, 20, "time"), normal(3, 5).requires_grad_()
    how: dict[str, Any] = {}
    field: Any = net
    if method == "reversibleheun":
        field = SDETerm(net, lambda t, y: 0.2 * torch.cos(y), calculus="stratonovich")
        how = {"dt": 0.2, "seed": 3}

    def gradient(**options: Any) -> tuple[Tensor, ...]:
        solution = solve(field, y0, TS, method=method, **how, **options)
        assert solution.stats.engine == options["engine"]
        return torch.autograd.grad(solution.ys.square().mean(), (y0, *net.parameters()))

    for a, b in zip(gradient(engine="kernel"), gradient(engine="eager", adjoint="direct"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


def test_the_small_form_and_the_tiles_are_one_field(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    small = agree(Net(3, 5), normal(4, 3), TS)
    assert not any(kernel.tiled for kernel in kernels)
    witness._lifts.clear()
    kernels.clear()
    monkeypatch.setattr(engine, "_MATRIX", 1)
    tiles = agree(Net(3, 5), normal(4, 3), TS)
    assert all(kernel.tiled for kernel in kernels)
    torch.testing.assert_close(small.ys, tiles.ys, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("when", [0.35, 0.0])
def test_samples_on_one_clock_end_together_where_one_of_them_fails(when: float) -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((t >= when) & (y[:, :1] > 2), torch.nan, -y)

    y0 = torch.ones(20, 2, dtype=torch.float64)
    healthy = agree(field, y0, TS, method="rk4", dt=0.1, coupled=True)
    assert healthy.status.tolist() == [0] * 20
    y0[17] = 10.0
    failed = agree(field, y0, TS, method="rk4", dt=0.1, coupled=True, throw=False)
    assert failed.status.tolist() == [int(Status.NONFINITE)] * 20
    agree(field, y0[:5], TS, method="rk4", dt=0.1, coupled=True, max_steps=3, throw=False)


def test_a_field_that_is_not_finite_at_the_start_is_noticed_by_a_solve_that_does_not_look() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.log(y)

    y0 = torch.full((3, 2), 2.0, dtype=torch.float64)
    agree(field, y0, TS)
    y0 = y0.clone()
    y0[1, 0] = -1.0
    ours = agree(field, y0, TS, throw=False)
    assert ours.status.tolist() == [0, int(Status.NONFINITE), 0]


def test_a_second_solve_evaluates_nothing_outside_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(6, 24)
    first = agree(net, normal(4, 6), TS)
    monkeypatch.setattr(begin, "check_first", None)
    with torch.no_grad():
        second = solve(net, normal(4, 6), TS, engine="kernel")
    assert second.stats.engine == "kernel"
    assert torch.equal(first.ys, second.ys)


@pytest.mark.parametrize(("batch", "hidden", "suited"), [(4, 64, True), (4, 2048, False), (8192, 64, False)])
def test_small_networks_of_few_samples_suit_the_kernel(batch: int, hidden: int, suited: bool) -> None:
    problem = neural_ode(batch=batch, dim=8, hidden=hidden)
    wish = begin.Wish("dopri5", None, 1e-5, 1e-5, None, Save(), 1, False, None, None, ())
    laid = begin.lay_out(as_term(problem.field), problem.y0, problem.ts, None, wish)
    assert engine.suits(laid.problem, laid.y, False) is suited
    together = begin.lay_out(as_term(problem.field), problem.y0, problem.ts, None, wish._replace(coupled=True))
    assert not engine.suits(together.problem, together.y, False)
