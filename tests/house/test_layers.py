"""Imports go down: import-linter's contracts in pyproject.toml hold, and would notice if they didn't."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run([*command, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_contracts_hold(repository: Path) -> None:
    done = _lint(repository)
    assert done.returncode == 0, done.stdout


def test_every_room_stands_in_a_layer(repository: Path) -> None:
    contracts = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    house = next(contract for contract in contracts if contract["containers"] == ["sciode"])
    placed = {room.strip(" ()") for layer in house["layers"] for room in layer.split("|")}
    rooms = {path.parent.name for path in (repository / "sciode").glob("*/__init__.py")}
    assert rooms <= placed, "name the new room in [tool.importlinter]"
    assert house["exhaustive"]


def test_an_upward_import_is_noticed(repository: Path, tmp_path: Path) -> None:
    """The same contracts, over a small copy of the house in which the backend imports a room above it."""
    for room in ("solvers", "nn", "data"):
        (tmp_path / "sciode" / room).mkdir(parents=True)
        (tmp_path / "sciode" / room / "__init__.py").write_text("")
    (tmp_path / "sciode" / "__init__.py").write_text("")
    (tmp_path / "sciode" / "cli.py").write_text("import sciode.data\nimport sciode.nn\n")
    (tmp_path / "pyproject.toml").write_text((repository / "pyproject.toml").read_text())
    assert _lint(tmp_path).returncode == 0, _lint(tmp_path).stdout
    (tmp_path / "sciode" / "solvers" / "__init__.py").write_text("import sciode.nn\n")
    upward = _lint(tmp_path)
    assert upward.returncode != 0 and "sciode.solvers is not allowed to import sciode.nn" in upward.stdout
    (tmp_path / "sciode" / "solvers" / "__init__.py").write_text("")
    (tmp_path / "sciode" / "data" / "__init__.py").write_text("import sciode.nn\n")
    sideways = _lint(tmp_path)
    assert sideways.returncode != 0 and "sciode.data is not allowed to import sciode.nn" in sideways.stdout
