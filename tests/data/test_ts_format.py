"""The .ts reader: what the format says, what it refuses, and agreement with aeon's reader."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from sciode.data.ts_format import Cases, read_ts

HEADER = "# a comment\n\n@problemName Toy\n@classLabel true up down\n@equalLength false\n"


def read(tmp_path: Path, body: str, header: str = HEADER) -> Cases:
    file = tmp_path / "Toy_TRAIN.ts"
    file.write_text(header + "@data\n" + body, encoding="utf-8")
    return read_ts(file)


def test_channels_lengths_gaps_and_labels(tmp_path: Path) -> None:
    cases = read(tmp_path, "1,2,?:4,NaN,-6e-1:up\n\n7:8:down\n")
    assert np.array_equal(cases.values[0], [[1, 4], [2, np.nan], [np.nan, -0.6]], equal_nan=True)
    assert np.array_equal(cases.values[1], [[7, 8]])
    assert cases.labels.tolist() == ["up", "down"]


def test_tags_are_read_in_any_case_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    cases = read(tmp_path, "1 , 2 : up\r\n", HEADER.lower().replace("\n", "\r\n"))
    assert cases.values[0].tolist() == [[1], [2]] and cases.labels.tolist() == ["up"]


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (HEADER, "1,2:sideways\n", "Toy_TRAIN.ts:7: label 'sideways' is not one of down, up"),
        (HEADER, "1,2:3:up\n", "channels of .1, 2. points"),
        (HEADER, "1:up\n1:2:down\n", ":8: 2 channels, and the first case has 1"),
        (HEADER, "1,x:up\n", "'x' is not a number"),
        (HEADER, "1,,2:up\n", "'' is not a number"),
        (HEADER, "1_0:up\n", "'1_0' is not a number"),
        (HEADER, "1,inf:up\n", "infinite"),
        (HEADER, "up\n", "channels parted by"),
        (HEADER, "", "no case follows"),
        (HEADER + "@equalLength true\n", "1,2:up\n1:up\n", "1 points, and the header says that all cases have 2"),
        (HEADER + "@univariate true\n", "1:2:up\n", "univariate"),
        (HEADER + "@timeStamps true\n", "(0,1):up\n", "time stamps"),
        (HEADER + "@missing perhaps\n", "1:up\n", ":6: @missing needs true or false"),
        ("@problemName Toy\n", "1:up\n", "@classLabel is not true"),
        (HEADER + "@targetLabel true\n", "1:2\n", "only classification"),
        (HEADER + "1,2:up\n", "", "expected a tag"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_line(tmp_path: Path, header: str, body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, body, header)


def test_a_file_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Toy.ts").write_text(HEADER)
    with pytest.raises(ValueError, match="no @data line"):
        read_ts(tmp_path / "Toy.ts")


@pytest.mark.parametrize("name", ["BasicMotions", "JapaneseVowels", "DodgerLoopDay", "GesturePebbleZ1", "EyesOpenShut"])
@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_it_reads_what_aeon_reads(shared_data: Path, name: str, split: str) -> None:
    pytest.importorskip("aeon", reason="aeon comes with the lab extra")
    with warnings.catch_warnings():
        # What aeon's own imports warn of is aeon's business.
        warnings.simplefilter("ignore")
        from aeon.datasets import load_from_ts_file
    file = shared_data / "uea" / name / f"{name}_{split}.ts"
    ours = read_ts(file)
    values, labels = load_from_ts_file(str(file))[:2]
    assert len(ours.values) == len(values)
    assert all(np.array_equal(a, b.T, equal_nan=True) for a, b in zip(ours.values, values, strict=True))
    assert [label.lower() for label in ours.labels] == labels.tolist()
