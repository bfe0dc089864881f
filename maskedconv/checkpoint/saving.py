"""Writing checkpoints of the learned part; frozen values are stored as an origin and a hash.

One safetensors file holds the learned parameters, every buffer of other layers (BatchNorm
statistics included), and the configuration of the masked layers. It names the norms that keep
their statistics. For frozen values it stores their origin and SHA-256. Random generators may
change between releases, so regenerated values are checked against the hash.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskedconv.checkpoint import file
from maskedconv.checkpoint.compare import configuration_of
from maskedconv.checkpoint.digests import fingerprint
from maskedconv.checkpoint.file import Content
from maskedconv.checkpoint.frozen import frozen_keys, is_drawn_again
from maskedconv.checkpoint.masks import check_scores_used
from maskedconv.checkpoint.sources import Origins, describe_base, place_of
from maskedconv.checkpoint.whole_model import (
    frozen_buffer_names,
    frozen_norms,
    names_of,
    partly_learned,
    state_of,
)
from maskedconv.nn.global_threshold import refresh_thresholds
from maskedconv.nn.origin import FileOrigin, HubOrigin, networks_of, origin_of
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.remembered import changed_frozen, drawn_frozen


def save(
    model: nn.Module,
    path: str | Path,
    *,
    frozen: bool = False,
    masks: bool = False,
    base: str | Path | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes ``model`` to the safetensors file ``path``. An existing file is replaced at the end.

    Names do not contain the prefixes that ``torch.compile`` and data parallel wrappers add.

    Frozen values are the frozen filters, and all parameters that do not require a gradient in a
    model in which others do. The file has their SHA-256, and not the values.

    Args:
        frozen: also store the frozen values. Otherwise :func:`load` needs a model that has them
            (from the same seed, or the same backbone file). Filters that ``convert_`` took over are
            taken for pretrained ones: store those of a random model, or convert it with
            ``frozen="random"`` and a ``seed``.
        masks: of supermasks, store what their masks keep, one bit for each weight, instead of the
            scores. The loaded model has the same output. Its scores are 1 for kept weights and 0
            for the others, so that training cannot be resumed from it.
        base: source of frozen values that no seed reproduces. A ``Path`` is a file, whose name and
            SHA-256 are stored; a string is the name of a model of a hub, which is stored with one
            SHA-256 of all frozen values. Errors of :func:`load` name the source.
        notes: JSON values to store beside the tensors, which
            :func:`maskedconv.checkpoint.read_notes` returns.

    Raises:
        TypeError: ``model`` is no module; ``notes`` are no JSON values.
        ValueError: ``model`` holds no parameters or buffers, or one that is no plain tensor in
            memory (of the meta device, sparse, a subclass); ``masks`` and there are none; or a
            layer uses the mask of a task (``Supermasks``), which its scores do not give, and
            ``masks`` is not True.
        RuntimeError: learned positions of a layer were changed in place, as by an average of models
            that includes buffers.
        OSError: ``path`` cannot be written, or the file ``base`` not read.

    Warns:
        UserWarning: the file leaves out parameters without a gradient, frozen filters that are no
            longer those that their layer was converted, created, drawn or loaded with, or frozen
            filters that were drawn at random, and neither a seed nor ``base`` says where these
            values come from.
    """
    path, state = Path(path), _checked_state(model)
    layers = partly_learned(model)
    for layer in layers.values():
        layer.check_indices()
    if masks:
        refresh_thresholds(model)
    else:
        check_scores_used(model, "masks=True, or release() of the tasks first")
    bits = _masks_of(layers) if masks else {}
    if masks and not bits:
        raise ValueError(f"masks is True, but model ({type(model).__name__}) has no supermask")
    state |= bits
    digests = {key: fingerprint(state[key]) for key in frozen_keys(model) if key not in bits}
    stored = state if frozen else {key: t for key, t in state.items() if key not in digests}
    networks = networks_of(layers.values())
    described = {
        name: {**configuration_of(layer), "seed": layer.seed, "origin": place_of(layer, networks)}
        for name, layer in layers.items()
    }
    content = Content(
        described, digests, stored, networks, masks=frozenset(bits),
        base=describe_base(base, digests), notes=notes or {},
        frozen_statistics=tuple(frozen_norms(model)),
    )  # fmt: skip
    if not frozen and base is None:
        _warn_of_lost(model, content, state)
    file.write(path, content)


def file_bytes(model: nn.Module) -> int:
    """Bytes of the file that :func:`save` writes of ``model``, without its frozen values.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`save`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        # Nobody will load it.
        with warnings.catch_warnings(action="ignore"):
            save(model, path)
        return path.stat().st_size


def _checked_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict; TypeError or ValueError if it cannot be stored."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected the module, not its state")
    state = state_of(model)
    if not state:
        raise ValueError(f"model ({type(model).__name__}) has nothing to save")
    for key, tensor in state.items():
        if type(tensor) is not Tensor or tensor.is_meta or tensor.layout != torch.strided:
            raise ValueError(f"{key} of the model is {_described(tensor)}; expected a plain tensor")
    return state


def _masks_of(layers: dict[str, PartlyLearned]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}".lstrip("."): mask
        for name, layer in layers.items()
        for key, mask in layer.masks().items()
    }


def _warn_of_lost(model: nn.Module, content: Content, state: dict[str, Tensor]) -> None:
    """Warns about values that the file leaves out and that nothing gives again."""
    layers, origins = partly_learned(model), Origins()

    def is_lost(key: str) -> bool:
        return not is_drawn_again(key, content, state[key], layers, origins)

    if changed := [key for key in names_of(layers, changed_frozen) if is_lost(key)]:
        warnings.warn(
            f"the file leaves out {len(changed)} frozen values ({changed[0]}, ...) that have "
            "changed since their layers were made, as by a state dict, an initialiser, or an "
            "average that includes buffers. A model needs to have these values to load the file: "
            "store them by frozen=True, say where they come from by base=, or undo the change "
            "before",
            stacklevel=3,
        )
    in_file = {n for n, one in layers.items() if isinstance(origin_of(one), FileOrigin | HubOrigin)}
    drawn = [
        key
        for key in names_of(layers, drawn_frozen)
        if key not in changed and key.rpartition(".")[0] not in in_file and is_lost(key)
    ]
    if drawn:
        warnings.warn(
            f"the file leaves out {len(drawn)} frozen values ({drawn[0]}, ...) that were drawn at "
            "random, and no seed in the file gives them again. A model to load it into needs the "
            "same values: say where they come from by base=, store them by frozen=True, or make "
            "the model with seed=",
            stacklevel=3,
        )
    buffers = frozen_buffer_names(layers)
    lost = [key for key in content.frozen if key not in buffers and is_lost(key)]
    if lost:
        warnings.warn(
            f"the file leaves out {len(lost)} parameters that do not require a gradient "
            f"({lost[0]}, ...), and no seed gives their values. To load it, a model needs to have "
            "them: say where they come from by base=, or store them by frozen=True",
            stacklevel=3,
        )


def _described(value: Any) -> str:
    if type(value) is not Tensor:
        return f"a {type(value).__name__}"
    return "on the meta device" if value.is_meta else f"of layout {value.layout}"
