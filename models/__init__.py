"""The papers' networks, in which every convolution learns a fraction of its filters.

Importing this does not import torch; ``create`` and ``recipe`` do.
"""

from __future__ import annotations

import importlib
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from maskedconv.checks import check_choice, check_flag
from maskedconv.models.checks import check_count
from maskedconv.models.data_shape import DataShape
from maskedconv.models.recipe import Recipe
from maskedconv.models.registry import NAMES, Family, parse
from maskedconv.slices import check_frozen

if TYPE_CHECKING:
    from torch import nn

    from maskedconv.methods import LayerFactory, Method

__all__ = ["Recipe", "available", "create", "options", "recipe", "resolve_init"]

_INITS = ("he", "authors", "default")
_DATA_OPTIONS = {"in_channels", "image_size"}
_DEFAULT_SLICE = {"learned": 1.0, "slice_dim": 0, "frozen": "random"}


def available() -> list[str]:
    """The names that stand in the papers; other depths and widths of a family have names too."""
    return list(NAMES)


def recipe(name: str) -> Recipe:
    """How the network ``name`` was trained in its source.

    Raises:
        ValueError: there is no such network.
    """
    family, _ = parse(name)
    return getattr(_module(family), family.recipe)


def options(name: str) -> frozenset[str]:
    """The ``options`` that :func:`create` takes for ``name``, besides ``bn_learned``.

    ``init``, which every network takes, is among them if it makes a difference.

    Raises:
        ValueError: there is no such network.
    """
    family, _ = parse(name)
    return frozenset(_options(getattr(_module(family), family.network)))


def create(
    name: str,
    num_classes: int = 10,
    learned: float | int = 1.0,
    slice_dim: int = 0,
    frozen: str = "random",
    seed: int | None = None,
    method: Method | None = None,
    **options: Any,
) -> nn.Module:
    """A network that learns a part of every convolution, shortcuts included.

    By default its convolutions are :class:`maskedconv.MaskedConv2d`.

    It has the submodules ``conv1``, ``block1``, ``block2``, ``block3`` and ``fc`` as far as the
    architecture has them. It is made on torch's default device, from values drawn on the CPU.

    Args:
        name: see :func:`available`.
        num_classes: size of the logits ``[N, num_classes]``; of a transformer, the size of the
            vocabulary (logits ``[N, L, num_classes]``).
        learned, slice_dim, frozen: as in ``MaskedConv2d``. Fully connected layers are learned.
        seed: makes every weight a function of the seed alone: the same for each ``learned``,
            ``slice_dim`` and ``frozen``, except zeroed values. It is remembered, so that
            ``maskedconv.load`` can draw frozen filters again. None draws from torch's generator.
        method: one of :mod:`maskedconv.methods`, instead of ``learned``, ``slice_dim`` and
            ``frozen``.
        options:
            in_channels (3), image_size (32): of the input ``[N, in_channels, H, W]``.
            init: of the convolutions. "he" (default): N(0, 2 / (kH kW O)), in resnet
                and imagenet_resnet N(0, 2 / (kH kW I)), in AlexNet PyTorch's own.
                "authors", as in the authors' code:
                split convolutions of WRN and VGG, i.e. all but those of ``learned=1.0``, have
                PyTorch's, and everything else is as under "he". "default", for WRN, DenseNet and
                VGG: PyTorch's, as in the authors' split DenseNets before 19 February 2018.
            bn_learned (True): whether BatchNorm's affine parameters are learned.
            dropout (0.0): wrn only.
            width (1.0): all but wrn, densenet, imagenet_resnet and transformer; multiplies every
                number of channels.
            fold (False): resnet and transformer only, with a supermask ``method``; layers share one
                frozen weight, each with its own scores.
            activation ("relu"): vgg_small and resnet18 only; "sign" makes activations binary.

    Raises:
        ValueError, TypeError: an unknown name or option (the message lists those that exist), or a
            value out of range; a count ``learned`` beyond the filters of some convolution.

    Warns:
        UserWarning: a fraction ``learned`` is no filter at all of some convolutions; once, with
            their names.
    """
    family, arguments = parse(name)
    if seed is not None:
        seed = check_count("seed", seed, minimum=0)
    from maskedconv import methods

    given = {"learned": learned, "slice_dim": slice_dim, "frozen": frozen}
    if method is None:
        method = methods.slice(learned, slice_dim, check_frozen(frozen))
    elif methods.check_method(method) and given != _DEFAULT_SLICE:
        raise ValueError(f"method is {method}; expected it without learned, slice_dim and frozen")
    asked = {"name": name, "num_classes": num_classes, **method.settings(), "seed": seed, **options}
    network = getattr(_module(family), family.network)
    known = _options(network)
    unknown = sorted(options.keys() - known - {"init", "bn_learned"})
    if unknown:
        listed = ", ".join(sorted(known | {"init", "bn_learned"}))
        raise ValueError(f"{name} has no option {unknown[0]!r}; expected some of: {listed}")
    init = check_choice("init", options.pop("init", "he"), _INITS)
    bn_learned = check_flag("bn_learned", options.pop("bn_learned", True))
    init = resolve_init(name, init, split=not method.learns_all())
    if "init" in known:
        options["init"] = init
    sizes = {name: options.pop(name) for name in _DATA_OPTIONS & options.keys()}
    data = DataShape(num_classes, **sizes)
    model = _build(partial(network, data=data, **arguments, **options), method.factory(), seed)
    _finish(model, method, seed)
    _remember(model, asked)
    if not bn_learned:
        _freeze_batch_norm(model)
    return model


