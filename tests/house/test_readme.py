"""The README's promises: its two set-up commands, which CI runs as they stand, and its Python snippets, which run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

USE = 'pip install -e ".[lab]" && sciode demo'
TEST = 'pip install -e ".[dev,lab]" && pytest'


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def snippets(text: str) -> list[str]:
    """Return the contents of the ```python blocks, in order; other languages are left out."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_two_commands_stand_in_the_readme(readme: str) -> None:
    assert USE in readme
    assert TEST in readme


def test_ci_runs_the_readmes_commands(repository: Path) -> None:
    script = (repository / ".ci" / "run").read_text()
    install, test = TEST.split(" && ")
    assert install in script
    assert re.search(rf"\b{test}\b", script)
    assert USE.split(" && ")[1] in script


def test_snippets_run_in_order(readme: str, tmp_path: Path) -> None:
    """One process runs them all: a later snippet may use what an earlier one made."""
    found = snippets(readme)
    assert found, "the README shows no Python"
    script = tmp_path / "readme.py"
    script.write_text("\n".join(found), encoding="utf-8")
    # As in pyproject.toml: torch uses its own deprecated torch.jit.script when it loads its forward-mode formulas.
    warned = ["-W", "error", "-W", "ignore:`torch.jit.script`:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *warned, str(script)],
        cwd=tmp_path,
        env={**os.environ, "SCIODE_FAST": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{done.stderr}\n{script.read_text()}"


def test_snippets_are_found_by_language() -> None:
    text = "```bash\nsciode demo\n```\n\n```python\na = 1\n```\ntext\n```python\nassert a\n```\n"
    assert snippets(text) == ["a = 1\n", "assert a\n"]
