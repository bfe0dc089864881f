"""Imports point down: data, optim and training, runs, report, papers, then the commands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "maskedconv"
# Each layer may import itself and those before it; folders that are not named stand below all.
LAYERS = (("data",), ("optim",), ("training",), ("runs",), ("report",), ("papers",), ("cli",))
COMMANDS = ("reproduce", "train")
# The report's command is the package itself; it hands its papers down.
UPWARD = {("report/__init__.py", "papers")}


def imported(path):
    """The parts of maskedconv that a module imports, at its top or within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "maskedconv":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskedconv."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_imports_point_down(layer):
    above = {name for names in LAYERS[layer + 1 :] for name in names} | set(COMMANDS)
    for folder in LAYERS[layer]:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            place = path.relative_to(PACKAGE).as_posix()
            wrong = {name for name in imported(path) & above if (place, name) not in UPWARD}
            assert not wrong, (place, wrong)


def test_a_paper_is_named_only_where_it_is_registered():
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith("papers/rosenfeld2018/"):
            named = "rosenfeld2018" in path.read_text()
            assert named == (place == "papers/__init__.py"), place
