"""What a kept run is known by: a folder of another one is not gone on with, however little is different."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sciode.pde import Box
from sciode.pinn import CPINN, Face, Hard, Names, Network, Numbers, Problem, dirichlet, robin, solve, strips
from sciode.training import Adam

BOX = Box((0, 0), (1, 1))
NUMBERS = (1.0, 2.0, 3.0, 4.0, 5.0)


def made(source: float, told: float, slope: float, flow: float, held: float) -> Problem:
    """Functions that differ in numbers which only they know."""
    return Problem(
        "made",
        Names(("x", "t"), ("u",)),
        BOX,
        lambda d, p: d.u_t + d.u_x - source,
        (dirichlet(Face("t", -1), told), robin(Face("x"), 1.0, slope, 0.0)),
        flux=lambda d, p: (d.u, flow * d.u),
        hard=Hard(lambda x: held + 0 * x[..., :1], lambda x: torch.ones_like(x[..., :1])),
        corners="ignore",
    )


@pytest.mark.parametrize("place", range(len(NUMBERS)), ids=["equation", "value", "residual", "flux", "hard"])
def test_a_function_is_known_by_what_it_makes_of_numbers_signs_included(place: int, tmp_path: Path) -> None:
    def run(numbers: tuple[float, ...]) -> torch.Tensor:
        how = {"network": Network(4, 1), "numbers": Numbers(12, 6, 4), "stages": [Adam(2)], "conditions": CPINN}
        return solve(made(*numbers), strips(BOX, 1, [0.5]), folder=tmp_path, **how).theta

    first = run(NUMBERS)
    assert torch.equal(run(NUMBERS), first)
    with pytest.raises(ValueError, match="differs in functions"):
        run(tuple(-value if k == place else value for k, value in enumerate(NUMBERS)))
