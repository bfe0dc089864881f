"""The final weights of a run: kept in a file, described in its row, taken as another's start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maskedconv.checkpoint import load_plain, save
from maskedconv.data import Task
from maskedconv.io import remove_partial_files
from maskedconv.nn.global_threshold import refresh_thresholds
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.runs.config import RunConfig
from maskedconv.runs.confusion import confusion
from maskedconv.runs.row import FirstLayer, KeptWeights, LayerRow, WeightsPart
from maskedconv.runs.store import StoreError

_FOLDER = "weights"


def weights_path(folder: Path, key: str) -> Path:
    """The file of the weights of run ``key`` in the output folder ``folder``."""
    return folder / _FOLDER / f"{key}.safetensors"


def keep_weights(model: nn.Module, folder: Path, config: RunConfig, dataset: Task) -> KeptWeights:
    """Writes the weights and returns the row's description of them.

    ``weights`` is the file relative to ``folder``; ``layers`` and ``first_layer`` are as
    :func:`describe_layers` and :func:`describe_first_layer` give them. ``classes`` and
    ``confusion`` are there if :func:`maskedconv.runs.confusion.confusion` has a matrix.

    Raises:
        StoreError: the file cannot be written.
    """
    path = weights_path(folder, config.key)
    try:
        path.parent.mkdir(exist_ok=True)
        remove_partial_files(path)
        save(model, path, frozen=True, notes=notes_of(config, dataset))
    except OSError as error:
        raise StoreError(f"the weights {path} cannot be written: {error}") from error
    row: KeptWeights = {
        "weights": str(path.relative_to(folder)),
        "layers": describe_layers(model),
        "first_layer": describe_first_layer(model),
    }
    matrix = confusion(model, dataset, amp=config.amp == "bf16")
    if matrix is not None:
        row |= {"classes": list(dataset.classes), "confusion": matrix}
    return row


def notes_of(config: RunConfig, dataset: Task) -> dict[str, Any]:
    """The notes in the file of a run's weights: all that using the network needs.

    ``run`` is the configuration, ``classes`` are the names of the outputs, ``image_shape`` is that
    of an example, and ``preprocessing`` turns an image into one (null: there is none).
    """
    steps = dataset.preprocessing
    return {
        "run": config.to_json(),
        "classes": list(dataset.classes),
        "image_shape": list(dataset.image_shape),
        "preprocessing": None if steps is None else steps.to_json(),
        "data_note": dataset.note,
    }


def start_from(model: nn.Module, folder: Path, key: str) -> None:
    """Gives ``model`` every value of the kept run ``key``, whatever of it each of them learns.

    Raises:
        FileNotFoundError, ValueError: the file is not there or is damaged, or has values of
            another type than the network.
        RuntimeError: it is of another network.
    """
    path = weights_path(folder, key)
    values, types = load_plain(path), {name: t.dtype for name, t in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, PartlyLearned):
            types |= {f"{name}.{part.plain}": module.dtype for part in module.learned_parts()}
    for name, value in values.items():
        if value.dtype != types.get(name, value.dtype):
            raise ValueError(f"{path}: {name} is {value.dtype}; expected {types[name]}")
    model.load_state_dict(values)


def describe_layers(model: nn.Module) -> list[LayerRow]:
    """Mean |w| and (population) variance of every partly learned layer, in the model's order.

    Learned and frozen weights are described separately; a part without weights is None, and zeroed
    weights do not count. Source: Rosenfeld & Tsotsos 2018, figure 6.
    """
    refresh_thresholds(model)
    found: list[LayerRow] = []
    for name, layer in model.named_modules():
        if isinstance(layer, PartlyLearned):
            learned, frozen = map(_statistics, layer.weight_values())
            kind = "conv" if len(layer.weight_shape) == 4 else "linear"
            found.append({"name": name, "kind": kind, "learned": learned, "frozen": frozen})
    return found


def describe_first_layer(model: nn.Module) -> FirstLayer | None:
    """The filters of the first partly learned convolution, ``[O, I, kH, kW]`` flattened, or None.

    ``learned`` of them, the first, are learned. Values have four significant digits.
    """
    for layer in model.modules():
        if isinstance(layer, PartlyLearned) and len(layer.weight_shape) == 4:
            return {
                "shape": list(layer.weight_shape),
                "learned": layer.learned_filters(),
                "values": [float(f"{value:.4g}") for value in layer.weight.flatten().tolist()],
            }
    return None


def _statistics(values: Tensor) -> WeightsPart | None:
    if not values.numel():
        return None
    values = values.double()
    return {
        "count": values.numel(),
        "mean_abs": values.abs().mean().item(),
        "variance": values.var(unbiased=False).item(),
    }
