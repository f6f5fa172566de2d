"""The public call: seeds, batches, budgets, statuses, guidance, thresholds, and errors that say the mend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sciode.diffusion import (
    ClassifierFree,
    ClassifierGuidance,
    Discrete,
    ModelStatistics,
    RectifiedFlow,
    Threshold,
    VPCosine,
    VPLinear,
    initial_noise,
    invert,
    runge_kutta_adaptive,
    sample,
    sampler,
    samplers,
    zero_terminal_snr,
)
from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.grids import times_of
from sciode.diffusion.path import Path
from sciode.diffusion.plan import Call
from sciode.diffusion.run import run
from sciode.diffusion.samplers.recipe import Recipe, Step
from sciode.diffusion.samplers.registry import catalogue
from sciode.testing import GaussianMixture

NEEDS_NOTHING = [name for name, info in samplers().items() if info.evaluations is not None and "v3" not in name]


@pytest.mark.parametrize("name", ["ddpm", "dpm++-3m-sde", "sa-solver", "lcm", "edm-churn", "unipc-3", "bdia"])
def test_a_batch_of_one_equals_its_row(name: str, case) -> None:
    x = initial_noise(case.schedule, (6, 3), seed=3, dtype=torch.float64)
    every = sample(case.model, x, case.schedule, sampler=name, steps=12, seed=5)
    first = sample(case.model, x[:1], case.schedule, sampler=name, steps=12, seed=5)
    torch.testing.assert_close(first[0], every[0], rtol=1e-13, atol=1e-13)
    seeds = [11, 22, 33, 44, 55, 66]
    every = sample(case.model, x, case.schedule, sampler=name, steps=12, seed=seeds)
    fourth = sample(case.model, x[3:4], case.schedule, sampler=name, steps=12, seed=[44])
    torch.testing.assert_close(fourth[0], every[3], rtol=1e-13, atol=1e-13)
    mixed = sample(case.model, x.flip(0), case.schedule, sampler=name, steps=12, seed=seeds[::-1])
    torch.testing.assert_close(mixed.flip(0), every, rtol=1e-13, atol=1e-13)


def test_generators_and_the_default_generator_are_seeds(case, seeded) -> None:
    def drawn(seed: object) -> torch.Tensor:
        return sample(case.model, case.x, case.schedule, sampler="ddpm", steps=5, seed=seed)  # type: ignore[arg-type]

    one, other = (drawn(torch.Generator().manual_seed(s)) for s in (1, 2))
    torch.testing.assert_close(drawn(torch.Generator().manual_seed(1)), one, rtol=0, atol=0)
    assert not torch.equal(one, other)
    each = [torch.Generator().manual_seed(b) for b in range(12)]
    assert drawn(each).shape == case.x.shape
    with seeded(4):
        first = drawn(None)
    with seeded(4):
        torch.testing.assert_close(drawn(None), first, rtol=0, atol=0)
    with pytest.raises(ValueError, match="one a sample"):
        drawn([1, 2])


@pytest.mark.parametrize("name", NEEDS_NOTHING)
def test_the_model_is_called_as_often_as_a_sampler_says(name: str, case) -> None:
    calls = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (2,) and t.dtype == x.dtype
        calls.append(float(t[0]))
        return case.model(x, t)

    found = sample(model, case.x[:2], case.schedule, sampler=name, nfe=26, seed=0, return_info=True)
    assert len(calls) == found.nfe <= 26
    assert found.status.tolist() == [0, 0]
    again = sample(case.model, case.x[:2], case.schedule, sampler=name, nfe=26, seed=0)
    torch.testing.assert_close(again, found.x, rtol=0, atol=0)


class _Blind(TorchDispatchMode):
    """Raises where a number is read off a tensor, which on a GPU waits for it, and cannot be captured."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number was read"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["dpm++-3m", "unipc-3", "deis-tab-2", "rk-tsit5", "bdia", "rf-solver", "tcd"])
def test_the_loop_asks_the_device_nothing(name: str, case) -> None:
    path = Path.of(case.schedule, times_of("log-snr", case.schedule, 6, 1.0, 1e-3))
    plan = catalogue()[name].program(path)  # type: ignore[union-attr]
    # A network of tensors alone; the mixture's own schedule is one, too, but reads its numbers.
    denoiser = Denoiser(lambda x, t: torch.tanh(x) * t[:, None], case.schedule, "eps")
    denoiser = _Prepared(denoiser, [line for line in plan.lines if isinstance(line, Call)])
    with _Blind(), pytest.raises(AssertionError, match="was read"):
        case.x.sum().item()
    with _Blind():
        found, _ = run(plan, denoiser, (case.x,), lambda n: torch.ones_like(case.x))  # type: ignore[arg-type]
    assert bool(found.isfinite().all())


