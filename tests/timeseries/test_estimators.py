"""What every estimator of series keeps: scikit-learn's conventions, seeds, files, ensembles, clear refusals."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciode.data import IrregularSeries
from sciode.timeseries import (
    MODELS,
    ChannelMean,
    IrregularClassifier,
    IrregularForecaster,
    IrregularInterpolator,
    LastValue,
    StraightLine,
)
from tests.timeseries.made import sines

FAST: dict[str, Any] = {"hidden": 8, "epochs": 2, "steps": 12, "n_samples": 3, "device": "cpu", "batch_size": 16}
OWN: dict[type, dict[str, Any]] = {
    IrregularClassifier: {},
    IrregularForecaster: {"ahead": 4, "history": 12, "stride": 8},
    IrregularInterpolator: {"copies": 1},
}
KINDS = list(OWN)
VALUES = KINDS[1:]


def make(kind: type, **changes: Any) -> Any:
    """An estimator that trains in a second."""
    return kind(**(FAST | OWN[kind] | changes))


def labelled(count: int, seed: int) -> tuple[IrregularSeries, Any]:
    """Sines and the class of their first reading's sign."""
    series = sines(count, seed)
    return series, np.array(["below", "above"])[[int(v[0, 0] > 0) for v in series.values]]


def fit(kind: type, count: int = 16, **changes: Any) -> Any:
    """A fitted estimator."""
    series, labels = labelled(count, seed=0)
    estimator = make(kind, **changes)
    return estimator.fit(series, labels) if kind is IrregularClassifier else estimator.fit(series)


