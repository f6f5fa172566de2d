"""Shipped samples: small, exact, free of pickle, and the archive's own readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciode.data.digests import bytes_digest, digest_of_cases
from sciode.data.registry import folder, manifests
from sciode.data.samples import pack, unpack
from sciode.data.ts_format import Cases

SHIPPED = [name for name, manifest in manifests().items() if manifest.sample is not None]


def test_the_demo_s_two_sets_are_shipped() -> None:
    assert SHIPPED == ["BasicMotions", "JapaneseVowels"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_sample_is_small_and_holds_the_archive_s_readings_exactly(name: str) -> None:
    manifest = manifests()[name]
    assert manifest.sample is not None
    file = folder() / manifest.sample.file
    assert file.stat().st_size <= 1_000_000 and bytes_digest(file) == manifest.sample.sha256
    for entry in manifest.files:
        assert entry.split is not None and entry.hash_of == "cases"
        assert digest_of_cases(unpack(file, entry.split)) == entry.sha256


def test_the_licence_of_the_samples_is_beside_them() -> None:
    text = (folder() / "samples" / "LICENSE.aeon").read_text()
    assert "BSD 3-Clause" in text and "aeon developers" in text


@given(decimals=st.integers(0, 6), data=st.data())
def test_packing_is_exact(tmp_path_factory: pytest.TempPathFactory, decimals: int, data: st.DataObject) -> None:
    whole = st.integers(-(10**8), 10**8)
    parts: dict[str, Cases] = {}
    for split in ("train", "test"):
        lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        rows = [[data.draw(whole) for _ in range(2)] for _ in range(sum(lengths))]
        texts = [[float(f"{number}e-{decimals}") for number in row] for row in rows]
        values = tuple(np.split(np.array(texts), np.cumsum(lengths)[:-1]))
        parts[split] = Cases(values, np.array([f"class {i}" for i in range(len(lengths))]))
    file = tmp_path_factory.mktemp("pack") / "a.npz"
    pack(file, parts["train"], parts["test"], decimals)
    for split, cases in parts.items():
        assert digest_of_cases(unpack(file, split)) == digest_of_cases(cases)


@pytest.mark.parametrize("reading", [np.nan, 1 / 3, 1e12])
def test_what_would_not_be_exact_is_refused(tmp_path: Path, reading: float) -> None:
    cases = Cases((np.array([[reading]]),), np.array(["a"]))
    with pytest.raises(ValueError, match="do not fit into int32"):
        pack(tmp_path / "a.npz", cases, cases, 6)
