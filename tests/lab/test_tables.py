"""Tables of the command line: alignment, cells, and the mean over seeds."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciode.lab.tables import mean_sd, show, small_mean_sd, table


def test_cells_and_alignment(capsys: pytest.CaptureFixture[str]) -> None:
    show(table("Results", ("set", "accuracy"), [("Short", 0.5), ("LongName", 0.123456), ("None", None)], "a caption"))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Results"
    ends = {len(line) for line in lines if "0." in line or line.endswith(("accuracy", "-"))}
    assert len(ends) == 1, "numbers, their dash and their heading end in one column"
    assert any("0.1235" in line for line in lines)
    assert any("a caption" in line for line in lines)


def test_markup_in_a_cell_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(table("[red]t", ("a",), [("[bold]x[/bold]",)]))
    shown = capsys.readouterr().out
    assert "[red]t" in shown and "[bold]x[/bold]" in shown


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"each row needs 2 cells \(a, b\), got 1"):
        table("t", ("a", "b"), [(1, 2), (1,)])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_mean_and_sample_deviation(values: list[float]) -> None:
    mean, deviation = map(float, mean_sd(values, digits=6).split(" ± "))
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert deviation == pytest.approx(statistics.stdev(values), abs=1e-6)


def test_one_value_has_no_deviation_and_none_is_refused() -> None:
    assert mean_sd([0.25]) == "0.250"
    with pytest.raises(ValueError, match="at least one"):
        mean_sd([])


def test_small_numbers_keep_their_digits() -> None:
    assert small_mean_sd([2e-6, 4e-6]) == "3.00e-06 ± 1e-06"
    assert small_mean_sd([6.27, 6.28], ".4g", ".1g") == "6.275 ± 0.007"
    assert small_mean_sd([1e-9]) == "1.00e-09"
    with pytest.raises(ValueError, match="at least one"):
        small_mean_sd([])
