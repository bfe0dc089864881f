"""Reading checkpoints into models, which are converted first if they are plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from maskedconv.checkpoint import file
from maskedconv.checkpoint.compare import (
    Held,
    compare_layers,
    compare_shared,
    compare_tensors,
)
from maskedconv.checkpoint.digests import fingerprint
from maskedconv.checkpoint.file import Content
from maskedconv.checkpoint.frozen import find_frozen
from maskedconv.checkpoint.header import Layer
from maskedconv.checkpoint.masks import check_scores_used
from maskedconv.checkpoint.renaming import under_names_of
from maskedconv.checkpoint.sources import origin_in
from maskedconv.checkpoint.whole_model import (
    check_can_materialise,
    check_can_write,
    materialise,
    names_of,
    own_module_names,
    own_names,
    partly_learned,
    state_of,
)
from maskedconv.conversion.restoring import Restored
from maskedconv.methods import method_of
from maskedconv.nn.frozen_statistics import freeze_statistics_
from maskedconv.nn.origin import origin_of, set_origin
from maskedconv.nn.own_hooks import owners
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.remembered import changed_frozen, remember_frozen

Model = TypeVar("Model", bound=nn.Module)


class _Fit(NamedTuple):
    """How a file fits a model.

    Attributes:
        layers, state: of the model.
        found: the frozen values that the file leaves out.
        kept: names of those that are the model's own, as they were made or loaded.
    """

    layers: dict[str, PartlyLearned]
    state: dict[str, Tensor]
    found: dict[str, Tensor]
    kept: frozenset[str]


class _Plan(NamedTuple):
    """A file that fits a model; the plain layers of the model are converted already."""

    model: nn.Module
    path: Path
    content: Content
    fit: _Fit
    restored: Restored
    norms: list[nn.Module]


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
            a layer of the model uses the mask of a task (``Supermasks``); or frozen values are
            neither in the file, nor in the model, nor given by a seed.
    """
    _carry_out(_plan(model, Path(path), keep_frozen))
    return model


def load_together(models: Sequence[nn.Module], paths: Sequence[Path]) -> None:
    """Loads one file into each of ``models``, as :func:`load`, or none of them after an error.

    The models may share tensors. Frozen values that a file leaves out may be in the first one.

    Raises:
        ValueError, OSError: as :func:`load`; or files have different values for a shared tensor.
    """
    plans: list[_Plan] = []
    held: dict[int, Held] = {}
    try:
        for model, path in zip(models, paths, strict=True):
            others = plans[0].content.tensors if plans else {}
            plans.append(_plan(model, path, others=others, held=held))
    except BaseException:
        for plan in plans:
            plan.restored.undo()
        raise
    # All at once, so that what they share stays shared.
    materialise(nn.ModuleList(models))
    for plan in plans:
        _carry_out(plan)


def _plan(
    model: nn.Module,
    path: Path,
    keep_frozen: bool = False,
    others: Mapping[str, Tensor] = MappingProxyType({}),
    held: dict[int, Held] | None = None,
) -> _Plan:
    """Reads and checks all that :func:`load` needs. After an error, the model is as it was.

    Args:
        others: values of another file, as of :func:`find_frozen`.
        held: as of :func:`compare_shared`.
    """
    check_scores_used(model, "release() of the tasks first")
    keep_frozen = keep_frozen or any(owners(model))
    content = under_names_of(model, file.read(path))
    if keep_frozen:
        _check_converted(model, content, path)
    restored = _restored(model, content, path)
    try:
        fit = _check(model, content, path, others)
        compare_shared(content, model, path, held)
        norms = _norms(model, content, path) if restored.names else []
        if keep_frozen:
            _check_frozen(content, fit, path)
    except BaseException:
        restored.undo()
        raise
    return _Plan(model, path, content, fit, restored, norms)


def _carry_out(plan: _Plan) -> None:
    model, content, fit = plan.model, plan.content, plan.fit
    materialise(model)
    tensors = {**content.tensors, **fit.found}
    model.load_state_dict({key: tensors[name] for key, name in own_names(model).items()})
    _take_origins(content, fit, plan.path)
    if plan.restored.names:
        _freeze(model, content)
    for norm in plan.norms:
        freeze_statistics_(norm)


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


def _check(model: nn.Module, content: Content, path: Path, others: Mapping[str, Tensor]) -> _Fit:
    """Whether the file has what the model needs; nothing has been loaded yet."""
    layers, state = partly_learned(model), state_of(model)
    compare_layers(content.layers, layers, path)
    compare_tensors(content, state, path)
    check_can_write(state, path)
    found = find_frozen(content, state, layers, path, others)
    check_can_materialise(model)
    own = {key for key in found if found[key] is state[key]}
    # A seed or an origin of the layer does not speak for values that came in by other ways.
    changed = names_of(layers, changed_frozen)
    return _Fit(layers, state, found, frozenset(own.difference(changed)))


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
    """Records the frozen values, and their origin unless the model knew it."""
    for each in fit.layers.values():
        remember_frozen(each)
    for key in content.frozen:
        name = key.rpartition(".")[0]
        layer = fit.layers.get(name)
        if layer is None:
            continue
        own = key in fit.kept
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
            # An optimizer moves what has a gradient, be it an old one.
            tensor.requires_grad_(False).grad = None
