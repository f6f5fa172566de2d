"""The house rules that a program can read off the source: sizes, names, forbidden calls, and the backend's imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION_LINES = 60
FILE_LINES = 500
ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "sciode").rglob("*.py"))
SOURCES = [*PACKAGE, *sorted((ROOT / "tests").rglob("*.py"))]

# What the backend may load, and what one file of it each may load lazily, inside the function that needs it.
BACKEND = ROOT / "sciode" / "solvers"
BACKEND_NEEDS = {"torch", "numpy", "sciode"}
# networkx and triton come with torch.
BACKEND_LAZILY = {"networkx", "tqdm", "triton", "torchdiffeq", "torchsde", "torchcde"}
# Files that are themselves loaded inside the function that needs them: Triton's functions stand at the top of a file.
LOADED_LAZILY = {"sciode/solvers/brownian/launch.py", "sciode/solvers/brownian/descent.py"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def long_functions(tree: ast.AST) -> list[str]:
    """Return `name (lines)` of every function over the limit, decorators not counted."""
    return [
        f"{node.name} ({size} lines)"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def forbidden_calls(tree: ast.AST) -> list[str]:
    """Return the ways in which a file could run code that came as data."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found += [f"import {name}" for name in modules if name.split(".")[0] in ("pickle", "cloudpickle", "dill")]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {word.arg: word.value for word in node.keywords}
        if called in ("eval", "exec"):
            found.append(f"{called}()")
        if called == "torch.load" and not _is_true(keywords.get("weights_only")):
            found.append("torch.load without weights_only=True")
        if called.endswith((".load", ".loadtxt")) and _is_true(keywords.get("allow_pickle")):
            found.append(f"{called} with allow_pickle=True")
    return found


def _is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def imported_roots(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield (top-level package, whether it is imported when the file is) for each absolute import."""
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name.split(".")[0], id(node) not in lazy) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], id(node) not in lazy


def test_files_are_short() -> None:
    sizes = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: size for name, size in sizes.items() if size > FILE_LINES} == {}


def test_functions_are_short() -> None:
    assert {_name(path): long for path in SOURCES if (long := long_functions(_tree(path)))} == {}


def test_no_file_is_a_grab_bag() -> None:
    assert [_name(path) for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common")] == []


def test_nothing_runs_code_that_came_as_data() -> None:
    assert {_name(path): found for path in PACKAGE if (found := forbidden_calls(_tree(path)))} == {}


def test_rooms_never_import_the_front_door() -> None:
    rooms = {found.stem for found in (ROOT / "sciode").iterdir()}
    front = {
        (_name(path), name.name)
        for path in PACKAGE
        if path != ROOT / "sciode" / "__init__.py"
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "sciode" and node.level == 0
        for name in node.names
        if name.name not in rooms
    }
    assert front == set(), "import from the room that defines it: the top level only re-exports"


def test_the_backend_imports_torch_numpy_and_the_standard_library_only() -> None:
    eager, lazy = set(), {}
    for path in sorted(BACKEND.rglob("*.py")):
        for root, at_import in imported_roots(_tree(path)):
            if root in sys.stdlib_module_names or root in BACKEND_NEEDS:
                continue
            if at_import and _name(path) not in LOADED_LAZILY:
                eager.add((_name(path), root))
            else:
                lazy.setdefault(root, set()).add(_name(path))
    assert eager == set()
    assert set(lazy) <= BACKEND_LAZILY
    assert {root: files for root, files in lazy.items() if len(files - LOADED_LAZILY) > 1} == {}, "a peer, a file"


def test_files_loaded_lazily_are_imported_by_functions_only() -> None:
    for path in (path for path in PACKAGE if _name(path) not in LOADED_LAZILY):
        at_import = [node for node in ast.iter_child_nodes(_tree(path)) if isinstance(node, ast.ImportFrom)]
        named = {f"{node.module or ''}.{name.name}" for node in at_import for name in node.names}
        wanted = {Path(name).stem for name in LOADED_LAZILY if path.parent == (ROOT / name).parent}
        assert not {f".{stem}" for stem in wanted} & named, _name(path)
        assert not wanted & {node.module for node in at_import}, _name(path)


def test_the_rules_see_what_they_forbid() -> None:
    long = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    assert long_functions(ast.parse(long)) == [f"f ({FUNCTION_LINES + 1} lines)"]
    assert long_functions(ast.parse(long.removesuffix("    x = 1\n"))) == []
    for source in (
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "exec('1')",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
    ):
        assert len(forbidden_calls(ast.parse(source))) == 1, source
    for source in ("torch.load(f, weights_only=True)", "np.load(f, allow_pickle=False)", "model.eval()"):
        assert forbidden_calls(ast.parse(source)) == [], source
    assert set(imported_roots(ast.parse("import a.b\ndef f():\n    from c.d import e\nfrom . import g"))) == {
        ("a", True),
        ("c", False),
    }
