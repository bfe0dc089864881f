"""A trained network from the weights that a run stored, with all that using it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from maskedconv.checkpoint import load, read_notes
from maskedconv.data.preprocessing import Preprocessing
from maskedconv.data.preprocessing import schema as preprocessing_schema
from maskedconv.runs import formats
from maskedconv.runs.config import RunConfig
from maskedconv.runs.execute import build_model
from maskedconv.runs.weights import weights_path
from maskedconv.schema import Misfit, count, list_of, optional, record, text

_SUFFIX = ".safetensors"
_schema = record(
    {
        "run": formats.config,
        "classes": list_of(text),
        "image_shape": list_of(count),
        "preprocessing": optional(preprocessing_schema),
    }
)


class TrainedRun(NamedTuple):
    """A network that a run trained.

    Attributes:
        network: in eval mode, on the CPU. It takes ``[N, *image_shape]`` and returns logits
            ``[N, len(classes)]``.
        preprocessing: turns a Pillow image into float32 ``[C, H, W]``; None if the network takes no
            images.
        classes: names of the outputs.
        config: configuration of the run; it includes the recipe.
    """

    network: nn.Module
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]
    config: RunConfig


def load_run(path: str | Path, key: str | None = None) -> TrainedRun:
    """The network that a run trained and stored (``train --keep``, and some runs of ``reproduce``).

    Args:
        path: output folder of ``train`` or ``reproduce``, or a file of weights.
        key: key of the run, or its beginning. None: the only run with weights in the folder.

    Raises:
        FileNotFoundError: there are no such weights; the message lists the stored keys.
        ValueError: several runs match, the file is damaged, or an earlier version wrote it.
    """
    file = _find(Path(path), key)
    notes = _checked(read_notes(file), file)
    config = _config(notes["run"], file)
    classes = tuple(notes["classes"])
    network = build_model(config, len(classes), tuple(notes["image_shape"]))
    load(network, file)
    steps = notes["preprocessing"]
    preprocessing = None if steps is None else Preprocessing.from_json(steps)
    return TrainedRun(network.eval(), preprocessing, classes, config)


def _find(path: Path, key: str | None) -> Path:
    """The file of weights; errors as :func:`load_run`."""
    if path.is_file():
        if key is not None:
            raise ValueError(f"key is {key!r}; expected none with a file, {path}")
        return path
    if not path.exists():
        raise FileNotFoundError(f"path is {str(path)!r}; expected a folder or file that is there")
    stored = sorted(file.stem for file in weights_path(path, "").parent.glob(f"*{_SUFFIX}"))
    found = [one for one in stored if one.startswith(key or "")]
    if len(found) == 1:
        return weights_path(path, found[0])
    asked = "is not given" if key is None else f"is {key!r}"
    if found:
        raise ValueError(f"key {asked}; expected one of {', '.join(found)} in {path}")
    there = f"it stores {', '.join(stored)}" if stored else "it stores none (train --keep does)"
    raise FileNotFoundError(f"{path} has no such weights: key {asked}, and {there}")


def _checked(notes: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    if not notes:
        raise ValueError(
            f"{file} does not say how the network was trained: an earlier version wrote it, or "
            "another program; maskedconv.load loads it into a network of your own"
        )
    try:
        _schema(notes)
    except Misfit as error:
        raise ValueError(f"{file}, notes: {error}") from None
    return notes


def _config(values: dict[str, Any], file: Path) -> RunConfig:
    try:
        return RunConfig.from_json(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}, notes: run: {error}") from None
