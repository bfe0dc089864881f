"""``python -m maskedconv.predict``: classes of images by a trained network, and its accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from maskedconv.checks import check_int
from maskedconv.cli import typer
from maskedconv.cli.options import check_device, usage_errors
from maskedconv.io import check_replaceable
from maskedconv.training.device import open_device


def main(
    run: Annotated[
        Path, typer.Argument(help="Folder of train --keep or reproduce, or a file of weights.")
    ],
    images: Annotated[
        Path,
        typer.Argument(help="Folder of images, or of one folder per class to get the accuracy."),
    ],
    key: Annotated[
        str | None, typer.Option(help="Key of the run, or its beginning, if there are several.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="File for the predictions of all images.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Classify images with a network that a run trained.

    Images of any size are resized and cut as the run's test images. For a folder without folders,
    prints the class and its probability for each image. For a folder with a folder for each class,
    prints the accuracy of each class and of all images.

    Exit status: 0 done, 2 usage or unreadable files, 130 interrupted.
    """
    with usage_errors():
        check_device(device, threads)
        check_int("batch_size", batch_size, 1)
        if csv is not None:
            _check_csv(csv)
        from maskedconv.cli.predictions import classify, print_result, write_csv
        from maskedconv.runs.trained import load_run

        found = open_device(device, threads)
        predictions = classify(load_run(run, key), images, batch_size, found)
        if csv is not None:
            write_csv(predictions, csv)
        print_result(predictions, listed=csv is None)


def _check_csv(path: Path) -> None:
    """ValueError if no file can be written there, before images are classified."""
    try:
        check_replaceable(path)
    except OSError as error:
        expected = "expected a file in a folder that can be written"
        raise ValueError(f"csv is {path}; {expected} ({error.strerror})") from error


if __name__ == "__main__":
    typer.run(main)
