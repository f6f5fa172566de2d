"""Distillation finds known sparse systems again, term by term, and says how well it did."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import solve
from sciode.distill import distill, evaluate, polynomials, trigonometric

Law = Callable[[Tensor, Tensor], Tensor]
SYSTEMS: dict[str, tuple[Law, str, tuple[float, float], list[dict[str, float]]]] = {
    "Lotka-Volterra": (
        lambda t, y: torch.stack((1.1 * y[:, 0] - 0.4 * y[:, 0] * y[:, 1], 0.1 * y.prod(1) - 0.4 * y[:, 1]), -1),
        "xy",
        (0.2, 8.0),
        [{"x": 1.1, "x*y": -0.4}, {"x*y": 0.1, "y": -0.4}],
    ),
    "van der Pol": (
        lambda t, y: torch.stack((y[:, 1], 1.5 * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]), -1),
        "xv",
        (-3.0, 3.0),
        [{"v": 1.0}, {"v": 1.5, "x^2*v": -1.5, "x": -1.0}],
    ),
    "friction": (
        lambda t, y: -0.3 * y - 0.2 * y * y.abs(),
        "v",
        (-3.0, 3.0),
        [{"v": -0.3, "v*abs(v)": -0.2}],
    ),
    "pendulum": (
        lambda t, y: torch.stack((y[:, 1], -9.81 * y[:, 0].sin() - 0.5 * y[:, 1]), -1),
        "av",
        (-3.0, 3.0),
        [{"v": 1.0}, {"sin(a)": -9.81, "v": -0.5}],
    ),
}
each_system = pytest.mark.parametrize("name", SYSTEMS)


def _library(names: str) -> list[str]:
    return [*polynomials(names, 3), *trigonometric(names), *(f"{name}*abs({name})" for name in names)]


def _samples(name: str, generator: torch.Generator, count: int = 600) -> Tensor:
    _, names, (low, high), _ = SYSTEMS[name]
    return low + (high - low) * torch.rand(count, len(names), generator=generator, dtype=torch.float64)


def _noisy(law: Law, share: float, generator: torch.Generator) -> Law:
    """The law with errors of `share` of each component's spread."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        value = law(t, y)
        return value + share * value.std(0) * torch.randn(value.shape, generator=generator, dtype=value.dtype)

    return field


def _standard_errors(terms: list[str], samples: Tensor, names: str, noise: float) -> dict[str, float]:
    """Of least squares on the 70 % of the samples that are fitted: noise × sqrt of the diagonal of (AᵀA)⁻¹."""
    matrix = torch.stack([evaluate(term, samples, names) for term in terms], -1)
    variances = torch.linalg.inv(0.7 * matrix.T @ matrix).diagonal()
    return dict(zip(terms, (noise * variances.sqrt()).tolist(), strict=True))


@each_system
def test_an_exact_field_is_found_to_rounding(name: str) -> None:
    law, names, _, truth = SYSTEMS[name]
    found = distill(law, _samples(name, torch.Generator().manual_seed(0)), _library(names), names=names)
    assert [set(terms) for terms in found.coefficients] == [set(terms) for terms in truth]
    for terms, wanted in zip(found.coefficients, truth, strict=True):
        assert all(abs(terms[term] - value) < 1e-10 for term, value in wanted.items())
    assert all(score > 1 - 1e-12 for score in found.score)


@pytest.mark.parametrize("seed", [0, 1, 2])
@each_system
def test_a_noisy_field_is_found_exactly_in_structure_and_within_its_standard_errors(name: str, seed: int) -> None:
    law, names, _, truth = SYSTEMS[name]
    generator = torch.Generator().manual_seed(seed)
    samples = _samples(name, generator)
    found = distill(_noisy(law, 0.02, generator), samples, _library(names), names=names, seed=seed)
    assert [set(terms) for terms in found.coefficients] == [set(terms) for terms in truth]
    spreads = law(torch.zeros(()), samples).std(0)
    for terms, wanted, score, spread in zip(found.coefficients, truth, found.score, spreads, strict=True):
        errors = _standard_errors(list(wanted), samples, names, 0.02 * float(spread))
        # Two percent of noise leaves R² = 1 - 4e-4.
        assert score > 0.999
        assert all(abs(terms[term] - value) < 5 * errors[term] for term, value in wanted.items())


def test_a_distilled_field_is_solved_like_the_law_it_came_from() -> None:
    law, names, _, _ = SYSTEMS["van der Pol"]
    found = distill(law, _samples("van der Pol", torch.Generator().manual_seed(0)), _library(names), names=names)
    y0 = torch.tensor([[1.0, 0.0], [-0.5, 2.0]], dtype=torch.float64)
    ts = [0.0, 2.0, 5.0]
    torch.testing.assert_close(solve(found, y0, ts).ys, solve(law, y0, ts).ys, rtol=1e-6, atol=1e-6)