class _Prepared:
    """A denoiser whose coefficients the host has computed before."""

    def __init__(self, denoiser: Denoiser, calls: list[Call]) -> None:
        self.denoiser = denoiser
        self.known = {(line.node.t, line.kind): denoiser.asks(line.node, line.kind) for line in calls}

    def asks(self, node: Any, kind: str) -> Any:
        return self.known[node.t, kind]

    def __call__(self, x: torch.Tensor, t: torch.Tensor, asked: Any) -> torch.Tensor:
        return self.denoiser(x, t, asked)


def test_no_evaluation_is_at_a_time_that_repeats_in_multistep_samplers(case) -> None:
    """Karras' grid on a cosine schedule, which makes duplicates where times are rounded."""
    path = Path.of(VPCosine(), times_of("karras", VPCosine(), 50, 0.9946, 1e-3))
    plan = catalogue()["dpm++-3m"].program(path)  # type: ignore[union-attr]
    times = [line.node.t for line in plan.lines if isinstance(line, Call)]
    assert len(set(times)) == 50


def test_float32_samples_are_those_of_float64(case) -> None:
    for name in ("dpm++-3m", "unipc-3", "deis-tab-2", "rk-tsit5", "adaptive-tsit5"):
        options: dict[str, Any] = {} if name.startswith("adaptive") else {"steps": 20}
        found = sample(case.model, case.x.float(), case.schedule, sampler=name, **options)
        wanted = sample(case.model, case.x, case.schedule, sampler=name, **options)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4 if options else 2e-3)


def test_half_precision_keeps_its_times_apart(case) -> None:
    seen = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return case.model(x.double(), t.double())

    found = sample(model, case.x.bfloat16(), case.schedule, steps=40)
    assert found.dtype == torch.bfloat16 and bool(found.isfinite().all())
    assert torch.stack(seen)[:, 0].unique().numel() == 40 and seen[0].dtype == torch.float32


@pytest.mark.parametrize("name", ["dpm++-3m", "unipc-3", "dpm++-3m-sde", "dpm-adaptive-3", "bdia"])
def test_half_precision_rounds_what_the_model_sees_and_says_and_nothing_else(name: str, case) -> None:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return case.model(x.double(), t.double()).to(x.dtype)

    def rounding(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return model(x.to(torch.bfloat16), t).to(x.dtype)

    x, steps = case.x.to(torch.bfloat16), None if "adaptive" in name else 12
    found = sample(model, x, case.schedule, sampler=name, seed=1, steps=steps)
    wanted = sample(rounding, x.float(), case.schedule, sampler=name, seed=1, steps=steps)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted.to(torch.bfloat16))


def test_adaptive_methods_do_not_follow_the_rounding_of_half_precision(case) -> None:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return case.model(x.double(), t.double()).to(x.dtype)

    given = {"sampler": sampler("adaptive-tsit5"), "return_info": True}
    found = sample(model, case.x.to(torch.bfloat16), case.schedule, **given)
    wanted = sample(case.model, case.x, case.schedule, **given)
    assert float(found.nfe.float().mean()) < float(wanted.nfe.float().mean()) and found.status.tolist() == [0] * 12
    assert float((found.x - wanted.x).square().mean().sqrt()) < 3 * torch.finfo(torch.bfloat16).eps


def test_the_last_denoise_is_the_data_prediction_at_the_end(case) -> None:
    plain = sample(case.model, case.x, case.schedule, steps=20)
    t = torch.full((12,), 1e-3, dtype=torch.float64)
    wanted = (plain - case.schedule.sigma(1e-3) * case.model(plain, t)) / case.schedule.alpha(1e-3)
    found = sample(case.model, case.x, case.schedule, steps=20, denoise_last=True, return_info=True)
    torch.testing.assert_close(found.x, wanted, rtol=1e-12, atol=1e-12)
    assert found.nfe == 21
    assert sample(case.model, case.x, case.schedule, nfe=20, denoise_last=True, return_info=True).nfe == 20


