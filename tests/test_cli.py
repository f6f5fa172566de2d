"""The command line, as a person meets it: help everywhere, one line for every fault, no traceback on Ctrl-C."""

from __future__ import annotations

import importlib
import random
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sciode import cli, data
from sciode.bench import BENCHMARKS
from sciode.experiments import EXPERIMENTS

COMMANDS = ([], ["demo"], ["train"], ["bench"], ["data"], ["data", "list"], ["data", "get"], ["lab"])


def _run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "sciode"]
    return subprocess.run([sys.executable, *start, *arguments], capture_output=True, text=True, timeout=120)


def _main(*arguments: str) -> int:
    # Under pytest alone, tyro's cache checks itself at random, with Python's global stream.
    state = random.getstate()
    try:
        return cli.main(arguments)
    finally:
        random.setstate(state)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "sciode")
def test_help_everywhere(command: list[str]) -> None:
    done = _run(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: {' '.join(['sciode', *command])}" in done.stdout
    assert done.stderr == ""


def test_demo_offers_seed_device_and_out() -> None:
    shown = _run("demo", "--help").stdout
    assert all(option in shown for option in ("--seed", "--device", "--out"))


def test_no_command_shows_what_there_is_and_counts_as_misuse() -> None:
    done = _run()
    assert done.returncode == cli.MISUSE
    assert "Traceback" not in done.stderr


def test_an_unknown_command_names_the_known_ones() -> None:
    done = _run("dmo")
    assert done.returncode == cli.MISUSE
    assert all(name in done.stdout + done.stderr for name in ("dmo", "demo", "bench", "data", "lab"))


def test_help_loads_no_torch() -> None:
    script = (
        "import sys, sciode.cli\n"
        "try:\n    sciode.cli.main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    assert _run(code=script).stdout.splitlines()[-1] == "False"


def test_ctrl_c_prints_one_line_and_no_traceback() -> None:
    script = (
        # A shell's background job, as a check may be, ignores SIGINT, and hands that on to its children.
        "import signal, sys, sciode.cli as cli\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def stub(self):\n    import os, signal, time\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(30)\n"
        "cli.Demo.run = stub\n"
        "sys.exit(cli.main(['demo']))"
    )
    done = _run(code=script)
    assert done.returncode == cli.INTERRUPTED
    assert done.stderr.strip().splitlines() == ["interrupted: what was finished is kept"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (ValueError("dt must be positive, got -1"), cli.MISUSE),
        (OSError("no route to the source"), cli.FAILED),
        (ImportError('pip install "sciode[lab]"'), cli.FAILED),
    ],
)
def test_a_fault_is_one_line(
    fault: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: cli.Demo) -> int:
        raise fault

    monkeypatch.setattr(cli.Demo, "run", fail)
    assert _main("demo") == code
    assert capsys.readouterr().err == f"error: {fault}\n"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: cli.Demo) -> int:
        raise KeyError("a defect")

    monkeypatch.setattr(cli.Demo, "run", fail)
    with pytest.raises(KeyError):
        _main("demo")


def test_options_reach_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[cli.Demo] = []
    monkeypatch.setattr(cli.Demo, "run", lambda self: seen.append(self) or 0)
    assert _main("demo", "--seed", "7", "--device", "cpu", "--out", "there") == 0
    assert seen == [cli.Demo(seed=7, device="cpu", out=Path("there"))]


def test_train_finds_every_experiment_and_hands_over_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in EXPERIMENTS:
        seen: list[dict[str, object]] = []
        module = importlib.import_module(f"sciode.experiments.{name}")
        monkeypatch.setattr(module, "main", lambda seen=seen, **options: seen.append(options) or 0)
        counted = ("steps", "epochs", "horizon", "seconds", "adam", "equations", "sets", "draws")
        counts = next(word for word in counted if word in vars(module.Settings()))
        length = ("--steps", "3") if counts == "steps" else ("--set", f"{counts}=3")
        assert _main("train", name.replace("_", "-"), "--out", str(tmp_path), "--device", "cpu", *length) == 0
        assert _main("train", name) == 0
        assert seen == [
            {"out": tmp_path, "device": "cpu", counts: 3},
            {"out": Path(f"sciode-{name}"), "device": "auto"},
        ]


