"""The final weights of a run: kept in a file, described in its row, taken as another's start."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from maskedconv.checkpoint import load_plain, save
from maskedconv.nn import MaskedConv2d
from maskedconv.runs.row import FirstLayer, KeptWeights, LayerRow, WeightsPart
from maskedconv.runs.store import StoreError

_FOLDER = "weights"


def weights_path(folder: Path, key: str) -> Path:
    """The file of the weights of run ``key`` in the output folder ``folder``."""
    return folder / _FOLDER / f"{key}.safetensors"


def keep_weights(model: nn.Module, folder: Path, key: str) -> KeptWeights:
    """Writes the weights and returns what the row says of them.

    ``weights`` is the file relative to ``folder``; ``layers`` and ``first_layer`` are as
    :func:`describe_layers` and :func:`describe_first_layer` give them.

    Raises:
        StoreError: the file cannot be written.
    """
    path = weights_path(folder, key)
    try:
        path.parent.mkdir(exist_ok=True)
        save(model, path, frozen=True)
    except OSError as error:
        raise StoreError(f"the weights {path} cannot be written: {error}") from error
    return {
        "weights": str(path.relative_to(folder)),
        "layers": describe_layers(model),
        "first_layer": describe_first_layer(model),
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
        if isinstance(module, MaskedConv2d):
            types |= {f"{name}.weight": module.learned.dtype, f"{name}.bias": module.learned.dtype}
    for name, value in values.items():
        if value.dtype != types.get(name, value.dtype):
            raise ValueError(f"{path}: {name} is {value.dtype}; expected {types[name]}")
    model.load_state_dict(values)


def describe_layers(model: nn.Module) -> list[LayerRow]:
    """Mean |w| and (population) variance of every MaskedConv2d, in the model's order.

    Learned and frozen weights are described separately; a part without weights is None, and zeroed
    weights do not count. Source: Rosenfeld & Tsotsos 2018, figure 6.
    """
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, MaskedConv2d)]
    found: list[LayerRow] = []
    for name, layer in layers:
        learned, frozen = _describe(layer)
        found.append({"name": name, "kind": "conv", "learned": learned, "frozen": frozen})
    return found


def describe_first_layer(model: nn.Module) -> FirstLayer | None:
    """The filters of the first MaskedConv2d, ``[O, I, kH, kW]`` flattened; None without one.

    ``learned`` of them, the first, are learned. Values have four significant digits.
    """
    for layer in model.modules():
        if isinstance(layer, MaskedConv2d):
            filters_learned = layer.slice_dim == 0 and layer.learned.requires_grad
            return {
                "shape": list(layer.weight_shape),
                "learned": layer.num_learned if filters_learned else 0,
                "values": [float(f"{value:.4g}") for value in layer.weight.flatten().tolist()],
            }
    return None


def _describe(layer: MaskedConv2d) -> tuple[WeightsPart | None, WeightsPart | None]:
    learned, frozen = layer.learned.detach().flatten(), layer.learned.new_empty(0)
    if layer.frozen is not None:
        frozen = layer.frozen.flatten()
    if not layer.learned.requires_grad:
        learned, frozen = learned[:0], torch.cat([learned, frozen])
    return _statistics(learned), _statistics(frozen)


def _statistics(values: Tensor) -> WeightsPart | None:
    if not values.numel():
        return None
    values = values.double()
    return {
        "count": values.numel(),
        "mean_abs": values.abs().mean().item(),
        "variance": values.var(unbiased=False).item(),
    }
