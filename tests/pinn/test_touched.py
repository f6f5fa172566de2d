"""A condition reaches every piece that its set touches, however thin the piece and few the points."""

from __future__ import annotations

import math

import pytest
import torch

from sciode.pde import Box
from sciode.pinn import Face, Names, Network, Numbers, Periodic, Problem, dirichlet, single, strips
from sciode.pinn.decomposition import Decomposition
from sciode.pinn.representation import representation_of
from sciode.pinn.terms import Data, Group, Wrapped

BOX = Box((0, 0), (1, 1))
START = dirichlet(Face("t", -1), lambda x: torch.sin(2 * math.pi * x[..., :1]), name="start")
PROBLEM = Problem("moving", Names(("x", "t"), ("u",)), BOX, lambda d, p: d.u_t + d.u_x, (START, Periodic("x")))
LIKE = torch.zeros((), dtype=torch.float64)


def groups(cut: Decomposition) -> tuple[Group, Group]:
    of = representation_of(PROBLEM, cut, Network(2, 1), LIKE)
    start, around = PROBLEM.conditions
    assert isinstance(around, Periodic) and not isinstance(start, Periodic)
    return Data(of, start), Wrapped(of, around)


@pytest.mark.parametrize("seed", range(20))
def test_thin_pieces_are_told_what_is_known_there(seed: int) -> None:
    across, along = strips(BOX, 0, [0.01, 0.02, 0.5]), strips(BOX, 1, [0.01, 0.02, 0.5])
    few = Numbers(4, 2, 2)
    start, around = groups(across)[0].draw(few, seed, LIKE), groups(along)[1].draw(few, seed, LIKE)
    assert start is not None and around is not None
    assert start.which == (0, 1, 2, 3) and around.which == (0, 1, 2, 3) * 2
    for place, (low, high) in enumerate(((0, 0.01), (0.01, 0.02), (0.02, 0.5), (0.5, 1))):
        for sample, axis in ((start, 0), (around, 1)):
            own = sample.data["points"][0, place, :, axis]
            assert bool(((own >= low) & (own <= high)).all())
            assert float(sample.data["share"][0, place].sum()) == pytest.approx(1.0)


def test_one_network_and_one_piece_see_all_of_a_set() -> None:
    for group in groups(single(BOX)):
        sample = group.draw(Numbers(4, 3, 2), 0, LIKE)
        assert sample is not None and set(sample.which) == {0} and sample.count == 3
