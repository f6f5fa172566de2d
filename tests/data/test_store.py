"""Where data are found and in which order; nothing unverified ever takes its place. No network but the loopback."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sciode.data import get, load, manifest, path
from sciode.data.registry import File, Manifest, Shape
from sciode.data.store import Place, fetch, locate

TS = "@classLabel true a b\n@data\n{}\n"
TRAIN, TEST = TS.format("1,2:a\n3,4:b"), TS.format("5,6:a")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a local server shows it."""
    folder = tmp_path / "website"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCIODE_DATA", raising=False)
    monkeypatch.delenv("SCIODE_OFFLINE", raising=False)
    monkeypatch.setenv("SCIODE_CACHE", str(tmp_path / "cache"))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def toy(*files: File) -> Manifest:
    return Manifest("Toy", "t", "classification", "https://t", "l", "c", Shape(2, 1, 1, (2, 2), 2, "no"), files)


def toy_file(*sources: str, text: str = TRAIN, split: str = "train") -> File:
    return File(f"uea/Toy/Toy_{split.upper()}.ts", sources, "bytes", sha256(text), split=split)


def everything_below(folder: Path) -> list[str]:
    return sorted(str(found.relative_to(folder)) for found in folder.rglob("*") if found.is_file())


def test_the_own_folder_comes_first_then_the_sample_then_the_cache(tmp_path: Path, monkeypatch) -> None:
    wanted = manifest("BasicMotions")
    for root in (tmp_path / "own", tmp_path / "cache"):
        for file in wanted.files:
            (root / file.path).parent.mkdir(parents=True, exist_ok=True)
            (root / file.path).write_text(TRAIN)
    sampled = locate(wanted)
    assert sampled is not None and sampled.sample
    monkeypatch.setenv("SCIODE_DATA", str(tmp_path / "own"))
    assert locate(wanted) == Place(tmp_path / "own")
    assert path("BasicMotions") == tmp_path / "own/uea/BasicMotions"
    (tmp_path / "own" / wanted.files[1].path).unlink()
    assert locate(wanted) == sampled
    assert locate(replace(wanted, sample=None)) == Place(tmp_path / "cache")
    (tmp_path / "cache" / wanted.files[0].path).unlink()
    assert locate(replace(wanted, sample=None)) is None


def test_the_same_data_come_from_every_place(shared_data: Path, monkeypatch) -> None:
    for name in ("BasicMotions", "JapaneseVowels"):
        monkeypatch.delenv("SCIODE_DATA", raising=False)
        sampled, labels = load(name)
        monkeypatch.setenv("SCIODE_DATA", str(shared_data))
        series, same_labels = load(name)
        assert series == sampled and (labels == same_labels).all()


def test_a_sample_loads_without_network(monkeypatch) -> None:
    monkeypatch.setenv("SCIODE_OFFLINE", "1")
    series, labels = load("basicmotions", "train")
    assert len(series) == len(labels) == 40 and series.channels == 6
    assert get("BasicMotions") == path("BasicMotions")


def test_a_damaged_sample_is_not_loaded(tmp_path: Path, monkeypatch) -> None:
    from sciode.data import registry

    original = registry.folder()
    for file in ("BasicMotions.toml", "samples/BasicMotions.npz"):
        (tmp_path / "datasets" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "datasets" / file).write_bytes((original / file).read_bytes())
    with (tmp_path / "datasets/samples/BasicMotions.npz").open("ab") as sample:
        sample.write(b"x")
    for module in ("store", "loading"):
        monkeypatch.setattr(f"sciode.data.{module}.folder", lambda: tmp_path / "datasets")
    with pytest.raises(ValueError, match="damaged: reinstall"):
        load("BasicMotions")


def test_a_missing_set_says_how_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match="sciode data get GunPoint"):
        path("gunpoint")


def test_a_folder_of_data_that_is_none_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SCIODE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="SCIODE_DATA"):
        path("GunPoint")