def test_expressions_are_their_coefficients_and_the_printed_text_holds_them() -> None:
    law, names, _, _ = SYSTEMS["Lotka-Volterra"]
    found = distill(law, _samples("Lotka-Volterra", torch.Generator().manual_seed(0)), names=names)
    assert found.expressions == ("1.1*x - 0.4*x*y", "-0.4*y + 0.1*x*y")
    assert all(text in str(found) for text in found.expressions)


def test_a_component_without_a_law_is_zero_or_constant() -> None:
    samples = torch.rand(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = distill(lambda t, y: torch.stack((torch.zeros_like(y[:, 0]), torch.full_like(y[:, 0], 2.5)), -1), samples)
    assert found.expressions == ("0", "2.5") and found.score == (1.0, 1.0)
    assert found(torch.zeros(()), samples[:3]).shape == (3, 2)


def test_noise_alone_has_no_law_and_the_score_says_so() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(600, 2, generator=generator, dtype=torch.float64)
    found = distill(lambda t, y: torch.randn(600, 1, generator=generator, dtype=y.dtype), samples)
    assert found.score[0] < 0.05 and len(found.coefficients[0]) <= 2


def test_terms_that_cannot_be_told_apart_cost_only_the_surplus_ones() -> None:
    """1 = sin² + cos²: the three together have no unique coefficients, two of them do."""
    samples = 6 * torch.rand(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    library = ["1", "sin(x)*sin(x)", "cos(x)*cos(x)", "x"]
    found = distill(lambda t, y: 2 + y.sin() ** 2, samples, library, names="x")
    assert len(found.coefficients[0]) == 2 and found.score[0] > 1 - 1e-12


def test_the_split_is_the_seeds_alone() -> None:
    law, names, _, _ = SYSTEMS["friction"]
    samples = _samples("friction", torch.Generator().manual_seed(0))
    values = _noisy(law, 0.1, torch.Generator().manual_seed(1))(torch.zeros(()), samples)
    first, again, other = (distill(lambda t, y: values, samples, names=names, seed=seed) for seed in (3, 3, 4))
    assert first.coefficients == again.coefficients != other.coefficients


SAMPLES = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("mend", "arguments"),
    [
        (r"flatten\(0, -2\)", {"samples": SAMPLES[None]}),
        ("must be finite", {"samples": SAMPLES / 0}),
        ("different Python names", {"names": ("a", "a")}),
        ("stands in it twice", {"library": ["y0", "y0"]}),
        ("no factor of a term", {"library": ["z"]}),
        ("sample more", {"library": polynomials(["y0", "y1"], 9)}),
        ("backend must be", {"backend": "sindy"}),
        (r"held_out must lie in \(0, 1\)", {"held_out": 1.0}),
        ("options are for", {"options": {"niterations": 3}}),
        (r"must return \[N, m\]", {"field": lambda t, y: y.sum()}),
        ("not finite on all samples", {"field": lambda t, y: y / 0}),
    ],
)
def test_misuse_says_the_mend(mend: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=mend):
        distill(**{"field": lambda t, y: y, "samples": SAMPLES, **arguments})


def test_a_missing_pysr_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysr", None)
    with pytest.raises(ImportError, match=r"sciode\[symbolic\]"):
        distill(lambda t, y: y, SAMPLES, backend="pysr")


class _Doubling(torch.nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return 2 * rows[:, 0]


class _Search:
    """What `distill` needs of PySRRegressor: takes options, sees the training samples, gives text and a module."""

    def __init__(self, **options: Any) -> None:
        assert options["random_state"] == 5 and options["niterations"] == 3

    def fit(self, samples: Any, target: Any, variable_names: list[str]) -> None:
        assert samples.shape == (35, 2) and target.shape == (35,) and variable_names == ["a", "b"]

    def sympy(self) -> str:
        return "2*a"

    def pytorch(self) -> torch.nn.Module:
        return _Doubling()


def test_pysrs_result_is_scored_on_held_out_samples_and_is_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("pysr")
    stand_in.PySRRegressor = _Search  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pysr", stand_in)
    found = distill(lambda t, y: 2 * y, SAMPLES, names=["a", "b"], backend="pysr", seed=5, options={"niterations": 3})
    assert found.expressions == ("2*a", "2*a") and found.coefficients == ({}, {})
    assert found.score[0] == 1 and found.score[1] < 0
    y = SAMPLES.reshape(5, 10, 2)
    assert torch.equal(found(torch.zeros(()), y), 2 * y[..., :1].expand(5, 10, 2))
