"""`IrregularClassifier`: fit, predict and predict_proba for series with their own clocks and missing readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sciode.data import IrregularSeries, stratified
from sciode.timeseries.channels import Given, JoinedChannels
from sciode.timeseries.estimator import SeriesLike, as_labels, as_series, classifier_tags
from sciode.timeseries.models import MODELS
from sciode.timeseries.pooling import READOUTS
from sciode.timeseries.readout import PathClassifier
from sciode.timeseries.sequence import Data, SequenceEstimator, by_member, drawn_seeds
from sciode.training import FitOptions


class Draws(NamedTuple):
    """Class probabilities of every noise draw [S, n, K], and the field evaluations [n] that one draw took."""

    probabilities: NDArray[np.float64]
    nfe: NDArray[np.int64]


@dataclass(kw_only=True, eq=False, repr=False)
class IrregularClassifier(SequenceEstimator):
    """Classify irregular series by a stable neural SDE (Neural LNSDE, arXiv 2402.14989) that follows their path.

    Series are standardised, joined to causal Hermite paths, and drive dz = γ(t, z, X) dt + σ(t) z dW on one Euler step
    a time slot; an MLP reads z at each series' own end. Prediction averages over `n_samples` noise draws, and their
    spread says how sure the model is. scikit-learn's conventions hold: `clone`, `cross_val_score` (it splits series).
    `model` puts another model in the place of the neural SDE.

    Parameters: those of `SequenceEstimator`, batch_size >= 4 (BatchNorm), and
    ----------
    label_smoothing: share of the target spread over all classes, in [0, 1).
    class_weight: "balanced": in the loss each class counts alike, whatever its share; None: each series does.
    readout: what the head reads of the latent path z: "last" is z at the series' own end; "pooled" lays mean, maximum
        and smoothed share of positive values of the whole path beside it (see `Pools`); "mean" is the mean alone.
    channels: what joins the control path, names in `CHANNELS`: "rises", "age", "mirror". Each is scaled as on the
        training series. For models that read the control.

    Attributes after `fit`: `classes_` [K], `n_channels_in_`, `standardizer_`, `channels_`, `grid_`, `models_`,
    `histories_`, and of the first member `model_`, `history_`.
    """

    jitter: float = 0.2
    label_smoothing: float = 0.1
    class_weight: Literal["balanced"] | None = None
    readout: str = "last"
    channels: tuple[str, ...] = ()

    _MAKE = (*SequenceEstimator._MAKE, "readout", "channels")

    def fit(self, X: SeriesLike, y: Any, validation: tuple[SeriesLike, Any] | None = None) -> Self:
        """Train on series X [n] with labels y [n] of any dtype, and return self.

        validation: (X, y) that select the epoch; None = a stratified part of the training series.

        Raises ValueError for one class only, labels or channels that do not fit, series too few to split, or bad
        parameters; FloatingPointError if the loss was not finite in the first epoch.
        """
        self._train(*self._prepared(X, y, validation))
        return self

    def _prepared(self, X: SeriesLike, y: Any, validation: tuple[SeriesLike, Any] | None) -> tuple[Data, Data]:
        """Learn the classes, the scales and the grid; return what trains and what validates."""
        self._options()
        series, labels = as_series(X), as_labels(y, len(as_series(X)))
        train, held = self._parts(series, labels, validation)
        classes, counts = np.unique(train[1], return_counts=True)
        if len(classes) < 2:
            raise ValueError(f"y holds one class only ({classes[0]!r}): a classifier needs at least two")
        self._scale(train[0])
        self.classes_, self.weights_ = classes, tuple((len(train[1]) / len(counts) / counts).tolist())
        return self._labelled(*train), self._labelled(*held)

    def predict(self, X: SeriesLike) -> NDArray[Any]:
        """Return the most probable class [n] of each series, in the dtype of the labels."""
        draws = self.predict_draws(X)
        return self.classes_[draws.probabilities.mean(0).argmax(-1)]

    def predict_proba(self, X: SeriesLike, return_std: bool = False) -> Any:
        """Return class probabilities [n, K] in the order of `classes_`, the mean over the noise draws.

        return_std: return (mean, std): std [n, K] is the standard deviation over the draws, what the model's own
        noise leaves open.
        """
        draws = self.predict_draws(X).probabilities
        return (draws.mean(0), draws.std(0)) if return_std else draws.mean(0)

    def predict_draws(self, X: SeriesLike, n_samples: int | None = None) -> Draws:
        """Return the probabilities of every noise draw.

        Draw k walks the same Brownian path for all series, so the prediction for a series depends neither on the
        others nor on their order.
        """
        count = self.n_samples if n_samples is None else n_samples
        if count < 1:
            raise ValueError(f"n_samples must be >= 1, got {count}")

        def read(network: PathClassifier, part: Data, seeds: Tensor) -> tuple[Tensor, Tensor]:
            logits, paths = network(self._batch(part), seeds, **self._solver(training=False) | {"throw": True})
            return logits.double().softmax(-1), paths.nfe

        probabilities, nfe = self._draws(self._inputs(self._known(X)), max(count, self.n_models), read)
        return Draws(probabilities.numpy(), nfe[0].numpy())

    def latent_paths(self, X: SeriesLike, n_samples: int = 16) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return (times [T] since each series' start in the data's unit, latent states [S, T, n, H]) on the grid.

        After a series' own end its state stays.
        """
        data = self._inputs(self._known(X))
        grid = torch.arange(data["control"].shape[1], dtype=torch.float64) * self.grid_.dt
        data["queries"] = torch.minimum(grid, data["ends"].unsqueeze(1))

        def read(network: PathClassifier, part: Data, seeds: Tensor) -> tuple[Tensor]:
            options = self._solver(training=False) | {"throw": True}
            return (network.backbone(self._batch(part), part["queries"], seeds, **options).states,)

        (states,) = self._draws(data, n_samples, read)
        return grid.numpy() / self.grid_.rate, states.transpose(1, 2).numpy()

    def score(self, X: SeriesLike, y: Any) -> float:
        """Return the accuracy, the share of series whose class is predicted; an unknown one never is."""
        series = as_series(X)
        return float((self.predict(series) == as_labels(y, len(series))).mean())

    def __sklearn_tags__(self) -> Any:
        return classifier_tags()

    def _options(self) -> FitOptions:
        if self.batch_size < 4:
            raise ValueError(f"batch_size must be >= 4 (BatchNorm needs several series), got {self.batch_size}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError("label_smoothing must be in [0, 1)")
        if self.class_weight not in (None, "balanced"):
            raise ValueError(f'class_weight is {self.class_weight!r}: give "balanced" or None')
        if self.readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {self.readout!r}")
        options = super()._options()
        if isinstance(self.channels, str) or not isinstance(self.channels, Sequence):
            raise ValueError(f"channels is {self.channels!r}: give a tuple of names, () for none")
        if JoinedChannels(tuple(self.channels)).names and MODELS[self.model].reads != "control":
            raise ValueError(f"channels join the control path, which {self.model!r} does not read: pass channels=()")
        return options

    def _parts(
        self, series: IrregularSeries, labels: NDArray[Any], validation: tuple[SeriesLike, Any] | None
    ) -> tuple[tuple[IrregularSeries, NDArray[Any]], tuple[IrregularSeries, NDArray[Any]]]:
        """Return (training, validation) parts, each series and labels."""
        if validation is None:
            share = self.validation_fraction
            split = stratified(labels, self.random_state, (1 - share, share, 0.0))
            if not (len(split.validation) and len(split.train)):
                raise ValueError(f"{len(series)} series are too few to set some aside: pass validation=(X, y)")
            return tuple((series[rows], labels[rows]) for rows in (split.train, split.validation))  # type: ignore[return-value]
        held = as_series(validation[0])
        held_labels = as_labels(validation[1], len(held))
        if held.channels != series.channels:
            raise ValueError(f"X has {series.channels} channels and the validation series have {held.channels}")
        unseen = np.setdiff1d(held_labels, labels)
        if len(unseen):
            raise ValueError(f"validation holds classes that X does not: {unseen.tolist()}")
        return (series, labels), (held, held_labels)

    def _new_network(self) -> PathClassifier:
        return PathClassifier(self._backbone(), len(self.classes_), self.readout)

    def _channels_read(self) -> int:
        return self.n_channels_in_ + (self.channels_.width if hasattr(self, "channels_") else 0)

    def _scale(self, series: IrregularSeries, slots: IrregularSeries | None = None) -> None:
        super()._scale(series, slots)
        self.channels_ = JoinedChannels.fit(self.channels, self._given(super()._inputs(series)))

    def _inputs(self, series: IrregularSeries, until: float = 0.0) -> Data:
        data = super()._inputs(series, until)
        return data | {"control": self.channels_.join(self._given(data))}

    def _given(self, data: Data) -> Given:
        named = {name: data[name] for name in ("control", "ends", "values", "times")}
        return Given(**named, dt=self.grid_.dt, steps=self.grid_.steps)

    def _labelled(self, series: IrregularSeries, labels: NDArray[Any]) -> Data:
        data = self._inputs(series) | {"label": torch.from_numpy(np.searchsorted(self.classes_, labels))}
        return {name: value.to(self._device()) for name, value in data.items()}

    def _losses(self, model: nn.Module, batch: Any, seeds: Sequence[int]) -> Tensor:
        read = self._batch(batch)
        read = self._jittered(read, seeds) if model.training else read
        logits, paths = model(read, drawn_seeds(seeds, read), **self._solver(model.training))
        shares = logits.new_ones(len(self.classes_)) if self.class_weight is None else logits.new_tensor(self.weights_)
        how: dict[str, Any] = {"label_smoothing": self.label_smoothing, "reduction": "none"}
        entropy = by_member(F.cross_entropy(logits, batch["label"], shares, **how), len(seeds))
        entropy = entropy / by_member(shares[batch["label"]], len(seeds))
        return entropy + self._extra_loss(paths, len(seeds))

    def _learnt(self) -> dict[str, Any]:
        labels = self.classes_
        if labels.dtype.kind not in "biufUO" or not (labels.dtype != object or all(isinstance(x, str) for x in labels)):
            raise ValueError(f"labels of this kind cannot be saved ({labels.dtype}): use text or numbers")
        joined = {"mean": list(self.channels_.mean), "scale": list(self.channels_.scale)}
        return {"classes": labels.tolist(), "classes_dtype": labels.dtype.str, "channels": joined}

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self.classes_ = np.array(learnt["classes"], dtype=np.dtype(learnt["classes_dtype"]))
        self.channels = tuple(self.channels)
        joined = learnt.get("channels", {"mean": (), "scale": ()})
        self.channels_ = JoinedChannels(self.channels, tuple(joined["mean"]), tuple(joined["scale"]))
