"""Write the .ipynb of every notebook from its .py, the truth: python tests/notebooks/pair.py

The text is a function of the .py alone (no outputs, counted cell ids, no versions), so a pair agrees if and only if
the stored .ipynb equals it byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jupytext

FOLDER = Path(__file__).resolve().parent.parent.parent / "notebooks"


def scripts(folder: Path = FOLDER) -> list[Path]:
    """Return the notebooks' .py files, in the order of their names."""
    return sorted(folder.glob("*.py"))


def generate(script: Path) -> str:
    """Return the text of the .ipynb that belongs to a py:percent script.

    Raises:
        ValueError: the script has no cell, so it isn't py:percent.
    """
    text = script.read_text(encoding="utf-8")
    if "\n# %%" not in f"\n{text}":
        raise ValueError(f"{script} has no '# %%' cell: write notebooks in jupytext's py:percent format")
    cells = jupytext.reads(text, fmt="py:percent").cells
    document = {
        "cells": [_stripped(cell, place) for place, cell in enumerate(cells)],
        "metadata": {
            "jupytext": {"formats": "ipynb,py:percent"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _stripped(cell: Any, place: int) -> dict[str, Any]:
    # jupytext's `lines_to_…` counts blank lines of the script: layout of the .py, which is not ours to store twice.
    kept = {
        "cell_type": cell.cell_type,
        "id": f"cell-{place:02d}",
        "metadata": {name: value for name, value in cell.metadata.items() if not name.startswith("lines_to_")},
        "source": cell.source.splitlines(keepends=True),
    }
    return kept | {"execution_count": None, "outputs": []} if cell.cell_type == "code" else kept


def main() -> None:
    """Write what differs, and say so."""
    for script in scripts():
        target = script.with_suffix(".ipynb")
        text = generate(script)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {target.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main()
