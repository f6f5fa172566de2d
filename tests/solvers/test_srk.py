"""Stochastic Runge-Kutta tables: orders against exact solutions on the same path, wrong tables, an oracle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode import SDETerm, methods, sample_seeds, solve
from sciode.solvers.brownian import BrownianTree
from sciode.solvers.tableaux import AdditiveTableau, ItoTableau, stochastic
from sciode.testing import check_method

A, B = 0.4, 0.8
LOADING = torch.tensor([[0.7, 0.2], [0.0, 0.5]], dtype=torch.float64)
ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


class Exact(NamedTuple):
    """An SDE from y0 at 0 whose solution at 1 is a function of W(1) [B, m]; None: a fine solve stands for it."""

    term: SDETerm
    y0: tuple[float, ...]
    solution: Callable[[Tensor], Tensor] | None
    channels: int = 1


def turning(y: Tensor) -> Tensor:
    return (y @ ROTATION.T).unsqueeze(-1)


def circle(w: Tensor) -> Tensor:
    return torch.cat((torch.cos(w), torch.sin(w)), dim=1)


def additive(frequency: float) -> Exact:
    return Exact(
        SDETerm(
            lambda t, y: torch.sin(frequency * y.flip(1)) - y,
            lambda t, y: LOADING.expand(len(y), 2, 2),
            noise="additive",
            calculus="stratonovich",
        ),
        (0.5, -1.0),
        None,
        channels=2,
    )


PROBLEMS = {
    "ito diagonal": Exact(
        SDETerm(lambda t, y: A * y, lambda t, y: B * y), (1.0,), lambda w: torch.exp(A - B * B / 2 + B * w)
    ),
    # y = atan(2 W + tan y0): dy = 2 cos(y)^2 o dW.
    "ito curved": Exact(
        SDETerm(lambda t, y: -4 * torch.sin(y) * torch.cos(y) ** 3, lambda t, y: 2 * torch.cos(y) ** 2),
        (0.5,),
        lambda w: torch.atan(2 * w + math.tan(0.5)),
    ),
    "ito damped": Exact(
        SDETerm(lambda t, y: -2 * y, lambda t, y: 0.3 * y), (1.0,), lambda w: torch.exp(-2 - 0.045 + 0.3 * w)
    ),
    "ito scalar": Exact(SDETerm(lambda t, y: -0.5 * y, lambda t, y: turning(y), noise="scalar"), (1.0, 0.0), circle),
    "stratonovich diagonal": Exact(
        SDETerm(lambda t, y: A * y, lambda t, y: B * y, calculus="stratonovich"), (1.0,), lambda w: torch.exp(A + B * w)
    ),
    "stratonovich scalar": Exact(
        SDETerm(lambda t, y: 0 * y, lambda t, y: turning(y), noise="scalar", calculus="stratonovich"),
        (1.0, 0.0),
        circle,
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
    "additive in time": Exact(
        SDETerm(
            lambda t, y: torch.sin(2 * y.flip(1)) - y + torch.cos(3 * t),
            lambda t, y: (1 + torch.sin(4 * t)).unsqueeze(-1) * LOADING,
            noise="additive",
            calculus="stratonovich",
        ),
        (0.5, -1.0),
        None,
        channels=2,
    ),
    "additive nonlinear": additive(2.0),
    "additive mild": additive(1.0),
}

ITO = ["ito diagonal", "ito curved", "ito scalar"]
ADDITIVE = ["additive in time", "additive nonlinear"]
COMMUTATIVE = ["stratonovich diagonal", "stratonovich scalar", "commutative general"]
STRONG = [
    *((m, name, 1.5) for m in ("sriw1", "sosri") for name in ITO),
    *((m, name, 1.5) for m in ("sra1", "shark", "spark") for name in ADDITIVE),
    *(("spark", name, 1.0) for name in COMMUTATIVE),
]


def end_of_path(seeds: Tensor, channels: int) -> Tensor:
    """W(1) [B, m] of the path that `solve` walks over [0, 1]."""
    start, span = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return BrownianTree(seeds, channels, start, span, 26, False, torch.float64).path(span[None])[0]


def ends(method: str, problem: Exact, seeds: Tensor, steps: int) -> Tensor:
    y0 = torch.tensor(problem.y0, dtype=torch.float64).expand(len(seeds), -1)
    return solve(problem.term, y0, [0.0, 1.0], method=method, dt=1 / steps, seed=seeds).ys[-1]


def deviations(method: str, name: str, samples: int, levels: tuple[int, ...]) -> Tensor:
    """y_steps - y(1) [levels, B, D]."""
    problem, seeds = PROBLEMS[name], sample_seeds(3, samples)
    if problem.solution is None:
        exact = ends(method, problem, seeds, 4 * levels[-1])
    else:
        exact = problem.solution(end_of_path(seeds, problem.channels))
    return torch.stack([ends(method, problem, seeds, n) - exact for n in levels])


@pytest.mark.parametrize(("method", "name", "order"), STRONG)
def test_strong_order(method: str, name: str, order: float) -> None:
    errors = deviations(method, name, 300, (32, 64, 128)).square().sum(-1).mean(-1).sqrt().log2()
    slope = float(errors[0] - errors[-1]) / 2
    assert abs(slope - order) < 0.25


def test_every_table_is_measured_at_the_order_it_claims() -> None:
    for method in stochastic():
        orders = {order for m, name, order in STRONG if m == method and (method != "spark" or name not in ADDITIVE)}
        assert orders == {methods("sde")[method].order}
        assert methods("sde")[method].adaptive and methods("sde")[method].error_order == 1.5


@pytest.mark.parametrize(
    ("method", "name", "order"),
    [
        ("sriw1", "ito damped", 2.0),
        ("sosri", "ito damped", 2.0),
        ("sra1", "additive mild", 2.0),
        ("shark", "additive mild", 2.0),
        ("spark", "additive mild", 2.0),
    ],
)
def test_weak_order(method: str, name: str, order: float) -> None:
    """Of the mean, less that of the exact solution on the same paths, so that little sampling error is left."""
    found = deviations(method, name, 4000, (4, 8, 16))
    means, noise = found.mean(1), found.std(1) / math.sqrt(found.shape[1])
    biggest = int(means[0].abs().argmax())
    weak, spread = means[:, biggest].abs(), noise[:, biggest]
    slope = float((weak[0] / weak[-1]).log2()) / 2
    uncertainty = float((spread / weak).square().sum().sqrt()) / 2 / math.log(2)
    assert abs(slope - order) < 0.25 + 2 * uncertainty and uncertainty < 0.3


@pytest.mark.parametrize("method", sorted(stochastic()))
def test_the_error_estimate_has_its_order_and_the_size_of_the_error(method: str) -> None:
    """Of single steps: rms(error) falls by 2^1.5 a halving."""
    name = {"sra1": "additive nonlinear", "shark": "additive nonlinear", "spark": "stratonovich diagonal"}
    problem, seeds = PROBLEMS[name.get(method, "ito diagonal")], sample_seeds(5, 4000)
    y0 = torch.tensor(problem.y0, dtype=torch.float64).expand(len(seeds), -1)
    sizes = []
    for h in (1 / 64, 1 / 128, 1 / 256):
        found = solve(problem.term, y0, [0.0, h], method=method, dt=h, seed=seeds, rtol=0.0, atol=1.0,
                      regularize="error").penalties["error"] / h  # fmt: skip
        sizes.append(float(found.square().mean().sqrt()))
    slope = math.log2(sizes[0] / sizes[-1]) / 2
    assert abs(slope - 1.5) < 0.25


@pytest.mark.parametrize("name", sorted(stochastic()))
def test_a_table_with_a_wrong_entry_does_not_exist(name: str) -> None:
    table = stochastic()[name]
    numeric = [f.name for f in dataclasses.fields(table) if f.name not in ("name", "reference")]
    for field in numeric:
        for path, value in _entries(getattr(table, field)):
            if value and not (field == "b0" and name == "sosri" and path[0] == 3):
                with pytest.raises(ValueError, match=rf"^tableau '{name}': the condition .* fails by"):
                    dataclasses.replace(table, **{field: _changed(getattr(table, field), path, value + 1e-6)})


def _entries(value: Any, path: tuple[int, ...] = ()) -> Any:
    if not isinstance(value, tuple):
        yield path, value
        return
    for i, part in enumerate(value):
        yield from _entries(part, (*path, i))


def _changed(value: Any, path: tuple[int, ...], entry: float) -> Any:
    if not path:
        return entry
    return tuple(_changed(v, path[1:], entry) if i == path[0] else v for i, v in enumerate(value))


def test_a_table_of_ones_own_is_one_constant_and_needs_no_registration() -> None:
    """Between sra1 and shark: a first stage at y, moved by c H, for any c that leaves the conditions solvable."""
    mine = AdditiveTableau(name="mine", a=((), (3 / 4,)), w=(0, 3 / 4), h=(0, 3 / 2), b=(1 / 3, 2 / 3))
    problem = PROBLEMS["additive nonlinear"]
    y0 = torch.tensor([problem.y0] * 3, dtype=torch.float64)
    own, ours = (solve(problem.term, y0, [0, 1], method=m, rtol=1e-3, seed=0).ys for m in (mine, "sra1"))
    assert torch.equal(own, ours)
    assert check_method(mine, "sde").name == "mine"
    assert isinstance(stochastic()["sosri"], ItoTableau) and "mine" not in methods("sde")


@pytest.mark.parametrize("method", ["sra1", "shark", "spark"])
def test_diffrax_takes_the_same_steps_on_the_same_path(method: str) -> None:
    state = np.random.get_state()  # noqa: NPY002 - importing jax draws from it
    diffrax, jax = pytest.importorskip("diffrax"), pytest.importorskip("jax")
    np.random.set_state(state)  # noqa: NPY002
    solver = {"sra1": diffrax.SRA1, "shark": diffrax.ShARK, "spark": diffrax.SPaRK}[method]()
    problem, seed, n = PROBLEMS["additive nonlinear"], sample_seeds(9, 1), 8
    start, span = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    tree = BrownianTree(seed, 2, start, span, 26, True, torch.float64)
    with jax.enable_x64(True):
        jnp = jax.numpy
        matrix = jnp.array([[0.7, 0.2], [0.0, 0.5]])

        class Given(diffrax.AbstractBrownianPath):
            levy_area: Any = diffrax.SpaceTimeLevyArea

            @property
            def t0(self) -> float:
                return 0.0

            @property
            def t1(self) -> float:
                return 1.0

            def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
                t0, t1 = float(t0), float(t1)
                w, h = tree.over(torch.tensor([t0]).double(), torch.tensor([t1 - t0]).double())[:, 0].numpy()
                if not use_levy:
                    return jnp.array(w)
                return diffrax.SpaceTimeLevyArea(dt=jnp.array(t1 - t0), W=jnp.array(w), H=jnp.array(h))

        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: jnp.sin(2 * y[::-1]) - y),
            diffrax.ControlTerm(lambda t, y, args: matrix, Given()),
        )
        y, state = jnp.array(problem.y0), None
        with jax.disable_jit():
            state = solver.init(terms, 0.0, 1 / n, y, None)
            for i in range(n):
                y, _, _, state, _ = solver.step(terms, i / n, (i + 1) / n, y, None, state, False)
        want = np.asarray(y)
    got = ends(method, problem, seed, n)[0]
    torch.testing.assert_close(got, torch.from_numpy(want.copy()), rtol=1e-12, atol=1e-12)