def resolve_init(name: str, init: str, *, split: bool) -> str:
    """How the convolutions of ``name`` begin under ``init``: "he" or "default".

    Args:
        split: whether a part of the convolutions is learned. The authors used the plain network
            if everything is.

    Raises:
        ValueError: there is no such network, or ``init`` is "default" and it has no such option.
    """
    family, _ = parse(name)
    if init == "authors":
        return family.authors_split if split else "he"
    if init == "default" and "init" not in options(name):
        raise ValueError(f"init is 'default'; expected 'he', the initialisation of {name}")
    return init


def _module(family: Family) -> Any:
    return importlib.import_module(f"{__name__}.{family.module}")


def _options(network: type) -> set[str]:
    """The options of the data, and the keyword-only arguments that have defaults.

    The other arguments come from the network's name.
    """
    return _DATA_OPTIONS | {
        parameter.name
        for parameter in inspect.signature(network).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
    }


def _build(network: Any, factory: LayerFactory, seed: int | None) -> nn.Module:
    import torch

    from maskedconv.conversion.convolutions import partly_learned_layers
    from maskedconv.models.initialisation import drawn_on_cpu

    device = torch.get_default_device()
    with drawn_on_cpu(seed):
        model = network(factory)
    if any(parameter.is_meta for parameter in model.parameters()):
        # If parameters are not drawn (accelerate's init_empty_weights), the random numbers of the
        # frozen filters are not those of the seed, so they get no values either.
        for _, layer in partly_learned_layers(model):
            layer.to("meta")
    # PyTorch cannot move FakeTensors, so a model that is there already is not moved.
    return model if device.type in ("cpu", "meta") else model.to(device)


def _finish(model: nn.Module, method: Method, seed: int | None) -> None:
    from maskedconv.conversion.convolutions import partly_learned_layers
    from maskedconv.conversion.unlearned import warn_of_none_learned

    layers = partly_learned_layers(model)
    method.finish(list({id(layer): layer for _, layer in layers}.values()), seed)
    warn_of_none_learned(layers, {name: method for name, _ in layers}, stacklevel=4)
    method.attach(model)


def _remember(model: nn.Module, asked: dict[str, Any]) -> None:
    from maskedconv.conversion.convolutions import partly_learned_layers
    from maskedconv.nn.origin import remember_origin
    from maskedconv.nn.remembered import remember_draw

    if asked["seed"] is not None:
        remember_origin(model, asked)
    for _, layer in partly_learned_layers(model):
        remember_draw(layer, asked["seed"])


def _freeze_batch_norm(model: nn.Module) -> None:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
