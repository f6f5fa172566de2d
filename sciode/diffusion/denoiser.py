"""The model as samplers see it: prediction, guidance and thresholding turned into data, noise or flow predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from sciode.diffusion.guidance import Guidance
from sciode.diffusion.path import Node
from sciode.diffusion.predictions import PREDICTIONS, Conversion, Level
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.thresholding import Threshold

__all__ = ["Denoiser"]


@dataclass(frozen=True, eq=False)
class Denoiser:
    """`denoiser(x, t, node, kind)`: the model's data ("data"), noise ("noise") or velocity ("flow") prediction.

    model: called as model(x [B, ...], t [B], **cond) and predicting what `prediction` names.
    """

    model: Callable[..., Tensor]
    schedule: Schedule
    prediction: str
    cond: Mapping[str, Any] = field(default_factory=dict)
    guidance: Guidance | None = None
    threshold: Threshold | None = None

    def __call__(self, x: Tensor, t: Tensor, node: Node, kind: str, sent: Callable[[Any], Any]) -> Tensor:
        level = self._level(node)
        into = PREDICTIONS[self.prediction](level)
        m = self._output(x, t, node)
        if m.shape != x.shape:
            raise ValueError(f"model: the output has shape {tuple(m.shape)}, the state {tuple(x.shape)}")
        m = m.to(x.dtype)
        push = None if self.guidance is None else self.guidance.push(x, t, node, self.cond)
        if push is not None:
            # A shift of eps, -w sigma grad log p, as a shift of the output.
            m = m + push * sent(-level.sigma / into.eps_m)
        if self.threshold is None:
            return _linear(x, m, *_wanted(into, level, kind), sent)
        x0 = self.threshold(_linear(x, m, into.x0_x, into.x0_m, sent))
        return _linear(x, x0, *_wanted(PREDICTIONS["x0"](level), level, kind), sent)

    def _output(self, x: Tensor, t: Tensor, node: Node) -> Tensor:
        if self.guidance is None:
            return self.model(x, t, **self.cond)
        return self.guidance.output(self.model, x, t, node, self.cond)

    def _level(self, node: Node) -> Level:
        """alpha and sigma of a node; its slopes where a flow asks for them."""
        if np.ndim(node.alpha) == 0 and node.alpha == 0 and self.prediction in ("eps", "score"):
            raise ValueError(
                f"t_start: alpha is 0 there, and a prediction of {self.prediction} says nothing about the data; "
                "start a little earlier"
            )
        slopes = self.schedule.slopes(_tensor(node.t))
        return Level(node.alpha, node.sigma, *(x.item() if x.ndim == 0 else x.numpy() for x in slopes))


def _tensor(t: Any) -> Tensor:
    import torch

    return torch.as_tensor(t, dtype=torch.float64)


def _wanted(into: Conversion, level: Level, kind: str) -> tuple[Any, Any]:
    """The coefficients of x and the output in what a sampler asks for."""
    if kind == "data":
        return into.x0_x, into.x0_m
    if kind == "noise":
        return into.eps_x, into.eps_m
    down, up = level.alpha_slope, level.sigma_slope
    return down * into.x0_x + up * into.eps_x, down * into.x0_m + up * into.eps_m


def _linear(x: Tensor, m: Tensor, a: Any, b: Any, sent: Callable[[Any], Any]) -> Tensor:
    a, b = sent(a), sent(b)
    # To ask for what the model predicts anyway changes no bit of it.
    own = m if isinstance(b, float) and b == 1.0 else m * b
    return own if isinstance(a, float) and a == 0.0 else own + x * a
