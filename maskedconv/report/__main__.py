"""``python -m maskedconv.report --out runs/quick``: draws the report again, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from maskedconv.cli import typer


def main(
    items: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ITEM]...", help="With --readme: items such as fig1; default all."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Output folder of reproduce or train, with results.jsonl.")
    ] = Path("runs/quick"),
    readme: Annotated[
        bool, typer.Option("--readme", help="Print short Markdown tables instead of drawing.")
    ] = False,
) -> None:
    """Draw the figures and tables of a folder of results again: HTML, Markdown, CSV, PNG, SVG."""
    from maskedconv import report

    try:
        if items and not readme:
            given = f"items are {' '.join(items)}"
            if Path(items[0]).is_dir():
                raise ValueError(f"{given}; expected the folder as --out {items[0]}")
            raise ValueError(f"{given}; expected none without --readme")
        done = report.readme_tables(out, items or ()) if readme else str(report.write(out))
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(done.rstrip())


if __name__ == "__main__":
    typer.run(main)
