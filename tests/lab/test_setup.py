"""The notebook's first cell: what it returns, what it refuses, and that it leaves the process as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sciode import lab

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def style_put_back() -> Iterator[None]:
    with matplotlib.rc_context():
        yield


def test_it_returns_what_a_notebook_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = lab.setup(seed=3, device="cpu", dtype=torch.float64, out=tmp_path / "made" / "here")
    assert (session.seed, session.device, session.dtype) == (3, torch.device("cpu"), torch.float64)
    assert session.out.is_dir()
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("torch", "sciode", "cpu", "float64", "seed 3", "made"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.seed = 4  # pyright: ignore[reportAttributeAccessIssue]


def test_it_is_silent_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.setup(out=tmp_path, verbose=False)
    assert capsys.readouterr().out == ""


def test_auto_takes_a_device_that_computes(tmp_path: Path) -> None:
    session = lab.setup(out=tmp_path, verbose=False)
    assert torch.ones(2, device=session.device).sum().item() == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"seed": 0.5}, "seed must be an integer >= 0"),
        ({"seed": True}, "seed must be an integer >= 0"),
        ({"dtype": torch.int64}, "floating dtype"),
        ({"device": "gpu"}, "'gpu' is not available here"),
        ({"device": "cuda:99"}, "'cuda:99' is not available here"),
    ],
)
def test_misuse_is_refused_before_a_folder_is_made(wrong: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        lab.setup(out=tmp_path / "out", verbose=False, **wrong)
    assert not (tmp_path / "out").exists()


def test_the_house_style_is_applied(tmp_path: Path) -> None:
    matplotlib.rcdefaults()
    lab.setup(out=tmp_path, verbose=False)
    assert not matplotlib.rcParams["axes.spines.top"]
    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(set(colours)) == len(colours) == 7


@pytest.mark.parametrize(("switch", "value"), [("1", True), ("0", False), ("", False)])
def test_fast_mode_follows_its_switch(switch: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIODE_FAST", switch)
    assert lab.fast() is value
    assert lab.scale(full=200, fast=5) == (5 if value else 200)


def test_a_wrong_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIODE_FAST", "yes")
    with pytest.raises(ValueError, match="SCIODE_FAST must be 0 or 1, got 'yes'"):
        lab.fast()


def test_full_size_without_a_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCIODE_FAST", raising=False)
    assert lab.scale(full="long", fast="short") == "long"
