"""How a program holds vectors: a number a lane for each component, or a tile with a row for each sample.

Everything that is one number a sample (time, step, status) looks the same in both; the rest of the kernel's text asks
its frame how a vector is named, loaded, stored and summed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from .text import Text

__all__ = ["ROWS", "Components", "Frame", "Names", "Tile", "padded"]

Names = list[str]
"""Names of the pieces of a vector."""
ROWS = 16
"""Samples a tile: the fewest that a matrix product takes."""
_LANES = 32
_WARPS = ((12 * 1024, 4), (48 * 1024, 8))
"""Bytes of weights, and how many warps hold them beside their work without much spilling (triton 3.9, sm_90)."""


def padded(size: int) -> int:
    """Columns of a tile that holds `size` of them: a power of two, as few as a matrix product takes."""
    return max(16, 1 << (size - 1).bit_length())


class Frame(ABC):
    """samples: how many a program solves; warps: of how many threads."""

    samples: int
    warps: int

    @abstractmethod
    def names(self, prefix: str, size: int) -> Names:
        """Names of a vector's pieces."""

    @abstractmethod
    def wide(self, x: str) -> str:
        """One number a sample, where it meets vectors."""

    @abstractmethod
    def shared(self, text: Text, prefix: str, pointer: str, size: int) -> Names:
        """Lines that load a vector that all samples share."""

    @abstractmethod
    def load(self, text: Text, names: Names, pointer: str, place: str, mask: str) -> None:
        """Lines that load a vector a sample, the first entry of which lies at `place`; outside of `mask`, zeros."""

    @abstractmethod
    def store(self, text: Text, names: Names, pointer: str, place: str, mask: str) -> None:
        """Lines that store one."""

    @abstractmethod
    def total(self, terms: Names) -> str:
        """The sum over components."""

    @abstractmethod
    def every(self, conditions: Names) -> str:
        """Whether a condition holds for all components."""

    @abstractmethod
    def head(self, text: Text) -> None:
        """Lines that other lines rely on."""


class Components(Frame):
    """Every component in a register of its own; one warp, so that lanes wait for as few others as possible."""

    samples, warps = _LANES, 1

    def names(self, prefix: str, size: int) -> Names:
        """One name a component."""
        return [f"{prefix}{j}" for j in range(size)]

    def wide(self, x: str) -> str:
        """Itself."""
        return x

    def shared(self, text: Text, prefix: str, pointer: str, size: int) -> Names:
        """Scalars."""
        return [text.let(f"{prefix}{j}", f"tl.load({pointer} + {j})") for j in range(size)]

    def load(self, text: Text, names: Names, pointer: str, place: str, mask: str) -> None:
        """Entry by entry."""
        for j, name in enumerate(names):
            text.let(name, f"tl.load({pointer} + {place} + {j}, mask={mask}, other=0.0)")

    def store(self, text: Text, names: Names, pointer: str, place: str, mask: str) -> None:
        """Entry by entry."""
        text.put(*(f"tl.store({pointer} + {place} + {j}, {name}, mask={mask})" for j, name in enumerate(names)))

    def total(self, terms: Names) -> str:
        """Written out."""
        return " + ".join(terms)

    def every(self, conditions: Names) -> str:
        """Written out."""
        return " & ".join(f"({c})" for c in conditions)

    def head(self, text: Text) -> None:
        """None."""


class Tile(Frame):
    """All components of ROWS samples in a tile [ROWS, width]; columns from `size` on are padding, and zero."""

    samples = ROWS

    def __init__(self, size: int, weights: int) -> None:
        self.size, self.width = size, padded(size)
        self.warps = next((warps for limit, warps in _WARPS if weights <= limit), 16)

    def names(self, prefix: str, size: int) -> Names:
        """One name."""
        return [f"{prefix}0"]

    def wide(self, x: str) -> str:
        """A column."""
        return f"({x})[:, None]"

    def shared(self, text: Text, prefix: str, pointer: str, size: int) -> Names:
        """A row."""
        return [text.let(f"{prefix}0", f"tl.load({pointer} + column, mask=within, other=1.0)")]

    def load(self, text: Text, names: Names, pointer: str, place: str, mask: str) -> None:
        """The whole tile."""
        where = f"{pointer} + ({place})[:, None] + column"
        text.put(*(f"{name} = tl.load({where}, mask={mask}[:, None] & within, other=0.0)" for name in names))

    def store(self, text: Text, names: Names, pointer: str, place: str, mask: str) -> None:
        """The whole tile."""
        where = f"{pointer} + ({place})[:, None] + column"
        text.put(*(f"tl.store({where}, {name}, mask={mask}[:, None] & within)" for name in names))

    def total(self, terms: Names) -> str:
        """Along rows, without the padding."""
        (term,) = terms
        return f"tl.sum({term if self.size == self.width else f'tl.where(within, {term}, 0.0)'}, axis=1)"

    def every(self, conditions: Names) -> str:
        """Along rows, without the padding."""
        (condition,) = conditions
        return f"tl.min((({condition}) | (within == 0)).to(tl.int32), axis=1) > 0"

    def head(self, text: Text) -> None:
        """The columns."""
        text.put(f"column = tl.arange(0, {self.width})[None, :]", f"within = column < {self.size}")
