"""Scales of colours: their ends."""

from __future__ import annotations

import numpy as np
import pytest

from sciode.lab.colours import colour_limits


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([1.0, 3.0], (1.0, 3.0)),
        ([-1.0, 3.0], (-3.0, 3.0)),
        ([-4.0, 3.0], (-4.0, 4.0)),
        ([2.0, 2.0], (1.5, 2.5)),
        ([np.nan, -1.0, np.inf, 0.5], (-1.0, 1.0)),
    ],
)
def test_limits_are_the_values_ends_and_even_about_zero(values: list[float], ends: tuple[float, float]) -> None:
    assert colour_limits(np.array(values)) == ends


def test_nothing_has_no_colour() -> None:
    with pytest.raises(ValueError, match="nothing to choose colours by"):
        colour_limits(np.full(3, np.nan))
