"""Distillation: losses that vanish at the exact solution, limits in which methods agree, and a map that is learnt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sciode.diffusion import RectifiedFlow, VPLinear, initial_noise, sample
from sciode.diffusion.training import Segments, TrainOptions, consistency, guided, slam_loss, squared, train, tscd_loss
from sciode.diffusion.training.denoising import level_of
from sciode.diffusion.training.distillation import STEPS, Place, jump, sub_path
from sciode.testing import GaussianMixture

SCHEDULE = VPLinear()
MIXTURE = GaussianMixture.random(3, seed=0)
TEACHER = MIXTURE.model(SCHEDULE)
TIMES = torch.linspace(1, 1e-3, 9, dtype=torch.float64).tolist()
MEAN, VARIANCE = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.3, 2.0], dtype=torch.float64)

counts = pytest.mark.parametrize("count", [1, 2, 4, 8])


def _batch(d: int = 3, size: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(size, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return x0, eps, torch.arange(size) % 8


def _edge(segments: Segments, t: Tensor) -> Tensor:
    """The next edge below a time of the grid; the last one's own."""
    edges = torch.tensor(segments.edges, dtype=torch.float64)
    return edges[(edges[None] > t.double()[:, None] - 1e-9).sum(1).clamp_max(len(edges) - 1)]


def _saying(end: Callable[[Tensor, Tensor, Tensor], Tensor], segments: Segments) -> Callable[..., Tensor]:
    """The noise prediction whose jump from (x, t) to the edge e of its segment is end(x, t, e)."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        e = _edge(segments, t)
        high, low = level_of(SCHEDULE, t, x), level_of(SCHEDULE, e, x)
        ratio = low.alpha / high.alpha
        width = low.sigma - ratio * high.sigma
        # At the edge itself a jump has no length, and any noise will do.
        return torch.where(width.abs() > 1e-12, (end(x, t, e) - ratio * x) / width, torch.zeros_like(x))

    return model


def _gaussian_flow(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The probability-flow ODE of Gaussian data, in closed form."""
    high, low = level_of(SCHEDULE, s, x), level_of(SCHEDULE, t, x)
    spread = ((low.alpha**2 * VARIANCE + low.sigma**2) / (high.alpha**2 * VARIANCE + high.sigma**2)).sqrt()
    return low.alpha * MEAN + spread * (x - high.alpha * MEAN)


@counts
def test_the_exact_flow_of_a_gaussian_has_no_loss_with_exact_steps(count: int) -> None:
    segments = Segments(TIMES, count)
    exact = _saying(_gaussian_flow, segments)
    x0, eps, n = _batch(2)

    def step(at: Place, x: Tensor, t: Tensor) -> Tensor:
        return _gaussian_flow(x, at.t, t)

    found = tscd_loss(exact, exact, TEACHER, x0, eps, n, segments, SCHEDULE, step=step, distance=squared)
    assert float(found.max()) < 1e-20
    other = _saying(lambda x, s, t: 1.1 * _gaussian_flow(x, s, t), segments)
    away = tscd_loss(other, exact, TEACHER, x0, eps, n, segments, SCHEDULE, step=step, distance=squared)
    assert float(away.min()) > 1e-8


@pytest.mark.parametrize("name", STEPS)
@counts
def test_the_teachers_steps_one_after_another_have_no_loss(name: str, count: int) -> None:
    """The fixed point, for a mixture and any teacher: not the ODE's flow, but what the teacher makes of it."""
    segments = Segments(TIMES, count)
    sampler = {"ddim": "ddim", "heun": "edm-heun"}[name]

    def end(x: Tensor, t: Tensor, e: Tensor) -> Tensor:
        rows = []
        for i in range(len(x)):
            grid = [s for s in TIMES if float(e[i]) - 1e-9 <= s <= float(t[i]) + 1e-9]
            one = x[i : i + 1]
            rows.append(sample(TEACHER, one, SCHEDULE, sampler=sampler, grid=grid) if len(grid) > 1 else one)
        return torch.cat(rows)

    composed = _saying(end, segments)
    x0, eps, n = _batch(size=16)
    found = tscd_loss(composed, composed, TEACHER, x0, eps, n, segments, SCHEDULE, step=name, distance=squared)
    assert float(found.max()) < 1e-18
    if count < 8:
        other = next(s for s in STEPS if s != name)
        away = tscd_loss(composed, composed, TEACHER, x0, eps, n, segments, SCHEDULE, step=other, distance=squared)
        assert float(away.max()) > 1e-6


@pytest.mark.parametrize("name", STEPS)
def test_steps_and_jumps_are_those_of_the_samplers(name: str) -> None:
    x = initial_noise(SCHEDULE, (5, 3), seed=0, dtype=torch.float64)
    t = torch.full((5,), 0.7, dtype=torch.float64)
    found = STEPS[name](Place(TEACHER, SCHEDULE, t), x, t - 0.2)
    sampler = {"ddim": "ddim", "heun": "edm-heun"}[name]
    torch.testing.assert_close(found, sample(TEACHER, x, SCHEDULE, sampler=sampler, grid=[0.7, 0.5]))


