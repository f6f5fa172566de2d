"""Manifests: complete, honest about the data in hand, and strict."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sciode.data import load, manifest, manifests
from sciode.data.registry import File, Manifest, folder, read_manifest
from sciode.data.store import MAKERS, verify

CLASSIFICATION = [name for name, found in manifests().items() if found.kind == "classification"]
# Shared copies of two are the pooled cases cut again, so there is no hash to hold them against; others are made here.
UNPINNED = {"ERing", "Epilepsy", "hopper_simulated"} | {name for name, found in manifests().items() if found.recipe}


def test_every_set_of_the_reference_is_known() -> None:
    assert len(CLASSIFICATION) == 22
    assert {"physionet2012", "hopper", "hopper_simulated", "mnist", "pbc2"} <= set(manifests())


@pytest.mark.parametrize("found", manifests().values(), ids=lambda found: found.name)
def test_a_manifest_says_where_from_on_what_terms_and_how_to_cite(found: Manifest) -> None:
    assert found.title and found.licence and found.citation and found.homepage.startswith("https://")
    assert found.files and all(file.sources or file.made_by in MAKERS for file in found.files)
    for file in found.files:
        assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
    assert {file.sha256 is None for file in found.files} == {found.name in UNPINNED}
    if found.kind == "classification":
        assert [file.split for file in found.files] == ["train", "test"] and found.shape.classes >= 2


@pytest.mark.parametrize("found", manifests().values(), ids=lambda found: found.name)
def test_the_files_in_hand_are_the_files_of_the_manifest(shared_data: Path, found: Manifest) -> None:
    if not all((shared_data / file.path).is_file() for file in found.files):
        pytest.skip(f"{found.name} is not in the shared folder")
    if any(file.made_by for file in found.files):
        pytest.skip(f"{found.name} is made on each machine")
    for file in found.files:
        verify(shared_data / file.path, file, found)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_shape_facts_are_those_of_the_data(shared_data: Path, name: str) -> None:
    assert os.environ["SCIODE_DATA"] == str(shared_data) or Path(os.environ["SCIODE_DATA"]).samefile(shared_data)
    shape = manifest(name).shape
    series, labels = load(name)
    assert len(series) == len(labels) == shape.train + shape.test
    assert len(load(name, "train")[0]) == shape.train and len(load(name, "test")[0]) == shape.test
    assert series.channels == shape.channels and len(np.unique(labels)) == shape.classes
    assert (series.lengths.min(), series.lengths.max()) == shape.length
    irregular = "missing" if series.missing_rate > 0 else "length" if len(set(series.lengths)) > 1 else "no"
    assert shape.irregular == irregular


def test_names_are_found_in_any_case_and_near_ones_are_offered() -> None:
    assert manifest("gunpoint") is manifests()["GunPoint"]
    with pytest.raises(ValueError, match="no data set 'GunPiont': did you mean GunPoint"):
        manifest("GunPiont")
    with pytest.raises(ValueError, match="known are ArrowHead, BasicMotions"):
        manifest("zzz")


def test_the_answer_cannot_be_used_to_change_the_registry() -> None:
    manifests().clear()
    assert manifests()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("https://zenodo", "http://zenodo", "not https"),
        ('name = "GunPoint"', 'name = "GunPoynt"', "describes 'GunPoynt'"),
        ("citation =", "zitat =", "zitat"),
        ("classes = 2\n", "", "classes"),
        ('path = "uea/', 'path = "../uea/', "below the data folder"),
        ('path = "uea/', 'path = "/uea/', "below the data folder"),
        ('hash_of = "cases"', 'hash_of = "soul"', "hash_of is 'soul'"),
    ],
)
def test_a_false_manifest_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (folder() / "GunPoint.toml").read_text()
    assert old in text
    (tmp_path / "GunPoint.toml").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "GunPoint.toml")


def test_a_file_pins_something_that_can_be_computed() -> None:
    with pytest.raises(ValueError, match="hash_of"):
        File("a.txt", ("https://example.org/a.txt",), hash_of="md5")
