"""The command line: sciode demo | train | bench | data | lab.

Each command imports its room when it runs, so that help is quick.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

from sciode.bench import BENCHMARKS
from sciode.experiments import EXPERIMENTS

INTERRUPTED = 130
"""Exit code of a command ended by Ctrl-C (128 + SIGINT), as shells have it."""
MISUSE = 2
FAILED = 1

COMMANDS: dict[str, dict[str, Any]] = {"demo": {}, "train": {}, "bench": {}, "data": {"list": {}, "get": {}}, "lab": {}}
"""The commands, and what follows them."""


@dataclass(frozen=True)
class Demo:
    """Train a stable neural SDE on two sets of irregular series; print a table, draw a figure, write metrics.json."""

    seed: Annotated[int, arg(metavar="N")] = 0
    """First of the three seeds."""
    device: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda or cuda:1: auto is the CPU, which trains nets this small faster."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("sciode-demo")
    """Folder of the figure, the metrics and the finished rows; an interrupted demo goes on from it."""

    def run(self) -> int:
        from sciode.experiments.irregular_demo import run_demo

        return run_demo(seed=self.seed, device=self.device, out=self.out)


@dataclass(frozen=True)
class Train:
    """Make a result table: train its models, three seeds a row; an interrupted one goes on from its folder."""

    name: Annotated[Positional[str], arg(metavar="NAME", help=f"Which table: {', '.join(EXPERIMENTS)}.")]
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder of the rows, the table and the figure: sciode-NAME by default."""
    device: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda or cuda:1."""
    steps: Annotated[int | None, arg(metavar="N")] = None
    """Training steps a row; the table's own number by default."""
    set: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE")] = ()
    """Other settings of the table, values as JSON, e.g. --set batch=64 strengths=[1,10]; --set help lists them."""

    def run(self) -> int:
        name = self.name.replace("-", "_")
        if name not in EXPERIMENTS:
            raise ValueError(f"no experiment is called {self.name!r}; {_nearest(name, EXPERIMENTS)}")
        module = importlib.import_module(f"sciode.experiments.{name}")
        defaults = {name: value for name, value in vars(module.Settings()).items() if name != "device"}
        changes = _settings(self.set, defaults)
        if self.steps is not None:
            if "steps" not in defaults:
                mend = "counts epochs, not steps: --set epochs=N" if "epochs" in defaults else "has none: --set help"
                raise ValueError(f"{name} {mend}")
            changes["steps"] = self.steps
        return module.main(out=self.out or Path(f"sciode-{name}"), device=self.device, **changes)


@dataclass(frozen=True)
class Bench:
    """Time sciode against its peers, side by side in one process."""

    name: Annotated[Positional[str], arg(metavar="NAME", help=f"Which benchmark: {', '.join(BENCHMARKS)}.")]
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder for the measured numbers as JSON; without it they are only printed."""
    device: Annotated[str | None, arg(metavar="NAME")] = None
    """engines: cpu or cuda, which have workloads of their own; by default CUDA where there is one."""
    only: Annotated[str | None, arg(metavar="TEXT")] = None
    """engines: measure only what has this text in its name."""
    profile: bool = False
    """engines: also say what a step is made of: kernels, waits for the device, the field's share."""
    scaling: bool = False
    """engines: instead, curves over batch, dimension, tolerance and steps."""

    def run(self) -> int:
        if self.name not in BENCHMARKS:
            raise ValueError(f"no benchmark is called {self.name!r}; {_nearest(self.name, BENCHMARKS)}")
        main = importlib.import_module(f"sciode.bench.{self.name}").main
        wanted = {"device": self.device, "only": self.only, "profile": self.profile, "scaling": self.scaling}
        options = {name: value for name, value in wanted.items() if value}
        for name in options:
            if name not in inspect.signature(main).parameters:
                raise ValueError(f"bench {self.name} has no --{name}: that belongs to bench engines")
        return main(out=self.out, **options) or 0


@dataclass(frozen=True)
class ListData:
    """List the data sets: name, kind, size, and whether each is on this machine."""

    def run(self) -> int:
        from sciode import data
        from sciode.lab.tables import show, table

        rows = []
        for name, manifest in data.manifests().items():
            shape = manifest.shape
            cases = "+".join(str(part) for part in (shape.train, shape.validation, shape.test) if part)
            size = f"{shape.channels}x{'-'.join(str(end) for end in sorted(set(shape.length)))}"
            rows.append((name, manifest.kind, cases, size, shape.irregular, _here(name)))
        caption = (
            "cases: train(+validation)+test; size: channels x time points. sciode data get NAME brings a set, and says "
            "its licence."
        )
        show(table("Data sets", ("name", "kind", "cases", "size", "irregular", "here"), rows, caption))
        return 0


