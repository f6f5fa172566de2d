"""`IrregularClassifier`: fit, predict and predict_proba for series with their own clocks and missing readings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sciode.data import IrregularSeries, Standardizer, stratified
from sciode.timeseries.controls import ControlGrid
from sciode.timeseries.estimator import Estimator, SeriesLike, as_labels, as_series, classifier_tags
from sciode.timeseries.linear_noise import Form
from sciode.timeseries.readout import SDEClassifier
from sciode.training import (
    FitOptions,
    choose_device,
    derive_seed,
    fit,
    isolated_rng,
    load_checkpoint,
    save_checkpoint,
    threads,
)

_GPU_SIZE = 2**16  # hidden x batch_size from which "auto" takes a GPU
_ROWS = 2048  # series x noise draws solved together at prediction: bounds the memory


class Draws(NamedTuple):
    """Class probabilities of every noise draw [S, n, K], and the field evaluations [n] that one draw took."""

    probabilities: NDArray[np.float64]
    nfe: NDArray[np.int64]


class IrregularClassifier(Estimator):
    """Classify irregular series by a stable neural SDE (Neural LNSDE, arXiv 2402.14989) that follows their path.

    Series are standardised, joined to causal Hermite paths, and drive dz = γ(t, z, X) dt + σ(t) z dW on one Euler step
    a time slot; an MLP reads z at each series' own end. Prediction averages over `n_samples` noise draws, and their
    spread says how sure the model is. scikit-learn's conventions hold: `clone`, `cross_val_score` (it splits series).

    Parameters
    ----------
    hidden, layers, form: of `LinearNoiseSDE`.
    steps: Euler steps for the longest training series; None = one a time slot.
    horizon: model time of the longest training series. The drift is bounded by 1 a channel and unit of time, so this
        is how far the state can travel. Good values 1..30.
    epochs, batch_size, lr, weight_decay, schedule, patience: of `FitOptions`. batch_size >= 4 (BatchNorm).
    jitter: standard deviation of the noise laid on the standardised control in training, 0 for none.
    label_smoothing: share of the target spread over all classes, in [0, 1).
    n_samples: noise draws at prediction. validation_fraction: share of the training series that select the epoch.
    random_state: int >= 0; fixes weights, splits, minibatches and noise. The same int gives the same model (CPU).
    device: "cpu", "cuda", ... ; "auto" takes a GPU only for hidden x batch_size >= 2^16: the steps of smaller networks
        are bound by kernel launches, and one CPU core was 3 times as fast as an H100 (hidden 64, batch 32..128).
    progress: a bar over the epochs.
    checkpoint: a folder; fitting is saved there every epoch and continues after a kill (the same data, the same
        parameters); None saves nothing.

    Attributes after `fit`: `classes_` [K], `n_channels_in_`, `standardizer_`, `grid_`, `model_`, `history_`.
    """

    def __init__(
        self,
        *,
        hidden: int = 64,
        layers: int = 2,
        form: Form = "clipped",
        steps: int | None = None,
        horizon: float = 10.0,
        epochs: int = 40,
        batch_size: int = 64,
        lr: float = 4e-3,
        weight_decay: float = 1e-4,
        schedule: Literal["step", "cosine", "constant"] = "cosine",
        patience: int = 10,
        jitter: float = 0.2,
        label_smoothing: float = 0.1,
        n_samples: int = 16,
        validation_fraction: float = 0.15,
        random_state: int = 0,
        device: str = "auto",
        progress: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.hidden = hidden
        self.layers = layers
        self.form: Form = form
        self.steps = steps
        self.horizon = horizon
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule: Literal["step", "cosine", "constant"] = schedule
        self.patience = patience
        self.jitter = jitter
        self.label_smoothing = label_smoothing
        self.n_samples = n_samples
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.progress = progress
        self.checkpoint = checkpoint

    def fit(self, X: SeriesLike, y: Any, validation: tuple[SeriesLike, Any] | None = None) -> Self:
        """Train on series X [n] with labels y [n] of any dtype, and return self.

        validation: (X, y) that select the epoch; None = a stratified part of the training series.

        Raises ValueError for one class only, labels or channels that do not fit, series too few to split, or bad
        parameters; FloatingPointError if the loss was not finite in the first epoch.
        """
        options = self._options()
        series, labels = as_series(X), as_labels(y, len(as_series(X)))
        train, held = self._parts(series, labels, validation)
        self.classes_ = np.unique(train[1])
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]!r}): a classifier needs at least two")
        self.n_channels_in_ = train[0].channels
        self.standardizer_ = Standardizer.fit(train[0])
        self.grid_ = ControlGrid.of(train[0], self.steps, self.horizon)
        self.model_ = self._network()
        folder = None if self.checkpoint is None else Path(self.checkpoint)
        batches = self._tensors(*train), self._tensors(*held)
        self.history_ = fit(self.model_, self._loss, *batches, options, folder=folder, progress=self.progress)
        if self.history_.best_epoch < 0:
            raise FloatingPointError(f"training failed: {self.history_.stopped}")
        if self.history_.stopped.startswith("non-finite"):
            warnings.warn(f"{self.history_.stopped}; the best weights before it are kept", RuntimeWarning, stacklevel=2)
        return self

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
        data = self._tensors(self._known(X))
        parts, nfe = [], []
        per_part = max(_ROWS // count, 1)
        with threads(1), torch.no_grad():
            for control, ends in zip(data["control"].split(per_part), data["ends"].split(per_part), strict=True):
                seeds = self._draw_seeds(count).repeat_interleave(len(ends))
                repeated = control.repeat(count, 1, 1), self.grid_.dt, ends.repeat(count)
                logits, solution = self.model_.eval()(*repeated, seeds.to(control.device))
                parts.append(logits.double().softmax(-1).view(count, len(ends), -1).cpu())
                nfe.append(solution.stats.nfe[: len(ends)].cpu())
        return Draws(torch.cat(parts, 1).numpy(), torch.cat(nfe).numpy())

    def latent_paths(self, X: SeriesLike, n_samples: int = 16) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return (times [T] since each series' start in the data's unit, latent states [S, T, n, H]) on the grid.

        After a series' own end its state stays.
        """
        data = self._tensors(self._known(X))
        size = len(data["ends"])
        with threads(1), torch.no_grad():
            solution = self.model_.sde(
                data["control"].repeat(n_samples, 1, 1),
                self.grid_.dt,
                data["ends"].repeat(n_samples),
                self._draw_seeds(n_samples).repeat_interleave(size).to(data["ends"].device),
                every=1,
            )
        states = solution.ys.unflatten(1, (n_samples, size)).transpose(0, 1)
        times = np.arange(states.shape[1]) * self.grid_.dt * self.grid_.duration / self.grid_.horizon
        return times, states.cpu().numpy()

    def score(self, X: SeriesLike, y: Any) -> float:
        """Return the accuracy, the share of series whose class is predicted."""
        series = as_series(X)
        return float((self.predict(series) == as_labels(y, len(series))).mean())

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier to one safetensors file with a JSON header, atomically."""
        self._check_fitted()
        labels = self.classes_
        if labels.dtype.kind == "O" and not all(isinstance(label, str) for label in labels):
            raise ValueError("labels of mixed Python types cannot be saved: use text or numbers")
        params = self.get_params() | {"checkpoint": None if self.checkpoint is None else str(self.checkpoint)}
        record = {
            "estimator": type(self).__name__,
            "params": params,
            "classes": labels.tolist(),
            "classes_dtype": labels.dtype.str,
            "standardizer": self.standardizer_.to_dict(),
            "grid": [self.grid_.duration, self.grid_.steps, self.grid_.horizon],
        }
        save_checkpoint(Path(path), self.model_.state_dict(), record)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """Return the classifier saved at `path`; it predicts as the saved one did. No code in the file can run."""
        tensors, record = load_checkpoint(Path(path))
        if record.get("estimator") != cls.__name__:
            raise ValueError(f"{path} holds {record.get('estimator', 'no estimator')}, not {cls.__name__}")
        loaded = cls(**(record["params"] | {"device": device}))
        loaded.classes_ = np.array(record["classes"], dtype=np.dtype(record["classes_dtype"]))
        loaded.standardizer_ = Standardizer.from_dict(record["standardizer"])
        loaded.n_channels_in_ = len(loaded.standardizer_.mean)
        loaded.grid_ = ControlGrid(*record["grid"])
        loaded.model_ = loaded._network()
        loaded.model_.load_state_dict(tensors)
        loaded.model_.eval()
        return loaded

    def __sklearn_tags__(self) -> Any:
        return classifier_tags()

    def _options(self) -> FitOptions:
        if self.batch_size < 4:
            raise ValueError(f"batch_size must be >= 4 (BatchNorm needs several series), got {self.batch_size}")
        if not (self.jitter >= 0 and 0 <= self.label_smoothing < 1 and 0 < self.validation_fraction < 1):
            raise ValueError("jitter must be >= 0, label_smoothing in [0, 1) and validation_fraction in (0, 1)")
        if not self.horizon > 0 or (self.steps is not None and self.steps < 1) or self.n_samples < 1:
            raise ValueError("horizon must be > 0; steps and n_samples >= 1")
        names = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "patience")
        return FitOptions(**{name: getattr(self, name) for name in names}, seed=self.random_state)

    def _parts(
        self, series: IrregularSeries, labels: NDArray[Any], validation: tuple[SeriesLike, Any] | None
    ) -> tuple[tuple[IrregularSeries, NDArray[Any]], tuple[IrregularSeries, NDArray[Any]]]:
        """Return (training, validation) parts, each series and labels."""
        if validation is None:
            share = self.validation_fraction
            split = stratified(labels, self.random_state, (1 - share, share, 0.0))
            if not len(split.validation):
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

    def _network(self) -> SDEClassifier:
        with isolated_rng(self.random_state):
            network = SDEClassifier(self.n_channels_in_, len(self.classes_), self.hidden, self.layers, self.form)
        small = self.device == "auto" and self.hidden * self.batch_size < _GPU_SIZE
        return network.to(choose_device("cpu" if small else self.device))

    def _tensors(self, series: IrregularSeries, labels: NDArray[Any] | None = None) -> dict[str, Tensor]:
        """Return control, ends and labels on the model's device."""
        device = next(self.model_.parameters()).device
        control, ends = self.grid_.controls(self.standardizer_.transform(series))
        data = {"control": control.to(device), "ends": ends.to(device)}
        if labels is not None:
            data["label"] = torch.from_numpy(np.searchsorted(self.classes_, labels)).to(device)
        return data

    def _loss(self, model: nn.Module, batch: Any, seed: int) -> Tensor:
        control = batch["control"]
        if model.training and self.jitter:
            generator = torch.Generator(control.device).manual_seed(seed)
            noise = torch.randn(control.shape, generator=generator, device=control.device)
            control = control + self.jitter * noise
        logits, solution = model(control, self.grid_.dt, batch["ends"], seed, throw=False)
        # The state of a series that diverged stays at its last finite value: only the status tells.
        broken = torch.where((solution.status != 0).any(), torch.nan, 0.0)
        return F.cross_entropy(logits, batch["label"], label_smoothing=self.label_smoothing) + broken

    def _draw_seeds(self, count: int) -> Tensor:
        return torch.tensor([derive_seed(self.random_state, 4, k) for k in range(count)])

    def _known(self, X: SeriesLike) -> IrregularSeries:
        self._check_fitted()
        series = as_series(X)
        if series.channels != self.n_channels_in_:
            raise ValueError(f"X has {series.channels} channels, the classifier was fitted on {self.n_channels_in_}")
        return series

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            raise ValueError("this IrregularClassifier is not fitted: call fit(X, y) first")
