"""Lines of Python being written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Text"]


class Text:
    """Collects lines at the indentation of the moment."""

    def __init__(self, native: bool) -> None:
        self.native = native
        self._lines: list[str] = []
        self._depth = 0

    def put(self, *lines: str) -> None:
        """Write lines."""
        self._lines.extend("    " * self._depth + line for line in lines)

    def let(self, name: str, value: str) -> str:
        """Write an assignment; returns the name."""
        self.put(f"{name} = {value}")
        return name

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write a head; what is written inside is its body."""
        self.put(head)
        self._depth += 1
        yield
        self._depth -= 1

    def sqrt(self, x: str) -> str:
        """The square root, rounded correctly."""
        return f"libdevice.sqrt({x})" if self.native else f"tl.sqrt({x})"

    def __str__(self) -> str:
        return "\n".join(self._lines)
