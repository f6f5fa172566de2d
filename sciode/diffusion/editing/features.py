"""Sharing of attention features between two runs of a network: RF-Edit, for any module with attention inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

__all__ = ["FeatureSharing"]

_VALUES = ("to_v", "v_proj", "value", "value_proj", "v")
"""Names that projections to attention's values have in common libraries."""


@final
class FeatureSharing:
    """A network whose attention values are recorded in one run and put in the place of another's.

        share = FeatureSharing(network)
        with share.recording():
            noise = invert(share, data, schedule, cond=source, ...)
        with share.replacing(window=(0.7, 1.0)):
            edited = sample(share, noise, schedule, cond=target, ...)

    - select: names of submodules or a predicate (name, module); None = every `nn.MultiheadAttention` and every module
      whose name ends in to_v, v_proj, value, value_proj or v. Of a MultiheadAttention the values' input is shared, of
      any other module its output, a tensor.
    - It is called as the network is, model(x, t, **cond), and belongs to no other module.

    Recorded features belong to times: a run that visits times that were not recorded computes its own there, and
    `missed` counts them. They are kept detached, on their device. Source: Wang et al. (2025), RF-Solver and RF-Edit.
    """

    def __init__(
        self, network: nn.Module, select: Sequence[str] | Callable[[str, nn.Module], bool] | None = None
    ) -> None:
        names = [select] if isinstance(select, str) else select
        known = [name for name, _ in network.named_modules() if name]
        unknown = [] if names is None or callable(names) else [name for name in names if name not in known]
        self.network = network
        self.modules = {name: module for name, module in network.named_modules() if _chosen(names, name, module)}
        if unknown or not self.modules:
            raise ValueError(
                f"select: no submodule {', '.join(unknown) or 'fits'}; give names or a predicate. There are "
                f"{', '.join(known[:12])}, ..."
            )
        self.missed = 0
        self._kept: dict[tuple[float, str], Tensor] = {}
        self._time = 0.0
        self._mode: str | None = None
        self._window = (0.0, float("inf"))

    def __call__(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The network's output."""
        self._time = float(t.flatten()[0])
        return self.network(x, t, **cond)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Forget what was recorded, and record."""
        self._kept.clear()
        with self._hooked("record", (0.0, float("inf"))):
            yield

    @contextmanager
    def replacing(self, window: tuple[float, float] = (0.0, float("inf"))) -> Iterator[None]:
        """Put recorded features in where low <= t <= high; RF-Edit does so in the first 2 to 8 of 30 steps.

        Raises ValueError where nothing has been recorded.
        """
        if not self._kept:
            raise ValueError("nothing has been recorded: run the network within recording() first")
        self.missed = 0
        with self._hooked("replace", window):
            yield

    @contextmanager
    def _hooked(self, mode: str, window: tuple[float, float]) -> Iterator[None]:
        if self._mode is not None:
            raise ValueError("recording() and replacing() do not go inside one another")
        self._mode, self._window = mode, window
        handles = [self._hook(name, module) for name, module in self.modules.items()]
        try:
            yield
        finally:
            self._mode = None
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, module: nn.Module) -> Any:
        if isinstance(module, nn.MultiheadAttention):
            return module.register_forward_pre_hook(self._on_input(name), with_kwargs=True)
        return module.register_forward_hook(self._on_output(name))

    def _on_output(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: Any, out: Any) -> Any:
            return self._shared(name, out)

        return hook

    def _on_input(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: Any, named: Any) -> Any:
            if "value" in named:
                return given, {**named, "value": self._shared(name, named["value"])}
            query, key, value, *rest = given
            return (query, key, self._shared(name, value), *rest), named

        return hook

    def _shared(self, name: str, own: Tensor) -> Tensor:
        """What stands in for a feature, here and now."""
        if self._mode == "record":
            self._kept[self._time, name] = own.detach()
            return own
        if not self._window[0] <= self._time <= self._window[1]:
            return own
        found = self._kept.get((self._nearest(), name))
        if found is None or found.shape != own.shape:
            self.missed += 1
            return own
        return found

    def _nearest(self) -> float:
        """The recorded time that is this one to rounding, or this one."""
        times = torch.tensor(sorted({time for time, _ in self._kept}), dtype=torch.float64)
        gaps = (times - self._time).abs()
        place = int(gaps.argmin())
        return float(times[place]) if float(gaps[place]) <= 1e-6 * max(1.0, abs(self._time)) else self._time


def _chosen(select: Any, name: str, module: nn.Module) -> bool:
    if select is None:
        return isinstance(module, nn.MultiheadAttention) or name.rsplit(".", 1)[-1] in _VALUES
    return bool(select(name, module)) if callable(select) else name in select
