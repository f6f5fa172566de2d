"""The model as samplers see it: prediction, guidance and thresholding turned into data, noise or flow predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.guidance import Guidance
from sciode.diffusion.path import Node
from sciode.diffusion.predictions import PREDICTIONS, Conversion, Level
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.thresholding import Threshold
from sciode.solvers.adjoints.graph import clock, leaves_behind

__all__ = ["Asked", "Denoiser", "noise_at"]


class Asked(NamedTuple):
    """What a sampler asks of the model at a node, as coefficients: wanted = wanted_x x + wanted_m m, and the others
    alike.

    x0: the data prediction, by state and output; after: what is wanted, by state and (thresholded) data prediction;
    push: the output's part in a shift of the score.
    """

    node: Node
    wanted_x: Any
    wanted_m: Any
    x0_x: Any
    x0_m: Any
    after_x: Any
    after_x0: Any
    push: Any

    def sent(self, send: Callable[[Any], Any]) -> Asked:
        """The coefficients where the state is."""
        return Asked(self.node, *(send(c) for c in self[1:]))


@dataclass(frozen=True, eq=False)
class Denoiser:
    """The model's data ("data"), noise ("noise") or velocity ("flow") prediction: `denoiser(x, t, asked)`.

    model: called as model(x [B, ...], t [B], **cond) and predicting what `prediction` names. `asks` is for the host,
    before a loop; a call adds and multiplies. seen: the dtype in which the model is shown the state, where that is
    half of the state's own.
    """

    model: Callable[..., Tensor]
    schedule: Schedule
    prediction: str
    cond: Mapping[str, Any] = field(default_factory=dict)
    guidance: Guidance | None = None
    threshold: Threshold | None = None
    seen: torch.dtype | None = None

    def tolerance(self, asked: float) -> float:
        """What an adaptive solver should ask for: what is asked, but where the model is shown less precision than the
        state has, an eighth of that rounding at least. Below, steps begin to follow the rounding: a 64th of it takes up
        to five times the evaluations for a sixth of the error at best. With the rounding itself, errors are up to ten
        times the rounding."""
        return asked if self.seen is None or asked <= 0 else max(asked, torch.finfo(self.seen).eps / 8)

    def asks(self, node: Node, kind: str) -> Asked:
        """The coefficients for a node; ValueError where the model's prediction says nothing about the data."""
        if np.ndim(node.alpha) == 0 and node.alpha == 0 and self.prediction in ("eps", "score"):
            raise ValueError(
                f"t_start: alpha is 0 there, and a prediction of {self.prediction} says nothing about the data; "
                "start a little earlier"
            )
        level = self._level(node, kind)
        into = PREDICTIONS[self.prediction](level)
        after = _wanted(PREDICTIONS["x0"](level), level, kind)
        # A shift of eps, -w sigma grad log p, as a shift of the output.
        push = 0.0 if self.guidance is None else -level.sigma / into.eps_m
        return Asked(node, *_wanted(into, level, kind), into.x0_x, into.x0_m, *after, push)

    def __call__(self, x: Tensor, t: Tensor, asked: Asked) -> Tensor:
        m, pull = self._pulled(x, t, asked)
        push = None if self.guidance is None else self._pushed(x, t, asked.node)
        for shift in (push, pull):
            if shift is not None:
                m = m + shift * asked.push
        if self.threshold is None:
            return _linear(x, m, asked.wanted_x, asked.wanted_m)
        return _linear(x, self.threshold(_linear(x, m, asked.x0_x, asked.x0_m)), asked.after_x, asked.after_x0)

    def _pulled(self, x: Tensor, t: Tensor, asked: Asked) -> tuple[Tensor, Tensor | None]:
        """The output, and a gradient through it that is added to the score."""
        if self.guidance is None or not self.guidance.through_model:
            return self._checked(x, t, asked), None
        kept, since = torch.is_grad_enabled(), clock()
        with torch.enable_grad():
            inner = x if kept and x.requires_grad else x.detach().requires_grad_()
            m = self._checked(inner, t, asked)
            weight = self.guidance.log_weight(_linear(inner, m, asked.x0_x, asked.x0_m), t, asked.node, self.cond)
            # Nobody's gradient but our own: then nothing is to stay on a tape.
            kept = kept and (inner is x or any(leaves_behind([m, weight], since, [inner])))
            (pull,) = torch.autograd.grad(weight.sum(), inner, create_graph=kept)
        return (m, pull) if kept else (m.detach(), pull)

    def _pushed(self, x: Tensor, t: Tensor, node: Node) -> Tensor | None:
        assert self.guidance is not None
        push = self.guidance.push(x if self.seen is None else x.to(self.seen), t, node, self.cond)
        return None if push is None else push.to(x.dtype)

    def _checked(self, x: Tensor, t: Tensor, asked: Asked) -> Tensor:
        m = self._output(x, t, asked.node)
        if not isinstance(m, Tensor):
            raise ValueError(
                f"model: expected a tensor, got a {type(m).__name__}; return .sample of it, as from_diffusers does"
            )
        if m.shape != x.shape:
            raise ValueError(f"model: the output has shape {tuple(m.shape)}, the state {tuple(x.shape)}")
        return m.to(x.dtype)

    def _output(self, x: Tensor, t: Tensor, node: Node) -> Tensor:
        shown = x if self.seen is None else x.to(self.seen)
        if self.guidance is None:
            return self.model(shown, t, **self.cond)
        return self.guidance.output(self.model, shown, t, node, self.cond)

    def _level(self, node: Node, kind: str) -> Level:
        """alpha and sigma of a node; its slopes where a flow asks for them."""
        if "flow" not in (kind, self.prediction):
            return Level(node.alpha, node.sigma, 0.0, 1.0)
        slopes = self.schedule.slopes(torch.as_tensor(node.t, dtype=torch.float64))
        if isinstance(node.alpha, Tensor):
            return Level(node.alpha, node.sigma, *slopes)
        return Level(node.alpha, node.sigma, *(x.item() if x.ndim == 0 else x.numpy() for x in slopes))


def noise_at(denoiser: Denoiser, y: Tensor, lam: Tensor) -> tuple[Tensor, Any, Any]:
    """eps at the states alpha y, y [B, ...], lambda [B]; alpha and rho as they broadcast against them."""
    schedule = denoiser.schedule
    t = schedule.t_of(lam)
    node = Node(*(v.detach() for v in (t, lam, schedule.alpha(t), schedule.sigma(t))))

    def wide(v: Any) -> Any:
        return v if isinstance(v, float) else v.to(y).reshape(-1, *[1] * (y.ndim - 1))

    alpha = wide(node.alpha)
    return denoiser(alpha * y, t.to(y), denoiser.asks(node, "noise").sent(wide)), alpha, wide(node.rho)


def _wanted(into: Conversion, level: Level, kind: str) -> tuple[Any, Any]:
    """The coefficients of x and the output in what a sampler asks for."""
    if kind == "data":
        return into.x0_x, into.x0_m
    if kind == "noise":
        return into.eps_x, into.eps_m
    down, up = level.alpha_slope, level.sigma_slope
    return down * into.x0_x + up * into.eps_x, down * into.x0_m + up * into.eps_m


def _linear(x: Tensor, m: Tensor, a: Any, b: Any) -> Tensor:
    # To ask for what the model predicts anyway changes no bit of it.
    own = m if isinstance(b, float) and b == 1.0 else m * b
    if isinstance(a, float):
        return own if a == 0.0 else torch.add(own, x, alpha=a)
    return own + x * a
