"""Reading checkpoints into models, which are converted first if they are plain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from maskedconv.checkpoint import file
from maskedconv.checkpoint.compare import compare_layers, compare_shared, compare_tensors
from maskedconv.checkpoint.digests import fingerprint
from maskedconv.checkpoint.file import Content
from maskedconv.checkpoint.frozen import find_frozen
from maskedconv.checkpoint.header import Layer, method_of
from maskedconv.checkpoint.masks import check_scores_used
from maskedconv.checkpoint.sources import origin_in
from maskedconv.checkpoint.whole_model import (
    check_can_materialise,
    materialise,
    own_module_names,
    own_names,
    partly_learned,
    state_of,
)
from maskedconv.conversion.restoring import Restored
from maskedconv.nn.frozen_statistics import freeze_statistics_
from maskedconv.nn.origin import origin_of, set_origin
from maskedconv.nn.own_hooks import owners
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.remembered import remember_frozen

Model = TypeVar("Model", bound=nn.Module)


class _Fit(NamedTuple):
    """A model's layers and state, and the frozen values that the file leaves out."""

    layers: dict[str, PartlyLearned]
    state: dict[str, Tensor]
    found: dict[str, Tensor]


def load(model: Model, path: str | Path, *, keep_frozen: bool = False) -> Model:
    """Loads a file of :func:`save` into ``model``, in place. A failed load changes nothing.

    Plain layers of ``model`` that are partly learned in the file are converted first, as by
    :func:`maskedconv.convert_`; parameters that are frozen in the file then require no gradient,
    and norms whose statistics are frozen in the file keep them.

    If the file does not hold the frozen values, the model's own are used if their SHA-256 matches.
    Otherwise they are drawn again from the seed in the file. The dtypes of file and model must
    agree. Tensors of the model on the meta device are allocated on the CPU.

    Args:
        keep_frozen: whether frozen values and types of layers must stay as they are, because other
            models or tasks share them. A file with other frozen values, or with partly learned
            layers that are plain in ``model``, is then an error. It is so in any case for the model
            of a :class:`maskedconv.Tasks`.

    Returns:
        ``model``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint or is damaged; its layers, names, shapes or
            types are not the model's, or its values differ where layers of the model share them;
            a layer of the model uses a held mask instead of its scores; or frozen values are
            neither in the file, nor in the model, nor given by a seed.
    """
    path = Path(path)
    check_scores_used(model, "release() of the tasks first")
    keep_frozen = keep_frozen or any(owners(model))
    content = _without_prefix(file.read(path), state_of(model))
    if keep_frozen:
        _check_converted(model, content, path)
    restored = _restored(model, content, path)
    try:
        fit = _check(model, content, path)
        norms = _norms(model, content, path) if restored.names else []
        if keep_frozen:
            _check_frozen(content, fit, path)
    except BaseException:
        restored.undo()
        raise
    materialise(model)
    tensors = {**content.tensors, **fit.found}
    model.load_state_dict({key: tensors[name] for key, name in own_names(model).items()})
    _take_origins(content, fit, path)
    if restored.names:
        _freeze(model, content)
    for norm in norms:
        freeze_statistics_(norm)
    return model


def read_notes(path: str | Path) -> Mapping[str, Any]:
    """The ``notes`` that :func:`save` stored in a file; empty if there are none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint or is damaged.
    """
    return file.read(Path(path)).notes


def _check_converted(model: nn.Module, content: Content, path: Path) -> None:
    """ValueError if a layer of the model would have to be converted."""
    if plain := _plain_layers(model, content):
        name = next(iter(plain))
        raise ValueError(
            f"{path}: {name} is a layer of the method {method_of(plain[name]).name} in the file; "
            "the model has a plain one, which is not converted here"
        )


def _plain_layers(model: nn.Module, content: Content) -> dict[str, Layer]:
    """Layers that are partly learned in the file alone, by their names in ``model``."""
    own = {name: key for key, name in own_module_names(model).items()}
    return {
        own[name]: layer
        for name, layer in content.layers.items()
        if name in own and not isinstance(model.get_submodule(own[name]), PartlyLearned)
    }


def _restored(model: nn.Module, content: Content, path: Path) -> Restored:
    """Converts the plain layers of ``model`` that are partly learned in the file."""
    try:
        return Restored(model, _plain_layers(model, content))
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded into this model: {error}") from None


def _check(model: nn.Module, content: Content, path: Path) -> _Fit:
    """Everything that can be wrong; nothing has been loaded yet."""
    layers, state = partly_learned(model), state_of(model)
    compare_layers(content.layers, layers, path)
    compare_tensors(content, state, path)
    compare_shared(content, layers, path)
    found = find_frozen(content, state, layers, path)
    check_can_materialise(model)
    return _Fit(layers, state, found)


def _norms(model: nn.Module, content: Content, path: Path) -> list[nn.Module]:
    """The norms that keep their statistics in the file; ValueError if one is no norm."""
    own = {name: key for key, name in own_module_names(model).items()}
    norms: list[nn.Module] = []
    for name in content.frozen_statistics:
        norm = model.get_submodule(own[name]) if name in own else None
        if not isinstance(norm, _NormBase):
            raise ValueError(
                f"{path}: {name} is a norm with frozen statistics in the file; the model has "
                f"{'none' if norm is None else type(norm).__name__}"
            )
        norms.append(norm)
    return norms


def _check_frozen(content: Content, fit: _Fit, path: Path) -> None:
    """ValueError unless the model has all frozen values of the file."""
    differing = [
        key
        for key, digest in content.frozen.items()
        if fit.found.get(key) is not fit.state[key] and fingerprint(fit.state[key]) != digest
    ]
    if differing:
        raise ValueError(
            f"{path}: {differing[0]} and {len(differing) - 1} other frozen values of the file are "
            "not those of the model, which keeps its own"
        )


def _take_origins(content: Content, fit: _Fit, path: Path) -> None:
    """Records what the frozen values are, and where they come from unless the model knew it."""
    for each in fit.layers.values():
        remember_frozen(each)
    for key in content.frozen:
        name = key.rpartition(".")[0]
        layer = fit.layers.get(name)
        if layer is None:
            continue
        own = fit.found.get(key) is fit.state[key]
        known = layer.seed is not None or origin_of(layer) is not None
        if not own:
            layer.seed = content.layers[name]["seed"]
        if not own or not known:
            set_origin(layer, origin_in(content, key, path))


def _freeze(model: nn.Module, content: Content) -> None:
    """Parameters that are frozen in the file require no gradient."""
    names = own_names(model)
    for key, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, nn.Parameter) and names[key] in content.frozen:
            tensor.requires_grad_(False)


def _without_prefix(content: Content, state: dict[str, Tensor]) -> Content:
    """``content`` without the ``module.`` of data parallel training, which old files keep."""
    prefix = "module."
    names = content.tensors.keys() | content.frozen.keys()
    if not all(name.startswith(prefix) for name in names) or any(
        name.startswith(prefix) for name in state
    ):
        return content

    def stripped(part: dict[str, Any]) -> dict[str, Any]:
        return {name.removeprefix(prefix): value for name, value in part.items()}

    return content._replace(
        layers=stripped(content.layers),
        frozen=stripped(content.frozen),
        tensors=stripped(content.tensors),
    )