def test_one_segment_is_consistency_distillation_written_out() -> None:
    """d(f(x_t), f_target(x_m)), f the sampler's one step to the end, whatever student and target are."""
    segments, (x0, eps, n) = Segments(TIMES, 1), _batch()

    def student(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) * t[:, None]

    found = tscd_loss(student, TEACHER, TEACHER, x0, eps, n, segments, SCHEDULE, distance=squared)
    for i in (0, 3, 6):
        t, m = TIMES[i], TIMES[i + 1]
        x = float(SCHEDULE.alpha(t)) * x0[i : i + 1] + float(SCHEDULE.sigma(t)) * eps[i : i + 1]
        there = sample(TEACHER, x, SCHEDULE, sampler="ddim", grid=[t, m])
        aim = sample(TEACHER, there, SCHEDULE, sampler="ddim", grid=[m, TIMES[-1]])
        own = sample(student, x, SCHEDULE, sampler="ddim", grid=[t, TIMES[-1]])
        torch.testing.assert_close(found[i : i + 1], squared(own, aim))


def test_as_many_segments_as_steps_is_the_teacher_itself() -> None:
    segments, (x0, eps, n) = Segments(TIMES, 8), _batch()
    found = tscd_loss(TEACHER, TEACHER, TEACHER, x0, eps, n, segments, SCHEDULE, distance=squared)
    assert float(found.max()) < 1e-20


@pytest.mark.parametrize("noise", ["shared", "fresh"])
@counts
def test_sub_paths_end_in_consistency_distillation(count: int, noise: str) -> None:
    """gamma = 1 is the step's upper end."""
    segments, (x0, eps, n) = Segments(TIMES, count), _batch()

    def student(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) * t[:, None]

    ones = torch.ones(len(x0), dtype=torch.float64)
    along = slam_loss(student, TEACHER, TEACHER, x0, eps, n, ones, segments, SCHEDULE, noise=noise)
    torch.testing.assert_close(along, tscd_loss(student, TEACHER, TEACHER, x0, eps, n, segments, SCHEDULE))


def test_sub_paths_begin_in_the_targets_own_point() -> None:
    """gamma = 0 is the step's lower end, only stretched: there is nothing to learn there, and elsewhere there is."""
    segments, (x0, eps, n) = Segments(TIMES, 1), _batch()
    zeros = torch.zeros(len(x0), dtype=torch.float64)
    found = slam_loss(TEACHER, TEACHER, TEACHER, x0, eps, n, zeros, segments, SCHEDULE, distance=squared)
    assert float(found.max()) < 1e-18
    away = slam_loss(TEACHER, TEACHER, TEACHER, x0, eps, n, zeros + 0.5, segments, SCHEDULE, distance=squared)
    assert float(away[n < 7].min()) > 1e-8


def test_a_student_sees_a_sub_path_at_its_own_level_and_is_told_gamma_if_asked() -> None:
    """For data that are one point a deterministic step keeps the noise, and it can be seen at any gamma: no loss."""
    segments, (x0, _, n), seen = Segments(TIMES, 1), _batch(), []
    point, gamma = x0[:1].expand_as(x0), torch.linspace(0, 1, len(x0), dtype=torch.float64)

    def sure(x: Tensor, t: Tensor, gamma: Tensor | None = None) -> Tensor:
        seen.append(gamma)
        level = level_of(SCHEDULE, t, x)
        return (x - level.alpha * point) / level.sigma

    eps = _batch()[1]
    found = slam_loss(sure, sure, sure, point, eps, n, gamma, segments, SCHEDULE, distance=squared, tell=True)
    assert float(found.max()) < 1e-20
    assert sum(g is not None for g in seen) == 1
    fresh = slam_loss(sure, sure, sure, point, eps, n, gamma, segments, SCHEDULE, distance=squared, noise="fresh")
    assert float(fresh[1:-1].max()) > 1e-10


