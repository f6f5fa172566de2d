"""Kernels, processes and rules of bandits: formulas, closed forms, laws of draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciode.pinn.metalic.acquisition import RULES, drawn
from sciode.pinn.metalic.kernels import agreement, hamming, squared_exponential
from sciode.pinn.metalic.surrogate import KERNELS, Layout, Surrogate, fitted

REAL = torch.float64


def sets(conditions: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=conditions)), dtype=REAL)


def draws(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=REAL)


def seen(count: int, layout: Layout, target: Callable[[Tensor], Tensor], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows with random contexts, earlier rewards and sets, and their rewards with noise of 0.05."""
    numbers = draws(count, layout.earlier + layout.axes, seed=seed)
    bits = (draws(count, layout.width - numbers.shape[1], seed=seed + 1) > 0).to(REAL)
    rows = torch.cat((numbers, bits), 1)
    return rows, target(rows) + 0.05 * draws(count, seed=seed + 2)


def test_kernels_are_their_formulas() -> None:
    a, b = [1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]
    one, other = torch.tensor(a, dtype=REAL), torch.tensor(b, dtype=REAL)
    weights = torch.tensor([0.3, 0.7, 1.1, 2.0], dtype=REAL)
    assert float(hamming(one, other, weights)) == pytest.approx(math.exp(-0.7 - 1.1))
    assert float(agreement(one, other, torch.tensor(0.8))) == pytest.approx(math.exp(0.8 * 2 / 4))
    x, y = torch.tensor([0.2, -1.0], dtype=REAL), torch.tensor([1.2, 1.0], dtype=REAL)
    assert float(squared_exponential(x, y, torch.tensor(2.0))) == pytest.approx(math.exp(-5 / 8))


@pytest.mark.parametrize("formula", [hamming, agreement])
def test_kernels_over_all_sets_are_positive_semidefinite(formula: Callable[..., Tensor]) -> None:
    every = sets(6)
    weights = draws(6).abs() if formula is hamming else torch.tensor(1.7, dtype=REAL)
    values = torch.linalg.eigvalsh(formula(every[:, None], every[None], weights))
    assert float(values.min()) > -1e-12 * float(values.max())


def test_the_hamming_kernel_has_the_eigenvalues_of_a_product() -> None:
    """Of the 2 x 2 kernels [[1, e^-w], [e^-w, 1]]: products of 1 +- e^-w."""
    weights = torch.tensor([0.4, 1.3, 0.0], dtype=REAL)
    every = sets(3)
    values = torch.linalg.eigvalsh(hamming(every[:, None], every[None], weights))
    signs = 1 - 2 * sets(3)
    expected = (1 + signs * (-weights).exp()).prod(1).sort().values
    torch.testing.assert_close(values, expected)


