"""Pictures of commands are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sciode.lab.figures import picture

pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


def test_a_picture_is_drawn_in_a_new_folder_and_one_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    import matplotlib

    file, before = tmp_path / "new" / "curve.png", matplotlib.rcParams["axes.spines.top"]
    with picture(file, (2.0, 1.0)) as figure:
        figure.subplots().plot([0.0, 1.0])
        assert not matplotlib.rcParams["axes.spines.top"]
    first = file.read_bytes()
    assert first.startswith(PNG) and matplotlib.rcParams["axes.spines.top"] == before
    with pytest.raises(ZeroDivisionError), picture(file, (2.0, 1.0)):
        raise ZeroDivisionError
    assert file.read_bytes() == first and [f.name for f in file.parent.iterdir()] == ["curve.png"]
