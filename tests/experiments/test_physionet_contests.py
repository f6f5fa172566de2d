"""Interpolation and mortality: parts apart, scales of training stays, the same holes for all, nothing told of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciode.data import IrregularSeries
from sciode.data.physionet import CHANNELS
from sciode.experiments import physionet_interpolation as interpolation
from sciode.experiments import physionet_mortality as mortality
from sciode.experiments.contest import Run
from sciode.timeseries import MODELS, StraightLine

SIZES: dict[str, Any] = {
    "models": ("lnsde", "grud"), "seeds": (0,), "trials": 1, "epochs": 1, "samples": 2, "hidden": 4, "euler": 12,
    "engine": "eager", "minutes": 240, "batch": 16,
}  # fmt: skip
STAYS = 60
MEASURED = ("HR", "Temp", "pH", "Urine")


def texts(spoiled: int | None = None, factor: float = 50.0) -> dict[str, str]:
    """Invented stays as PhysioNet writes them; one of them may have all its readings multiplied."""
    rng, found = np.random.default_rng(0), {}
    for stay in range(STAYS):
        lines = [
            "Time,Parameter,Value", f"00:00,RecordID,{stay}", f"00:00,Age,{rng.integers(20, 90)}",
            f"00:00,Gender,{stay % 2}", "00:00,Height,-1", f"00:00,ICUType,{1 + stay % 4}",
        ]  # fmt: skip
        for hour in np.sort(rng.choice(np.arange(0, 48, 4), size=rng.integers(4, 10), replace=False)):
            for name in MEASURED:
                if name == "HR" or rng.random() < 0.6:
                    value = 1.0 + rng.random() * (factor if stay == spoiled else 1.0)
                    lines.append(f"{hour:02d}:00,{name},{value:.4f}")
        found[f"set-a/{stay}.txt"] = "\n".join(lines) + "\n"
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCIODE_DATA", str(tmp_path))
    write(tmp_path / "physionet2012", texts())
    return tmp_path


def write(folder: Path, found: dict[str, str]) -> None:
    from sciode.data import physionet

    physionet._parsed.cache_clear()
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as archive:
        for name, text in found.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    rows = [f"{stay},1,1,1,-1,{int(stay % 3 == 0)}" for stay in range(STAYS)]
    header = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"
    (folder / "Outcomes-a.txt").write_text("\n".join([header, *rows]) + "\n")


def filler(**changes: Any) -> interpolation.PhysionetInterpolation:
    return interpolation.PhysionetInterpolation(interpolation.Settings(**{**SIZES, "rates": (0.5,), **changes}))


def forecaster_of_death(**changes: Any) -> mortality.PhysionetMortality:
    return mortality.PhysionetMortality(mortality.Settings(**{**SIZES, **changes}))


@pytest.mark.parametrize("rates", [(0.5, 0.8)])
def test_the_table_of_interpolation_is_made_once(
    folder: Path, rates: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sizes = folder / "out", {**SIZES, "rates": rates}
    assert interpolation.main(out, "cpu", **sizes) == 0
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 10 and not any("note" in row for row in rows)
    assert {row["model"] for row in rows} == {"mean", "last", "line", "linear", "lnsde", "grud"}
    assert all(row["test"][name] > 0 for row in rows for name in ("held", "observed"))
    assert (out / "rates.png").stat().st_size > 0
    monkeypatch.setattr(interpolation.PhysionetInterpolation, "fit", None)
    assert interpolation.main(out, "cpu", **sizes) == 0


def test_the_table_of_mortality_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder / "out"
    assert mortality.main(out, "cpu", **SIZES) == 0
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == ["logistic", "boosting", "lnsde", "grud"]
    assert all(0 <= row["test"][name] <= 1 for row in rows for name in ("auroc", "auprc"))
    assert (out / "rates.png").stat().st_size > 0
    monkeypatch.setattr(mortality.PhysionetMortality, "fit", None)
    assert mortality.main(out, "cpu", **SIZES) == 0


@pytest.mark.parametrize("model", list(MODELS))
def test_every_model_can_be_asked_for_the_risk_of_death(folder: Path, model: str) -> None:
    task = forecaster_of_death()
    judged = task.judge(task.fit(model, 0.0, [Run(0)])[0], 0.0, "test")
    assert all(0 <= value <= 1 for value in judged.values())


def test_parts_are_disjoint_whole_and_alike_in_their_deaths(folder: Path) -> None:
    for task in (filler(), filler(seeds=(5,)), forecaster_of_death()):
        parts = [task.split.train, task.split.validation, task.split.test]
        assert sorted(np.concatenate(parts).tolist()) == list(range(STAYS))
        assert np.array_equal(task.split.test, filler().split.test)
    task = forecaster_of_death()
    shares = [task.died[rows].mean() for rows in (task.split.train, task.split.validation, task.split.test)]
    assert np.ptp(shares) < 0.1


def test_scales_are_those_of_the_training_stays(folder: Path) -> None:
    plain, risk = filler(), forecaster_of_death()
    before = plain.fit("lnsde", 0.5, [Run(0)])[0].standardizer_, risk.fit("lnsde", 0.0, [Run(0)])[0].standardizer_
    for part in ("validation", "test"):
        write(folder / "physionet2012", texts(spoiled=int(getattr(plain.split, part)[0])))
        spoiled, other = filler(), forecaster_of_death()
        assert np.array_equal(plain.low, spoiled.low) and np.array_equal(plain.range, spoiled.range)
        assert plain.whole["train"] == spoiled.whole["train"] and plain.whole[part] != spoiled.whole[part]
        assert max(np.nanmax(value) for value in spoiled.whole[part].values) <= 1.0
        after = spoiled.fit("lnsde", 0.5, [Run(0)])[0].standardizer_, other.fit("lnsde", 0.0, [Run(0)])[0].standardizer_
        assert before == after
    write(folder / "physionet2012", texts(spoiled=int(plain.split.train[0])))
    assert not np.array_equal(filler().range, plain.range)


def test_holes_are_missing_and_never_zeros_and_leave_a_share_to_read(folder: Path) -> None:
    task = filler(rates=(0.7,))
    for part in ("train", "validation", "test"):
        found = task.holes(0.7, part)
        truth = found.whole.padded()[0]
        assert found.held.any(axis=(1, 2)).all() and not np.isnan(truth[found.held]).any()
        for given, wanted, whole in zip(found.given.values, found.wanted.values, found.whole.values, strict=True):
            points = (~np.isnan(whole)).any(1).sum()
            assert (~np.isnan(given)).any(1).sum() == points - np.floor(points * 0.3 + 1e-9)
            # What is read and what is held back make the whole, each reading once.
            assert (~np.isnan(given)).sum() + (~np.isnan(wanted)).sum() == (~np.isnan(whole)).sum()
            assert sorted(given[~np.isnan(given)].tolist() + wanted[~np.isnan(wanted)].tolist()) == sorted(
                whole[~np.isnan(whole)].tolist()
            )


def test_holes_and_losses_are_the_same_for_every_model_and_seed(folder: Path) -> None:
    one, other = filler(models=("lnsde",)), filler(models=("grud",), seeds=(7,))
    for part in ("train", "validation", "test"):
        assert one.holes(0.5, part).given == other.holes(0.5, part).given
    lost = [forecaster_of_death(models=(m,), seeds=(s,)).part(0.5, "test")[0] for m, s in (("lnsde", 0), ("grud", 3))]
    assert lost[0] == lost[1] and lost[0].missing_rate > forecaster_of_death().part(0.0, "test")[0].missing_rate


@pytest.mark.parametrize("model", [*MODELS, "line", "linear", "last"])
def test_altered_holes_change_no_prediction(folder: Path, model: str) -> None:
    """The test stays are holed as ever after all that was held back in them has been replaced."""
    task = filler()
    fitted, before = task.fit(model, 0.5, [Run(0)])[0], task.holes(0.5, "test")
    altered = [np.where(gap[: len(v)], 0.123, v) for v, gap in zip(before.whole.values, before.held, strict=True)]
    # Every test stay had a hole, so the altered ones stand in the same places.
    assert len(altered) == len(task.whole["test"])
    task.whole["test"] = before.whole.replace_values(altered)
    task._holes.clear()
    after = task.holes(0.5, "test")
    assert after.whole != before.whole and after.given == before.given
    clock = before.whole.padded()[1]
    assert np.array_equal(fitted.predict(before.given, clock), fitted.predict(after.given, clock), equal_nan=True)
    assert task.judge(fitted, 0.5, "test")["held"] > 0


def test_errors_are_means_over_what_was_held_back_and_over_all_readings(folder: Path) -> None:
    task = filler()
    fitted, found = task.fit("line", 0.5, [Run(0)])[0], task.holes(0.5, "test")
    judged = task.judge(fitted, 0.5, "test")
    held, every = [], []
    for given, whole, own in zip(found.given, found.whole.values, found.whole.times, strict=True):
        told = fitted.predict(given, own[None])[0]
        read = np.isin(own, given.times[0][(~np.isnan(given.values[0])).any(1)])
        square = (told - whole) ** 2
        held.append(square[~read][~np.isnan(whole[~read])])
        every.append(square[~np.isnan(whole)])
    assert judged["held"] == pytest.approx(np.concatenate(held).mean())
    assert judged["observed"] == pytest.approx(np.concatenate(every).mean())
    # The line goes through what was read.
    assert judged["observed"] < judged["held"]


def test_a_straight_line_is_drawn_between_readings_and_held_beyond_them() -> None:
    series = IrregularSeries([[[0.0, 5.0, np.nan], [np.nan, 7.0, np.nan], [4.0, np.nan, np.nan]]], [[0.0, 1.0, 2.0]])
    other = IrregularSeries([[[np.nan, np.nan, 3.0], [np.nan, np.nan, 9.0]]])
    both = IrregularSeries([*series.values, *other.values], [*series.times, *other.times])
    line = StraightLine().fit(both, both)
    assert line.predict(series, [0.5, 1.0, 1.5])[0].tolist() == [[1.0, 6.0, 6.0], [2.0, 7.0, 6.0], [3.0, 7.0, 6.0]]


def test_summaries_of_a_stay(folder: Path) -> None:
    value = np.full((3, 37), np.nan)
    value[:, 0] = [2.0, np.nan, 4.0]
    static = np.array([[50.0, 1.0, np.nan, "unit 3"]], dtype=object)
    (row,) = mortality.summaries(IrregularSeries([value], static=static))
    table = row[: 7 * 37].reshape(7, 37)
    assert table[:, 0].tolist() == [2.0, 4.0, 2.0, 4.0, 3.0, 1.0, 2.0]
    assert np.isnan(table[:6, 1:]).all() and (table[6, 1:] == 0).all()
    assert row[7 * 37 :].tolist()[:2] == [50.0, 1.0] and row[-4:].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert len(mortality.summaries(forecaster_of_death().series)[0]) == 7 * len(CHANNELS) + 3 + 4


def test_what_is_known_at_admission_is_used(folder: Path) -> None:
    task = forecaster_of_death()
    fitted = task.fit("lnsde", 0.0, [Run(0)])[0]
    series, _ = task.part(0.0, "test")
    assert series.static is not None
    older = series.static.copy()
    older[:, 0] = 90.0
    changed = IrregularSeries(series.values, series.times, older)
    assert not np.array_equal(fitted.predict_proba(series), fitted.predict_proba(changed))


def test_shares_of_nothing_and_of_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shares of time points that are read"):
        interpolation.main(tmp_path, "cpu", rates=(1.0,))
