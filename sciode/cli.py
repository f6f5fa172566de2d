"""The command line: sciode demo | train | bench | data | lab.

Each command imports its room when it runs, so that help is quick.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

INTERRUPTED = 130
"""Exit code of a command ended by Ctrl-C (128 + SIGINT), as shells have it."""
MISUSE = 2
FAILED = 1


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

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Which table: a file of sciode/experiments, e.g. mnist_ode."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder of the rows, the table and the figure: sciode-NAME by default."""
    device: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda or cuda:1."""
    steps: Annotated[int | None, arg(metavar="N")] = None
    """Training steps a row; the table's own number by default."""
    set: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE")] = ()
    """Other settings of the table, values as JSON, e.g. --set batch=64 strengths=[1,10]."""

    def run(self) -> int:
        from sciode.experiments import EXPERIMENTS

        if self.name not in EXPERIMENTS:
            raise ValueError(f"no experiment is called {self.name!r}; {_nearest(self.name, EXPERIMENTS)}")
        module = importlib.import_module(f"sciode.experiments.{self.name}")
        changes = _settings(self.set, [field.name for field in dataclasses.fields(module.Settings)])
        if self.steps is not None:
            if not any(field.name == "steps" for field in dataclasses.fields(module.Settings)):
                raise ValueError(f"{self.name} counts epochs, not steps: --set epochs=N")
            changes["steps"] = self.steps
        return module.main(out=self.out or Path(f"sciode-{self.name}"), device=self.device, **changes)


@dataclass(frozen=True)
class Bench:
    """Time sciode against its peers, side by side in one process."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Which benchmark: a file of sciode/bench, e.g. solvers."""
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
        import sciode.bench

        known = sorted(sciode.bench.BENCHMARKS)
        if self.name not in known:
            raise ValueError(f"no benchmark is called {self.name!r}; {_nearest(self.name, known)}")
        main = importlib.import_module(f"sciode.bench.{self.name}").main
        wanted = {"device": self.device, "only": self.only, "profile": self.profile, "scaling": self.scaling}
        options = {name: value for name, value in wanted.items() if value}
        for name in options:
            if name not in inspect.signature(main).parameters:
                raise ValueError(f"bench {self.name} has no --{name}")
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
            cases = f"{shape.train}+{shape.test}" if shape.test else str(shape.train)
            size = f"{shape.channels}x{'-'.join(str(end) for end in sorted(set(shape.length)))}"
            rows.append((name, manifest.kind, cases, size, shape.irregular, _here(name)))
        caption = (
            "cases: train+test; size: channels x time points. sciode data get NAME brings a set, and says its licence."
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

    def run(self) -> int:
        try:
            from jupyterlab.labapp import main as open_lab
        except ImportError as fault:
            raise ImportError('JupyterLab is missing: pip install "sciode[lab]"') from fault
        notebooks = Path(__file__).resolve().parent.parent / "notebooks"
        folder = self.folder or (notebooks if notebooks.is_dir() else Path.cwd())
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder: name the one that holds your notebooks")
        return open_lab([str(folder)]) or 0


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
    try:
        command = tyro.cli(
            Command,
            prog="sciode",
            description="Differential equations for PyTorch: solvers, and the methods built on them.",
            args=arguments,
            config=(OmitArgPrefixes, OmitSubcommandPrefixes),
        )
        return command.run()
    except KeyboardInterrupt:
        print("\ninterrupted: what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except ValueError as fault:
        return _complain(fault, MISUSE)
    except (ImportError, OSError) as fault:
        return _complain(fault, FAILED)


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


def _settings(pairs: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as keyword arguments: a value that is no JSON is a text, a list a tuple."""
    changes = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if not text or name not in known or name == "device":
            raise ValueError(f"--set {pair}: give NAME=VALUE; {_nearest(name, [n for n in known if n != 'device'])}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        changes[name] = tuple(value) if isinstance(value, list) else value
    return changes


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
