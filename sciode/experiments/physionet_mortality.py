"""Death in hospital, from the first 48 hours in intensive care: PhysioNet 2012, set A, 554 deaths in 4,000 stays.

Sequence models read the 37 channels on the stay's own clock and what is known at admission (age, sex, height, type of
unit); in their loss both outcomes count alike ("balanced"). A rate is the share of time points that are lost, whole
ones: 0 is the task as it is. Stays are split 64/16/20 (train, validation, test), stratified by outcome; scales are
learnt from the training stays, validation chooses epochs and settings.

Rivals are given a table in the place of the series: of each channel the first, last, smallest and largest reading,
their mean, spread and number, and what is known at admission. "logistic" is a regression with balanced classes on that
table, medians in the place of gaps, "boosting" scikit-learn's gradient boosting, which takes gaps as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries, drop, stays, stratified
from sciode.data.physionet import STATIC
from sciode.experiments import contest
from sciode.experiments.contest import Contest, Measure, Part, Run
from sciode.timeseries import Case, IrregularClassifier

__all__ = ["PhysionetMortality", "Settings", "main", "summaries"]

_SPLIT_SEED = 42
_SHARES = (0.64, 0.16, 0.20)
_UNIT = STATIC.index("ICUType")


@dataclass(frozen=True)
class Settings(contest.Settings):
    """rates: shares of the time points that are lost. stays: how many, in the order of their ids. minutes: of a slot, a
    divisor of 2880."""

    epochs: int = 40
    euler: int = 96
    stays: int = 4000
    minutes: int = 6


class PhysionetMortality(Contest):
    """Probabilities of death, judged by the area under the receiver's curve on stays that were not trained on."""

    title = "PhysioNet 2012, death in hospital"
    rate = "lost"
    measures = (Measure("auroc", "AUROC", "higher", digits=3), Measure("auprc", "AUPRC", "higher", digits=3))
    rivals: Mapping[str, Any] = {
        "logistic": ({"C": 0.01}, {"C": 0.1}, {"C": 0.001}),
        "boosting": ({"learning_rate": 0.05}, {"learning_rate": 0.02}, {"learning_rate": 0.1}),
    }

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        series, _, died = stays(settings.minutes)
        count = min(settings.stays, len(series))
        known = np.array(series.static, dtype=object)[:count]
        known[:, _UNIT] = [f"unit {entry:g}" for entry in known[:, _UNIT]]
        self.series = IrregularSeries(series.values[:count], series.times[:count], known)
        self.died = died[:count]
        self.split = stratified(self.died, _SPLIT_SEED, _SHARES)
        self._lossy: dict[float, IrregularSeries] = {}
        self._cases: dict[float, Case] = {}

    def part(self, rate: float, part: str) -> tuple[IrregularSeries, NDArray[np.bool_]]:
        """Stays and outcomes of a part; the same time points are lost for all models and seeds."""
        if rate not in self._lossy:
            self._lossy[rate] = drop(self.series, rate, _SPLIT_SEED, unit="time")
        rows = getattr(self.split, part)
        return self._lossy[rate][rows], self.died[rows]

    def case(self, rate: float) -> Case:
        """The training stays, and those that validate."""
        if rate not in self._cases:
            self._cases[rate] = Case(*self.part(rate, "train"), self.part(rate, "validation"))
        return self._cases[rate]

    def estimator(self, model: str, run: Run) -> Any:
        """A classifier of stays, or of tables of them."""
        if model in self.rivals:
            return Tabular(model, run.seed, run.setting)
        options = self.settings.parameters(model, run)
        return IrregularClassifier(class_weight="balanced", label_smoothing=0.0, **options)

    def judge(self, fitted: Any, rate: float, part: Part) -> dict[str, float]:
        """Areas under the receiver's curve and under that of precision over recall."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        series, died = self.part(rate, part)
        risk = np.asarray(fitted.predict_proba(series))[:, 1]
        return {"auroc": float(roc_auc_score(died, risk)), "auprc": float(average_precision_score(died, risk))}

    def facts(self) -> str:
        """How many stays, and deaths."""
        parts = {"train": self.split.train, "validate": self.split.validation, "test": self.split.test}
        counted = [f"{len(rows)} stays ({self.died[rows].sum()} deaths) {part}" for part, rows in parts.items()]
        return f"{', '.join(counted)}, slots of {self.settings.minutes} minutes"


def summaries(series: IrregularSeries) -> NDArray[np.float64]:
    """Seven numbers a channel and the static features, one column a type of unit: [n, 7 C + S'], NaN = unknown.

    Of the readings first, last, smallest, largest, mean, standard deviation, number.
    """
    rows = []
    for value in series.values:
        seen = ~np.isnan(value)
        count = seen.sum(0)
        some = count > 0
        filled = np.where(seen, value, 0.0)
        mean = filled.sum(0) / np.maximum(count, 1)
        spread = np.sqrt((np.where(seen, value - mean, 0.0) ** 2).sum(0) / np.maximum(count, 1))
        low, high = np.where(seen, value, np.inf).min(0), np.where(seen, value, -np.inf).max(0)
        first, last = seen.argmax(0), len(value) - 1 - seen[::-1].argmax(0)
        channel = np.arange(value.shape[1])
        told = np.stack([value[first, channel], value[last, channel], low, high, mean, spread])
        rows.append(np.concatenate([np.where(some, told, np.nan).ravel(), count]))
    if series.static is None:
        return np.array(rows)
    units = series.static[:, _UNIT]
    numbers = np.delete(series.static, _UNIT, axis=1).astype(np.float64)
    flags = [(units == f"unit {kind}") for kind in range(1, 5)]
    return np.concatenate([np.array(rows), numbers, np.stack(flags, 1).astype(np.float64)], axis=1)


class Tabular:
    """A scikit-learn classifier of `summaries`, of the columns of which training knows something."""

    def __init__(self, name: str, seed: int, setting: Mapping[str, Any]) -> None:
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier
            from sklearn.impute import SimpleImputer
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError as error:
            raise ImportError('scikit-learn is missing: pip install "sciode[lab]"') from error
        if name == "boosting":
            options = {"max_iter": 200, "max_leaf_nodes": 15, "l2_regularization": 1.0, "random_state": seed}
            self.model: Any = HistGradientBoostingClassifier(class_weight="balanced", **options, **setting)
        else:
            regression = LogisticRegression(class_weight="balanced", max_iter=2000, **setting)
            self.model = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), regression)

    def fit(self, series: IrregularSeries, died: NDArray[np.bool_], validation: Any = None) -> Tabular:
        """Train on stays and outcomes; what validates is of no use."""
        table = summaries(series)
        self.known = ~np.isnan(table).all(0)
        self.model.fit(table[:, self.known], died)
        return self

    def predict_proba(self, series: IrregularSeries) -> NDArray[np.float64]:
        """Probabilities [n, 2] of life and death."""
        return self.model.predict_proba(summaries(series)[:, self.known])


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `contest.run`."""
    return contest.run(PhysionetMortality, Settings, out, device, changes)
