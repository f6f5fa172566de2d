"""What an estimator's answer holds on to: the line, the best linear guess, or nothing but the model's own states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.data import IrregularSeries
from sciode.timeseries import IrregularForecaster, IrregularInterpolator, LastValue, LinearGuess, StraightLine
from sciode.timeseries.linear import LinearStep
from sciode.timeseries.surroundings import Surroundings
from tests.timeseries.made import sines

FAST: dict[str, Any] = {"hidden": 8, "epochs": 2, "steps": 12, "n_samples": 2, "device": "cpu"}
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])


def turning(count: int, seed: int, length: int = 12, step: float = 0.02) -> IrregularSeries:
    """x' = TURN x from any start, on clocks of uneven steps of about `step`."""
    rng = np.random.default_rng(seed)
    values, times = [], []
    for _ in range(count):
        clock = np.cumsum(step * rng.uniform(0.5, 1.5, length))
        size, phase = rng.uniform(0.5, 2), rng.uniform(0, 2 * np.pi)
        values.append(size * np.stack([np.sin(clock + phase), np.cos(clock + phase)], 1))
        times.append(clock)
    return IrregularSeries(values, times)


def around(count: int, seed: int, channels: int = 3) -> Surroundings:
    """Lines of any kind, at any distance of the readings."""
    draw = torch.Generator().manual_seed(seed)
    line = torch.randn(count, 5, channels, generator=draw)
    before, after = torch.rand(2, count, 5, channels, generator=draw)
    return Surroundings(line, before, after)


def step(near: Surroundings, weights: Tensor) -> Tensor:
    """The law of `LinearStep` written out channel by channel."""
    told = torch.empty_like(near.line, dtype=torch.float64)
    for c in range(near.line.shape[-1]):
        reach = 1 / (1 / near.before[..., c].double() + 1 / near.after[..., c].double())
        rise = weights[c, 0] + sum(weights[c, 1 + j] * near.line[..., j].double() for j in range(near.line.shape[-1]))
        told[..., c] = near.line[..., c].double() + reach * rise
    return told


def test_a_linear_step_is_found_again_from_what_it_made() -> None:
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    train, held = around(400, 1), around(40, 2)
    told = step(train, weights)
    told[torch.rand(told.shape, generator=torch.Generator().manual_seed(3)) < 0.4] = torch.nan
    found = LinearStep.fit((train, told), (held, step(held, weights)))
    torch.testing.assert_close(torch.tensor(found.weights), weights, atol=1e-3, rtol=1e-3, check_dtype=False)
    torch.testing.assert_close(found(held).double(), step(held, weights), atol=1e-3, rtol=1e-3)


def test_at_a_reading_the_linear_guess_is_the_reading() -> None:
    near = around(20, 0)
    guess = LinearStep(tuple((1.0, 2.0, -3.0, 4.0) for _ in range(3)))
    for at in ("before", "after"):
        here = near._replace(**{at: torch.zeros_like(near.before)})
        torch.testing.assert_close(guess(here), near.line, rtol=0, atol=1e-6)


def test_what_is_held_out_chooses_the_ridge_and_a_channel_never_told_keeps_its_line() -> None:
    """Told is noise alone: what generalises best is to learn nothing, so the heaviest ridge, the smallest weights."""
    train, held = around(6, 0), around(200, 1)
    noise = [
        torch.randn(near.line.shape, generator=torch.Generator().manual_seed(10 + k))
        for k, near in enumerate((train, held))
    ]
    told = train.line + noise[0]
    told[..., 2] = torch.nan
    found = torch.tensor(LinearStep.fit((train, told), (held, held.line + noise[1])).weights)
    eager = torch.tensor(LinearStep.fit((train, told), (train, told)).weights)
    assert (found[2] == 0).all() and found[:2].norm() < 0.5 * eager[:2].norm()


def test_channels_that_drive_one_another_are_forecast_by_the_linear_guess() -> None:
    """A quarter of a turn is far; ten steps of 0.02 are not: the last value errs by the angle, Euler by its square."""
    train, test = turning(30, 0), turning(20, 1)
    last, guess = (kind(ahead=4).fit(train) for kind in (LastValue, LinearGuess))
    pairs = guess._judged(test, None)
    truth, clock = pairs.wanted.padded()
    errors = [float(np.abs(own.predict(pairs.given, clock) - truth).max()) for own in (last, guess)]
    assert errors[1] < 0.15 * errors[0]


def test_between_readings_the_linear_guess_is_no_worse_than_the_line_it_starts_from() -> None:
    train, test = turning(30, 0, step=0.2), turning(20, 1, step=0.2)
    line, guess = (kind(task="interpolate").fit(train) for kind in (StraightLine, LinearGuess))
    assert guess.score(test) > line.score(test) - 1e-3


@pytest.mark.parametrize("kind", [IrregularForecaster, IrregularInterpolator])
@pytest.mark.parametrize("anchor", ["line", "linear", "none"])
def test_saved_and_loaded_it_holds_on_to_the_same(kind: Any, anchor: Any, tmp_path: Path) -> None:
    fitted, test = kind(**FAST, anchor=anchor).fit(sines(16, 0)), sines(3, 1)
    fitted.save(tmp_path / "model.safetensors")
    loaded = kind.load(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict(test), fitted.predict(test))
    assert loaded.anchor == anchor and (loaded.linear_ is None) == (anchor != "linear")


@pytest.mark.parametrize("anchor", ["line", "linear", "none"])
def test_without_an_anchor_an_answer_knows_no_more_than_the_state(anchor: Any) -> None:
    """A neural ODE starts from the first reading and hears of no other: what else changes came by the anchor."""
    forecaster = IrregularForecaster(model="node", ahead=4, history=12, stride=8, anchor=anchor, **FAST).fit(
        sines(16, 0)
    )
    series = sines(4, 1)
    moved = series.replace_values([np.concatenate([v[:1], v[1:] + 1.0]) for v in series.values])
    assert forecaster.history is not None
    short = [IrregularSeries([v[:10] for v in s.values], [t[:10] for t in s.times]) for s in (series, moved)]
    plain, other = (forecaster.predict(s) for s in short)
    assert np.array_equal(plain, other) == (anchor == "none")


@pytest.mark.parametrize("anchor", ["line", "linear"])
def test_before_training_the_answer_is_the_share_of_the_anchor_that_training_series_trust(anchor: Any) -> None:
    forecaster = IrregularForecaster(ahead=4, history=12, stride=8, anchor=anchor, **FAST).fit(turning(16, 0, 20))
    data = forecaster._anchored(forecaster._told(forecaster._cut(turning(4, 1, 20))))
    network = forecaster._network()
    with torch.no_grad():
        mean, *_ = network(forecaster._ways(data, None), data["features"], 0, **forecaster._solver(False))
        bias = network.head[-1].bias[:2]
    share = torch.tensor(forecaster.trust_)
    torch.testing.assert_close(mean, share * data["features"][..., :2] + bias, rtol=1e-5, atol=1e-6)


def test_an_anchor_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="anchor must be one of line, linear, none"):
        IrregularForecaster(anchor="lines").fit(sines(8, 0))  # type: ignore[arg-type]