def test_offline_means_offline(monkeypatch) -> None:
    monkeypatch.setenv("SCIODE_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="SCIODE_OFFLINE"):
        get("GunPoint")


def test_only_a_classification_set_loads_as_one_and_only_by_its_splits() -> None:
    with pytest.raises(ValueError, match="kind 'images'"):
        load("mnist")
    with pytest.raises(ValueError, match="split is 'valid'"):
        load("BasicMotions", "valid")  # type: ignore[arg-type]


def test_a_plain_file_is_fetched_and_checked(tmp_path: Path, website) -> None:
    folder, address = website
    (folder / "train.ts").write_text(TRAIN)
    wanted = toy(toy_file(f"{address}/train.ts"))
    assert fetch(wanted, tmp_path / "root") == Place(tmp_path / "root")
    assert (tmp_path / "root/uea/Toy/Toy_TRAIN.ts").read_text() == TRAIN
    assert everything_below(tmp_path / "root") == ["uea/Toy/Toy_TRAIN.ts"]


def test_an_archive_is_fetched_once_for_the_files_in_it(tmp_path: Path, website) -> None:
    folder, address = website
    with zipfile.ZipFile(folder / "Toy.zip", "w") as archive:
        archive.writestr("Toy/Toy_TRAIN.ts", TRAIN)
        archive.writestr("Toy/Toy_TEST.ts", TEST)
        archive.writestr("Toy/read.me", "hello")
    source = f"{address}/Toy.zip"
    fetch(toy(toy_file(source), toy_file(source, text=TEST, split="test")), tmp_path / "root")
    assert (tmp_path / "root/uea/Toy/Toy_TEST.ts").read_text() == TEST
    assert everything_below(tmp_path / "root") == ["uea/Toy/Toy_TEST.ts", "uea/Toy/Toy_TRAIN.ts"]


def test_a_wheel_is_an_archive_and_may_hold_a_file_twice_if_it_is_the_same(tmp_path: Path, website) -> None:
    folder, address = website
    for name, other in (("same", TRAIN), ("other", TEST)):
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("data/Toy_TRAIN.ts", TRAIN)
            archive.writestr("models/data/Toy_TRAIN.ts", other)
    fetch(toy(toy_file(f"{address}/same-1.0-py3-none-any.whl")), tmp_path / "root")
    assert (tmp_path / "root/uea/Toy/Toy_TRAIN.ts").read_text() == TRAIN
    with pytest.raises(ValueError, match="the archive holds 2 files named"):
        fetch(toy(toy_file(f"{address}/other-1.0-py3-none-any.whl")), tmp_path / "elsewhere")


def test_what_the_manifest_does_not_pin_never_takes_its_place(tmp_path: Path, website) -> None:
    folder, address = website
    (folder / "train.ts").write_text(TRAIN.replace("3", "8"))
    with pytest.raises(ValueError, match=r"Toy: no source gave .* the manifest pins") as caught:
        fetch(toy(toy_file(f"{address}/train.ts", f"{address}/absent.ts")), tmp_path / "root")
    assert sha256(TRAIN) in str(caught.value)
    assert everything_below(tmp_path / "root") == []


def test_a_file_without_a_hash_is_held_against_the_shape(tmp_path: Path, website) -> None:
    folder, address = website
    (folder / "train.ts").write_text(TEST)
    unpinned = replace(toy_file(f"{address}/train.ts"), sha256=None)
    with pytest.raises(ValueError, match="found 1 cases, 1 channels, the manifest pins 2 cases"):
        fetch(toy(unpinned), tmp_path / "root")
    (folder / "train.ts").write_text(TRAIN)
    assert fetch(toy(unpinned), tmp_path / "root")


def test_the_hash_of_the_source_counts_for_the_first_source_only(tmp_path: Path, website) -> None:
    folder, address = website
    (folder / "train.ts").write_text(TRAIN)
    file = replace(toy_file(f"{address}/train.ts"), source_sha256=sha256(TEST))
    with pytest.raises(ValueError, match="manifest pins"):
        fetch(toy(file), tmp_path / "root")
    assert fetch(toy(replace(file, sources=(f"{address}/absent", *file.sources))), tmp_path / "root")


def test_the_next_source_is_tried_when_one_is_silent_or_false(tmp_path: Path, website) -> None:
    folder, address = website
    (folder / "false.ts").write_text(TEST)
    (folder / "true.ts").write_text(TRAIN)
    sources = (f"{address}/absent.ts", f"{address}/false.ts", f"{address}/true.ts")
    fetch(toy(toy_file(*sources)), tmp_path / "root")
    assert (tmp_path / "root/uea/Toy/Toy_TRAIN.ts").read_text() == TRAIN


def test_no_answer_is_a_connection_error_that_names_the_sources(tmp_path: Path, website) -> None:
    _, address = website
    with pytest.raises(ConnectionError, match=r"no source of uea/Toy/Toy_TRAIN.ts answered:\n.*absent.ts: 404"):
        fetch(toy(toy_file(f"{address}/absent.ts")), tmp_path / "root")


def test_without_a_network_the_error_is_short_and_says_where_the_file_may_be_put(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError) as caught:
        fetch(toy(toy_file("http://nowhere.invalid/absent.ts")), tmp_path / "root")
    said = str(caught.value)
    assert "absent.ts: no such host (no network?)" in said and "HTTPConnectionPool" not in said
    assert "uea/Toy/Toy_TRAIN.ts below a folder that SCIODE_DATA names" in said


def test_a_malicious_archive_from_a_source_writes_nothing(tmp_path: Path, website) -> None:
    folder, address = website
    with zipfile.ZipFile(folder / "Toy.zip", "w") as archive:
        archive.writestr("Toy_TRAIN.ts", TRAIN)
        archive.writestr("../../evil", "evil")
    with pytest.raises(ValueError, match="would leave the folder"):
        fetch(toy(toy_file(f"{address}/Toy.zip")), tmp_path / "root")
    assert everything_below(tmp_path / "root") == [] and not (tmp_path / "evil").exists()


def test_what_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    here = tmp_path / "root/uea/Toy/Toy_TRAIN.ts"
    here.parent.mkdir(parents=True)
    here.write_text(TRAIN)
    assert fetch(toy(toy_file("http://127.0.0.1:9/nothing")), tmp_path / "root")
