"""Pictures of digits in a grid."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sciode.lab.figures import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["digits_picture", "show_digits"]


def show_digits(axis: Axes, images: Tensor, columns: int, title: str | None = None) -> None:
    """Draw images [n, 1, H, W] in [-1, 1] as one sheet, row by row; what is missing in the last row stays dark."""
    pixels = np.pad(images.detach().cpu().float().numpy()[:, 0], ((0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    rows = -(-len(pixels) // columns)
    high, wide = pixels.shape[1:]
    sheet = np.full((rows * columns, high, wide), -1.0)
    sheet[: len(pixels)] = pixels
    sheet = sheet.reshape(rows, columns, high, wide).swapaxes(1, 2).reshape(rows * high, columns * wide)
    axis.imshow(sheet, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[], title=title or "")
    axis.grid(visible=False)


def digits_picture(file: Path, images: Tensor, columns: int) -> None:
    """Write such a sheet to a PNG; without matplotlib nothing is written."""
    if find_spec("matplotlib") is None:
        return
    rows = -(-len(images) // columns)
    with picture(file, (0.5 * columns, 0.5 * rows)) as figure:
        show_digits(figure.subplots(), images, columns)
