"""Walking an autograd graph: who takes part in a computation, and what it keeps alive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["bytes_behind", "check_known", "clock", "hang_on_others", "leaves_behind", "residual_bytes"]


def clock() -> int:
    """A number that every graph node made from now on exceeds."""
    with torch.enable_grad():
        probe = torch.zeros((), requires_grad=True) * 1
    assert probe.grad_fn is not None
    return probe.grad_fn._sequence_nr()


def leaves_behind(outputs: Iterable[Tensor], since: int, inputs: Iterable[Tensor] = ()) -> tuple[list[Tensor], bool]:
    """The leaves that require grad behind `outputs`, and whether the graph reaches a node older than `since`.

    Such a node belongs to a tensor computed before: it requires grad without being a leaf. The walk stops at `inputs`,
    which are neither.
    """
    inputs = list(inputs)
    stop = {(x.grad_fn, x.output_nr) for x in inputs if x.grad_fn is not None}
    own = {id(x) for x in inputs}
    stack = [(out.grad_fn, out.output_nr) for out in outputs if out.grad_fn is not None]
    leaves = [out for out in outputs if out.grad_fn is None and out.requires_grad]
    seen: set[Any] = set()
    older = False
    while stack:
        edge = stack.pop()
        node: Any = edge[0]
        if node in seen or edge in stop:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and type(node).__name__ == "AccumulateGrad":
            leaves.append(variable)
            continue
        if node._sequence_nr() <= since:
            older = True
            continue
        stack += [parent for parent in node.next_functions if parent[0] is not None]
    unique = {id(leaf): leaf for leaf in leaves if id(leaf) not in own}
    return list(unique.values()), older


def hang_on_others(outputs: Iterable[Tensor], known: Iterable[Tensor], since: int) -> bool:
    """Whether `outputs` hang on a leaf that is none of `known`, or on what was computed before the clock said
    `since`."""
    ids = {id(x) for x in known}
    leaves, older = leaves_behind(outputs, since)
    return older or any(id(leaf) not in ids for leaf in leaves)


def check_known(outputs: Iterable[Tensor], inputs: Iterable[Tensor], since: int, t: Tensor, adjoint: str) -> None:
    """RuntimeError where `outputs` hang on a tensor that joined the field after the first time t [L]: its gradient
    would be lost."""
    if hang_on_others(outputs, inputs, since):
        raise RuntimeError(
            f"the field at t = {float(t[0]):g} uses a tensor that requires grad and that it did not use at the first "
            f'time, so adjoint="{adjoint}" cannot give its gradient; pass the tensor through args=, or use '
            'adjoint="direct"'
        )


def bytes_behind(outputs: Iterable[Tensor], since: int) -> int:
    """The bytes that the nodes behind `outputs` keep, those newer than `since`; as `residual_bytes` counts them."""
    stack: list[Any] = [out.grad_fn for out in outputs if out.grad_fn is not None]
    seen: set[Any] = set()
    storages: dict[int, int] = {}
    while stack:
        node = stack.pop()
        if node in seen or node._sequence_nr() <= since or hasattr(node, "variable"):
            continue
        seen.add(node)
        for saved in _saved_by(node):
            if _takes_room(saved):
                storages[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        stack += [parent for parent, _ in node.next_functions if parent is not None]
    return sum(storages.values())


def _takes_room(saved: Tensor) -> bool:
    """Whether a saved tensor has a memory of its own: not a parameter, nor the zeros of a forward derivative."""
    return not saved.is_leaf and not saved._is_zerotensor()


def _saved_by(node: Any) -> Iterator[Tensor]:
    names = [name for name in dir(node) if name.startswith("_saved_")]
    values = [getattr(node, name) for name in names] + list(getattr(node, "saved_tensors", ()))
    for value in values:
        yield from (x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, Tensor))


class residual_bytes:
    """Counts the bytes that autograd saves inside a `with` block, parameters and repeated storages left out."""

    def __init__(self) -> None:
        self.total = 0
        self._storages: set[int] = set()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda saved: saved)

    def _pack(self, saved: Tensor) -> Tensor:
        if _takes_room(saved):
            pointer = saved.untyped_storage().data_ptr()
            if pointer not in self._storages:
                self._storages.add(pointer)
                self.total += saved.untyped_storage().nbytes()
        # Detached: a node that saves its own output would keep itself alive through it, for ever. Autograd restores
        # the graph of what it unpacks.
        return saved.detach()

    def __enter__(self) -> residual_bytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)