def test_pure_noise_starts_by_the_data_prediction(case) -> None:
    """Zero terminal SNR, and a flow from t = 1: no NaN, and close to the start a little earlier."""
    flow = RectifiedFlow()
    model = case.mixture.model(flow, "v")
    for name in ("dpm++-3m", "unipc-2", "deis-tab-2", "rk-rk4"):
        late, early = (
            sample(model, case.x, flow, sampler=name, steps=60, prediction="v", t_start=t) for t in (1.0, 0.9999)
        )
        torch.testing.assert_close(late, early, rtol=0, atol=2e-2)
    straight = case.mixture.model(flow, "flow")
    late = sample(straight, case.x, flow, sampler="rf-solver", grid="uniform", steps=60, prediction="flow", t_start=1.0)
    assert bool(late.isfinite().all())
    table = Discrete(zero_terminal_snr(Discrete.scaled_linear().alpha_bar))
    found = sample(case.mixture.model(table, "v"), case.x, table, steps=30, prediction="v", return_info=True)
    assert found.status.tolist() == [0] * 12 and found.nfe == 30
    with pytest.raises(ValueError, match="says nothing about the data"):
        sample(case.mixture.model(table), case.x, table, steps=5)
    with pytest.raises(ValueError, match="could undo"):
        sample(model, case.x, flow, sampler="bdia", prediction="v", t_start=1.0)


def test_a_sample_that_blows_up_is_a_status_and_leaves_the_others(case) -> None:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        eps = case.model(x, t)
        return torch.cat((eps[:1] * float("nan"), eps[1:]))

    found = sample(model, case.x, case.schedule, steps=10, return_info=True)
    assert found.status.tolist() == [3] + [0] * 11
    wanted = sample(case.model, case.x, case.schedule, steps=10)
    torch.testing.assert_close(found.x[1:], wanted[1:], rtol=1e-12, atol=1e-12)
    for name in ("dpm-adaptive-3", "adaptive-tsit5"):
        assert sample(model, case.x, case.schedule, sampler=name, return_info=True).status[:2].tolist() == [3, 0]


def test_gradients_flow_to_the_noise(case) -> None:
    x = case.x[:2].clone().requires_grad_()
    loss = sample(case.model, x, case.schedule, sampler="unipc-3", steps=8).square().sum()
    (slope,) = torch.autograd.grad(loss, x)
    for b, i in ((0, 0), (1, 2)):
        moved = []
        for sign in (1, -1):
            shifted = x.detach().clone()
            shifted[b, i] += sign * 1e-5
            moved.append(sample(case.model, shifted, case.schedule, sampler="unipc-3", steps=8).square().sum())
        assert float(slope[b, i]) == pytest.approx(float(moved[0] - moved[1]) / 2e-5, rel=1e-5, abs=1e-7)