def written_out(found: Surrogate, a: Tensor, b: Tensor) -> Tensor:
    """The kernel from its own numbers, term by term."""
    sets = torch.ones(len(a), len(b), dtype=REAL)
    numbers = [torch.ones(len(a), len(b), dtype=REAL) for _ in range(2)]
    lengths = [part for part in found.process.modules() if type(part).__name__ == "NumberKernel"]
    for part in [part for part in found.process.modules() if type(part).__name__ == "SetKernel"]:
        one, other = a[:, part.active_dims][:, None], b[:, part.active_dims][None]
        if found.kernel == "agreement":
            sets = sets * torch.exp(part.weights * (one == other).to(REAL).mean(-1))
        else:
            sets = sets * torch.exp(-((one != other) * part.weights).sum(-1))
    for place, part in enumerate(lengths):
        one, other = a[:, part.active_dims][:, None], b[:, part.active_dims][None]
        factor = torch.exp(-((one - other) ** 2).sum(-1) / (2 * part.lengthscale.squeeze() ** 2))
        numbers[place // len(found.layout.numbers)] = numbers[place // len(found.layout.numbers)] * factor
    scales = [part.outputscale for part in found.process.modules() if type(part).__name__ == "ScaleKernel"]
    if found.kernel == "additive":
        return scales[0] * numbers[0] + sets * (scales[1] + scales[2] * numbers[1])
    return sets * numbers[0] * (scales[0] if scales else 1.0)


def closed_form(found: Surrogate, rows: Tensor, targets: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """m + k'(K + s I)^-1 (y - m) and k'' - k'(K + s I)^-1 k'."""
    with torch.no_grad():
        mean, noise = found.process.mean_module.constant, found.process.likelihood.noise
        gram = written_out(found, rows, rows) + noise * torch.eye(len(rows), dtype=REAL)
        across = written_out(found, rows, asked)
        solved = torch.linalg.solve(gram, torch.cat(((targets - mean)[:, None], across), 1))
        return mean + across.T @ solved[:, 0], written_out(found, asked, asked) - across.T @ solved[:, 1:]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_posterior_is_that_of_the_closed_form(kernel: str) -> None:
    layout = Layout(1, 2, 3)
    rows, targets = seen(25, layout, lambda x: x[:, 0] + x[:, 3] * x[:, 1] - x[:, 7])
    found = fitted(rows[:20], targets[:20], layout, kernel).given(rows, targets)
    asked, _ = seen(12, layout, lambda x: x[:, 0], seed=9)
    mean, covariance = found.joint(asked)
    expected, spread = closed_form(found, rows, targets, asked)
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(covariance, spread, rtol=1e-5, atol=1e-7)


def test_fitting_raises_the_likelihood_and_leaves_global_state_alone() -> None:
    layout = Layout(0, 1, 4)
    rows, targets = seen(40, layout, lambda x: x[:, 1] - 0.5 * x[:, 2])
    before = torch.random.get_rng_state(), torch.get_default_dtype()
    few, many = fitted(rows, targets, layout, steps=1), fitted(rows, targets, layout)
    asked, truth = seen(200, layout, lambda x: x[:, 1] - 0.5 * x[:, 2], seed=5)
    errors = [float((one.joint(asked)[0] - truth).square().mean()) for one in (few, many)]
    assert errors[1] < errors[0] and errors[1] < 0.01
    assert torch.equal(torch.random.get_rng_state(), before[0]) and torch.get_default_dtype() == before[1]


def test_weights_say_which_condition_matters() -> None:
    layout = Layout(0, 1, 5)
    rows, targets = seen(60, layout, lambda x: 1.5 * x[:, 3] + 0.2 * torch.sin(x[:, 0]))
    weights = fitted(rows, targets, layout).weights
    assert int(weights.argmax()) == 2
    others = weights[[0, 1, 3, 4]]
    assert float(others.max()) < 0.1 * float(weights[2])


def test_a_condition_that_was_never_tried_is_in_doubt() -> None:
    """Else agents would never try it: with a prior that takes conditions for irrelevant they do not."""
    layout = Layout(0, 1, 4)
    rows, targets = seen(40, layout, lambda x: x[:, 1] - 0.5 * x[:, 2])
    rows[:, 4] = 0.0
    found = fitted(rows, targets, layout)
    asked = torch.cat((torch.zeros(16, 1, dtype=REAL), sets(4)), 1)
    spread = found.joint(asked)[1].diagonal().sqrt()
    assert float(spread[asked[:, 4] == 1].min()) > 3 * float(spread[asked[:, 4] == 0].max())


def test_draws_have_the_mean_and_covariance_that_they_are_asked_for() -> None:
    root = draws(5, 3)
    covariance, mean = root @ root.T, torch.arange(5, dtype=REAL)
    found = drawn(mean, covariance, 40_000, torch.Generator().manual_seed(1))
    centred = found - mean
    # Five standard errors of the entries: sqrt((S_ii S_jj + S_ij^2) / n).
    error = ((covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2) / len(found)).sqrt()
    assert bool(((centred.T @ centred / len(found) - covariance).abs() < 5 * error + 1e-12).all())
    assert bool(((found.mean(0) - mean).abs() < 5 * (covariance.diagonal() / len(found)).sqrt() + 1e-12).all())


def frequencies(rule: str, mean: Tensor, covariance: Tensor, count: int = 2000) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    chosen = [RULES[rule](mean, covariance, 1.0, generator) for _ in range(count)]
    return torch.bincount(torch.tensor(chosen), minlength=len(mean)) / count


def test_thompson_sampling_chooses_arms_as_often_as_they_are_the_best() -> None:
    """Of two arms: P = Phi(d / sqrt(s1^2 + s2^2 - 2 c)); one that is nearly the other hardly ever beats it."""
    mean = torch.tensor([0.3, 0.0], dtype=REAL)
    for shared in (0.0, 0.9):
        covariance = torch.tensor([[1.0, shared], [shared, 1.0]], dtype=REAL)
        chance = 0.5 * (1 + math.erf(0.3 / math.sqrt(2 - 2 * shared) / math.sqrt(2)))
        often = float(frequencies("thompson", mean, covariance)[0])
        assert abs(often - chance) < 5 * math.sqrt(chance * (1 - chance) / 2000)


def test_the_largest_of_many_draws_explores_more_than_one() -> None:
    """A wide arm of a lower mean: chosen by one draw as often as it is better, by the largest of 20 nearly always."""
    mean, covariance = torch.tensor([0.5, 0.0], dtype=REAL), torch.diag(torch.tensor([0.01, 1.0], dtype=REAL))
    assert frequencies("marginal", mean, covariance)[1] > 0.95 > 0.4 > frequencies("thompson", mean, covariance)[1]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_picks_the_best_arm_when_nothing_is_in_doubt(rule: str) -> None:
    mean = draws(32)
    arm = RULES[rule](mean, torch.zeros(32, 32, dtype=REAL), 1.0, torch.Generator().manual_seed(0))
    assert arm == int(mean.argmax())


def test_the_upper_bound_goes_to_what_is_unknown_among_equals() -> None:
    covariance = torch.diag(torch.tensor([0.1, 0.4, 0.2], dtype=REAL))
    assert RULES["ucb"](torch.zeros(3, dtype=REAL), covariance, 1.0, torch.Generator()) == 1


def test_misuse_of_processes_says_the_mend() -> None:
    layout = Layout(0, 1, 2)
    rows, targets = seen(5, layout, lambda x: x[:, 0])
    with pytest.raises(ValueError, match="finite"):
        fitted(rows, torch.full_like(targets, torch.nan), layout)
    with pytest.raises(ValueError, match=r"\[n, 3\]"):
        fitted(rows[:, :2], targets, layout)
    with pytest.raises(ValueError, match="hamming"):
        fitted(rows, targets, layout, "haming")
