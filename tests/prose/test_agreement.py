"""Trajectories against LSODA: all systems in short, errors that are found, and horizons that chaos draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sciode.prose import SYSTEMS, Drawing, draw
from sciode.prose.agreement import agreement


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_trajectories_of_every_system_are_those_of_lsoda_within_one_percent(name: str) -> None:
    how = Drawing((name,), equations=2, starts=4, end=2.0, frames=24, engine="eager", part="all")
    (samples,) = draw(how, 1)
    found = agreement(samples, how, 1.0)
    assert found.system == name and found.compared == len(samples.values) > 0
    assert found.worst < 0.01


@pytest.mark.slow
def test_one_percent_of_a_pool_is_that_of_lsoda_to_the_last_time_but_for_chaos() -> None:
    how = Drawing(equations=20, starts=20, part="train")
    for samples in draw(how, 2):
        found = agreement(samples, how)
        assert found.median < 1e-3 and found.worst < 0.01, found


def test_what_is_wrong_by_two_percent_is_seen() -> None:
    how = Drawing(("thomas",), equations=2, starts=4, end=2.0, frames=24, engine="eager")
    (samples,) = draw(how, 1)
    moved = samples.values.clone()
    moved[3, 1:] *= 1.02
    found = agreement(samples._replace(values=moved), how, 1.0)
    assert found.worst == pytest.approx(0.02, rel=0.05) and found.median < 1e-4


def test_a_horizon_ends_where_chaos_has_made_tolerances_large() -> None:
    """Lorenz for 30 units of time: errors of 1e-5 grow e-fold in about 1.1; linear decay has no horizon."""
    how = Drawing(("lorenz",), equations=1, starts=4, end=30.0, frames=301, engine="eager")
    (samples,) = draw(how, 0)
    found = agreement(samples, how, 1.0)
    assert 2 < found.horizon < 20 and found.whole == 0
    assert found.worst < 0.05 < found.all_times
    steady = agreement(next(draw(Drawing(("thomas",), 1, 4, engine="eager"), 0)), Drawing(("thomas",), 1, 4))
    assert steady.horizon == 6.0 and steady.whole == 1.0


def test_no_share_and_no_samples_are_refused() -> None:
    how = Drawing(("thomas",), equations=1, starts=1, end=1.0, frames=8, engine="eager")
    (samples,) = draw(how, 0)
    with pytest.raises(ValueError, match="share"):
        agreement(samples, how, 0.0)
    none = samples._replace(values=samples.values[:0], owner=torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="samples"):
        agreement(none, how)


def test_the_table_has_a_row_a_system(tmp_path: Path) -> None:
    from sciode.experiments.prose_data import main

    small = {"systems": ("thomas", "lorenz_96_5"), "equations": 4, "starts": 2, "engine": "eager"}
    assert main(tmp_path, "cpu", **small) == 0 and (tmp_path / "table.json").exists()