@pytest.mark.parametrize("noise", ["shared", "fresh"])
def test_the_noise_of_a_sub_path_is_what_its_point_has(noise: str) -> None:
    """By fresh noise on its lower end, or by the same noise at both."""
    generator = torch.Generator().manual_seed(0)
    z, fresh = (torch.randn(200_000, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    s, t = (level_of(SCHEDULE, torch.tensor([at]), z) for at in (0.4, 0.6))
    ratio = t.alpha / s.alpha
    low = s.alpha * 2.0 + s.sigma * z
    added = (t.sigma**2 - (ratio * s.sigma) ** 2).sqrt() * fresh
    high = ratio * low + added if noise == "fresh" else t.alpha * 2.0 + t.sigma * z
    for gamma in (0.0, 0.3, 1.0):
        point, here = sub_path(high, low, t, s, torch.full((200_000,), gamma), noise)
        # Mean alpha_t x0; deviation sigma_gamma to half a percent, three standard errors.
        assert float((point - here.alpha * 2.0).mean()) == pytest.approx(0, abs=0.01)
        assert float(point.std()) == pytest.approx(float(here.sigma[0]), rel=0.005)
    with pytest.raises(ValueError, match="shared"):
        sub_path(high, low, t, s, torch.ones(1), "other")


class _Table(nn.Module):
    """eps = a x + b with numbers of their own at every time of the grid: what Gaussian data need, and no more."""

    def __init__(self, times: list[float]) -> None:
        super().__init__()
        self.register_buffer("times", torch.tensor(times, dtype=torch.float64))
        self.weights = nn.Parameter(torch.zeros(len(times), 2, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        nearest = (self.times[None] - t.double()[:, None]).abs().argmin(1)  # type: ignore[index]
        a, b = self.weights[nearest].T
        return a[:, None] * x + b[:, None]


def test_a_student_learns_the_map_of_all_the_teachers_steps() -> None:
    """From two segments to one, as the curriculum has it; its one step ends where two of the teacher's do."""
    data, times = GaussianMixture([1.0], [[0.4]], [[[0.25]]]), [0.6, 0.3, 1e-3]
    teacher, student = data.model(SCHEDULE), _Table(times)
    start = initial_noise(SCHEDULE, (64, 1), t_start=0.6, seed=0, dtype=torch.float64)
    aim = sample(teacher, start, SCHEDULE, sampler="ddim", grid=times)

    def error(network: nn.Module, edges: list[float]) -> float:
        with torch.no_grad():
            return float((sample(network, start, SCHEDULE, sampler="ddim", grid=edges) - aim).abs().mean())

    untrained = error(student, [times[0], times[-1]])
    network: nn.Module = student
    for count in (2, 1):
        segments = Segments(times, count)
        loss = consistency(teacher, segments, SCHEDULE, distance=squared)
        options = TrainOptions(steps=250, batch_size=64, lr=0.03, decay=0.8, warmup=1, clip=1e6)
        network = train(_fresh(network), loss, {"x": data.draw(4000, seed=1)}, options).network
        assert error(network, segments.edges) < 2e-3 * untrained


def _fresh(network: nn.Module) -> nn.Module:
    return network.requires_grad_(True).train()


def test_gradients_reach_the_student_alone() -> None:
    segments, (x0, eps, n) = Segments(TIMES, 2), _batch(1)
    student, target, teacher = (_Table(TIMES) for _ in range(3))
    with torch.no_grad():
        teacher.weights.add_(0.5)
    tscd_loss(student, target, teacher, x0, eps, n, segments, SCHEDULE).mean().backward()
    assert student.weights.grad is not None and bool(student.weights.grad.any())
    assert target.weights.grad is None and teacher.weights.grad is None


def test_a_guided_teacher_is_between_and_beyond_its_two_answers() -> None:
    def model(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return label.to(x)[:, None] + 0 * x

    x, label = torch.zeros(3, 2), torch.tensor([1, 2, 3])
    for scale, expected in ((0.0, 10.0 + 0 * label), (1.0, label), (2.0, 2 * label - 10.0)):
        found = guided(model, scale, classes=10)(x, torch.zeros(3), label=label)
        torch.testing.assert_close(found, expected.to(x)[:, None].expand(3, 2))


def test_on_straight_paths_returning_to_the_first_noise_is_eulers_method() -> None:
    point, schedule = torch.tensor([[0.3, -0.7]], dtype=torch.float64), RectifiedFlow()

    def flow(x: Tensor, t: Tensor) -> Tensor:
        return (x - point) / t[:, None]

    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = {"prediction": "flow", "t_start": 1.0, "steps": 4, "grid": "uniform"}
    found = sample(flow, z, schedule, sampler="rf-return", **options)
    torch.testing.assert_close(found, sample(flow, z, schedule, sampler="ddim", **options))
    torch.testing.assert_close(found, (1 - 1e-3) * point + 1e-3 * z)


def test_segments_that_do_not_fit_are_refused() -> None:
    for times, count in (([0.0, 1.0], 1), ([1.0], 1), (TIMES, 3), (TIMES, 0)):
        with pytest.raises(ValueError, match=r"times|count"):
            Segments(times, count)
    assert Segments(TIMES, 4).edges == TIMES[::2]
    x, n, flow = torch.ones(2, 3), torch.tensor([0, 1]), RectifiedFlow()
    for losses in (tscd_loss, partial(slam_loss, gamma=torch.ones(2))):
        with pytest.raises(ValueError, match="alpha is 0"):
            losses(
                TEACHER, TEACHER, TEACHER, x, x, n, segments=Segments([1.0, 0.5, 0.1]), schedule=flow, prediction="flow"
            )


def test_jumps_of_no_length_change_nothing() -> None:
    x, level = torch.ones(2, 3), level_of(SCHEDULE, torch.tensor([0.3, 0.6]), torch.ones(2, 3))
    torch.testing.assert_close(jump(x, 7 * x, level, level), x)
