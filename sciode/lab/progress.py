"""One progress bar for notebooks and terminals, silent wherever nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from sciode.lab.setup import fast


def progress(
    iterable: Iterable[Any] | None = None,
    description: str = "",
    *,
    total: int | None = None,
    unit: str = "it",
    leave: bool = False,
) -> tqdm[Any]:
    """Return a tqdm bar over `iterable`: drawn in a terminal or a notebook, off without a terminal and in fast mode.

    Args:
        iterable: what to loop over; None for a bar moved by `bar.update(n)`.
        description: the words before the bar.
        total: how many steps, where the iterable has no length.
        unit: what one step is called.
        leave: keep the finished bar on the screen.
    """
    watched = sys.stderr.isatty() or _in_notebook()
    return tqdm(iterable, desc=description, total=total, unit=unit, leave=leave, disable=fast() or not watched)


def say(text: str) -> None:
    """Print one line to standard error where no bar is drawn (a log, a pipe): nobody should wait without a word."""
    if not (fast() or sys.stderr.isatty() or _in_notebook()):
        print(text, file=sys.stderr, flush=True)


def _in_notebook() -> bool:
    # Only a running kernel has imported IPython and made a shell; asking must not import it.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
