"""Editors against laws that are known: stationary densities, conditionals, and the samplers that they contain."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.diffusion import VPLinear, invert, sample
from sciode.diffusion.editing import Region, RegionalNoise, TimeTravel, code, edit_regions, repaint, sdedit
from sciode.diffusion.editing.score_ascent import clipped
from sciode.diffusion.editing.stage import Draws, stage_of
from sciode.diffusion.path import Path
from sciode.testing import GaussianMixture

SCHEDULE = VPLinear()
CORRELATED = GaussianMixture([1.0], [[0.4, -0.3]], [[[1.0, 0.7], [0.7, 0.9]]])


def _normals(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("level", [0.2, 0.5])
def test_sdedit_of_gaussian_data_has_its_law_in_closed_form(level: float) -> None:
    """The flow is x -> m + sqrt(L_end / L) (x - alpha m) per direction: a fixed point comes out with known moments."""
    variance = torch.tensor([0.25, 2.0], dtype=torch.float64)
    model = GaussianMixture([1.0], [[0.5, -1.0]], torch.diag(variance)[None]).model(SCHEDULE)
    mean, point = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    n = 4000
    found = sdedit(model, point.expand(n, 2), SCHEDULE, level, steps=40, seed=3)
    a, s, b, r = (float(f(t)) for t in (level, 1e-3) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    factor = ((b**2 * variance + r**2) / (a**2 * variance + s**2)).sqrt()
    wanted, spread = b * mean + factor * a * (point - mean), factor * s
    assert float(((found.mean(0) - wanted) / spread).abs().max()) * math.sqrt(n) < 4.5
    torch.testing.assert_close(found.std(0), spread, rtol=0.05, atol=0)


def test_code_without_updates_is_there_and_back(case) -> None:
    x = case.mixture.draw(6, seed=1)
    errors = []
    for steps in (100, 200):
        found = code(case.model, x, SCHEDULE, 0.4, updates=0, confidence=None, steps=steps, sampler="edm-heun")
        errors.append(float((found - x).square().mean().sqrt()))
    assert errors[1] < 1e-3 and errors[0] > 3.3 * errors[1]


def test_the_updates_of_code_keep_the_law_of_their_level(case) -> None:
    """Langevin's steps from the model's own law: its moments stay, to the standard error and the steps' bias."""
    data = case.mixture.draw(4000, seed=1)
    options: dict[str, Any] = {"confidence": None, "steps": 25, "sampler": "edm-heun", "anneal": 1}
    found = code(case.model, data, SCHEDULE, 0.4, updates=100, step=0.01, seed=2, **options)
    mean, covariance = case.mixture.moments()
    assert float(((found.mean(0) - mean) / covariance.diag().sqrt()).abs().max()) < 4 / math.sqrt(4000)
    assert float((found.T.cov() - covariance).norm() / covariance.norm()) < 0.08


