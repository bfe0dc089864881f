"""Imports between the parts of the package point down."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "maskedconv"
# Each layer may import those before it; parts of one layer do not import each other.
LAYERS = (
    ("schema", "io", "checks", "console", "build_notes", "tracing", "seeds"),
    ("slices",),
    ("ops",),
    ("functional",),
    ("nn",),
    ("methods",),
    ("conversion",),
    ("models",),
    ("superposition",),
    ("counting", "selection", "supermasks", "explanation", "checkpoint", "env", "optim", "fusion"),
    ("analysis", "ensemble", "tasks", "thinning"),
    ("data",),
    ("training",),
    ("runs",),
    ("report",),
    ("papers",),
    ("cli",),
    ("reproduce", "train", "predict"),
    ("__main__",),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
# The package itself is the report's command: it takes typer from cli, and passes the papers down.
UPWARD = {("report", "cli"), ("report", "papers")}


def files_of(part):
    folder = ROOT / part if part == "models" else PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_every_part_has_a_layer():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    found |= {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert found - {"__init__"} | {"models"} == set(LEVELS)


def imported(path):
    """The parts of maskedconv that a module imports, at module level or in functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "maskedconv":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskedconv."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("part", LEVELS)
def test_imports_point_down(part):
    for path in files_of(part):
        for name in imported(path) - {part}:
            below = LEVELS.get(name, -1) < LEVELS[part]
            assert below or (part, name) in UPWARD, (path.name, name)


PAPERS = sorted(path.parent.name for path in PACKAGE.glob("papers/*/__init__.py"))


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_is_named_only_where_it_is_registered(paper):
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(f"papers/{paper}/"):
            assert (paper in path.read_text()) == (place == "papers/__init__.py"), place