def _conditional(schedule: VPLinear):
    """One Gaussian a class, in one dimension; class 2 is both of them together."""
    halves = [GaussianMixture([1.0], [[m]], [[[0.1]]]).model(schedule) for m in (-1.0, 1.0)]
    joint = GaussianMixture([1.0, 1.0], [[-1.0], [1.0]], [[[0.1]], [[0.1]]])
    parts = [*halves, joint.model(schedule)]

    def model(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        every = torch.stack([part(x, t) for part in parts], 1)
        return every[torch.arange(x.shape[0]), label]

    return model, joint, halves


def test_classifier_free_guidance_of_scale_one_is_the_condition_and_of_zero_is_none() -> None:
    schedule = VPLinear()
    model, joint, halves = _conditional(schedule)
    x = torch.randn(8, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cond, both = {"label": torch.zeros(8, dtype=torch.long)}, {"label": torch.tensor([2])}
    for scale, alone in ((1.0, halves[0]), (0.0, joint.model(schedule))):
        found = sample(model, x, schedule, steps=15, cond=cond, guidance=ClassifierFree(scale, both))
        torch.testing.assert_close(found, sample(alone, x, schedule, steps=15), rtol=1e-12, atol=1e-12)
    never = ClassifierFree(7.0, both, interval=(2.0, 3.0))
    found = sample(model, x, schedule, steps=15, cond=cond, guidance=never)
    torch.testing.assert_close(found, sample(halves[0], x, schedule, steps=15), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="name the same"):
        sample(model, x, schedule, cond=cond, guidance=ClassifierFree(2.0, {"word": both["label"]}))
    with pytest.raises(ValueError, match=r"\[8, \.\.\.\] or \[1, \.\.\.\]"):
        sample(model, x, schedule, cond=cond, guidance=ClassifierFree(2.0, {"label": both["label"].repeat(3)}))
    with pytest.raises(ValueError, match="mean no condition"):
        ClassifierFree(2.0, {})


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "flow", "score"])
def test_a_classifiers_gradient_turns_the_joint_law_into_the_conditional_one(prediction: str) -> None:
    """grad log p(y | x) is the difference of the scores: Bayes' rule, for every kind of model."""
    schedule = VPLinear()
    _, joint, halves = _conditional(schedule)
    first = GaussianMixture([1.0], [[-1.0]], [[[0.1]]])

    def log_prob(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return first.log_prob(x, alpha, sigma) - joint.log_prob(x, alpha, sigma)

    x = torch.randn(8, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sample(
        joint.model(schedule, prediction), x, schedule, steps=15, prediction=prediction,
        guidance=ClassifierGuidance(log_prob),
    )  # fmt: skip
    torch.testing.assert_close(found, sample(halves[0], x, schedule, steps=15), rtol=1e-8, atol=1e-8)


def test_dynamic_thresholds_clip_to_the_quantile_and_scale_to_the_limit() -> None:
    x0 = torch.cat((torch.linspace(-0.5, 0.5, 201)[None], torch.linspace(-4.0, 4.0, 201)[None])).double()
    found = Threshold(0.9)(x0)
    torch.testing.assert_close(found[0], x0[0], rtol=0, atol=0)
    s = torch.quantile(x0[1].abs(), 0.9)
    torch.testing.assert_close(found[1], x0[1].clamp(-s, s) / s, rtol=1e-12, atol=1e-12)
    assert float(Threshold(None, limit=2.0)(x0).abs().max()) == 2.0
    assert Threshold(0.9)(x0.half()).dtype == torch.float16
    # Where data stay below the limit nothing changes; a limit below them does.
    schedule = VPLinear()
    model = GaussianMixture([1.0], [[0.0, 0.0]], [[[0.01, 0.0], [0.0, 0.01]]]).model(schedule)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    free = sample(model, x, schedule, steps=10)
    held = sample(model, x, schedule, steps=10, threshold=Threshold(None))
    torch.testing.assert_close(held, free, rtol=1e-10, atol=1e-10)
    assert float(sample(model, x, schedule, steps=10, threshold=Threshold(None, limit=0.02)).abs().max()) < 0.07


def test_misuse_says_the_mend(case) -> None:
    x = case.x
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sampler": "dpm++3m"}, "Did you mean 'dpm"),
        ({"steps": 5, "nfe": 5}, "give one of them"),
        ({"steps": 5, "grid": [1.0, 0.5]}, "make 1 steps"),
        ({"sampler": "rk-rk4", "nfe": 3}, "takes 4 evaluations"),
        ({"sampler": "dpm-adaptive-2", "steps": 5}, "chooses its own"),
        ({"sampler": "dpm-v3"}, "estimate_ems"),
        ({"ems": ModelStatistics.constant(-6, 6, l=1, s=0)}, "belong to dpm-v3"),
        ({"t_end": 0.0}, "denoise_last"),
    ]
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            sample(case.model, x, case.schedule, **options)
    with pytest.raises(ValueError, match=r"\[B, \.\.\.\]"):
        sample(case.model, x[0], case.schedule)
    with pytest.raises(ValueError, match="Did you mean 'gamma'"):
        sampler("bdia", gama=1.0)
    with pytest.raises(ValueError, match="no error estimate"):
        runge_kutta_adaptive("rk4")
    with pytest.raises(ValueError, match="output has shape"):
        sample(lambda x, t: x[:, :1], x, case.schedule, steps=2)


MISUSE: list[tuple[dict[str, Any], str]] = [
    ({"prediction": "epsilon"}, "Did you mean 'eps'"),
    ({"grid": "logsnr"}, "Did you mean 'log-snr'"),
    ({"t_start": 0.2, "t_end": 0.5}, "expected 0 <= t_end < t_start"),
    ({"t_end": -0.1}, "expected 0 <= t_end < t_start"),
    ({"t_start": math.nan}, "expected 0 <= t_end < t_start"),
    ({"grid": [0.1, 0.5]}, "must rise strictly"),
    ({"grid": [0.5, -0.1]}, "expected 0 <= t_end < t_start"),
    ({"t_start": 5.0}, "far beyond the schedule"),
    ({"steps": 0}, "at least 1"),
    ({"seed": [1, 2]}, "2 seeds for a batch of 12"),
    ({"sampler": "ddpm", "seed": 1.5}, "give an int"),
    ({"sampler": "dpm-v3", "ems": ModelStatistics.constant(-6, 6, l=1, s=0, shape=(2,))}, "does not fit one sample"),
    ({"sampler": "dpm-v3", "ems": ModelStatistics.constant(-1, 1, l=1, s=0)}, "the grid leaves it"),
    ({"sampler": Recipe((1.0, 0.1), (Step(),), first=[0.0, 0.0])}, "first: its shape"),
    ({"sampler": Recipe((3.0, 0.1), (Step(),))}, "far beyond the schedule"),
    ({"model": None}, "called as model"),
    ({"x": torch.zeros(3, 2, dtype=torch.int64)}, "real states"),
    ({"denoise_last": True, "sampler": "bdia"}, "exact inversion starts from"),
]


@pytest.mark.parametrize(("options", "said"), MISUSE, ids=[f"{n}: {m}" for n, (_, m) in enumerate(MISUSE)])
def test_misuse_is_named_before_the_model_is_called(options: dict[str, Any], said: str, case) -> None:
    calls = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return case.model(x, t)

    with pytest.raises(ValueError, match=said):
        sample(**({"model": model, "x": case.x, "schedule": case.schedule} | options))
    assert not calls


def test_a_memory_of_something_else_is_named_before_the_model_is_called(case) -> None:
    found = sample(case.model, case.x, case.schedule, sampler="bdia", steps=4, return_info=True)
    wrong = (found, "`memory` of the SampleResult"), (found.memory[:2], "expected that of x's own sample")
    for memory, said in (*wrong, (found.memory.float(), "torch.float32")):
        with pytest.raises(ValueError, match=said):
            invert(lambda x, t: pytest.fail("called"), found.x, case.schedule, memory=memory, steps=4)


def test_shapes_of_no_batch_are_no_noise(case) -> None:
    for shape in (4, (4,)):
        with pytest.raises(ValueError, match=r"\[B, \.\.\.\]"):
            initial_noise(case.schedule, shape, seed=0)  # type: ignore[arg-type]


def test_every_name_has_a_source_and_a_claim() -> None:
    for name, info in samplers().items():
        assert info.name == name and info.source and (info.order is not None or info.kind == "consistency")
        assert (info.weak is not None) <= (info.kind == "sde")


WRONG: dict[str, dict[str, Any]] = {
    "schedule: got 'vp'": {"schedule": "vp"},
    "guidance: got 7.5; pass ClassifierFree": {"guidance": 7.5},
    "threshold: got True; pass Threshold": {"threshold": True},
    "cond: got a Tensor": {"cond": torch.ones(12)},
    "ems: got 3; pass what estimate_ems": {"ems": 3, "sampler": "dpm-v3"},
    "steps: got 2.5": {"steps": 2.5},
    "seed: got 1.5": {"seed": 1.5, "sampler": "ddpm"},
    "t_start: 1000 is far beyond": {"t_start": 1000.0},
    r"unknown 'DPM\+\+ 2M'. Did you mean 'dpm\+\+-2m'": {"sampler": "DPM++ 2M"},
    r"unknown 'dpmpp_3m_sde'. Did you mean 'dpm\+\+-3m-sde'": {"sampler": "dpmpp_3m_sde"},
    "got a tuple; return .sample": {"model": lambda x, t: (x,)},
}


@pytest.mark.parametrize("said", WRONG)
def test_arguments_of_the_wrong_kind_say_what_was_meant(said: str, case) -> None:
    given = {"model": case.model, "x": case.x, "schedule": case.schedule} | WRONG[said]
    with pytest.raises(ValueError, match=said):
        sample(**given)


@pytest.mark.parametrize("name", ["dpm-adaptive-2", "dpm-adaptive-3", "dpm++-adaptive-2", "dpm++-adaptive-3"])
def test_adaptive_steps_are_the_same_in_both_precisions(name: str, case) -> None:
    """What a first step's error is, rounding or less, decides nothing."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return case.model(x.double(), t.double()).to(x.dtype)

    one, other = (
        sample(model, case.x.to(dtype), case.schedule, sampler=name, return_info=True)
        for dtype in (torch.float32, torch.float64)
    )
    assert torch.equal(one.nfe, other.nfe)
    torch.testing.assert_close(one.x.double(), other.x, rtol=0, atol=1e-3)
