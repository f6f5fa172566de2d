"""A compiled function of lists of tensors, called past Dynamo's guards where a call is like an earlier one.

Guards look at everything that a function can reach. A loop reaches tensors and settings alone, and comparing these
takes a third of the time, which for a short loop is as long as the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .lift import by_inductor

__all__ = ["Straight"]


_WAYS = 8
"""As many as Dynamo keeps."""


class _Way(NamedTuple):
    """made(*[tensors[i] for i in inputs]), of which `outputs` are the results."""

    made: Callable[..., Any]
    inputs: list[int]
    outputs: list[int]


class Straight:
    """function(*lists) -> tensors, compiled by Inductor with these options.

    The lists of a call together hold tensors of which none is twice there.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._inductor, self._local = by_inductor(options), threading.local()
        self._ways: dict[Hashable, _Way] = {}
        self._call = torch.compile(function, backend=self._receive, fullgraph=True, dynamic=False)

    def __call__(self, *lists: Sequence[Tensor] | None) -> list[Tensor]:
        """The results. Raises what Dynamo raises."""
        tensors = [x for part in lists if part is not None for x in part]
        layout = _layout(lists, tensors)
        way = self._ways.get(layout)
        if way is not None:
            found = way.made(*(tensors[i] for i in way.inputs))
            return [found[i] for i in way.outputs]
        self._local.seen = None
        found = list(self._call(*lists))
        seen = self._local.__dict__.pop("seen")
        if seen is not None:
            made, inputs, outputs = seen
            sources, ends = _places(inputs, tensors), _places(found, outputs)
            if sources is not None and ends is not None and len(self._ways) < _WAYS:
                self._ways[layout] = _Way(made, sources, ends)
        return found

    def _receive(self, graph: Any, examples: list[Any]) -> Callable[..., Any]:
        made = self._inductor(graph, examples)

        def call(*inputs: Any) -> Any:
            outputs = made(*inputs)
            self._local.seen = made, inputs, outputs
            return outputs

        return call


def _places(wanted: Sequence[Any], among: Sequence[Tensor]) -> list[int] | None:
    """Where these objects are among others; None if one of them is not."""
    places = {id(x): i for i, x in enumerate(among)}
    found = [places.get(id(x)) for x in wanted]
    return None if None in found else found  # type: ignore[return-value]


def _layout(lists: Sequence[Sequence[Tensor] | None], tensors: Sequence[Tensor]) -> Hashable:
    """All that compiled code of a loop depends on."""
    state = (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads(), torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(), torch.is_autocast_enabled("cpu"),
    )  # fmt: skip
    sizes = tuple(None if part is None else len(part) for part in lists)
    return state, sizes, tuple((x.shape, x.stride(), x.dtype, x.requires_grad, x.is_inference()) for x in tensors)