def test_more_updates_make_an_unlikely_point_likelier(case) -> None:
    far = torch.tensor([[4.0, -4.0, 4.0]], dtype=torch.float64).expand(64, 3)
    alpha, sigma = (float(f(1e-3)) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    density = []
    for updates in (0, 10, 40, 160):
        found = code(case.model, far, SCHEDULE, 0.4, updates=updates, confidence=None, steps=20, seed=1)
        density.append(float(case.mixture.log_prob(found, alpha, sigma).mean()))
    assert all(more > less + 0.5 for less, more in pairwise(density))


def test_clipping_leaves_noisy_data_alone_as_often_as_it_says(case) -> None:
    """Data within +- 1: a component stays inside with a probability of at least erf(confidence / sqrt 2)."""
    n, limit = 100_000, torch.tensor(1.0, dtype=torch.float64)
    x0 = torch.sign(_normals(n, 1, seed=1))
    for level in (0.1, 0.4, 0.9):
        at = Path.of(SCHEDULE, [level]).nodes[0]
        x = at.alpha * x0 + at.sigma * _normals(n, 1, seed=2)
        for confidence in (1.0, 1.7, 2.0):
            share = float((clipped(x, at, confidence, -limit, limit) == x).double().mean())
            assert share >= math.erf(confidence / math.sqrt(2)) - 3 / math.sqrt(n)


def test_components_that_never_vary_are_clipped_to_what_noise_they_can_have(case) -> None:
    """limit by component: there x stays within confidence sigma of the one value, elsewhere within the wide bounds."""
    low, high = (torch.tensor([wide, 0.2, wide], dtype=torch.float64) for wide in (-3.0, 3.0))
    at = Path.of(SCHEDULE, [0.3]).nodes[0]
    x = 10 * _normals(50, 3)
    found = clipped(x, at, 1.5, low, high)
    bound = at.alpha * high + 1.5 * at.sigma
    assert bool((found.abs() <= bound.abs() + 1e-12)[:, ::2].all())
    assert float((found[:, 1] - at.alpha * 0.2).abs().max()) <= 1.5 * at.sigma + 1e-12
    kept = (x <= bound) & (x >= at.alpha * low - 1.5 * at.sigma)
    assert torch.equal(found[kept], x[kept])
    inside = x.clamp(-0.01, 0.01)
    assert torch.equal(clipped(inside, at, 1.5, -high.abs(), high.abs()), inside)


def test_repaint_tends_to_the_conditional_law() -> None:
    """Of a correlated Gaussian: plain replacement is far off, repeated steps come close."""
    model, n, known = CORRELATED.model(SCHEDULE), 1500, 1.6
    x = torch.tensor([[known, 0.0]], dtype=torch.float64).expand(n, 2)
    mask = torch.tensor([True, False])
    mean, variance = -0.3 + 0.7 * (known - 0.4), 0.9 - 0.7**2
    errors = {}
    for repeats, steps in ((1, 25), (12, 25), (12, 100)):
        found = repaint(model, x, mask, SCHEDULE, repeats=repeats, steps=steps, seed=4)
        assert torch.equal(found[:, 0], x[:, 0])
        errors[repeats, steps] = (abs(float(found[:, 1].mean()) - mean), abs(float(found[:, 1].var()) - variance))
    assert errors[12, 25][0] < 0.25 * errors[1, 25][0]
    # What is left of the variance is DDPM's error, of first order in the steps.
    assert errors[12, 100][1] < 0.4 * errors[12, 25][1] and max(errors[12, 100]) < 0.05


def test_an_empty_mask_makes_repaint_a_sampler(case) -> None:
    """Nothing known, nothing repeated: DDPM's law; and all known: the data."""
    x, model = case.mixture.draw(2000, seed=3), case.model
    free = repaint(model, x, torch.tensor(False), SCHEDULE, repeats=1, steps=60, seed=1)
    mean, covariance = case.mixture.moments()
    assert float(((free.mean(0) - mean) / covariance.diag().sqrt()).abs().max()) < 5 / math.sqrt(2000) + 0.02
    assert torch.equal(repaint(model, x, torch.tensor(True), SCHEDULE, repeats=1, steps=2), x)


def test_regions_without_anything_are_ddim_and_with_all_noise_ddpm(case) -> None:
    plain = edit_regions(case.model, case.x, SCHEDULE, steps=20)
    wanted = sample(case.model, case.x, SCHEDULE, sampler="ddim", steps=20)
    torch.testing.assert_close(plain, wanted, rtol=0, atol=1e-12)
    noise = RegionalNoise(torch.ones(3), inside=1.0, outside=0.0, window=(0.0, 1.0))
    found = edit_regions(case.model, case.x, SCHEDULE, noise=noise, steps=20, seed=5)
    wanted = sample(case.model, case.x, SCHEDULE, sampler="ddpm", steps=20, seed=5)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def test_energy_and_noise_stay_in_their_regions() -> None:
    """Independent components: outside of the masks nothing changes, inside the energy falls."""
    model = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 0.5]]]).model(SCHEDULE)
    x = _normals(50, 2)
    plain = edit_regions(model, x, SCHEDULE, steps=30)

    def energy(x0: Tensor, t: Tensor) -> Tensor:
        return (x0[:, 0] - 1.5).square() + (x0[:, 1] + 3).square()

    first = torch.tensor([1.0, 0.0])
    found = edit_regions(model, x, SCHEDULE, [Region(first, energy, 0.3)], steps=30)
    torch.testing.assert_close(found[:, 1], plain[:, 1], rtol=0, atol=1e-12)
    assert float((found[:, 0] - 1.5).square().mean()) < 0.5 * float((plain[:, 0] - 1.5).square().mean())
    noisy = edit_regions(model, x, SCHEDULE, noise=RegionalNoise(first, 0.8), steps=30, seed=1)
    torch.testing.assert_close(noisy[:, 1], plain[:, 1], rtol=0, atol=1e-12)
    assert float((noisy[:, 0] - plain[:, 0]).abs().mean()) > 0.05