def test_train_takes_any_setting_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, object]] = []
    module = importlib.import_module("sciode.experiments.cnf")
    monkeypatch.setattr(module, "main", lambda **options: seen.append(options) or 0)
    words = ["batch=64", "lr=1e-2", "engine=eager", 'densities=["moons"]', "strengths=[1,10]"]
    assert _main("train", "cnf", "--out", str(tmp_path), "--set", *words) == 0
    assert seen[0] == {
        "out": tmp_path, "device": "auto", "batch": 64, "lr": 0.01, "engine": "eager", "densities": ("moons",),
        "strengths": (1, 10),
    }  # fmt: skip
    for wrong in ("bach=64", "batch", "device=cpu"):
        assert _main("train", "cnf", "--set", wrong) == cli.MISUSE
        assert f"--set {wrong}: give NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "did you mean 'train'?"),
        (["data", "lst"], "did you mean 'list'?"),
        (["train", "cnf", "--set", "batch"], "e.g. batch=512"),
        (["train", "cnf", "--set", "batch=many"], "batch=512 is the default"),
        (["train", "cnf", "--set", "batch=1.5"], "batch=512 is the default"),
        (["train", "cnf", "--set", "densities=moons"], 'densities=["pinwheel","checkerboard","moons"] is the default'),
        (["train", "cnf", "--set", "help"], "tolerance=1e-05, strengths=[], engine=auto"),
        (["train", "cnf", "--set", "device=cpu"], "--device"),
        (["bench", "solvers", "--profile"], "bench engines"),
    ],
    ids=" ".join,
)
def test_misuse_names_the_mend(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(*words) == cli.MISUSE
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err and len(shown.err.splitlines()) == 1


def test_version_says_which() -> None:
    assert _run("--version").stdout.startswith("sciode ")


def test_the_file_of_the_command_line_runs_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sciode", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(cli.__file__), run_name="__main__")
    assert capsys.readouterr().out.startswith("sciode ")


def test_every_command_is_known_to_the_check_of_words() -> None:
    shown = _run("--help").stdout
    assert "{" + ",".join(cli.COMMANDS) + "}" in shown
    assert "{" + ",".join(cli.COMMANDS["data"]) + "}" in _run("data", "--help").stdout


@pytest.mark.parametrize("command", ["train", "bench"])
def test_help_names_every_table_and_benchmark(command: str) -> None:
    shown = "".join(_run(command, "--help").stdout.replace("│", " ").split())
    assert ",".join(EXPERIMENTS if command == "train" else BENCHMARKS) in shown


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warn(self: cli.Demo) -> int:
        warnings.simplefilter("always")
        warnings.warn("this solve is compiled now", UserWarning, stacklevel=1)
        return 0

    before = warnings.showwarning
    monkeypatch.setattr(cli.Demo, "run", warn)
    assert _main("demo") == 0
    assert capsys.readouterr().err == "note: this solve is compiled now\n"
    assert warnings.showwarning is before


def test_lab_hands_jupyter_its_own_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = pytest.importorskip("jupyterlab.labapp")
    seen: list[list[str]] = []
    monkeypatch.setattr(app, "main", lambda words: seen.append(words))
    assert _main("lab", str(tmp_path), "--jupyter=--no-browser --allow-root") == 0
    assert seen == [[str(tmp_path), "--no-browser", "--allow-root"]]


def test_a_table_that_counts_epochs_takes_no_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("train", "hopper_forecast", "--steps", "3") == cli.MISUSE
    assert "--set epochs=N" in capsys.readouterr().err


def test_train_suggests_the_nearest_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("train", "mnist_od") == cli.MISUSE
    assert "'mnist_ode'" in capsys.readouterr().err


def test_lab_refuses_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jupyterlab")
    assert _main("lab", str(tmp_path / "nowhere")) == cli.MISUSE
    assert "not a folder" in capsys.readouterr().err


def test_data_list_names_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("data", "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in data.manifests())


def test_data_get_prints_the_path_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("data", "get", "BasicMotions") == 0
    shown = capsys.readouterr()
    assert Path(shown.out.strip()).exists()
    assert "licence:" in shown.err


def test_data_get_suggests_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("data", "get", "BasicMotion") == cli.MISUSE
    assert "BasicMotions" in capsys.readouterr().err
