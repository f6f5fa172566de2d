"""The estimator: it learns, keeps scikit-learn's conventions, and says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciode.data import IrregularSeries, drop
from sciode.timeseries import IrregularClassifier

FAST: dict[str, Any] = {"hidden": 16, "epochs": 12, "batch_size": 16, "lr": 2e-2, "n_samples": 4, "device": "cpu"}


def make(**changes: Any) -> IrregularClassifier:
    """A classifier that trains in a second."""
    return IrregularClassifier(**(FAST | changes))


def waves(count: int, seed: int, missing: float = 0.0) -> tuple[IrregularSeries, NDArray[np.str_]]:
    """Rising and falling noisy waves of 6 to 12 points at uneven times, in two channels of unlike units."""
    rng = np.random.default_rng(seed)
    labels = np.array(["falling", "rising"])[np.arange(count) % 2]
    values, times = [], []
    for label in labels:
        clock = np.cumsum(rng.uniform(0.5, 1.5, rng.integers(6, 13)))
        slope = 1.0 if label == "rising" else -1.0
        signal = slope * (clock - clock[0]) + rng.normal(0, 0.3, clock.shape)
        values.append(np.stack([signal, 1e4 + 300 * np.sin(clock) + 50 * signal], -1))
        times.append(clock + rng.uniform(0, 100))
    return drop(IrregularSeries(values, times), missing, seed), labels


@pytest.fixture(scope="module")
def fitted() -> IrregularClassifier:
    return make().fit(*waves(60, seed=0))


def test_it_learns_irregular_series_of_unequal_length_with_gaps(fitted: IrregularClassifier) -> None:
    assert fitted.score(*waves(40, seed=1)) >= 0.95
    assert fitted.score(*waves(40, seed=2, missing=0.5)) >= 0.9


def test_probabilities_are_the_mean_over_draws_and_their_spread_the_deviation(fitted: IrregularClassifier) -> None:
    series, _ = waves(10, seed=3)
    mean, std = fitted.predict_proba(series, return_std=True)
    draws, nfe = fitted.predict_draws(series)
    assert draws.shape == (4, 10, 2) and nfe.shape == (10,)
    np.testing.assert_allclose(mean.sum(-1), 1, rtol=1e-12)
    np.testing.assert_array_equal(mean, draws.mean(0))
    np.testing.assert_array_equal(std, draws.std(0))
    np.testing.assert_array_equal(fitted.predict(series), fitted.classes_[mean.argmax(-1)])
    assert std.max() > 0


def test_a_prediction_depends_neither_on_the_other_series_nor_on_their_order(fitted: IrregularClassifier) -> None:
    series, _ = waves(9, seed=4, missing=0.3)
    together = fitted.predict_proba(series)
    np.testing.assert_allclose(fitted.predict_proba(series[[7, 2]]), together[[7, 2]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(series[::-1]), together[::-1], rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    train, test = waves(30, seed=0), waves(6, seed=1)[0]
    first, again = (make(epochs=2).fit(*train).predict_proba(test) for _ in range(2))
    other = make(epochs=2, random_state=1).fit(*train).predict_proba(test)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_the_units_of_the_readings_do_not_matter(fitted: IrregularClassifier) -> None:
    """Standardisation comes before the paths: an affine change of units, learnt and applied, changes nothing."""
    (train, labels), (test, _) = waves(30, seed=0), waves(6, seed=1)
    scale, shift = np.array([1024.0, 0.25]), np.array([8.0, -512.0])
    moved = [series.replace_values([v * scale + shift for v in series.values]) for series in (train, test)]
    plain = make(epochs=3).fit(train, labels).predict_proba(test)
    other = make(epochs=3).fit(moved[0], labels).predict_proba(moved[1])
    np.testing.assert_allclose(plain, other, atol=1e-3)


def test_saved_and_loaded_it_predicts_the_same(fitted: IrregularClassifier, tmp_path: Path) -> None:
    series, _ = waves(6, seed=5, missing=0.2)
    fitted.save(tmp_path / "model.safetensors")
    loaded = IrregularClassifier.load(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(series), fitted.predict_proba(series))
    np.testing.assert_array_equal(loaded.predict(series), fitted.predict(series))
    assert loaded.get_params() == fitted.get_params()


@pytest.mark.parametrize("labels", [[3, 7], [True, False], [0.5, 1.5], np.array(["a", "bc"], dtype=object)])
def test_labels_of_any_dtype_come_back_in_it(labels: Any, tmp_path: Path) -> None:
    kinds = np.asarray(labels)
    series, names = waves(20, seed=0)
    fitted = make(epochs=1).fit(series, kinds[(names == "rising").astype(int)])
    fitted.save(tmp_path / "model.safetensors")
    for classifier in (fitted, IrregularClassifier.load(tmp_path / "model.safetensors")):
        predicted = classifier.predict(series)
        assert predicted.dtype == kinds.dtype and set(predicted.tolist()) <= set(kinds.tolist())


def test_aeon_s_arrays_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 2, 8))
    y = np.arange(20) % 2
    X[3, 0, 2:5] = np.nan
    as_array = make(epochs=1).fit(X, y)
    as_list = make(epochs=1).fit(list(X), y)
    np.testing.assert_array_equal(as_array.predict_proba(X), as_list.predict_proba(IrregularSeries.from_array(X)))


def test_scikit_learn_clones_validates_and_searches_it() -> None:
    sklearn_base = pytest.importorskip("sklearn.base")
    from sklearn.model_selection import cross_val_score

    classifier = make(epochs=2)
    copy = sklearn_base.clone(classifier.set_params(hidden=8))
    assert copy is not classifier and copy.get_params() == classifier.get_params() and copy.hidden == 8
    assert sklearn_base.is_classifier(classifier)
    assert not hasattr(copy, "model_")
    scores = cross_val_score(copy, *waves(24, seed=0), cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_a_killed_fit_continues_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = waves(30, seed=0), waves(6, seed=1)[0]
    whole = make(epochs=4).fit(*train).predict_proba(test)
    original, calls = IrregularClassifier._loss, 0

    def killed(self: IrregularClassifier, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(IrregularClassifier, "_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            make(epochs=4, checkpoint=tmp_path).fit(*train)
    resumed = make(epochs=4, checkpoint=tmp_path).fit(*train)
    np.testing.assert_array_equal(resumed.predict_proba(test), whole)


def test_latent_paths_start_together_and_stay_after_the_series_end(fitted: IrregularClassifier) -> None:
    series, _ = waves(5, seed=6)
    times, paths = fitted.latent_paths(series, n_samples=3)
    assert paths.shape == (3, len(times), 5, 16)
    assert (paths[:, 0] == paths[:1, 0]).all()
    for case, clock in enumerate(series.times):
        after = times > clock[-1] - clock[0] + 1e-9
        assert after.sum() < 2 or np.ptp(paths[:, after, case], axis=1).max() < 1e-5
    assert paths[:, -1].std(0).max() > 0


def test_diverged_training_is_an_error_and_never_hidden() -> None:
    with pytest.raises(FloatingPointError, match="lower lr or clip"):
        make(form="paper", lr=1e12, epochs=2).fit(*waves(20, seed=0))


def test_balanced_classes_weigh_as_if_the_rare_one_had_been_copied() -> None:
    """A loss over 3 rising and 9 falling, balanced, is that over the rising three times and the falling once."""
    series, labels = waves(24, seed=0)
    rare, common = np.flatnonzero(labels == "rising")[:3], np.flatnonzero(labels == "falling")[:9]
    few = np.concatenate([rare, common])
    held = waves(8, seed=1)
    weighted = make(class_weight="balanced", epochs=1, label_smoothing=0.0).fit(series[few], labels[few], held)
    assert weighted.weights_ == pytest.approx((12 / 2 / 9, 12 / 2 / 3))
    even = make(epochs=1, label_smoothing=0.0).fit(series[few], labels[few], held)
    copied = np.concatenate([rare, rare, rare, common])

    def loss(of: IrregularClassifier, rows: NDArray[np.int64]) -> float:
        # Draws of their own would differ between copies: one seed for all.
        data = of._labelled(series[rows], labels[rows])
        seeds = torch.full((len(rows),), 7)
        with torch.no_grad():
            return float(of._loss(weighted.model_.eval(), data, seeds))  # type: ignore[arg-type]

    assert loss(weighted, few) == pytest.approx(loss(even, copied), rel=1e-5)
    assert loss(weighted, few) != pytest.approx(loss(even, few), rel=1e-3)


SERIES, LABELS = waves(20, seed=0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c: c.predict(SERIES), "not fitted"),
        (lambda c: c.save("nowhere"), "not fitted"),
        (lambda c: c.fit(SERIES, ["a"] * 20), "one class only"),
        (lambda c: c.fit(SERIES, LABELS[:-1]), "one label for each of the 20"),
        (lambda c: c.fit(SERIES, [np.nan] + [1.0] * 19), "NaN"),
        (lambda c: c.fit(SERIES, LABELS, (SERIES, ["other"] * 20)), "classes that X does not"),
        (lambda c: c.fit(SERIES[:4], LABELS[:4]), "too few"),
        (lambda c: c.fit("series", LABELS), "IrregularSeries or an array"),
        (lambda c: c.fit(np.full((20, 2, 5), np.nan), LABELS), "no reading at all"),
        (lambda c: c.set_params(width=3), "no parameter 'width'"),
        (lambda c: c.set_params(batch_size=2).fit(SERIES, LABELS), "batch_size"),
        (lambda c: c.set_params(label_smoothing=1.0).fit(SERIES, LABELS), "label_smoothing"),
        (lambda c: c.set_params(class_weight="even").fit(SERIES, LABELS), "class_weight"),
        (lambda c: c.set_params(horizon=0.0).fit(SERIES, LABELS), "horizon"),
        (lambda c: c.set_params(lr=-1.0).fit(SERIES, LABELS), "lr"),
        (lambda c: c.set_params(device="nowhere").fit(SERIES, LABELS), "not available"),
    ],
)
def test_misuse_says_the_mend(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(make())


def test_series_with_another_number_of_channels_are_refused(fitted: IrregularClassifier) -> None:
    with pytest.raises(ValueError, match="3 channels, the classifier was fitted on 2"):
        fitted.predict(np.zeros((4, 3, 6)))
    with pytest.raises(ValueError, match="n_samples"):
        fitted.predict_draws(SERIES, n_samples=0)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    from sciode.training import save_checkpoint

    save_checkpoint(tmp_path / "other.safetensors", {}, {"estimator": "Regressor"})
    with pytest.raises(ValueError, match="holds Regressor"):
        IrregularClassifier.load(tmp_path / "other.safetensors")


def test_a_gpu_is_taken_by_itself_only_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sciode.timeseries.sequence.choose_device", lambda name: asked.append(name) or "cpu")
    for hidden, device in ((8, "auto"), (1 << 12, "auto"), (8, "cpu")):
        classifier = make(hidden=hidden, device=device)
        classifier.n_channels_in_, classifier.classes_ = 2, np.arange(2)
        classifier._network()
    assert asked == ["cpu", "auto", "cpu"]


def test_its_repr_says_what_was_changed() -> None:
    assert repr(IrregularClassifier(hidden=8)) == "IrregularClassifier(hidden=8)"