@dataclass(frozen=True)
class GetData:
    """Fetch a data set, verify its checksum, and print where it lies; its licence and source go to stderr."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """A name that `sciode data list` prints."""

    def run(self) -> int:
        from sciode import data

        manifest = data.manifest(self.name)
        print(f"{manifest.title}\nlicence: {manifest.licence}\ncite: {manifest.citation}", file=sys.stderr)
        if _here(self.name) is None and any(file.made_by for file in manifest.files):
            print(f"it is simulated on this machine, once. {manifest.note}", file=sys.stderr)
        print(data.get(self.name, progress=sys.stderr.isatty()))
        return 0


@dataclass(frozen=True)
class Data:
    """List and fetch data sets."""

    action: (
        Annotated[ListData, subcommand("list", prefix_name=False)]
        | Annotated[GetData, subcommand("get", prefix_name=False)]
    )

    def run(self) -> int:
        return self.action.run()


@dataclass(frozen=True)
class Lab:
    """Open the notebooks in JupyterLab."""

    folder: Annotated[Positional[Path | None], arg(metavar="FOLDER")] = None
    """Folder to open: the repository's notebooks by default, or the present one where there is no repository."""
    jupyter: Annotated[str, arg(metavar="OPTIONS")] = ""
    """Options for Jupyter itself, in one text, e.g. --jupyter="--no-browser --allow-root"."""

    def run(self) -> int:
        try:
            from jupyterlab.labapp import main as open_lab
        except ImportError as fault:
            raise ImportError('JupyterLab is missing: pip install "sciode[lab]"') from fault
        notebooks = Path(__file__).resolve().parent.parent / "notebooks"
        folder = self.folder or (notebooks if notebooks.is_dir() else Path.cwd())
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder: name the one that holds your notebooks")
        return open_lab([str(folder), *shlex.split(self.jupyter)]) or 0


Command = (
    Annotated[Demo, subcommand("demo", prefix_name=False)]
    | Annotated[Train, subcommand("train", prefix_name=False)]
    | Annotated[Bench, subcommand("bench", prefix_name=False)]
    | Annotated[Data, subcommand("data", prefix_name=False)]
    | Annotated[Lab, subcommand("lab", prefix_name=False)]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed), 2 (misuse) or 130 (Ctrl-C).

    Misuse, a missing extra and an unreachable source end in one red line on stderr; only a defect shows a traceback.

    Args:
        arguments: what follows `sciode`; None = `sys.argv[1:]`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"sciode {metadata.version('sciode')}, torch {metadata.version('torch')}")
        return 0
    try:
        _check_words(words)
        command = tyro.cli(
            Command,
            prog="sciode",
            description="Differential equations for PyTorch: solvers, and the methods built on them (--version).",
            args=words,
            config=(OmitArgPrefixes, OmitSubcommandPrefixes),
        )
        with warnings.catch_warnings():
            warnings.showwarning = _remark
            return command.run()
    except KeyboardInterrupt:
        print("\ninterrupted: what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except ValueError as fault:
        return _complain(fault, MISUSE)
    except (ImportError, OSError) as fault:
        return _complain(fault, FAILED)


def _check_words(words: Sequence[str]) -> None:
    """Refuse a command that does not exist, and guess which one was meant: tyro would only list those that do."""
    known: Any = COMMANDS
    for word in words:
        if word.startswith("-") or not known:
            return
        if word not in known:
            close = difflib.get_close_matches(word, known, n=1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"no command is called {word!r}; {meant}there are: {', '.join(known)}")
        known = known[word]


def _remark(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
    """A warning as one line: where in the code it came from says nothing to who typed a command."""
    print(f"note: {message}", file=sys.stderr)


def _complain(fault: Exception, code: int) -> int:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(f"error: {fault}", style="red", markup=False, highlight=False)
    return code


def _here(name: str) -> str | None:
    from sciode import data

    try:
        found = data.path(name)
    except FileNotFoundError:
        return None
    return "sample" if found.parent.name == "samples" else "yes"


def _settings(pairs: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """NAME=VALUE as keyword arguments: a value that is no JSON is a text, a list a tuple."""
    changes = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if not text or name not in defaults:
            raise ValueError(f"--set {pair}: give NAME=VALUE; {_hint(name, defaults)}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        changes[name] = value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, defaults[name]):
            raise ValueError(f"--set {pair}: that is no value for it; {_said(name, defaults[name])} is the default")
    return changes


def _hint(name: str, defaults: Mapping[str, Any]) -> str:
    if name in defaults:
        return f"e.g. {_said(name, defaults[name])}, the default"
    if name == "device":
        return "a device is given by --device"
    close = difflib.get_close_matches(name, defaults, n=1)
    every = ", ".join(_said(name, value) for name, value in defaults.items())
    return f"did you mean {close[0]!r}?" if close and name != "help" else f"the defaults: {every}"


def _said(name: str, value: Any) -> str:
    """As it would be typed."""
    return f"{name}={value}" if isinstance(value, str) else f"{name}={json.dumps(value, separators=(',', ':'))}"


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of the default; None tells of no kind."""
    if value is None or default is None:
        return True
    numbers = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, int) and not isinstance(default, bool):
        return numbers and float(value).is_integer()
    return numbers if isinstance(default, float) else isinstance(value, type(default))


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"


if __name__ == "__main__":
    raise SystemExit(main())