def test_time_travel_by_inversion_undoes_itself_and_by_noise_keeps_the_law() -> None:
    model = CORRELATED.model(SCHEDULE)
    x = _normals(4, 2)
    gaps = []
    for steps in (50, 100):
        plain = edit_regions(model, x, SCHEDULE, steps=steps)
        there = edit_regions(model, x, SCHEDULE, travel=TimeTravel(), steps=steps)
        gaps.append(float((there - plain).norm()))
    # Each detour is wrong by O(h^2), and there are O(1 / h) of them.
    assert 1.6 < gaps[0] / gaps[1] < 2.6
    many = _normals(4000, 2, seed=1)
    found = edit_regions(model, many, SCHEDULE, travel=TimeTravel((0.2, 0.9), 1, 2, "renoise"), steps=150, seed=2)
    mean, covariance = CORRELATED.moments()
    assert float((found.mean(0) - mean).norm()) < 0.06
    assert float((found.T.cov() - covariance).norm() / covariance.norm()) < 0.08


def test_an_edit_starts_from_the_noise_of_given_data(case) -> None:
    """Inverted exactly by a small step, an edit that does nothing gives the data back."""
    data = case.mixture.draw(4, seed=5)
    noise = invert(case.model, data, SCHEDULE, sampler="ddim", steps=1000)
    again = edit_regions(case.model, noise, SCHEDULE, steps=1000)
    assert float((again - data).abs().max()) < 0.03


def _edit(name: str, model: Any, x: Tensor) -> Tensor:
    """Of an editor with all that it has."""
    mask = torch.tensor([True, False, True])
    if name == "code":
        return code(model, x, SCHEDULE, 0.4, updates=5, steps=4, seed=1)
    if name == "sdedit":
        return sdedit(model, x, SCHEDULE, 0.4, steps=4, seed=1)
    if name == "repaint":
        return repaint(model, x, mask, SCHEDULE, repeats=2, steps=4, seed=1)
    regions = [Region(mask, lambda x0, t: x0.square().flatten(1).sum(1), weight=0.1)]
    options: dict[str, Any] = {"noise": RegionalNoise(mask, window=(0, 1)), "travel": TimeTravel((0, 1), repeats=2)}
    return edit_regions(model, x, SCHEDULE, regions, steps=4, seed=1, **options)


@pytest.mark.parametrize("name", ["code", "sdedit", "repaint", "edit_regions"])
def test_half_precision_rounds_what_the_model_sees_and_says_and_the_edit_once(name: str, case) -> None:
    """States are float32: the edit is that of a float32 model that rounds what it is given and what it gives."""

    def rounding(x: Tensor, t: Tensor) -> Tensor:
        return model(x.to(torch.bfloat16), t).to(x.dtype)

    shown: list[Tensor] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        assert x.dtype == torch.bfloat16 and t.dtype == torch.float32
        shown.append(x)
        return case.model(x.double(), t.double()).to(x.dtype)

    x = case.mixture.draw(6, seed=1).to(torch.bfloat16)
    found = _edit(name, model, x)
    if name == "sdedit":
        # It begins with a state that is no more than half precise.
        wanted = sample(rounding, shown[0].float(), SCHEDULE, t_start=0.4, steps=4)
    else:
        wanted = _edit(name, rounding, x.float())
    assert found.dtype == torch.bfloat16 and torch.equal(found, wanted.to(torch.bfloat16))


def test_gradients_reach_through_an_edit(case) -> None:
    x = case.x[:2].clone().requires_grad_()
    region = Region(torch.tensor([1.0, 0.0, 0.0]), lambda x0, t: x0.square().sum(1), 0.2)
    direction = _normals(2, 3, seed=8)

    def loss(x: Tensor) -> Tensor:
        return edit_regions(case.model, x, SCHEDULE, [region], steps=8).square().sum()

    (slope,) = torch.autograd.grad(loss(x), x)
    with torch.no_grad():
        wanted = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
    assert float((slope * direction).sum()) == pytest.approx(float(wanted), rel=1e-6)


def test_samples_do_not_depend_on_their_batch(case) -> None:
    x, mask = case.mixture.draw(4, seed=2), torch.tensor([True, False, False])
    seeds = [3, 1, 4, 1]
    calls: list[Any] = [
        lambda x, seed: sdedit(case.model, x, SCHEDULE, 0.4, steps=6, seed=seed, sampler="ddpm"),
        lambda x, seed: code(case.model, x, SCHEDULE, 0.4, updates=5, steps=4, seed=seed),
        lambda x, seed: repaint(case.model, x, mask, SCHEDULE, repeats=2, steps=4, seed=seed),
    ]
    for call in calls:
        torch.testing.assert_close(call(x[2:3], [4])[0], call(x, seeds)[2], rtol=1e-12, atol=1e-12)


