"""The README's table of samplers: every tick of ours is a link to a test, and the test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

LINK = re.compile(r'\[✓\]\((tests/[\w/]+\.py) "(test_\w+)"\)')
HEAD = "| | diffusers | k-diffusion |"


def rows_of(text: str) -> list[list[str]]:
    """The cells of the table's rows, without its head."""
    lines = text[text.index(HEAD) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def dead_links(cells: list[str], root: Path) -> list[str]:
    """Ticks that lead nowhere: without a link, to no file, or to no function of it."""
    dead = [cell for cell in cells if cell.count("✓") > len(LINK.findall(cell))]
    for path, name in (found for cell in cells for found in LINK.findall(cell)):
        file = root / path
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.exists() else ast.Module([], [])
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        dead += [] if name in names else [f"{path}::{name}"]
    return dead


@pytest.fixture(scope="module")
def rows(repository: Path) -> list[list[str]]:
    return rows_of((repository / "README.md").read_text(encoding="utf-8"))


def test_every_tick_leads_to_a_test(rows: list[list[str]], repository: Path) -> None:
    assert dead_links([row[-1] for row in rows], repository) == []


def test_every_row_has_a_cell_a_library_and_no_feature_comes_twice(rows: list[list[str]]) -> None:
    assert len(rows) > 20 and {len(row) for row in rows} == {8}
    features = [row[0] for row in rows]
    assert len(set(features)) == len(features) and all(features)


def test_a_dead_link_is_noticed(repository: Path) -> None:
    here = "tests/house/test_matrix.py"
    cells = [
        f'[✓]({here} "test_a_dead_link_is_noticed") and more', "", "no", "✓",
        f'[✓]({here} "test_that_is_not_there")', '[✓](tests/house/nowhere.py "test_a")',
        f'[✓]({here} "test_a_dead_link_is_noticed") [✓]({here} "test_second")',
    ]  # fmt: skip
    assert dead_links(cells, repository) == [
        "✓", f"{here}::test_that_is_not_there", "tests/house/nowhere.py::test_a",
        f"{here}::test_second",
    ]  # fmt: skip
