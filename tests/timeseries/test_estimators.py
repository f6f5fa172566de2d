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
    ControlGrid,
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


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_as_searches_have_them_are_saved(kind: type, tmp_path: Path) -> None:
    """A parameter grid of numpy hands its own numbers to the estimator."""
    numpys: dict[str, Any] = {"hidden": np.int64(8), "lr": np.float32(0.01), "random_state": np.int64(2)}
    fitted, test = fit(kind, **numpys), sines(3, seed=1)
    fitted.save(tmp_path / "model.safetensors")
    loaded = kind.load(tmp_path / "model.safetensors", device="cpu")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(answer(loaded, test), answer(fitted, test))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_fails_leaves_nothing_to_predict_with(kind: type) -> None:
    """The old networks with the scales of the new series would answer, and be wrong."""
    series, labels = labelled(16, seed=0)
    estimator = fit(kind).set_params(lr=1e25, form="paper")
    given = (labels,) if kind is IrregularClassifier else ()
    with pytest.raises(ValueError, match="infinite values"):
        estimator.fit(np.full((16, 1, 5), np.inf), *given)
    with pytest.raises(FloatingPointError, match="training failed"):
        estimator.fit(series.replace_values([50 * value + 9 for value in series.values]), *given)
    with pytest.raises(ValueError, match="is not fitted: call fit first"):
        estimator.predict(series)


def test_one_class_only_does_not_change_what_was_fitted() -> None:
    series, _ = labelled(16, seed=0)
    estimator = fit(IrregularClassifier)
    before = answer(estimator, series)
    with pytest.raises(ValueError, match="one class only"):
        estimator.fit(series, ["same"] * 16)
    assert estimator.classes_.tolist() == ["above", "below"]
    np.testing.assert_array_equal(answer(estimator, series), before)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((kind, "hidden", 16) for kind in KINDS),
        (IrregularClassifier, "readout", "mean"),
        (IrregularForecaster, "anchor", "none"),
        (IrregularInterpolator, "n_models", 2),
    ],
)
def test_parameters_of_the_networks_cannot_change_after_fit(kind: type, name: str, value: Any, tmp_path: Path) -> None:
    """The file would say what the networks in it are not."""
    fitted, test = fit(kind), sines(3, seed=1)
    was, before = getattr(fitted, name), answer(fitted, test)
    fitted.set_params(**{name: value})
    for call in (lambda: fitted.save(tmp_path / "model.safetensors"), lambda: fitted.predict(test)):
        with pytest.raises(ValueError, match=f"{name} was .* in fit and is .* now: fit again, or set it back"):
            call()
    np.testing.assert_array_equal(answer(fitted.set_params(**{name: was}), test), before)


@pytest.mark.parametrize("kind", VALUES)
def test_every_member_has_a_say_however_few_the_draws(kind: type) -> None:
    """An ensemble's expectation is the mean of its members', also with one draw wished for."""
    fitted, test = fit(kind, n_models=3, n_samples=1), sines(3, seed=1)
    mixture = fitted._mixture(*fitted._asked(test, None), 3)
    assert np.nanmax(mixture.mean.std(0)) > 1e-4
    np.testing.assert_array_equal(fitted.predict(test), mixture.centre())


CHANGED: list[tuple[type, dict[str, Any]]] = [
    *((kind, {"model": "gsde"}) for kind in KINDS),  # whose weights have the same names, sizes and first values
    *((kind, {"jitter": 0.5}) for kind in KINDS),
    (IrregularClassifier, {"label_smoothing": 0.4}),
    (IrregularClassifier, {"readout": "mean"}),
    (IrregularClassifier, {"class_weight": "balanced"}),
]


@pytest.mark.parametrize(("kind", "change"), CHANGED)
def test_a_checkpoint_is_not_continued_as_another_model_or_with_another_loss(
    kind: type, change: dict[str, Any], tmp_path: Path
) -> None:
    done = fit(kind, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="another model, data or options: use another folder"):
        fit(kind, checkpoint=tmp_path, **change)
    aside = fit(kind, checkpoint=tmp_path, n_samples=5)
    assert aside.history_ == done.history_


@pytest.mark.parametrize("kind", [*KINDS, LastValue])
@pytest.mark.parametrize("wrong", [None, -1, 1.5, np.random.RandomState(0)])
def test_a_seed_is_a_whole_number(kind: type, wrong: Any) -> None:
    series, labels = labelled(16, seed=0)
    with pytest.raises(ValueError, match="random_state must be an int >= 0, got"):
        kind(random_state=wrong).fit(series, *([labels] if kind is IrregularClassifier else []))


