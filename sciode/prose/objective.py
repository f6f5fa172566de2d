"""What training lowers, and what operators are judged by."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from sciode.prose.model import Transformer
from sciode.prose.opponents import Operator
from sciode.prose.pool import Batch

__all__ = ["Losses", "losses", "predicted", "relative_l2"]

_TINY = 1e-5


class Losses(NamedTuple):
    """data: mean over samples of |u - true|^2 / (|true|^2 + 1e-5). symbols: mean cross-entropy of tokens, in nats."""

    data: Tensor
    symbols: Tensor


def losses(model: nn.Module, batch: Batch) -> Losses:
    """Of a `Transformer`, or of an `Operator`; `symbols` is 0 for what writes nothing. Source: PROSE's code."""
    if not isinstance(model, Transformer) or not model.shape.writes:
        found = predicted(model, batch)
        return Losses(relative_l2(found, batch.answers).square().mean(), found.new_zeros(()))
    fused = model.read(batch.times, batch.values, batch.symbols, batch.components)
    data = relative_l2(model.predict(fused, batch.ask), batch.answers).square().mean()
    scores = model.score_next(fused, batch.written)
    symbols = F.cross_entropy(
        scores.float().flatten(0, 1), batch.following.flatten(), ignore_index=model.vocabulary.ids["pad"]
    )
    return Losses(data, symbols)


def predicted(model: nn.Module, batch: Batch) -> Tensor:
    """The answers [B, Q, D] of either kind of model."""
    if isinstance(model, Transformer):
        return model.predict(model.read(batch.times, batch.values, batch.symbols, batch.components), batch.ask)
    assert isinstance(model, Operator)
    return model(batch.times, batch.values, batch.ask)


def relative_l2(found: Tensor, true: Tensor) -> Tensor:
    """|found - true| / |true| of each sample, [B], over all times and components; [B, Q, D] both."""
    error, size = ((x.square().sum((1, 2))) for x in (found - true, true))
    # The root of a sum that may be 0 has no slope there.
    return ((error + 1e-20) / (size + _TINY)).sqrt()
