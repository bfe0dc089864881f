"""Shared parts of the commands: options, progress and listings.

The commands take typer from here, so that a missing one ends them with its remedy.
"""

from __future__ import annotations

import sys

try:
    import typer as typer
except ModuleNotFoundError as error:
    print(
        f"error: the commands need the packages of the extra reproduce ({error}): "
        "pip install 'maskedconv[reproduce]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None
