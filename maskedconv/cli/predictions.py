"""Classes of the images in a folder by a trained network; output of ``predict``."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from maskedconv.data import DataError
from maskedconv.data.errors import say_once
from maskedconv.data.folders import PassedOver, class_folders, image_files
from maskedconv.data.preprocessing import Preprocessing
from maskedconv.io import replace_file
from maskedconv.runs.trained import TrainedRun


@dataclass(frozen=True)
class Predictions:
    """The predicted class of each image.

    Attributes:
        root: the folder of the images.
        classes: names of the classes.
        paths: the image files.
        labels: the true class of each image; empty if it is not known.
        predicted: int64 [N].
        probabilities: softmax float32 [N] of the predicted class.
    """

    root: Path
    classes: tuple[str, ...]
    paths: list[Path]
    labels: list[int]
    predicted: Tensor
    probabilities: Tensor


def classify(run: TrainedRun, root: Path, batch_size: int, device: torch.device) -> Predictions:
    """Predicts the class of every image in ``root``, or in the class folders in it.

    Raises:
        DataError: ``root`` holds no images, a file cannot be read, or a folder has the name of no
            class.
        ValueError: the network takes no images.
    """
    if run.preprocessing is None:
        raise ValueError(f"{run.config.label()} takes no images; expected a network that does")
    paths, labels = _list(root, run.classes)
    network = run.network.to(device)
    found = [
        _softmax(network, read_batch(run.preprocessing, paths[start : start + batch_size], device))
        for start in range(0, len(paths), batch_size)
    ]
    best = torch.cat(found).max(1)
    return Predictions(root, run.classes, paths, labels, best.indices, best.values)


def read_batch(preprocessing: Preprocessing, paths: list[Path], device: torch.device) -> Tensor:
    """The image files as float32 [B, C, H, W]; DataError naming one that cannot be read."""
    images = torch.stack([preprocessing.read(path) for path in paths])
    return images.to(device).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _softmax(network: torch.nn.Module, images: Tensor) -> Tensor:
    return network(images).float().softmax(1).cpu()


def _list(root: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """The images, and their true classes if they are in a folder for each class."""
    passed_over = PassedOver(root)
    if not root.is_dir():
        raise DataError(f"images is {root}; expected a folder")
    folders = class_folders(root, passed_over)
    if not folders:
        # Then nothing is outside the class folders.
        passed_over = PassedOver(root)
        paths, labels = image_files(root, passed_over), list[int]()
    else:
        for name in folders:
            if name not in classes:
                raise DataError(
                    f"{root / name} has the name of no class; expected some of {', '.join(classes)}"
                )
        files = {name: image_files(folder, passed_over) for name, folder in folders.items()}
        paths = [path for found in files.values() for path in found]
        labels = [classes.index(name) for name, found in files.items() for _ in found]
    say_once(str(passed_over))
    return paths, labels


def write_csv(predictions: Predictions, path: Path) -> None:
    """Writes a row for each image: file, predicted class, probability, and true class if known.

    The text is UTF-8, except that a file's name keeps its bytes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    known = bool(predictions.labels)
    writer.writerow(["file", "predicted", "probability", *(["class"] if known else [])])
    for index, (file, name, probability) in enumerate(_rows(predictions)):
        true = [predictions.classes[predictions.labels[index]]] if known else []
        writer.writerow([file, name, f"{probability:.6f}", *true])
    replace_file(path, text.getvalue().encode(errors="surrogateescape"))


def print_result(predictions: Predictions, *, listed: bool) -> None:
    """Prints the accuracy of each class, or each image's class if ``listed`` and unknown."""
    if predictions.labels:
        _print_accuracy(predictions)
    elif listed:
        # A file's name that is not UTF-8 keeps its bytes.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")
        for file, name, probability in _rows(predictions):
            print(f"{probability:7.4f}  {name}  {file}")


def _rows(predictions: Predictions) -> list[tuple[str, str, float]]:
    return [
        (str(path.relative_to(predictions.root)), predictions.classes[int(label)], float(value))
        for path, label, value in zip(
            predictions.paths, predictions.predicted, predictions.probabilities, strict=True
        )
    ]


def _print_accuracy(predictions: Predictions) -> None:
    labels = torch.tensor(predictions.labels)
    right = predictions.predicted == labels
    width = max(len(name) for name in predictions.classes)
    for label in labels.unique().tolist():
        of_class = right[labels == label]
        name = predictions.classes[label]
        print(f"{name:<{width}}  {100 * of_class.double().mean():6.2f} % of {len(of_class):,}")
    print(f"{'all':<{width}}  {100 * right.double().mean():6.2f} % of {len(right):,}")
