"""Many estimators at once: other seeds, other splits, other missing rates, in one training and one prediction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sciode.data import IrregularSeries
from sciode.nn import stack, unstack
from sciode.timeseries.classifier import Draws, IrregularClassifier
from sciode.timeseries.sequence import Data, SequenceEstimator
from sciode.training import History, fit, fit_lockstep, threads

__all__ = ["Case", "fit_together", "predict_together"]

_ROWS = 8192  # members x series x noise draws solved together at prediction: bounds the memory
_OWN = ("random_state", "lr", "weight_decay", "validation_fraction", "progress")
_FILL: dict[str, float | None] = {
    "control": None,  # a path rests after its last row
    "values": math.nan,
    "times": math.nan,
    "queries": math.nan,
    "target": math.nan,
    "features": 0.0,  # of a time that nobody asks for; finite, for a NaN would come back through the gradient
}
"""What stands in the rows that a shorter member's data lack; also of what is read backwards."""


class Case(NamedTuple):
    """What one estimator is trained on, and the same of its validation part.

    X: series. y: labels of a classifier, values to be told of a forecaster or an interpolator. held: (X, y).
    """

    X: IrregularSeries
    y: Any
    held: tuple[IrregularSeries, Any]


def fit_together(
    estimators: Sequence[SequenceEstimator],
    cases: Sequence[Case],
    watch: Callable[[float], None] | None = None,
) -> list[History]:
    """Train each estimator on its own case, all in lockstep in one solve a step; each comes out as `fit` leaves it.

    Estimators are of one class and may differ in random_state, lr and weight_decay; cases in what they hold, not in the
    numbers of training and of validation series. Give `steps`, so that all have one step. A member that diverged keeps
    its best weights, or its first ones, without bands that validation has corrected: read `History.stopped`. Models
    that cannot be stacked are trained one after the other.

    watch: called with the time (of time.perf_counter) at the end of each epoch.
    Raises ValueError for estimators or cases that differ where they may not.
    """
    _check(estimators, cases, "case")
    if len({id(estimator) for estimator in estimators}) < len(estimators):
        raise ValueError("an estimator stands there twice and can be trained once: make one for each case")
    data = _prepared(estimators, cases)
    if len({estimator.grid_.dt for estimator in estimators}) > 1:
        raise ValueError("estimators trained together need one Euler step: give them the same `steps`")
    if len({len(getattr(estimator, "classes_", ())) for estimator in estimators}) > 1:
        raise ValueError("classifiers trained together tell equally many classes apart: give cases that hold as many")
    if any(getattr(e, "class_weight", None) and e.weights_ != estimators[0].weights_ for e in estimators):  # type: ignore[attr-defined]
        raise ValueError(
            "classifiers trained together weigh classes alike: give cases of equal shares, or no class_weight"
        )
    train, held = (_alike([parts[k] for parts in data]) for k in (0, 1))
    networks = [estimator._network() for estimator in estimators]
    options = [estimator._options() for estimator in estimators]
    first = estimators[0]
    try:
        stacked = stack(networks)
    except ValueError:
        parts = zip(networks, train, held, options, strict=True)
        histories = [fit(network, first._loss, own, other, how) for network, own, other, how in parts]
    else:
        shown = None if watch is None else lambda _: watch(time.perf_counter())
        histories = list(fit_lockstep(stacked, first._losses, train, held, options, progress=shown))
        unstack(stacked, networks)
    for estimator, network, history, (_, own) in zip(estimators, networks, histories, data, strict=True):
        estimator.models_, estimator.histories_ = [network.eval()], [history]
        if history.best_epoch >= 0:
            estimator._complete(own)
    return histories


def _prepared(estimators: Sequence[SequenceEstimator], cases: Sequence[Case]) -> list[tuple[Data, Data]]:
    """What trains and validates each; estimators of one case share the tensors, but for what their seeds hide."""
    found: dict[int, tuple[Data, Data]] = {}
    data = []
    for estimator, case in zip(estimators, cases, strict=True):
        made = estimator._prepared(*case)
        first = found.setdefault(id(case), made)
        data.append(first if all(_same(a, b) for a, b in zip(first, made, strict=True)) else made)
    return data


