"""Each module imports alone and in any order, without a warning, and the backend's import loads no optional library."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("needs os.fork, which keeps a fresh interpreter a module cheap", allow_module_level=True)

# Loaded by the function that needs it, where Triton is installed.
NEEDS_TRITON = {"sciode.solvers.brownian.launch"}

# torch, its compiler (two seconds), numpy and SciPy (one and a half) are loaded once; each import then happens in a
# forked child that has no module of sciode yet. A tree is the modules that a child imports and the trees that are
# forked from it afterwards, each a child of its own (leaves unless they came along): what they share is paid once.
LOADED = "import numpy, scipy.optimize, scipy.sparse.linalg, scipy.spatial, scipy.stats, torch, torch._dynamo"
FORKING = """
import json, os, sys, traceback, warnings

def attempt(modules, apart=()):
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking beside torch's idle threads; the child only imports
        child = os.fork()
    if child == 0:
        try:
            warnings.simplefilter("error")
            for module in modules:
                __import__(module)
        except BaseException:
            print("importing", modules[0] if len(modules) == 1 else modules, file=sys.stderr)
            traceback.print_exc()
            os._exit(1)
        os._exit(0 if all([attempt(*tree) for tree in apart if tree[1:] or tree[0][0] not in sys.modules]) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

trees = json.load(sys.stdin)
assert not any(name.startswith("sciode") for name in sys.modules)
sys.exit(sum(not attempt(*tree) for tree in trees))
"""

BACKEND = "sciode.solvers"


def _modules(root: Path) -> list[str]:
    files = sorted((root / "sciode").rglob("*.py"))
    dotted = [".".join(path.relative_to(root).with_suffix("").parts) for path in files if path.stem != "__main__"]
    return [name.removesuffix(".__init__") for name in dotted if name not in NEEDS_TRITON or find_spec("triton")]


def _import_each(trees: list[tuple[Any, ...]], loaded: str = LOADED) -> str:
    """What went wrong, nothing if nothing did."""
    command = [sys.executable, "-c", f"{loaded}\n{FORKING}"]
    done = subprocess.run(command, input=json.dumps(trees), capture_output=True, text=True, timeout=240)
    return done.stderr if done.returncode else ""


def test_each_module_imports_alone(repository: Path) -> None:
    """A package comes before its modules, and those that it loads come with it: only the others need a child each.

    The backend, most of what an import costs, comes before the modules of all rooms: it is seen to import alone, as
    each room is, and knows none of them (`lint-imports`).
    """
    modules = _modules(repository)
    inside: dict[str, list[tuple[list[str]]]] = {}
    for module in modules:
        inside.setdefault(module.rpartition(".")[0] or module, []).append(([module],))
    assert BACKEND in inside and set(inside) <= set(modules)
    above = [([package], inside[package]) for package in inside if package != "sciode"]
    assert _import_each([(["sciode"], inside["sciode"]), ([BACKEND], above)]) == ""


def test_modules_import_in_any_order(repository: Path) -> None:
    modules = _modules(repository)
    # The reverse puts what leans on others first; strides mix the rooms, the same way on every run.
    orders = [modules[::-1], *([m for start in range(k) for m in modules[start::k]] for k in (3, 7))]
    assert all(sorted(order) == sorted(modules) for order in orders)
    assert _import_each([(order,) for order in orders]) == ""


def test_an_import_that_warns_or_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "warns_at_import.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    leaf = (["warns_at_import"],)
    trees = [leaf, (["json"],), (["json"], [leaf, (["csv"],)]), (["json"], [(["json.decoder"], [leaf])])]
    said = _import_each(trees, loaded="")
    assert said.count("DeprecationWarning: old") == said.count("importing warns_at_import") == 3


def test_the_front_door_loads_no_optional_library() -> None:
    script = (
        "import sys, torch, numpy\n"
        "before = set(sys.modules)\n"
        "import sciode, sciode.solvers\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))\n"
        "print(*[name for name in ('torch._dynamo', 'torch._inductor') if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    # Nor torch's compiler, which takes a second.
    optional = {"matplotlib", "rich", "tqdm", "pandas", "sklearn", "aeon", "gpytorch", "torch_geometric", "IPython"}
    optional |= {"torch._dynamo", "torch._inductor"}
    assert set(done.stdout.split()) & optional == set()