@pytest.mark.parametrize(
    ("kind", "wrong", "says"),
    [
        (IrregularClassifier, {"epochs": 2.0}, r"epochs must be an int >= 1, got 2\.0"),
        (IrregularClassifier, {"hidden": None}, "hidden must be an int >= 1, got None"),
        (IrregularClassifier, {"steps": 2.5}, r"steps must be an int >= 1 or None, got 2\.5"),
        (IrregularClassifier, {"horizon": float("inf")}, "horizon must be > 0.*finite"),
        (IrregularClassifier, {"channels": "rises"}, "channels is 'rises': give a tuple of names"),
        (IrregularClassifier, {"channels": None}, "channels is None: give a tuple of names"),
        (IrregularClassifier, {"validation_fraction": 0.99}, "too few to set some aside"),
        (IrregularForecaster, {"stride": 0}, "stride must be an int >= 1 or None, got 0"),
        (IrregularForecaster, {"history": 0}, "history must be an int >= 1 or None, got 0"),
        (IrregularInterpolator, {"copies": 1.5}, r"copies must be an int >= 1, got 1\.5"),
    ],
)
def test_parameters_that_mean_nothing_are_refused_before_work_starts(kind: type, wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit(kind, **wrong)


LABELS: dict[str, tuple[Any, str]] = {
    # numpy makes text of both, and of NaN a class of that name
    "text and NaN in a list": (["a", "b", float("nan"), "a"] * 4, "missing labels: remove those series"),
    "not a time": (np.array(["2026-01-01", "NaT"] * 8, "M8[D]"), "missing labels: remove those series"),
    "mixed objects": (np.array([1, "a"] * 8, dtype=object), "without a common order"),
}


@pytest.mark.parametrize("fault", LABELS)
def test_labels_that_are_missing_or_without_order_are_refused(fault: str) -> None:
    labels, says = LABELS[fault]
    with pytest.raises(ValueError, match=says):
        make(IrregularClassifier).fit(sines(16, seed=0), labels)


def test_labels_that_pandas_says_are_missing_are_refused() -> None:
    pd = pytest.importorskip("pandas", reason="pandas comes with the lab extra")
    with pytest.raises(ValueError, match="missing labels: remove those series"):
        make(IrregularClassifier).fit(sines(16, seed=0), pd.array(["a", None] * 8, dtype="string"))


def test_labels_that_a_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    fitted = make(IrregularClassifier).fit(sines(16, seed=0), np.array([b"a", b"b"] * 8))
    with pytest.raises(ValueError, match="labels of this kind cannot be saved"):
        fitted.save(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kind", VALUES)
def test_times_in_any_memory_order_are_taken_without_a_warning_and_single_ones_with_the_mend(kind: type) -> None:
    fitted, test = fit(kind), sines(4, seed=1)
    begin, end = (np.array([clock[row] for clock in test.times])[:, None] for row in (0, -1))
    asked = begin + (end - begin) * (np.array([[1.1, 1.2]]) if kind is IrregularForecaster else [[0.3, 0.6]])
    np.testing.assert_array_equal(fitted.predict(test, np.asfortranarray(asked)), fitted.predict(test, asked))
    with pytest.raises(ValueError, match=r"times is 5\.0: give \[Q\]"):
        fitted.predict(test, 5.0)
    with pytest.raises(ValueError, match="times is not numeric: it holds dates"):
        fitted.predict(test, np.array(["2026-01-01"], "M8[D]"))


def test_gaps_below_the_smallest_number_do_not_make_the_grid_endless() -> None:
    grid = ControlGrid.of(IrregularSeries(np.zeros((1, 4, 1)), [[0.0, 1e-320, 2e-320, 1.0]]))
    assert (grid.steps, grid.duration) == (3, 1.0)


def test_a_data_frame_is_refused_with_the_way_to_read_it() -> None:
    pd = pytest.importorskip("pandas", reason="pandas comes with the lab extra")
    with pytest.raises(ValueError, match=r"got DataFrame: .* IrregularSeries.from_frame\(df, id, time, values\)"):
        make(IrregularClassifier).fit(pd.DataFrame({"x": [1.0]}), [0])