def _same(one: Data, other: Data) -> bool:
    """Whether two sets hold the same tensors, NaN equal to NaN."""
    pairs = ((x, other[name]) for name, x in one.items())
    return all(x.shape == y.shape and bool(((x == y) | (x.isnan() & y.isnan())).all()) for x, y in pairs)


def predict_together(classifiers: Sequence[IrregularClassifier], series: Sequence[IrregularSeries]) -> list[Draws]:
    """Return what `predict_draws` gives of each classifier for its own series, from one solve for all.

    A draw whose solve fails has NaN probabilities. Classifiers as for `fit_together`; equally many series each.
    """
    _check(classifiers, series, "collection of series")
    first = classifiers[0]
    data = _alike([c._inputs(c._known(own)) for c, own in zip(classifiers, series, strict=True)])
    try:
        stacked = stack([classifier.model_ for classifier in classifiers]).eval()
    except ValueError:
        return [classifier.predict_draws(own) for classifier, own in zip(classifiers, series, strict=True)]
    count, draws, device = len(data[0]["ends"]), first.n_samples, first._device()
    seeds = torch.stack([classifier._draw_seeds(draws) for classifier in classifiers])
    per_part = max(_ROWS // (len(data) * draws), 1)
    found = []
    with threads(1), torch.no_grad():
        for begin in range(0, count, per_part):
            rows = slice(begin, begin + per_part)
            size = len(data[0]["ends"][rows])
            part = {
                name: torch.stack([own[name][rows] for own in data])
                .unsqueeze(1)
                .expand(-1, draws, *[-1] * data[0][name].ndim)
                .flatten(0, 2)
                .to(device)
                for name in data[0]
            }
            own_seeds = seeds.unsqueeze(-1).expand(-1, -1, size).flatten().to(device)
            logits, paths = stacked(first._batch(part), own_seeds, **first._solver(training=False))
            chance = torch.where((paths.status == 0).unsqueeze(-1), logits.double().softmax(-1), torch.nan)
            found.append([x.cpu().unflatten(0, (len(data), draws, size)) for x in (chance, paths.nfe)])
    chances, nfe = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
    return [Draws(own.numpy(), calls[0].numpy()) for own, calls in zip(chances, nfe, strict=True)]


def _check(estimators: Sequence[SequenceEstimator], given: Sequence[Any], what: str) -> None:
    """ValueError unless the estimators are alike, and something is given for each."""
    if not estimators:
        raise ValueError("estimators: give at least one")
    if len(given) != len(estimators):
        raise ValueError(f"there are {len(estimators)} estimators: give one {what} for each, not {len(given)}")
    alike = [{k: repr(v) for k, v in e.get_params().items() if k not in _OWN} | {"": type(e)} for e in estimators]
    if any(other != alike[0] for other in alike) or estimators[0].n_models != 1 or estimators[0].checkpoint:
        raise ValueError(f"estimators trained together differ in {', '.join(_OWN)} at most, n_models=1, no checkpoint")


def _alike(sets: Sequence[Data]) -> list[Data]:
    """Pad the data of all members to one shape, see `_FILL`; the sets that are one stay one."""
    if len({len(data["ends"]) for data in sets}) > 1:
        raise ValueError("cases trained together need equally many series: split them in the same proportions")
    named = [name for name in sets[0] if name.removeprefix("back_") in _FILL]
    length = {name: max(data[name].shape[1] for data in sets) for name in named}
    longer: dict[int, Data] = {}
    for data in sets:
        if id(data) not in longer:
            fills = {name: _FILL[name.removeprefix("back_")] for name in named}
            longer[id(data)] = data | {name: _longer(data[name], length[name], fills[name]) for name in named}
    return [longer[id(data)] for data in sets]


def _longer(x: Tensor, length: int, fill: float | None) -> Tensor:
    """x [n, L, ...] with its last row repeated, or filled, up to a length."""
    missing = length - x.shape[1]
    if not missing:
        return x
    if fill is None:
        return torch.cat((x, x[:, -1:].expand(-1, missing, *x.shape[2:])), 1)
    return F.pad(x, (*[0, 0] * (x.ndim - 2), 0, missing), value=fill)
