"""What the estimators of irregular series share: parameters, scales, the grid, training, ensembles, draws, files."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from sciode.data import Covariates, IrregularSeries, Standardizer
from sciode.nn import stack, unstack
from sciode.solvers import sample_seeds
from sciode.timeseries.controls import ControlGrid
from sciode.timeseries.estimator import Estimator, SeriesLike, as_series, plain, whole
from sciode.timeseries.model import Batch, Form, Paths, SequenceModel
from sciode.timeseries.models import kind_of, make
from sciode.training import (
    FitOptions,
    History,
    choose_device,
    derive_seed,
    epochs_shown,
    fit,
    fit_lockstep,
    isolated_rng,
    load_checkpoint,
    save_checkpoint,
    threads,
)
from sciode.training.checkpoint import flatten, unflatten

_GPU_SIZE = 2**16  # hidden x batch_size from which "auto" takes a GPU
_ROWS = 2048  # series x noise draws solved together at prediction: bounds the memory
_WHOLE = {"hidden": 1, "layers": 1, "n_models": 1, "epochs": 1, "batch_size": 1, "patience": 0, "random_state": 0}
# What a checkpoint may be continued with although it is another: the course of training does not hang on it.
_ASIDE = ("checkpoint", "progress", "n_samples", "n_models", "device", "engine")
Data = dict[str, Tensor]


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceEstimator(Estimator):
    """Abstract. A sequence model by name, trained on standardised series; draws over its noise and its members.

    Static features of the series, if there are any, join the model's start: numbers standardised, text one column a
    category and one for those that training has not seen (see `sciode.data.Covariates`).

    Parameters
    ----------
    model: a name in `sciode.timeseries.MODELS`; "lnsde" is the neural SDE with linear noise (arXiv 2402.14989).
    hidden, layers, form: the width of its state, the depth of its networks, and of the stable SDEs the form.
    engine: of `sciode.solve`: "auto", "eager", "compiled", ...
    regularize, penalty: names of regularizers of `sciode.solve` for training, and the weight of their sum in the loss.
    kl_weight: weight of the Kullback-Leibler term of models with a prior, in nats a series.
    n_models: members of the ensemble, alike but for their seeds. They are trained in lockstep, in one solve a step, and
        come out as if trained alone, to rounding; with a checkpoint, and "mtand", one after the other.
    steps: control rows (Euler steps) for the longest training series; None = one a median gap between time points.
    horizon: model time of the longest training series. The clipped drift is bounded by 1 a channel and unit of time,
        so this is how far such a state can travel. Good values 1..30.
    epochs, batch_size, lr, weight_decay, schedule, patience: of `FitOptions`. The first 80 minibatches,
        but at most 20 epochs, pass before an epoch is chosen or training is stopped.
    jitter: standard deviation of the noise laid on the standardised readings' path in training, 0 for none.
    n_samples: noise draws at prediction, shared out among the members (at least one each).
    validation_fraction: share of the training data that selects the epoch.
    random_state: int >= 0; fixes weights, splits, minibatches and noise. The same int gives the same model (CPU).
    device: "cpu", "cuda", ... ; "auto" takes a GPU only for hidden x batch_size >= 2^16: the steps of smaller networks
        are bound by kernel launches, and one CPU core was 3 times as fast as an H100 (hidden 64, batch 32..128).
    progress: a bar over the epochs.
    checkpoint: a folder; fitting is saved there every epoch and continues after a kill (the same data, the same
        parameters); None saves nothing.
    """

    model: str = "lnsde"
    hidden: int = 64
    layers: int = 2
    form: Form = "clipped"
    engine: str = "auto"
    regularize: str | tuple[str, ...] = ()
    penalty: float = 1e-2
    kl_weight: float = 1e-2
    n_models: int = 1
    steps: int | None = None
    horizon: float = 10.0
    epochs: int = 40
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine", "constant"] = "cosine"
    patience: int = 10
    jitter: float = 0.0
    n_samples: int = 16
    validation_fraction: float = 0.15
    random_state: int = 0
    device: str = "auto"
    progress: bool = False
    checkpoint: str | Path | None = None

    _MAKE: ClassVar[tuple[str, ...]] = ("model", "hidden", "layers", "form", "n_models")
    """Parameters that say what the networks are: once these are there, another value would be untrue of them."""

    @abstractmethod
    def _prepared(self, X: Any, y: Any, validation: Any) -> tuple[Data, Data]:
        """Learn scales and whatever else training does not change; return what trains and what validates."""

    def _complete(self, held: Data) -> None:
        """Learn from the validation data what a trained estimator still lacks."""

    @abstractmethod
    def _new_network(self) -> nn.Module:
        """Return a network of the fitted sizes, drawn from torch's own generator."""

    @abstractmethod
    def _losses(self, model: nn.Module, batch: Any, seeds: Sequence[int]) -> Tensor:
        """Return the mean loss [M] of each member on its part of a minibatch [M B, ...]."""

    def _loss(self, model: nn.Module, batch: Any, seed: int) -> Tensor:
        """Return the mean loss of a minibatch of one network."""
        return self._losses(model, batch, (seed,))[0]

    @property
    def model_(self) -> Any:
        """The first member's network."""
        if not hasattr(self, "models_"):
            raise AttributeError("model_ is there after fit")
        return self.models_[0]

    @property
    def history_(self) -> History:
        """The first member's training history."""
        if not hasattr(self, "histories_"):
            raise AttributeError("history_ is there after fit")
        return self.histories_[0]

    def _options(self) -> FitOptions:
        for name, least in _WHOLE.items():
            whole(getattr(self, name), name, least)
        whole(self.n_samples, "n_samples", 1)
        whole(self.steps, "steps", 1, may_be_none=True)
        if not (0 <= self.jitter < math.inf and 0 < self.validation_fraction < 1):
            raise ValueError("jitter must be >= 0 and validation_fraction in (0, 1)")
        if not (0 < self.horizon < math.inf and 0 <= self.penalty < math.inf and 0 <= self.kl_weight < math.inf):
            raise ValueError("horizon must be > 0; penalty and kl_weight >= 0; all of them finite")
        kind_of(self.model)
        names = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "patience")
        return FitOptions(**{name: getattr(self, name) for name in names}, seed=self.random_state)

    def _scale(self, series: IrregularSeries, slots: IrregularSeries | None = None) -> None:
        """Learn scales from the training series, and the grid from `slots` (they, if None)."""
        standardizer, covariates = Standardizer.fit(series), Covariates.fit(series)
        grid = ControlGrid.of(series if slots is None else slots, self.steps, self.horizon)
        # Networks of an earlier fit do not know these scales: should training fail, nothing is left to predict with.
        for name in ("models_", "histories_"):
            vars(self).pop(name, None)
        self.n_channels_in_ = series.channels
        self.standardizer_, self.covariates_, self.grid_ = standardizer, covariates, grid
        self.made_of_ = {name: getattr(self, name) for name in self._MAKE}

    def _train(self, train: Data, held: Data) -> None:
        """Train every member; leave `models_` and `histories_`."""
        options, networks, histories = self._options(), [], []
        if self.n_models > 1 and self.checkpoint is None and self._train_together(train, held):
            return
        for member in range(self.n_models):
            folder = None if self.checkpoint is None else Path(self.checkpoint)
            if folder is not None and member:
                folder = folder / f"member-{member}"
            network = self._network(member)
            own = replace(options, seed=self._member_seed(member))
            how: dict[str, Any] = {"folder": folder, "progress": self.progress, "identity": self._identity()}
            history = fit(network, self._loss, train, held, own, **how)
            _complain(history)
            networks.append(network)
            histories.append(history)
        self.models_, self.histories_ = networks, histories

    def _identity(self) -> str:
        """Return what else than weights, data and options of `fit` the training hangs on."""
        params = {name: plain(value) for name, value in self.get_params().items() if name not in _ASIDE}
        return f"{type(self).__name__} {params}"

    def _train_together(self, train: Data, held: Data) -> bool:
        """Train all members in lockstep, if their networks can be stacked; whether they could."""
        networks = [self._network(member) for member in range(self.n_models)]
        try:
            stacked = stack(networks)
        except ValueError:
            return False
        options = [replace(self._options(), seed=self._member_seed(member)) for member in range(self.n_models)]
        with epochs_shown(self.epochs, self.progress) as shown:
            sets = ([train] * self.n_models, [held] * self.n_models)
            histories = fit_lockstep(stacked, self._losses, *sets, options, progress=shown)
        for history in histories:
            _complain(history)
        unstack(stacked, networks)
        self.models_, self.histories_ = [network.eval() for network in networks], list(histories)
        return True

    def _member_seed(self, member: int) -> int:
        return derive_seed(self.random_state, 5, member) if member else self.random_state

    def _network(self, member: int = 0) -> Any:
        with isolated_rng(self._member_seed(member)):
            network = self._new_network()
        return network.to(self._device())

    def _backbone(self) -> SequenceModel:
        width = self.covariates_.width if hasattr(self, "covariates_") else 0
        return make(self.model, self._channels_read(), self.hidden, self.layers, width, self.form)

    def _channels_read(self) -> int:
        """Return how many channels the model reads."""
        return self.n_channels_in_

    def _device(self) -> torch.device:
        small = self.device == "auto" and self.hidden * self.batch_size < _GPU_SIZE
        return choose_device("cpu" if small else self.device)

    def _inputs(self, series: IrregularSeries, until: float = 0.0) -> Data:
        """Return what the model reads of series, in its units and time, on the CPU; see `_batch`."""
        standard = self.standardizer_.transform(series)
        values, times = standard.padded()
        control, ends = self.grid_.controls(standard, until)
        clock = torch.from_numpy(self.grid_.clock(times, times[:, 0]))
        data = {"control": control, "ends": ends, "values": torch.from_numpy(values).float(), "times": clock}
        static = self.covariates_.transform(series)
        return data if static is None else data | {"static": torch.from_numpy(static).float()}

    def _batch(self, data: Any, prefix: str = "") -> Batch:
        """Return the model's batch of named tensors."""
        values, times, control = (data[f"{prefix}{name}"] for name in ("values", "times", "control"))
        return Batch(values, times, control, self.grid_.dt, data["ends"], data.get("static"))

    def _jittered(self, batch: Batch, seeds: Sequence[int]) -> Batch:
        """Lay noise on what the model reads, each member's from a seed of its own."""
        if not self.jitter:
            return batch
        generators = [torch.Generator(batch.values.device).manual_seed(seed) for seed in seeds]

        def noisy(x: Tensor) -> Tensor:
            shape = (len(x) // len(seeds), *x.shape[1:])
            noise = [torch.randn(shape, generator=generator, device=x.device) for generator in generators]
            return x + self.jitter * torch.cat(noise)

        return batch._replace(control=noisy(batch.path()), values=noisy(batch.values))

    def _solver(self, training: bool) -> dict[str, Any]:
        return {"regularize": self.regularize if training else (), "engine": self.engine, "throw": False}

    def _extra_loss(self, paths: Paths, members: int) -> Tensor:
        """Return penalties and KL by their weights [M]; NaN if a solve failed: its state stays finite."""
        broken = torch.where((paths.status != 0).unflatten(0, (members, -1)).any(1), torch.nan, 0.0)
        penalties = [self.penalty * by_member(value, members) for value in paths.penalties.values()]
        return sum(penalties, broken) + (0.0 if paths.kl is None else self.kl_weight * by_member(paths.kl, members))

    def _draw_seeds(self, count: int) -> Tensor:
        return torch.tensor([derive_seed(self.random_state, 4, k) for k in range(count)])

    def _draws(
        self, data: Data, count: int, read: Callable[[Any, Data, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Return what `read(network, repeated data, seeds)` gives for every draw: tensors [S, n, ...] on the CPU.

        Draw k is of member k modulo their number, and walks the same Brownian path for all series.
        """
        seeds, device, size = self._draw_seeds(count), self._device(), len(data["ends"])
        found: list[tuple[Tensor, ...]] = [()] * count
        with threads(1), torch.no_grad():
            for member, network in enumerate(self.models_[:count]):
                mine = range(member, count, len(self.models_))
                solved = mine if _noisy(network) else mine[:1]
                per_part = max(_ROWS // len(solved), 1)
                parts = []
                for begin in range(0, size, per_part):
                    part = {name: value[begin : begin + per_part].to(device) for name, value in data.items()}
                    rows = len(part["ends"])
                    repeated = {name: x.repeat(len(solved), *[1] * (x.ndim - 1)) for name, x in part.items()}
                    own = seeds[list(solved)].repeat_interleave(rows).to(device)
                    answer = read(network.eval(), repeated, own)
                    parts.append([x.unflatten(0, (len(solved), rows)).cpu() for x in answer])
                whole = [torch.cat(pieces, 1) for pieces in zip(*parts, strict=True)]
                for place, k in enumerate(mine):
                    found[k] = tuple(x[place % len(solved)] for x in whole)
        return tuple(torch.stack(draws) for draws in zip(*found, strict=True))

    def _known(self, X: SeriesLike) -> IrregularSeries:
        self._check_fitted()
        series = as_series(X)
        if series.channels != self.n_channels_in_:
            kind = type(self).__name__.removeprefix("Irregular").lower()
            raise ValueError(f"X has {series.channels} channels, the {kind} was fitted on {self.n_channels_in_}")
        return series

    def _check_fitted(self) -> None:
        if not hasattr(self, "models_"):
            raise ValueError(f"this {type(self).__name__} is not fitted: call fit first")
        for name, value in self.made_of_.items():
            if getattr(self, name) != value:
                now = getattr(self, name)
                raise ValueError(f"{name} was {value!r} in fit and is {now!r} now: fit again, or set it back")

    def _learnt(self) -> dict[str, Any]:
        """Return what else a file must hold, ready for JSON."""
        return {}

    def _take_up(self, learnt: dict[str, Any]) -> None:
        """Take up what `_learnt` gave."""

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one safetensors file with a JSON header, atomically."""
        self._check_fitted()
        params = {name: plain(value) for name, value in self.get_params().items()}
        params["checkpoint"] = None if self.checkpoint is None else str(self.checkpoint)
        names = (self.regularize,) if isinstance(self.regularize, str) else tuple(self.regularize)
        if not all(isinstance(name, str) for name in names):
            raise ValueError("regularizers that are objects cannot be saved: give them by name")
        record = {
            "estimator": type(self).__name__,
            "params": params | {"regularize": list(names)},
            "standardizer": self.standardizer_.to_dict(),
            "covariates": self.covariates_.to_dict(),
            "grid": [self.grid_.duration, self.grid_.steps, self.grid_.horizon],
        }
        tensors: dict[str, Tensor] = {}
        for member, network in enumerate(self.models_):
            tensors |= flatten(f"member-{member}", network.state_dict())
        save_checkpoint(Path(path), tensors, record | self._learnt())

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """Return the estimator saved at `path`; it predicts as the saved one did. No code in the file can run."""
        tensors, record = load_checkpoint(Path(path))
        if record.get("estimator") != cls.__name__:
            raise ValueError(f"{path} holds {record.get('estimator', 'no estimator')}, not {cls.__name__}")
        params = record["params"] | {"device": device, "regularize": tuple(record["params"]["regularize"])}
        loaded = cls(**params)
        loaded.standardizer_ = Standardizer.from_dict(record["standardizer"])
        loaded.covariates_ = Covariates.from_dict(record["covariates"])
        loaded.n_channels_in_ = len(loaded.standardizer_.mean)
        loaded.grid_ = ControlGrid(*record["grid"])
        loaded._take_up(record)
        loaded.made_of_ = {name: getattr(loaded, name) for name in cls._MAKE}
        networks = [loaded._network(member) for member in range(loaded.n_models)]
        for member, network in enumerate(networks):
            network.load_state_dict(unflatten(f"member-{member}", tensors))
            network.eval()
        loaded.models_ = networks
        return loaded


def _noisy(network: nn.Module) -> bool:
    """Whether draws of one network differ."""
    return any(module.noisy for module in network.modules() if isinstance(module, SequenceModel))


def by_member(values: Tensor, members: int) -> Tensor:
    """Return the mean [M] over each member's own samples of values [M B]."""
    return values.unflatten(0, (members, -1)).mean(1)


def drawn_seeds(seeds: Sequence[int], batch: Batch) -> int | Tensor:
    """Return what a model draws its noise from: one int, or for several members the seeds [M B] these stand for."""
    if len(seeds) == 1:
        return seeds[0]
    device = batch.ends.device
    return torch.cat([sample_seeds(seed, len(batch.ends) // len(seeds), device) for seed in seeds])


def _complain(history: History) -> None:
    """Raise FloatingPointError for a member that never was well, warn of one that broke later."""
    if history.best_epoch < 0:
        raise FloatingPointError(f"training failed: {history.stopped}")
    if history.stopped.startswith("non-finite"):
        kept = f"{history.stopped}; the best weights before it are kept"
        warnings.warn(kept, RuntimeWarning, stacklevel=4)
