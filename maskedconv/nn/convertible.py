"""Tests whether a layer can be replaced without changing what the model computes.

A replacement takes over a layer's filters and geometry. Anything else that changes the result (a
subclass, a parametrization, a patched method) would be lost, so such a layer is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import parametrize

from maskedconv.nn.partly_learned import PartlyLearned

# They receive the module at each call, so they mean the same on the layer that replaces it.
MOVED_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
_REGISTRIES = ("_parameters", "_buffers", "_modules")
_EXAMPLES: dict[type[nn.Module], tuple[nn.Module, ...]] = {
    nn.Conv2d: (nn.Conv2d(2, 2, 1, device="meta"),),
    nn.Linear: (nn.Linear(2, 2, device="meta"),),
    nn.Embedding: (nn.Embedding(2, 2, device="meta"),),
}


def obstacle(layer: nn.Module, kind: type[nn.Module]) -> str | None:
    """A short reason why ``layer`` is more than a plain ``kind``, or None if it is plain.

    Forward and backward hooks and further attributes are no obstacle.

    Args:
        kind: ``nn.Conv2d``, ``nn.Linear``, ``nn.Embedding``, or a layer that learns a part of one.
    """
    return (
        _type_obstacle(layer, kind)
        or _registry_obstacle(layer, kind)
        or _parameter_obstacle(layer)
        or _hook_obstacle(layer)
        or _attribute_obstacle(layer, kind)
    )


def check_exact(layer: nn.Module, kind: type[nn.Module], argument: str) -> None:
    """Raises ValueError unless ``layer`` is exactly a ``kind``; see :func:`obstacle`."""
    reason = obstacle(layer, kind)
    if reason is not None:
        raise ValueError(
            f"{argument} is more than a plain {kind.__name__} ({reason}), "
            "which the new layer would lose"
        )


def further_attributes(layer: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    """The instance's attributes that a new ``kind`` does not have, by name."""
    known = {name for example in examples(kind) for name in vars(example)}
    return {name: value for name, value in vars(layer).items() if name not in known}


def examples(kind: type[nn.Module]) -> tuple[nn.Module, ...]:
    """Small layers without memory, to see which attributes and parameters a ``kind`` has."""
    if kind not in _EXAMPLES and issubclass(kind, PartlyLearned):
        _EXAMPLES[kind] = kind.examples()
    return _EXAMPLES[kind]


def _type_obstacle(layer: nn.Module, kind: type[nn.Module]) -> str | None:
    if parametrize.is_parametrized(layer):
        names = ", ".join(
            f"{name} by {type(step).__name__}"
            for name, steps in vars(layer)["_modules"]["parametrizations"].items()
            for step in steps
        )
        return f"parametrized: {names}"
    if type(layer) is not kind:
        return f"a subclass of {kind.__name__}: {type(layer).__name__}"
    return None


def _registry_obstacle(layer: nn.Module, kind: type[nn.Module]) -> str | None:
    """Parameters, buffers or submodules that are too many, or one that is gone."""
    for registry in _REGISTRIES:
        own, expected = vars(layer)[registry].keys(), _names(kind, registry)
        what = registry.strip("_")
        if surplus := sorted(own - expected):
            return f"it has further {what}: {', '.join(surplus)}"
        if not issubclass(kind, PartlyLearned) and (missing := sorted(expected - own)):
            return f"its {missing[0]} is not among its {what}"
    return None


def _names(kind: type[nn.Module], registry: str) -> set[str]:
    return {name for example in examples(kind) for name in vars(example)[registry]}


def _parameter_obstacle(layer: nn.Module) -> str | None:
    for name, parameter in vars(layer)["_parameters"].items():
        if parameter is None:
            if name == "weight":
                return "it has no weight"
        elif type(parameter) not in (nn.Parameter, FakeTensor):
            return f"its {name} is a {type(parameter).__name__}"
        elif parameter.layout != torch.strided or not parameter.is_floating_point():
            return f"its {name} is of {parameter.dtype}, {parameter.layout}"
        elif parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return f"its {name} has a gradient hook"
        elif tensors := [k for k, v in vars(parameter).items() if isinstance(v, Tensor)]:
            return f"its {name} carries a tensor, {tensors[0]}"
    return None


def _hook_obstacle(layer: nn.Module) -> str | None:
    if layer._backward_hooks and not layer._is_full_backward_hook:
        # It is given the gradients of the last autograd node, which is another one afterwards.
        return "it has a hook of register_backward_hook; expected register_full_backward_hook"
    return None


def _attribute_obstacle(layer: nn.Module, kind: type[nn.Module]) -> str | None:
    """An attribute that differs from the constructor's arguments, or hides a method."""
    if isinstance(layer, nn.Conv2d) and (reason := _geometry_obstacle(layer, kind)):
        return reason
    if isinstance(layer, nn.Embedding) and (reason := _embedding_obstacle(layer)):
        return reason
    if isinstance(layer, nn.Linear) and layer.weight.shape != (
        layer.out_features,
        layer.in_features,
    ):
        return "its weight has another shape than its attributes say"
    for name in further_attributes(layer, kind):
        if hasattr(kind, name):
            return f"its {name} is replaced on the instance"
    return None


def _embedding_obstacle(layer: nn.Embedding) -> str | None:
    (plain,) = _EXAMPLES[nn.Embedding]
    for name in ("padding_idx", "max_norm", "scale_grad_by_freq", "sparse"):
        if (value := getattr(layer, name)) != (expected := getattr(plain, name)):
            return f"its {name} is {value}; expected {expected}"
    if layer.weight.shape != (layer.num_embeddings, layer.embedding_dim):
        return "its weight has another shape than its attributes say"
    return None


def _geometry_obstacle(layer: nn.Conv2d, kind: type[nn.Module]) -> str | None:
    try:
        plain = plain_like(layer, None)
    except (AttributeError, ValueError, TypeError, RuntimeError) as error:
        return f"its attributes make no convolution: {error}"
    free = {*_REGISTRIES, *MOVED_HOOKS, "training", "_non_persistent_buffers_set"}
    if layer.padding_mode == "zeros":
        free.add("_reversed_padding_repeated_twice")  # Only other modes read it.
    for name, value in vars(plain).items():
        if name in free:
            continue
        if vars(layer).get(name) != value:
            hooks = "hooks" in name
            return f"it has {name.strip('_')}" if hooks else f"its {name} was changed"
    shapes = [[p.shape for p in module.parameters()] for module in (layer, plain)]
    if kind is nn.Conv2d and shapes[0] != shapes[1]:
        return "its parameters have other shapes than its attributes say"
    return None


def plain_like(layer: nn.Conv2d, dtype: torch.dtype | None) -> nn.Conv2d:
    """A plain convolution with the arguments of ``layer`` and without memory."""
    return nn.Conv2d(*arguments_of(layer), device="meta", dtype=dtype)  # type: ignore[misc]


def take_attributes(layer: nn.Module, plain: nn.Module) -> None:
    """Gives ``layer`` the attributes that the constructor of ``plain`` sets, such as sizes.

    Only this version of torch knows which these are. Parameters and all else that every module has
    are not taken.
    """
    for name in vars(plain).keys() - vars(nn.Module()).keys():
        setattr(layer, name, getattr(plain, name))


def arguments_of(conv: nn.Conv2d) -> tuple[Any, ...]:
    """The positional arguments that make a convolution like ``conv``."""
    has_bias = getattr(conv, "has_bias", vars(conv)["_parameters"].get("bias") is not None)
    return (
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
        conv.dilation, conv.groups, has_bias, conv.padding_mode,
    )  # fmt: skip
