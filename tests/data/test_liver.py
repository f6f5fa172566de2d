"""PBC2: the real file and made ones are read as written, a damaged line names itself, a frame of pandas is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciode.data import IrregularSeries, manifest, path, pbc2
from sciode.data.liver import LABORATORY, SIGNS, read_pbc2

HEAD = (
    '"sno.","id","years","status","drug","age","sex","year","ascites","hepatomegaly","spiders","edema",'
    '"serBilir","serChol","albumin","alkaline","SGOT","platelets","prothrombin","histologic","status2"\n'
)
ROWS = (
    '"1","2",3.5,"alive","placebo",50.5,"male",0.5,"No","Yes",NA,"edema no diuretics",1.5,NA,3,900,80,200,11,4,0\n'
    '"2","2",3.5,"alive","placebo",50.5,"male",0,"No","No","No","No edema",1.1,302,4,NA,70,NA,10,3,0\n'
    '"3","1",1.2,"dead","D-penicil",60,"female",0,"Yes","Yes","Yes","edema despite diuretics",14,261,2,1,2,3,12,4,1\n'
)
CHANNELS = (*LABORATORY, *SIGNS)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written = tmp_path / "pbc2" / "pbc2.csv"
    written.parent.mkdir()
    written.write_text(HEAD + ROWS)
    monkeypatch.setenv("SCIODE_DATA", str(tmp_path))
    return written


def test_patients_are_sorted_by_id_and_their_visits_by_time(file: Path) -> None:
    found = pbc2()
    assert found.ids.tolist() == [1, 2] and found.status.tolist() == ["dead", "alive"]
    assert found.years.tolist() == [1.2, 3.5]
    assert [clock.tolist() for clock in found.series.times] == [[0.0], [0.0, 0.5]]
    assert found.series.static is not None
    assert found.series.static.tolist() == [[60.0, "female", "D-penicil"], [50.5, "male", "placebo"]]


def test_values_are_in_their_channels_and_signs_are_numbers(file: Path) -> None:
    first, second = (dict(zip(CHANNELS, row, strict=True)) for row in pbc2().series.values[1])
    assert first["serBilir"] == 1.1 and first["serChol"] == 302 and np.isnan(first["alkaline"])
    assert (first["ascites"], first["edema"], first["histologic"]) == (0, 0, 3)
    assert (second["hepatomegaly"], second["edema"], second["histologic"]) == (1, 0.5, 4) and np.isnan(
        second["spiders"]
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"edema no diuretics"', '"some"', "line 2: 'some'"),
        ("302", "many", "line 3: could not convert"),
        ('50.5,"male",0,', '51,"male",0,', "line 3: patient 2 changes"),
        ('"serChol"', '"chol"', "line 2: 'serChol'"),
        ('0.5,"No","Yes"', '0,"No","Yes"', "series 1.*repeats"),
    ],
)
def test_a_damaged_file_is_refused(file: Path, old: str, new: str, says: str) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=says):
        pbc2()


@pytest.fixture
def real() -> Path:
    try:
        return path("pbc2")
    except FileNotFoundError:
        pytest.skip("the real file is not on this machine: sciode data get pbc2")


def test_the_real_file_is_what_its_manifest_says(real: Path) -> None:
    found, shape = read_pbc2(real), manifest("pbc2").shape
    assert len(found.series) == shape.train == 312 and int(found.series.lengths.sum()) == 1945
    assert found.series.channels == shape.channels == len(CHANNELS)
    assert (found.series.lengths.min(), found.series.lengths.max()) == shape.length
    assert set(found.status.tolist()) == {"alive", "dead", "transplanted"}
    assert sum(int(np.isnan(value[:, 1]).sum()) for value in found.series.values) == 821
    assert all(clock[0] == 0 and clock[-1] <= end for clock, end in zip(found.series.times, found.years, strict=True))
    same_as_pandas(real)


def same_as_pandas(file: Path) -> None:
    """What any user would write for a table of their own, text columns as static features included."""
    frame = pytest.importorskip("pandas").read_csv(file)
    own = IrregularSeries.from_frame(frame, "id", "year", list(LABORATORY), static=["age", "sex", "drug"])
    order = np.argsort(frame["id"].unique())
    told = read_pbc2(file).series
    assert own[order] == IrregularSeries([value[:, :7] for value in told.values], told.times, told.static)


def test_a_frame_that_pandas_reads_is_the_same_series(file: Path) -> None:
    same_as_pandas(file)
