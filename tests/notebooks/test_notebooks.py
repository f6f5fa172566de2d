"""Every notebook: its pair agrees, its cells are few and short, it ends in checks, and it runs offline in fast mode."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import nbclient
import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

CODE_CELLS = 25
CELL_LINES = 25
LAST_SECTION = "What must be true"
SECONDS_A_CELL = 120

# Runs before the kernel's own code: a notebook that reaches for the network fails at once, naming the address.
NO_NETWORK = """
import socket

_connect = socket.socket.connect


def connect(self, address):
    local = self.family == getattr(socket, "AF_UNIX", None) or str(address[0]) in ("127.0.0.1", "::1", "localhost")
    if not local:
        raise OSError(f"a notebook in fast mode must not use the network: {address}")
    return _connect(self, address)


socket.socket.connect = connect
"""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pair = _load(Path(__file__).with_name("pair.py"))
SCRIPTS: list[Path] = pair.scripts()
each_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def _read(script: Path) -> nbformat.NotebookNode:
    return nbformat.reads(pair.generate(script), as_version=4)


def structural_faults(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what breaks the house rules, in words; empty for a good notebook."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    faults = []
    if len(code) > CODE_CELLS:
        faults.append(f"{len(code)} code cells, more than {CODE_CELLS}")
    for place, source in enumerate(code, 1):
        if (lines := len(source.splitlines())) > CELL_LINES:
            faults.append(f"code cell {place} has {lines} lines, more than {CELL_LINES}")
    sections = [
        heading
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for heading in re.findall(r"^#{1,3} +(.+?) *$", cell.source, re.MULTILINE)
    ]
    if not sections or sections[-1] != LAST_SECTION:
        faults.append(f"its last section is not '{LAST_SECTION}'")
    if not code or not re.search(r"^\s*assert ", code[-1], re.MULTILINE):
        faults.append("its last code cell asserts nothing")
    return faults


@each_notebook
def test_the_pair_agrees(script: Path) -> None:
    stored = script.with_suffix(".ipynb")
    assert stored.exists(), f"{stored.name} is missing: run python tests/notebooks/pair.py"
    assert stored.read_text(encoding="utf-8") == pair.generate(script), (
        f"{stored.name} differs from {script.name}: run python tests/notebooks/pair.py "
        "(edited in Jupyter? first jupytext --sync, which brings the edit into the .py)"
    )


def test_no_notebook_without_its_script() -> None:
    written = {path.stem for path in pair.FOLDER.glob("*.ipynb")}
    assert written <= {script.stem for script in SCRIPTS}


@each_notebook
def test_cells_are_few_and_short_and_the_last_ones_check(script: Path) -> None:
    assert structural_faults(_read(script)) == []


@each_notebook
@pytest.mark.timeout(400)
def test_runs_in_fast_mode_without_network(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _execute(_read(script), tmp_path, monkeypatch)


def _execute(notebook: nbformat.NotebookNode, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    (folder / "run").mkdir()
    monkeypatch.setenv("SCIODE_FAST", "1")
    monkeypatch.setenv("SCIODE_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    # The backend that draws into the notebook, where the tests' own environment asks for none.
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # Every cell has told by then: a kernel that ends by itself takes two to three seconds more, and checks nothing.
    nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(folder / "run")}},
    ).execute()


GOOD = """\
# %% [markdown]
# # Title
# %%
x = 1
# %% [markdown]
# ## What must be true
# %%
assert x == 1
"""


def test_generation_depends_on_the_script_alone(tmp_path: Path) -> None:
    script = tmp_path / "00_example.py"
    script.write_text(GOOD)
    text = pair.generate(script)
    assert text == pair.generate(script)
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells if cell.cell_type == "code"] == ["x = 1", "assert x == 1"]
    assert structural_faults(notebook) == []


def test_a_script_without_cells_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text("x = 1\n")
    with pytest.raises(ValueError, match="py:percent"):
        pair.generate(script)


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (GOOD + "# %%\n" + "y = 1\n" * 26 + "assert y\n", "27 lines"),
        (GOOD.replace("What must be true", "Summary"), "last section"),
        (GOOD.replace("assert x == 1", "x"), "asserts nothing"),
        ("# %%\nx = 1\n" * 25 + GOOD, "27 code cells"),
    ],
)
def test_structural_faults_are_named(tmp_path: Path, broken: str, fault: str) -> None:
    script = tmp_path / "00_broken.py"
    script.write_text(broken)
    assert any(fault in found for found in structural_faults(_read(script)))


def test_execution_sees_fast_mode_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "00_offline.py"
    script.write_text(
        "# %%\n"
        "import os, socket\n"
        "assert os.environ['SCIODE_FAST'] == '1' and os.environ['OMP_NUM_THREADS'] == '1'\n"
        "# %%\n"
        "socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
    )
    with pytest.raises(CellExecutionError, match="must not use the network"):
        _execute(_read(script), tmp_path, monkeypatch)
