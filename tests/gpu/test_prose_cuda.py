"""PROSE on a CUDA device: recorded steps are the eager ones, a recording that fails is said, samples are the CPU's."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from sciode.experiments.prose_speed import random_pool
from sciode.prose import PRESETS, Course, DeepONet, Drawing, FourierOperator, Reading, Training, Transformer, draw
from sciode.prose.objective import losses
from sciode.prose.training import Pupil
from sciode.training import isolated_rng

pytestmark = pytest.mark.gpu
READING = Reading(queries=16)


def made(name: str) -> torch.nn.Module:
    with isolated_rng(0):
        if name == "DeepONet":
            return DeepONet(3, 64, 32, 8).cuda()
        if name == "Fourier operator":
            return FourierOperator(3, 192, 6.0, 16, 8, 2).cuda()
        return Transformer(PRESETS["tiny"]).cuda()


def seen(engine: str, name: str, steps: int = 12, precision: str = "mixed") -> tuple[list[list[float]], Pupil]:
    """Losses of every step."""
    records: list[dict[str, Any]] = []
    course = Course(
        steps=steps, batch=32, lr=2e-3, warmup=2, every=1, engine=engine, precision=precision, reading=READING
    )
    training = Training({name: made(name)}, lambda _: random_pool(3, "cuda", 512), course, tell=records.append)
    training.run()
    return [[record[name]["data"], record[name]["symbols"]] for record in records], training.pupils[name]


@pytest.mark.parametrize("name", ["full", "DeepONet", "Fourier operator"])
def test_recorded_steps_are_the_eager_ones(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded, pupil = seen("capture", name)
        eager, other = seen("eager", name)
    assert pupil.engine == "recorded" and other.engine == "eager"
    # Atomic sums of gradients come in any order, and bfloat16 has three digits.
    close = 2e-2 if name == "full" else 1e-3
    torch.testing.assert_close(torch.tensor(recorded), torch.tensor(eager), rtol=close, atol=close)
    assert recorded[-1] != recorded[-2]


def test_compiled_steps_are_the_eager_ones() -> None:
    compiled, pupil = seen("compile", "full")
    eager, _ = seen("eager", "full")
    assert pupil.engine == "compiled and recorded"
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("engine", ["capture", "compile"])
def test_steps_whose_layers_are_in_bfloat16_are_recorded_too(engine: str) -> None:
    half, pupil = seen(engine, "full", precision="bfloat16")
    eager, _ = seen("eager", "full")
    assert pupil.engine == {"capture": "recorded", "compile": "compiled and recorded"}[engine]
    torch.testing.assert_close(torch.tensor(half), torch.tensor(eager), rtol=3e-2, atol=3e-2)


def test_a_recording_that_fails_is_said_and_steps_go_on() -> None:
    """A layer that asks for a value cannot be recorded."""
    model = made("full")
    pool = random_pool(3, "cuda", 64)
    draws = torch.Generator("cuda").manual_seed(0)
    batch = pool.batch(8, READING, draws)

    class Asks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x + float(x.sum() > 0) * 0

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            return grads[0]

    assert isinstance(model, Transformer)
    model.value.register_forward_hook(lambda module, given, found: Asks.apply(found))
    pupil = Pupil(model, Course(batch=8, reading=READING))
    with pytest.warns(UserWarning, match="one by one"):
        for number in range(6):
            pupil.step(batch, 1e-3, number)
    assert pupil.engine == "eager"
    before = losses(model, batch).data.item()
    for number in range(6, 30):
        pupil.step(batch, 1e-3, number)
    assert losses(model, batch).data.item() < before


def test_kernels_draw_the_trajectories_that_eager_solves_do() -> None:
    systems = ("thomas", "lorenz", "duffing", "four_wing")
    found, wanted = (list(draw(Drawing(systems, 3, 2, engine=engine), 0, "cuda")) for engine in ("kernel", "eager"))
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours.owner, theirs.owner)
        error = (ours.values - theirs.values).flatten(1).norm(dim=1) / theirs.values.flatten(1).norm(dim=1)
        # Chaos turns rounding into what tolerances allow.
        assert float(error.median()) < 1e-4 and float(error.max()) < 1e-2
