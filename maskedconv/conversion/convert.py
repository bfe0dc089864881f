"""Converts nn.Conv2d, and other layers that a method takes, to its layers and back, in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeGuard, TypeVar, cast

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskedconv import methods
from maskedconv.conversion.by_layer import ByLayer, values_by_layer
from maskedconv.conversion.carrying import carry_to_parts, carry_to_plain
from maskedconv.conversion.choosing import FilterFn, Selection, choose
from maskedconv.conversion.convolutions import obstacles, partly_learned_layers, plain_types
from maskedconv.conversion.fisher import FisherInformation
from maskedconv.conversion.fractions import Fraction, Learned, fractions_by_layer, is_by_layer
from maskedconv.conversion.naming import Layers, Patterns, grouped, patterns_of
from maskedconv.conversion.outside import (
    Norm,
    Outside,
    Plan,
    Rest,
    unfreeze_all_statistics_,
    warn_of_learned_rest,
)
from maskedconv.conversion.stale_optimizers import warn_of_stale_optimizers
from maskedconv.conversion.unlearned import warn_of_all_frozen, warn_of_none_learned
from maskedconv.methods import Method, check_method
from maskedconv.methods.which import Which, check_which
from maskedconv.nn.global_threshold import (
    refresh_thresholds,
    threshold_groups,
    unshare_threshold,
)
from maskedconv.nn.own_hooks import owners, remove_unused_hooks
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.remembered import remember_frozen
from maskedconv.seeds import Purpose, mixed_seed
from maskedconv.slices import check_seed

Model = TypeVar("Model", bound=nn.Module)


def convert_(
    model: Model,
    *,
    learned: Learned | None = None,
    slice_dim: int = 0,
    frozen: Literal["keep", "random", "zero"] = "keep",
    which: Which | ByLayer = "first",
    method: Method | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    filter_fn: FilterFn | None = None,
    norm: Norm = "learned",
    head: Patterns = None,
    rest: Rest | None = None,
    seed: int | None = None,
) -> Model:
    """Replaces the model's ``nn.Conv2d`` by layers that learn a part of them, in place.

    ``convert_(model, learned=0.1)`` makes each a :class:`MaskedConv2d`.

    The conversion keeps device, dtype, memory format, training mode, ``requires_grad`` of weight
    and bias, the learned part of their gradients, forward and backward hooks, and attributes.
    A layer that appears twice in the model is replaced by one layer. Optimizers must be created
    after the conversion, because the parameters are new.

    The conversion skips every layer that is more than a plain ``nn.Conv2d``, and one warning names
    the skipped layers: subclasses, parametrized or pruned layers, layers with hooks on parameters
    or on the state dict, layers that share a parameter, layers that are also held outside the
    model's modules (in a plain list, say), layers selected under only one of their names, and
    layers that are converted already. Other types of layers (``nn.Linear``, ``nn.Conv1d``,
    ``nn.ConvTranspose2d``) belong to the rest. :func:`maskedconv.conversion_report` names all of
    them and how much they learn. Objects outside ``model`` are not searched.

    Args:
        learned: of every layer, as for :class:`MaskedConv2d`; or of each layer: a dictionary of
            shell patterns of names (the first that matches gives the value); a function
            ``(module, name) -> value``; or :func:`maskedconv.erk`.
        slice_dim: of every layer, as for :class:`MaskedConv2d`.
        frozen: what happens to the filters that are not learned: ``"keep"`` their values,
            ``"random"`` draws them anew, ``"zero"`` drops them.
        which: the filters that are learned, as for :class:`maskedconv.methods.slice`; or those of
            each layer: a dictionary of patterns as for ``learned``, or a function
            ``(module, name) -> value``, such as the result of
            :func:`maskedconv.fisher_information`.
        method: another method of :mod:`maskedconv.methods`, instead of these four. It may also
            replace other layers than ``nn.Conv2d``: supermasks replace ``nn.Linear`` too.
        include, exclude: shell patterns of module names (``"layer1.*"``, ``"*.conv2"``); None
            includes every convolution and excludes none.
        filter_fn: a function ``(module, name) -> bool``; a layer that the patterns select is
            converted only if it returns True.
        norm: how norms (``nn.BatchNorm2d``, ``nn.LayerNorm``, ``nn.GroupNorm``, ...) learn,
            wherever they are in the model. ``"learned"`` leaves them as they are: γ and β are
            learned unless they were frozen, and a BatchNorm in training uses the statistics of the
            batch. ``"fixed"`` freezes γ and β. ``"frozen statistics"`` leaves γ and β as they are,
            and normalises with the running statistics in training too, without changing them;
            ``model.train()`` does not undo it. ``"frozen"`` is both.
        head: patterns of module names, with all that is inside them. They are learned in full, even
            if they were frozen, and neither converted nor affected by ``norm`` and ``rest``.
        rest: all other parameters, such as those of ``nn.Linear``, of layers that are not included,
            and of layers that are left alone. ``"learn"`` leaves them as they are, ``"freeze"``
            sets ``requires_grad`` to False. None is ``"learn"``, with a warning if they learn more
            values than the converted layers.
        seed: for everything that is drawn: values under ``frozen="random"``, indices under
            ``which="random"``, and the weights, scores and positions of other methods. Every layer
            gets its own seed from it. None uses torch's global generator.

    Returns:
        ``model``.

    Raises:
        ValueError, TypeError: as :class:`MaskedConv2d`; or not exactly one of ``learned`` and
            ``method`` is given; or an argument is not one of the above. Nothing has been changed
            then.
        ValueError: ``model`` is itself a convolution, holds a DistributedDataParallel, or is that
            of a :class:`Tasks`; no layer can be converted, a pattern matches nothing or only layers
            that are left alone, or ``norm`` asks for running statistics and there are none.
    """
    check_seed(seed)
    method = _method(learned, slice_dim, frozen, which, method)
    outside = Outside(norm, patterns_of("head", head) or (), rest)
    selection = Selection(
        patterns_of("include", include), patterns_of("exclude", exclude), filter_fn
    )
    _check_model(model, method.converted, "the from_conv2d() of MaskedConv2d")
    chosen, left, total = choose(model, method, selection, outside)
    by_layer = _by_layer(learned, which, method, chosen)
    layers = _converted(chosen, by_layer, seed)
    method.finish(list(layers.values()), seed)
    plan = Plan(model, chosen, outside)
    named = [(name, layers[id(one)]) for name, one in chosen]
    _warn_of_left(left, total, "convert_")
    warn_of_none_learned(named, by_layer, 3)
    warn_of_all_frozen(named, 3)
    if rest is None:
        warn_of_learned_rest(plan, layers.values(), learned is not None, 2)
    warn_of_stale_optimizers([one for _, one in chosen], "convert_", plan.freeze)
    for one in {id(one): one for _, one in chosen}.values():
        carry_to_parts(one, layers[id(one)])
    for name, one in chosen:
        model.set_submodule(name, layers[id(one)])
    plan.apply()
    method.attach(model)
    for layer in layers.values():
        remember_frozen(layer)
    return model


def merge_(model: Model) -> Model:
    """Replaces the model's :class:`MaskedConv2d` by plain ``nn.Conv2d`` with the same filters.

    Likewise for the layers of the other methods. Keeps and skips the same things as
    :func:`convert_`. A merged weight requires a gradient unless the learned part had
    ``requires_grad=False``; if nothing was learned, it does if the plain layer's did. It has a
    ``grad`` only if the whole layer was learned. Norms whose statistics were frozen are plain
    again; they follow the batch after the next ``train()``. Other parameters that were frozen
    outside the layers stay so. Supermask layers with one threshold are merged together or not at
    all.

    Returns:
        ``model``, changed in place.

    Raises:
        ValueError: ``model`` is itself a convolution, holds a DistributedDataParallel, or is that
            of a :class:`Tasks`; or it has masked layers and none can be merged.
    """
    _check_model(model, (nn.Conv2d,), "its to_plain()")
    refresh_thresholds(model)
    masked = partly_learned_layers(model)
    left = obstacles(model, masked, plain_types())
    left |= _left_with(left, model, masked)
    chosen = [(name, layer) for name, layer in masked if name not in left]
    if masked and not chosen:
        raise ValueError(f"none of the model's masked layers can be merged: {grouped(left)}")
    plain = {id(layer): layer.to_plain() for _, layer in chosen}
    _warn_of_left(left, len(masked), "merge_")
    warn_of_stale_optimizers([layer for _, layer in chosen], "merge_")
    for layer in {id(layer): layer for _, layer in chosen}.values():
        carry_to_plain(layer, plain[id(layer)])
    for name, layer in chosen:
        model.set_submodule(name, plain[id(layer)])
    unfreeze_all_statistics_(model)
    remove_unused_hooks(model)
    unshare_threshold(model)
    return model


def _left_with(
    left: Mapping[str, str], model: nn.Module, masked: Sequence[tuple[str, PartlyLearned]]
) -> dict[str, str]:
    """Reasons to leave layers alone that have one threshold with one that is ``left``."""
    names = {id(layer): name for name, layer in masked}
    reasons: dict[int, str] = {}
    for layers, _ in threshold_groups(model):
        kept = [names[id(layer)] for layer in layers if names[id(layer)] in left]
        # Without the other layers, the threshold of the remaining ones would be another one.
        reason = f"its network has one threshold, and {kept[0]} is left alone" if kept else ""
        reasons |= {id(layer): reason for layer in layers if reason}
    return {
        name: reasons[id(layer)]
        for name, layer in masked
        if id(layer) in reasons and name not in left
    }


def _method(
    learned: Learned | None,
    slice_dim: int,
    frozen: Literal["keep", "random", "zero"],
    which: Which | ByLayer,
    method: Method | None,
) -> Method:
    if method is None:
        if learned is None:
            raise TypeError("learned is missing; expected a fraction, a count, or a method")
        # If layers have parts of their own, `_by_layer` sets them.
        same = 0 if is_by_layer(learned) else cast(Fraction, learned)
        place = "first" if _is_by_layer(which) else which
        return methods.slice(same, slice_dim, frozen, cast(Which, place))
    check_method(method)
    if learned is not None:
        raise ValueError(f"learned is {learned} and method is {method}; expected one of the two")
    if which != "first":
        raise ValueError(f"which is {which} and method is {method}; expected methods.slice(which=)")
    if (slice_dim, frozen) != (0, "keep"):
        raise ValueError(f"method is {method}; expected it without slice_dim and frozen")
    return method


def _is_by_layer(which: Which | ByLayer) -> TypeGuard[ByLayer]:
    return isinstance(which, Mapping) or callable(which)


def _by_layer(
    learned: Learned | None, which: Which | ByLayer, method: Method, chosen: Layers
) -> dict[str, Method]:
    """The method of each of the ``chosen`` layers."""
    if learned is None or not (is_by_layer(learned) or _is_by_layer(which)):
        return {name: method for name, _ in chosen}
    assert isinstance(method, methods.slice)
    own: dict[str, dict[str, Any]] = {name: {} for name, _ in chosen}
    if is_by_layer(learned):
        for name, value in fractions_by_layer(learned, chosen, method.slice_dim).items():
            own[name]["learned"] = value
    if isinstance(which, FisherInformation) and which.slice_dim != method.slice_dim:
        raise ValueError(
            f"slice_dim is {method.slice_dim}, but which has the scores of slice_dim="
            f"{which.slice_dim}; expected those of the same slices"
        )
    if _is_by_layer(which):
        for name, indices in values_by_layer("which", which, check_which, chosen).items():
            own[name]["which"] = indices
    made = {name: replace(method, **settings) for name, settings in own.items()}
    # One object for equal settings, told apart as text: a count of 1 equals the fraction 1.0.
    distinct = {repr(one): one for one in made.values()}
    return {name: distinct[repr(one)] for name, one in made.items()}


def _converted(
    chosen: Layers, by_layer: Mapping[str, Method], seed: int | None
) -> dict[int, PartlyLearned]:
    """The new layers, by the ``id`` of the old ones."""
    layers: dict[int, PartlyLearned] = {}
    for index, (name, one) in enumerate(chosen):
        if id(one) not in layers:
            try:
                own = None if seed is None else mixed_seed(seed, index, Purpose.LAYER)
                layers[id(one)] = by_layer[name].convert(one, own)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{name}: {error}") from None
    return layers


def _check_model(model: nn.Module, kinds: tuple[type[nn.Module], ...], instead: str) -> None:
    if isinstance(model, (*kinds, PartlyLearned)):
        what = "a convolution" if isinstance(model, nn.Conv2d) else f"a {type(model).__name__}"
        raise ValueError(f"model is {what} itself; use {instead}")
    for name, module in model.named_modules():
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                f"{name or 'model'} is a DistributedDataParallel, which keeps the old parameters; "
                "convert the model before it is wrapped"
            )
    for name, owner in owners(model):
        raise ValueError(
            f"{name or 'model'} has the values of a {type(owner).__name__}, which would go on with "
            "the old layers; expected a copy: copy.deepcopy(tasks.model)"
        )


def _warn_of_left(left: Mapping[str, str], total: int, caller: str) -> None:
    if left:
        warnings.warn(
            f"{caller} left {len(left)} of {total} layers alone: {grouped(left)}. "
            "maskedconv.conversion_report(model) lists all of them",
            stacklevel=3,
        )
