"""Reading checkpoints as the state dicts of plain models."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from maskedconv.checkpoint import file
from maskedconv.methods import method_of


def load_plain(path: str | Path) -> dict[str, Tensor]:
    """Reads a file of ``save(..., frozen=True)`` as the state dict of the merged model.

    Its convolutions have a full ``weight`` and ``bias``, which ``nn.Conv2d`` and any
    ``MaskedConv2d`` can load.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint or is damaged, or was saved without frozen
            filters.
    """
    path = Path(path)
    layers, frozen, tensors, *_ = file.read(path)
    if missing := sorted(frozen.keys() - tensors.keys()):
        raise ValueError(f"{path} lacks {missing[0]}; expected a file of save(..., frozen=True)")
    for name, layer in layers.items():
        expected = file.shapes(name, layer)
        biases = {key for key in expected if key.rpartition(".")[2].startswith("bias_")}
        for key in expected.keys() - tensors.keys():
            if key not in biases or biases & tensors.keys():
                raise ValueError(f"{path} lacks {key}, which its header lists")
        prefix = f"{name}." if name else ""
        stored = {key.removeprefix(prefix): tensors.pop(key) for key in expected if key in tensors}
        try:
            values = method_of(layer).plain_values(layer, stored)
        except ValueError as error:
            raise ValueError(f"{path}, header: layers.{name}.{error}") from None
        tensors |= {prefix + key: value for key, value in values.items()}
    return tensors
