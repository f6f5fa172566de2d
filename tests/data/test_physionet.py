"""Stays in intensive care, from text as PhysioNet writes it: slots, averages, what is missing, who is left out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sciode.data import stays
from sciode.data.physionet import CHANNELS, STATIC

HEADER = "Time,Parameter,Value\n"
READINGS = {
    7: ("RecordID,7", "Age,54", "Gender,-1", "Weight,-1", "00:07,HR,70", "00:09,HR,80", "01:30,pH,7.4"),
    5: ("RecordID,5", "Age,61", "Height,170", "48:00,HR,90", "00:02,HR,60", "00:02,Temp,37.5"),
    9: ("RecordID,9", "Age,40", "Weight,-1"),
}
TEXTS = {
    number: HEADER + "".join(f"{line if line[0].isdigit() else '00:00,' + line}\n" for line in lines)
    for number, lines in READINGS.items()
}
OUTCOMES = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
5,6,1,5,-1,1
7,16,8,8,-1,0
9,1,1,1,1,0
"""
HR, PH, TEMP = (CHANNELS.index(name) for name in ("HR", "pH", "Temp"))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "physionet2012"
    folder.mkdir()
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as archive:
        for number, text in TEXTS.items():
            member = tarfile.TarInfo(f"set-a/{number}.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    (folder / "Outcomes-a.txt").write_text(OUTCOMES)
    monkeypatch.setenv("SCIODE_DATA", str(tmp_path))
    return folder


def test_stays_are_sorted_and_those_without_a_reading_are_left_out(written: Path) -> None:
    found = stays()
    assert found.ids.tolist() == [5, 7]
    assert found.died.tolist() == [True, False]
    assert found.series.channels == len(CHANNELS) == 37
    assert found.series.static is not None
    static = [dict(zip(STATIC, row.tolist(), strict=True)) for row in found.series.static]
    assert static[0]["Height"] == 170.0 and static[1]["Age"] == 54.0
    assert np.isnan(static[1]["Gender"])  # -1 is PhysioNet's mark


def test_minutes_are_kept_or_rounded_to_slots_and_averaged(written: Path) -> None:
    fine, coarse = stays().series, stays(6).series
    np.testing.assert_allclose(fine.times[0], [2 / 60, 48.0])
    np.testing.assert_allclose(fine.times[1], [7 / 60, 9 / 60, 1.5])
    # 00:07 and 00:09 are one minute and three from 00:06: a half rounds up.
    np.testing.assert_allclose(coarse.times[1], [0.1, 0.2, 1.5])
    hourly = stays(60).series
    np.testing.assert_allclose(hourly.times[1], [0.0, 2.0])
    assert hourly.values[1][0, HR] == 75.0 and hourly.values[1][1, PH] == 7.4
    assert hourly.values[0][0, TEMP] == 37.5 and hourly.values[0][-1, HR] == 90.0
    assert int((~np.isnan(hourly.values[1])).sum()) == 2


def test_slots_that_do_not_fill_the_two_days_are_refused(written: Path) -> None:
    for minutes in (0, -6, 7):
        with pytest.raises(ValueError, match="positive divisor of 2880"):
            stays(minutes)


def test_an_unknown_parameter_is_refused(written: Path) -> None:
    text = HEADER + "00:00,RecordID,5\n00:10,Sodium,140\n"
    with tarfile.open(written / "set-a.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("set-a/5.txt")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(ValueError, match="stay 5 has a parameter 'Sodium'"):
        stays()


def test_the_real_set_is_what_its_manifest_says(shared_data: Path) -> None:
    found = stays()
    assert len(found.series) == 3997 and int(found.died.sum()) == 554
    assert (int(found.series.lengths.min()), int(found.series.lengths.max())) == (1, 202)
    at = found.ids.tolist().index(132539)
    assert found.series.times[at][0] == 7 / 60 and found.series.values[at][0, HR] == 73.0
    assert max(clock[-1] for clock in found.series.times) <= 48.0
