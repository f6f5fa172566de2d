"""`Prose` on trajectories: units, faults by name, equations that blow up, and a model that is trained for a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciode.prose import (
    PRESETS,
    SYSTEMS,
    Course,
    Drawing,
    Expression,
    Fit,
    Prose,
    Reading,
    Transformer,
    constant,
    draw,
    latex,
    sin,
    variable,
    variables,
)
from sciode.prose.arrays import in_own_units, trajectory
from sciode.prose.estimator import PRETRAINED
from sciode.prose.metrics import Terms, solved, terms_of
from sciode.training import isolated_rng

QUICK = Fit(iterations=2, ahead=2, steps=1)

pytestmark = pytest.mark.filterwarnings("ignore:the best equations:UserWarning")
"""Models that are hardly trained write what they themselves doubt."""


@pytest.fixture(scope="module")
def prose() -> Prose:
    with isolated_rng(0):
        return Prose(Transformer(PRESETS["tiny"]), ("lorenz",), "cpu")


def waves(count: int = 64, end: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t = np.linspace(0.0, end, count)
    return t, np.stack((np.sin(t), np.cos(t)), -1)


FAULTS: dict[str, tuple[Any, Any, str]] = {
    "NaN": (waves()[0], np.where(np.arange(64)[:, None] == 5, np.nan, waves()[1]), "reading 5 is NaN"),
    "order": (waves()[0][::-1], waves()[1], "must increase"),
    "twice": (np.repeat(waves()[0][:32], 2), waves()[1], "must increase"),
    "constant": (waves()[0], np.ones((64, 2)), "do not move"),
    "diverging": (waves()[0], np.exp(5 * waves()[0])[:, None], "diverge"),
    "dimension": (waves()[0], np.repeat(waves()[1], 2, 1), "up to 3"),
    "few": (waves(5)[0], waves(5)[1], "too few"),
    "shapes": (waves()[0][:-1], waves()[1], "expected times"),
    "dates": (np.datetime64("2026-01-01") + np.arange(64), waves()[1], "count from the first"),
    "words": (waves()[0], [["a", "b"]] * 64, "values must be an array of real numbers"),
    "ragged": (waves()[0], [[1.0, 2.0]] * 63 + [[1.0]], "array of real numbers"),
    "none": (waves()[0], [[1.0, 2.0]] * 9 + [[1.0, None]] * 55, "reading 9 is NaN"),
    "complex": (waves()[0], waves()[1] + 1j, "two components"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_readings_that_cannot_be_used_are_refused_by_name(prose: Prose, fault: str) -> None:
    times, values, said = FAULTS[fault]
    with pytest.raises(ValueError, match=said):
        prose.predict(times, values, [3.0])


def test_questions_and_guesses_that_do_not_fit_are_refused(prose: Prose) -> None:
    times, values = waves()
    with pytest.raises(ValueError, match="before the first reading"):
        prose.predict(times, values, [-1.0])
    with pytest.raises(ValueError, match="finite"):
        prose.predict(times, values, [np.nan])
    with pytest.raises(ValueError, match="guess"):
        prose.predict(times, values, [3.0], guess=[constant(1.0)])
    with pytest.raises(ValueError, match="scale"):
        prose.predict(times, values, [3.0], scale=[0.0, 1.0])
    with pytest.raises(ValueError, match="one number or 2"):
        prose.predict(times, values, [3.0], scale=[1.0, 2.0, 3.0])
    for unit in (-1.0, "s"):
        with pytest.raises(ValueError, match="unit must be a positive number"):
            prose.predict(times, values, [3.0], unit=unit)  # type: ignore[arg-type]
    wrongs: dict[str, Any] = {
        "u_2": (variable(2), variable(0)),
        "variables": ("u_1", "-u_0"),
        "1 equations": variable(0),
    }
    for said, guess in wrongs.items():
        with pytest.raises(ValueError, match=said):
            prose.predict(times, values, [3.0], guess=guess)
    with pytest.raises(ValueError, match="1 names"):
        latex([variable(0), variable(1)], names=("x",))


def test_readings_may_be_lists_or_tensors_and_a_guess_may_be_a_number(prose: Prose) -> None:
    times, values = waves()
    guesses = ((variable(1), 1), (variable(1), constant(1.0)))
    tensors = torch.tensor(times), torch.tensor(values, requires_grad=True)
    one, other = (
        prose.predict(*own, 3.0, guess=guess, beams=1, fit=QUICK)
        for own, guess in zip(((times.tolist(), values.tolist()), tensors), guesses, strict=True)
    )
    np.testing.assert_array_equal(one.values, other.values)


def test_a_forecast_has_its_shapes_and_its_candidates_in_order(prose: Prose) -> None:
    times, values = waves()
    ask = np.array([2.5, 0.5, 5.0, 9.0, 0.0])
    found = prose.predict(times, values, ask, beams=3, fit=QUICK)
    assert found.values.shape == found.deviation.shape == found.operator.shape == (5, 2)
    assert found.solutions.shape == (3, 5, 2) and len(found.equations) == len(found.status) == 3
    assert np.isnan(found.operator[3]).all() and np.isfinite(found.operator[[0, 1, 2, 4]]).all()
    assert np.isfinite(found.values).all() or found.weights.sum() == 0
    assert found.weights.sum() == pytest.approx(1.0) or found.weights.sum() == 0
    assert found.samples.shape[1:] == (5, 2) and found.excess.shape == found.misfits.shape == (3,)
    assert found.weights[found.best] == found.weights.max()
    assert len(found.sympy()) == 2 and found.latex(names=("x", "y")).count("dot") == 2


def test_uneven_readings_of_a_smooth_curve_are_laid_on_its_even_times() -> None:
    rng = np.random.default_rng(0)
    t = np.sort(np.concatenate(([0.0, 2.0], rng.uniform(0, 2, 80))))
    given = trajectory(t, np.sin(t), 3, 64)
    torch.testing.assert_close(given.values[:, 0], given.times.sin(), rtol=0, atol=1e-4)
    assert given.time == 1.0 and given.given == 82


def test_units_of_time_and_size_do_not_change_the_equations_solution() -> None:
    """A system in the model's units, written out in the user's, goes where the user's trajectory goes."""
    system: tuple[Expression, ...] = tuple(e.bound(SYSTEMS["lorenz"].nominal) for e in SYSTEMS["lorenz"].equations)
    clock = torch.linspace(0, 2, 64, dtype=torch.float64)
    path = solved([system], torch.tensor([[1.0, 1.5, 20.0]], dtype=torch.float64), clock).values[0]
    scale, unit = [1000.0, 0.1, 5.0], 7.0
    given = trajectory(100.0 + unit * clock.numpy(), path.numpy() * scale, 3, 64, scale)
    assert given.time == pytest.approx(unit)
    torch.testing.assert_close(given.values, path, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(given.asked([100.0, 114.0]), torch.tensor([0.0, 2.0], dtype=torch.float64))
    own = in_own_units(system, given)
    begin = path[:1] * torch.tensor(scale)
    mine = solved([own], begin, unit * clock).values[0]
    torch.testing.assert_close(mine / torch.tensor(scale, dtype=torch.float64), path, rtol=1e-3, atol=1e-3)


def written(monkeypatch: pytest.MonkeyPatch, *systems: tuple[Expression, ...]) -> None:
    """Have these systems written, whatever is read."""
    from sciode.prose import estimator
    from sciode.prose.writing import Written

    found = Written([list(systems)], torch.zeros(1, len(systems), dtype=torch.float64))
    monkeypatch.setattr(estimator, "write", lambda *_, **__: found)


SHORT = Fit(1, 2, 1)


def test_a_candidate_that_blows_up_counts_for_nothing_and_says_so(
    prose: Prose, monkeypatch: pytest.MonkeyPatch
) -> None:
    u = variable(0)
    # No number of it can be moved far enough within its prior.
    burst = (1e6 * u**2,)
    written(monkeypatch, burst, (1.0 - u,))
    times = np.linspace(0, 2, 24)
    found = prose.predict(times, np.exp(-times) + 1.0, [3.0, 4.0], beams=2, fit=SHORT)
    assert found.status[0] != found.status[1] == "the solve reached its last time"
    assert found.weights.tolist() == [0.0, 1.0] and np.isnan(found.solutions[0]).all() and not found.doubtful
    np.testing.assert_allclose(found.values, found.solutions[1])
    np.testing.assert_allclose(found.values[:, 0], np.exp([-3.0, -4.0]) + 1.0, rtol=1e-3)
    written(monkeypatch, burst)
    with pytest.warns(UserWarning, match="could not be solved"):
        alone = prose.predict(times, np.exp(-times) + 1.0, [3.0, 4.0], beams=1, fit=SHORT)
    np.testing.assert_allclose(alone.values, alone.operator)
    assert np.isnan(alone.deviation).all() and np.isnan(alone.band()).all() and alone.doubtful


def swing(level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    times, values = waves()
    return times, values + level * np.random.default_rng(0).normal(size=values.shape)


def test_equations_that_noise_explains_are_not_doubted_and_others_are_with_a_warning(
    prose: Prose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """u' = v, v' = -u, beside u' = v, v' = -u v."""
    u, v = variables(2)
    right, wrong = (1.0 * v, -1.0 * u), (1.0 * v, -1.0 * u * v)
    written(monkeypatch, wrong, right)
    found = prose.predict(*swing(0.02), [3.0], beams=2, fit=SHORT)
    assert found.best == 1 and found.weights[1] > 0.999 and not found.doubtful
    assert found.excess[0] > 10 and found.excess[1] == pytest.approx(1.0, abs=0.4)
    assert found.noise == pytest.approx(0.02, rel=0.25)
    written(monkeypatch, wrong)
    with pytest.warns(UserWarning, match="search=8"):
        assert prose.predict(*swing(0.02), [3.0], beams=1, fit=SHORT).doubtful


def test_a_band_is_made_of_samples_and_wider_for_more_coverage(prose: Prose, monkeypatch: pytest.MonkeyPatch) -> None:
    u, v = variables(2)
    written(monkeypatch, (1.0 * v, -1.0 * u))
    found = prose.predict(*swing(0.05), [5.0], beams=1, fit=SHORT)
    (low, high), (inner_low, inner_high) = found.band(0.9), found.band(0.5)
    assert bool(((low < inner_low) & (inner_low < inner_high) & (inner_high < high)).all())
    inside = (found.samples >= low) & (found.samples <= high)
    assert inside.mean() == pytest.approx(0.9, abs=0.04)
    again = prose.predict(*swing(0.05), [5.0], beams=1, fit=SHORT)
    np.testing.assert_array_equal(found.samples, again.samples)
    with pytest.raises(ValueError, match="coverage"):
        found.band(1.0)


def test_a_search_finds_what_the_model_does_not_write(prose: Prose, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pendulum, whose sine no candidate has."""
    u, v = variables(2)
    clock = torch.linspace(0, 4, 80, dtype=torch.float64)
    true = (1.0 * v, -4.0 * sin(u))
    path = solved([true], torch.tensor([[1.0, 0.5]], dtype=torch.float64), clock).values[0].numpy()
    written(monkeypatch, (1.0 * v, -1.0 * u * v))
    found = prose.predict(clock[:40], path[:40], clock[40:], beams=1, fit=SHORT, search=2)
    assert not found.doubtful and found.best > 0
    assert Terms.between(terms_of(found.equations[found.best], 1e-3), terms_of(true)).exact
    assert np.linalg.norm(found.values - path[40:]) < 1e-3 * np.linalg.norm(path[40:])


def test_what_is_saved_predicts_the_same(prose: Prose, tmp_path: Path) -> None:
    times, values = waves()
    prose.save(tmp_path / "prose.safetensors")
    again = Prose.load(tmp_path / "prose.safetensors", "cpu")
    assert again.systems == ("lorenz",) and again.end == prose.end == 6.0
    first, second = (one.predict(times, values, [3.0], beams=2, fit=QUICK) for one in (prose, again))
    np.testing.assert_array_equal(first.values, second.values)
    assert first.equations == second.equations


def test_a_moment_of_training_makes_a_model_that_predicts(tmp_path: Path) -> None:
    how = Drawing(("thomas",), equations=2, starts=2, frames=96, end=3.0, engine="eager")
    course = Course(steps=2, batch=4, every=1, reading=Reading(frames=32, queries=4))
    model = Prose.trained("tiny", how, course, "cpu", tmp_path)
    times, values = waves()
    found = model.predict(times, values, [2.5, 3.5], beams=1, fit=QUICK)
    assert model.systems == ("thomas",) and found.values.shape == (2, 2)
    # The operator answers up to where training asked it.
    assert np.isfinite(found.operator[0]).all() and np.isnan(found.operator[1]).all()
    model.save(tmp_path / "own.safetensors")
    assert Prose.load(tmp_path / "own.safetensors", "cpu").end == 3.0


def test_the_model_that_comes_with_sciode_writes_a_system_that_it_is_not_told_and_foresees() -> None:
    """A clean trajectory with numbers of its own: all terms, and a solution that an operator does not reach."""
    prose = Prose.from_pretrained(device="cpu")
    assert set(prose.systems) == {name for name, one in SYSTEMS.items() if one.dimension == 3}
    (samples,) = draw(Drawing(("dadras",), equations=1, starts=1, engine="eager"), 11)
    times, path = np.linspace(0, 6, 192), samples.values[0].numpy()
    found = prose.predict(times[:64], path[:64], times[64:], beams=1, fit=Fit(iterations=40))
    assert Terms.between(terms_of(found.equations[found.best], 1e-3), terms_of(samples.equations[0])).exact
    errors = [np.linalg.norm(one - path[64:]) for one in (found.values, found.operator)]
    assert errors[0] < 0.1 * errors[1] < 0.1 * np.linalg.norm(path[64:])


def test_names_of_models_that_do_not_come_with_sciode_are_refused() -> None:
    with pytest.raises(ValueError, match="mini"):
        Prose.from_pretrained("minni")
    assert set(PRETRAINED) == {"mini"}
