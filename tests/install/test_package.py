"""The package's names and submodules are imported on first use."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import maskedconv

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "use",
    [
        "maskedconv.models.create('conv2')",
        "maskedconv.nn.MaskedConv2d",
        "maskedconv.functional.masked_conv2d",
        "maskedconv.data.Dataset, maskedconv.ops.weight_grad",
        "from maskedconv import models, slices",
        "assert hasattr(maskedconv, 'optim') and not hasattr(maskedconv, 'optimisers')",
        "assert 'torch' not in sys.modules and 'models' in dir(maskedconv)",
    ],
)
def test_submodules_are_found_when_used(use):
    code = f"import sys, maskedconv; {use}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_dir_has_the_names_for_users_and_nothing_else():
    listed = set(dir(maskedconv))
    assert listed >= {*maskedconv.__all__, "models", "nn", "methods", "__version__"}
    public = {name for name in listed if not name.startswith("_")}
    assert not public & {"importlib", "annotations", "TYPE_CHECKING", "Any", "conversion", "runs"}
    assert all(hasattr(maskedconv, name) for name in public)


@pytest.mark.parametrize("name", ["optimisers", "models.wrn", "_missing", "__wrapped__"])
def test_a_missing_name(name):
    with pytest.raises(AttributeError, match=f"'maskedconv' has no attribute '{name}'"):
        getattr(maskedconv, name)


def test_every_version_and_every_extra_is_tested():
    """By the Makefile's defaults, or in another job of the workflow."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    default = re.findall(
        r"^(?:CONSTRAINTS|EXTRAS) \?= (.*)$", (ROOT / "Makefile").read_text(), re.M
    )
    given = re.findall(r"\b(?:CONSTRAINTS|EXTRAS)=(\S+)", workflow)
    used = {part for value in (*default, *given) for part in value.split(",")}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (of_all,) = extras["all"]
    used |= set(re.findall(r"\w+", of_all)) | {"dev", "docs"}  # those of make lint and make docs
    assert used >= extras.keys()
    assert used >= {f"constraints/{file.name}" for file in (ROOT / "constraints").iterdir()}
