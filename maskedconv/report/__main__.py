"""``python -m maskedconv.report --out runs/quick``: draws the report again, without running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def main(
    out: Annotated[
        Path, typer.Option(help="Folder with plan.json and results.jsonl, as reproduce left it.")
    ] = Path("runs/quick"),
) -> None:
    """Draw the figures and tables of a folder of results again: HTML, Markdown, CSV, PNG, SVG."""
    from maskedconv.report import write

    try:
        page = write(out)
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(page)


if __name__ == "__main__":
    typer.run(main)