ALONE = (
    "ddim", "euler", "dpm-2s", "dpm++-3s", "edm-heun", "flow-euler", "rf-solver", "rk-rk4", "rk-dopri5", "rk-rk38",
)  # fmt: skip
DRAWING = ("ddpm", "euler-ancestral", "dpm++-sde", "edm-churn")
FROM_BEFORE = (
    "dpm-2m",
    "dpm++-2m",
    "dpm++-3m",
    "dpm++-2m-sde",
    "unipc-2",
    "deis-tab-2",
    "ipndm",
    "fireflow",
    "dpm-fast",
)


@pytest.mark.parametrize("name", ALONE + DRAWING + FROM_BEFORE)
def test_editors_take_samplers_whose_steps_stand_alone_and_refuse_the_others(name: str, case) -> None:
    """An edit goes on from a state that it has changed: of a multistep sampler only DDIM would be left, unsaid."""

    def edited(draws: bool) -> Tensor:
        given: dict[str, Any] = {"steps": 2, "t_start": 0.6, "t_end": 0.2, "sampler": name, "draws": draws}
        stage = stage_of(case.model, case.x[:2], SCHEDULE, **given)
        first, second, *_ = stage.path.nodes
        return stage.step(case.x[:2], first, second, Draws(0, case.x[:2]))

    if name in FROM_BEFORE:
        with pytest.raises(ValueError, match="steps before"):
            edited(True)
        return
    assert edited(True).isfinite().all()
    if name in DRAWING:
        with pytest.raises(ValueError, match="goes both ways"):
            edited(False)


def test_misuse_says_the_mend(case) -> None:
    x, model = case.x, case.model
    name: Any = "vp-linear"
    listed: Any = [True]
    wrong: list[tuple[Any, str]] = [
        (lambda: sdedit(model, x, SCHEDULE, 0.4, t_start=0.3), "level"),
        (lambda: sdedit(model, x, SCHEDULE, 1.5), "level"),
        (lambda: code(model, x, SCHEDULE, 0.4, updates=-1), "updates >= 0"),
        (lambda: code(model, x, SCHEDULE, 0.4, confidence=-1.0), "None for no clipping"),
        (lambda: code(model, x, SCHEDULE, 0.4, limit=-1.0), "number > 0"),
        (lambda: code(model, x, SCHEDULE, 0.4, limit=torch.ones(3)), "two tensors"),  # type: ignore[arg-type]
        (lambda: code(model, x, SCHEDULE, 0.4, limit=(torch.zeros(5), torch.ones(5))), "does not fit one sample"),
        (lambda: code(model, x, SCHEDULE, 0.4, limit=(torch.zeros(5), torch.ones(4))), "does not fit one sample"),
        (lambda: code(lambda x, t: pytest.fail("called"), x, SCHEDULE, 0.4, seed=[0]), "seeds for a batch"),
        (lambda: code(model, x, SCHEDULE, 0.4, sampler="bdia"), "does not step by itself"),
        (lambda: repaint(model, x, torch.ones(3), SCHEDULE), "expected bool"),
        (lambda: repaint(model, x, torch.tensor(True), SCHEDULE, repeats=0), "at least 1"),
        (lambda: code(model, x, SCHEDULE, 0.4, sampler="dpm++-2m"), "steps before"),
        (lambda: code(model, x, SCHEDULE, 0.4, sampler="ddpm"), "goes both ways"),
        (lambda: code(model, x, SCHEDULE, 0.4, guidance=3.0), "ClassifierFree"),
        (lambda: repaint(model, x, torch.tensor(True), SCHEDULE, sampler="tcd"), "does not step by itself"),
        (lambda: repaint(model, x, torch.ones(3, *x.shape) > 0, SCHEDULE), "does not broadcast"),
        (lambda: repaint(model, x, listed, SCHEDULE), "pass a tensor"),
        (lambda: edit_regions(model, x, SCHEDULE, noise=RegionalNoise(torch.ones(97))), "does not broadcast"),
        (lambda: sdedit(model, x, name, 0.4), "pass a schedule"),
        (lambda: sdedit(model, x.numpy(), SCHEDULE, 0.4), "pass a tensor"),
        (lambda: edit_regions(model, x, SCHEDULE, travel=TimeTravel(mode="inverse")), "Did you mean 'invert'"),
    ]
    for call, said in wrong:
        with pytest.raises(ValueError, match=said):
            call()
