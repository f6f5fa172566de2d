"""Nested states (a tensor, or tuples and dicts of tensors) laid out as one matrix [batch, features], and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Layout", "expand_time", "filler_of", "leaves_of", "map_tree", "path_of"]

Tree = Any
_LEAF = pytree.tree_structure(0)
_PLAIN = (int, float, bool)
"""Leaves that need not be looked into."""


def leaves_of(tree: Tree) -> list[Any]:
    """The leaves of a nested tuple/list/dict, in a fixed order: that of pytree, which takes ten times as long."""
    found: list[Any] = []
    _gather(tree, found)
    return found


def _gather(tree: Tree, found: list[Any]) -> None:
    if isinstance(tree, Tensor) or tree is None or type(tree) in _PLAIN:
        found.append(tree)
    elif _is_sequence(tree):
        for part in tree:
            _gather(part, found)
    elif type(tree) in pytree.SUPPORTED_NODES:
        found += pytree.tree_leaves(tree)
    else:
        found.append(tree)


def _is_sequence(tree: Tree) -> bool:
    return type(tree) in (tuple, list) or (isinstance(tree, tuple) and hasattr(tree, "_fields"))


def map_tree(fn: Callable[[Any], Any], tree: Tree) -> Tree:
    """Apply `fn` to every leaf."""
    return fn(tree) if isinstance(tree, Tensor) else pytree.tree_map(fn, tree)


def filler_of(tree: Tree) -> Callable[[Iterator[Any]], Tree]:
    """fill(leaves) -> a tree like this one with other leaves."""
    if not _is_sequence(tree):
        if type(tree) not in pytree.SUPPORTED_NODES:
            return next
        spec = pytree.tree_structure(tree)
        return lambda leaves: pytree.tree_unflatten([next(leaves) for _ in range(spec.num_leaves)], spec)
    parts = [filler_of(part) for part in tree]
    make = type(tree)._make if hasattr(tree, "_fields") else type(tree)
    return lambda leaves: make([part(leaves) for part in parts])


def path_of(tree: Tree, index: int) -> str:
    """How a user would write the `index`-th leaf: `y0`, `y0[1]`, `y0['v']`."""
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return paths[index]


def expand_time(t: Tensor, leaf: Tensor) -> Tensor:
    """View a time [*batch] so that it broadcasts against one leaf [*batch, *state] of a nested state.

    Fields of tuple or dict states receive t as [*batch]; `expand_time(t, y["v"])` has shape [*batch, 1, ..., 1].
    """
    return t.reshape(t.shape + (1,) * (leaf.ndim - t.ndim))


@dataclass(frozen=True)
class Layout:
    """How a nested state [*batch, *state] lies in a matrix [B, D]: B = prod(batch), D = sum of the leaves' sizes."""

    spec: Any
    batch: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(tree: Tree, batch_dims: int) -> Layout:
        """Read the layout off a state whose first `batch_dims` axes are samples."""
        leaves, spec = ([tree], _LEAF) if isinstance(tree, Tensor) else pytree.tree_flatten(tree)
        batch = tuple(leaves[0].shape[:batch_dims])
        return Layout(spec, batch, tuple(tuple(leaf.shape[batch_dims:]) for leaf in leaves))

    @property
    def single(self) -> bool:
        """Whether the state is one tensor, not a tuple or dict."""
        return self.spec.is_leaf()

    @property
    def plain(self) -> bool:
        """Whether the state already is the matrix [B, D], so that laying it out costs nothing."""
        return self.single and len(self.batch) == 1 and len(self.shapes[0]) == 1

    @property
    def samples(self) -> int:
        """B, the number of samples."""
        return math.prod(self.batch)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of features of each leaf; they sum to D."""
        return tuple(math.prod(shape) for shape in self.shapes)

    def ravel(self, tree: Tree, trailing: int = 0) -> Tensor:
        """[*batch, *state, *rest] of every leaf -> [B, D, *rest], where `rest` has `trailing` axes."""
        if self.plain and trailing == 0:
            return tree
        # By the keys of y0, not by the order in which a dict was written.
        leaves = self.spec.flatten_up_to(tree)
        rest = leaves[0].shape[leaves[0].ndim - trailing :] if trailing else ()
        parts = [leaf.reshape((self.samples, size, *rest)) for leaf, size in zip(leaves, self.sizes, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def unravel(self, flat: Tensor) -> Tree:
        """[..., B, D] -> leaves [..., *batch, *state]."""
        if self.plain:
            return flat
        lead = flat.shape[:-2]
        if self.single:
            return flat.reshape((*lead, *self.batch, *self.shapes[0]))
        parts = flat.split(self.sizes, dim=-1)
        leaves = [part.reshape((*lead, *self.batch, *shape)) for part, shape in zip(parts, self.shapes, strict=True)]
        return pytree.tree_unflatten(leaves, self.spec)

    def times(self, t: Tensor) -> Tensor:
        """[n, L] with L in {1, B} -> [n, *batch, 1, ..., 1] (nested states: [n, *batch]; without a batch: [n])."""
        if not self.batch:
            return t.reshape(-1)
        if t.shape[1] == 1 and self.samples != 1:
            t = t.expand(-1, self.samples)
        ones = (1,) * len(self.shapes[0]) if self.single else ()
        return t.reshape(-1, *self.batch, *ones)
