"""Pictures of commands: drawn in the house style without a display, and written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from sciode.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["picture"]


@contextmanager
def picture(file: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure of size (width, height) inches to draw on, and write it to the PNG `file` at the end.

    A drawing that raises leaves an earlier file as it is. Raises ImportError without matplotlib.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(str(Path(__file__).with_name("style.mplstyle"))):
        figure = Figure(figsize=size)
        yield figure
        written = BytesIO()
        figure.savefig(written, format="png", bbox_inches="tight")
    write_atomically(file, written.getvalue())