def answer(estimator: Any, series: IrregularSeries) -> Any:
    """All numbers that an estimator gives for series."""
    if isinstance(estimator, IrregularClassifier):
        return estimator.predict_proba(series)
    return np.stack([estimator.predict(series), *estimator.predict_interval(series), *estimator.sample(series, n=2)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_model_and_another_seed_another(kind: type) -> None:
    test = sines(3, seed=1)
    first, again, other = (answer(fit(kind, random_state=seed), test) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.nanmax(np.abs(first - other)) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_pickled_it_answers_the_same(kind: type, tmp_path: Path) -> None:
    fitted, test = fit(kind, n_models=2), sines(3, seed=1)
    fitted.save(tmp_path / "model.safetensors")
    loaded = kind.load(tmp_path / "model.safetensors", device="cpu")  # type: ignore[attr-defined]
    pickled = ForkingPickler.loads(ForkingPickler.dumps(fitted))  # type: ignore[attr-defined]
    for copy in (loaded, pickled):
        np.testing.assert_array_equal(answer(copy, test), answer(fitted, test))
    assert loaded.get_params() == fitted.get_params()
    with pytest.raises(ValueError, match="holds Irregular"):
        KINDS[KINDS.index(kind) - 1].load(tmp_path / "model.safetensors")  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", list(MODELS))
def test_any_model_of_the_registry_will_do(kind: type, model: str) -> None:
    fitted = fit(kind, model=model)
    assert np.isfinite(answer(fitted, sines(3, seed=1)[[0]])).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("model", "solves"), [("grud", 1), ("lnsde", 4)])
def test_four_draws_are_four_solves_only_of_a_model_with_noise(
    kind: type, model: str, solves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, test, rows = fit(kind, model=model, n_samples=4), sines(3, seed=1), []
    predict = fitted.predict_proba if kind is IrregularClassifier else fitted.predict
    few = fitted.set_params(n_samples=1), predict(test)
    backbone = type(fitted.model_.backbone if kind is IrregularClassifier else fitted.model_.ahead)
    forward = backbone.forward
    monkeypatch.setattr(
        backbone, "forward", lambda self, b, *a, **k: rows.append(len(b.ends)) or forward(self, b, *a, **k)
    )
    many = few[0].set_params(n_samples=4), predict(test)
    assert set(rows) == {3 * solves}
    assert np.allclose(few[1], many[1], rtol=1e-9, equal_nan=True) == (model == "grud")


@pytest.mark.parametrize("kind", KINDS)
def test_the_members_of_an_ensemble_take_turns_at_the_draws(kind: type, tmp_path: Path) -> None:
    both, test = fit(kind, n_models=2, checkpoint=tmp_path), sines(3, seed=1)  # one by one: the same to the last bit
    assert len(both.models_) == len(both.histories_) == 2
    first = fit(kind).model_.state_dict()
    assert all(value.equal(first[name]) for name, value in both.models_[0].state_dict().items())

    def draws(*members: Any) -> Any:
        alone = make(kind, n_models=2)
        vars(alone).update({k: v for k, v in vars(both).items() if k.endswith("_")})
        alone.models_ = list(members)
        return alone.predict_draws(test, 4)[0] if kind is IrregularClassifier else alone.sample(test, n=4)

    one, other = both.models_
    np.testing.assert_array_equal(draws(one, other)[::2], draws(one, one)[::2])
    np.testing.assert_array_equal(draws(one, other)[1::2], draws(other, other)[1::2])
    assert np.nanmax(np.abs(draws(one, one) - draws(other, other))) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_changes_what_is_learnt(kind: type) -> None:
    with pytest.raises(ValueError, match="regularize"):
        fit(kind, regularize="kinetic")  # Euler's steps of the stable SDEs measure nothing
    plain, held = (fit(kind, model="node", regularize=names, penalty=10.0) for names in ((), ("kinetic",)))
    assert any(not p.equal(q) for p, q in zip(plain.model_.parameters(), held.model_.parameters(), strict=True))


def test_static_features_reach_the_classifier_and_other_ones_are_refused() -> None:
    """The readings are the same noise for all: only the static number tells the classes apart."""
    labels = np.arange(40) % 2
    values = np.random.default_rng(0).normal(size=(40, 6, 1))
    told = IrregularSeries(values, static=labels[:, None] * 50.0)
    classifier = make(IrregularClassifier, epochs=30, lr=2e-2).fit(told, labels)
    assert classifier.score(told, labels) > 0.9
    with pytest.raises(ValueError, match="0 static features and the training series had 1"):
        classifier.predict(IrregularSeries(values))


@pytest.mark.parametrize("kind", VALUES)
def test_scikit_learn_clones_searches_and_pipes_it(kind: type) -> None:
    base = pytest.importorskip("sklearn.base")
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    estimator = make(kind, hidden=4)
    copy = base.clone(estimator)
    assert copy is not estimator and copy.get_params() == estimator.get_params() and not hasattr(copy, "models_")
    assert base.is_regressor(estimator)
    series = sines(12, seed=0)
    search = GridSearchCV(estimator, {"lr": [1e-4, 1e-2]}, cv=2).fit(series)
    assert set(search.best_params_) == {"lr"} and np.isfinite(search.cv_results_["mean_test_score"]).all()
    piped = Pipeline([("model", make(kind))]).fit(series)
    np.testing.assert_array_equal(piped.predict(series), make(kind).fit(series).predict(series))


@pytest.mark.parametrize("kind", VALUES)
def test_arrays_lists_and_frames_are_taken_as_they_are(kind: type) -> None:
    pandas = pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(8, 2, 20))
    X[3, 0, 2:5] = np.nan
    rows = [(i, t, *X[i, :, t]) for i in range(8) for t in range(20)]
    frame = IrregularSeries.from_frame(pandas.DataFrame(rows, columns=["id", "t", "a", "b"]), "id", "t", ["a", "b"])
    whole = [make(kind).fit(x).predict(x) for x in (X, list(X), frame)]
    np.testing.assert_array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(whole[0], whole[2])


@pytest.mark.parametrize("kind", VALUES)
def test_a_killed_fit_continues_from_its_checkpoint(kind: type, tmp_path: Path, monkeypatch: Any) -> None:
    test = sines(3, seed=1)
    settings: dict[str, Any] = {"n_models": 2, "epochs": 3}
    original, calls = kind._loss, []  # type: ignore[attr-defined]

    def counting(self: Any, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(kind, "_loss", counting)
    stop = 0
    whole = answer(fit(kind, **settings, checkpoint=tmp_path / "whole"), test)
    stop, complete = len(calls) - 1, len(calls)  # in the second member's last epoch
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        fit(kind, **settings, checkpoint=tmp_path / "killed")
    calls.clear()
    stop = 0
    np.testing.assert_array_equal(answer(fit(kind, **settings, checkpoint=tmp_path / "killed"), test), whole)
    assert 0 < len(calls) < complete / 2
    with pytest.raises(ValueError, match="another model, data or options"):
        fit(kind, **settings, lr=1e-4, checkpoint=tmp_path / "killed")


@pytest.mark.parametrize("kind", VALUES)
def test_a_run_that_diverges_says_so_and_keeps_the_last_good_weights(kind: type, monkeypatch: Any) -> None:
    with pytest.raises(FloatingPointError, match="lower lr or clip"):
        fit(kind, form="paper", lr=1e12)
    original, calls = kind._loss, 0  # type: ignore[attr-defined]

    def breaking(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *args) * (float("nan") if calls > 12 else 1.0)

    monkeypatch.setattr(kind, "_loss", breaking)
    with pytest.warns(RuntimeWarning, match="non-finite loss in epoch"):
        fitted = fit(kind, epochs=30)
    assert 0 <= fitted.history_.best_epoch < 29 and np.isfinite(answer(fitted, sines(1, seed=1))).all()


SERIES = sines(8, seed=0)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda e: e.predict(SERIES), "not fitted"),
        (lambda e: e.save("nowhere"), "not fitted"),
        (lambda e: e.fit(np.full((8, 1, 5), np.nan)), "no reading at all"),
        (lambda e: e.fit(np.full((8, 1, 5), np.inf)), "infinite"),
        (lambda e: e.fit(IrregularSeries([[[0.0], [1.0]]], [[1.0, 1.0]])), "repeats"),
        (lambda e: e.fit(IrregularSeries([[[0.0], [1.0]]], [[1.0, 0.0]])), "goes back"),
        (lambda e: e.fit("series"), "IrregularSeries or an array"),
        (lambda e: e.fit(SERIES, validation=np.zeros((3, 2, 20))), "1 channels and the validation series have 2"),
        (lambda e: e.set_params(model="arima").fit(SERIES), "no model is called 'arima'"),
        (lambda e: e.set_params(n_models=0).fit(SERIES), "n_models"),
        (lambda e: e.set_params(validation_fraction=1.0).fit(SERIES), "validation_fraction"),
        (lambda e: e.fit(SERIES).predict(np.zeros((2, 3, 9))), "3 channels, the .* was fitted on 1"),
        (lambda e: e.fit(SERIES).predict_interval(SERIES, coverage=1.0), "coverage"),
        (lambda e: e.fit(SERIES).sample(SERIES, n=0), "n must be"),
    ],
)
def test_misuse_says_the_mend(kind: type, call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(make(kind, epochs=1))


@pytest.mark.parametrize("kind", [LastValue, ChannelMean])
@pytest.mark.parametrize("task", ["forecast", "interpolate"])
def test_baselines_have_the_same_methods(kind: type, task: str) -> None:
    base = pytest.importorskip("sklearn.base")
    train, test = sines(30, seed=0), sines(30, seed=1)
    baseline = base.clone(kind(task=task, ahead=4)).fit(train)
    lower, upper = baseline.predict_interval(test)
    middle = baseline.predict(test)
    asked = ~np.isnan(middle)
    assert (lower[asked] < middle[asked]).all() and (middle[asked] < upper[asked]).all()
    assert baseline.sample(test, n=3).shape == (3, *middle.shape) and baseline.score(test) < 0.4
    with pytest.raises(ValueError, match="not fitted"):
        kind().predict(test)


def test_the_last_value_the_mean_and_the_line_are_what_they_say() -> None:
    series = IrregularSeries([[[1.0, np.nan], [2.0, 5.0], [np.nan, 7.0]], [[3.0, np.nan]]])
    given = {"task": "interpolate", "hide": 0.4}
    mean = ChannelMean(**given).fit(series).predict(series, [0.0, 1.5])
    np.testing.assert_allclose(mean, np.broadcast_to([2.0, 6.0], (2, 2, 2)))
    line = StraightLine(hide=0.4).fit(series).predict(series, [0.5, 1.75])
    np.testing.assert_allclose(line, [[[1.5, 5.0], [2.0, 6.5]], [[3.0, 6.0], [3.0, 6.0]]])
    last = LastValue(**given).fit(series).predict(series, [0.5, 2.5])
    np.testing.assert_allclose(last, [[[1.0, 6.0], [2.0, 7.0]], [[3.0, 6.0], [3.0, 6.0]]])
