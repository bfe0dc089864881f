"""State dicts of plain convolutions, for layers that keep their filters in parts."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from maskedconv.nn.remembered import forget_frozen

if TYPE_CHECKING:
    from maskedconv.nn.assembled import AssembledConv2d


class _Entry(NamedTuple):
    """A plain entry ``name``; its first ``learned`` indices of ``dim`` are ``<own>learned``."""

    name: str
    own: str
    shape: tuple[int, ...]
    dim: int
    learned: int


def has_indices(
    layer: AssembledConv2d, state_dict: dict[str, Any], prefix: str, error_msgs: list[str]
) -> bool:
    """Takes the learned indices from a state dict; an error unless they are those of ``layer``."""
    stored = state_dict.pop(f"{prefix}which", None)
    found = None if stored is None else tuple(stored.tolist())
    if f"{prefix}learned" not in state_dict or found == layer.which:
        return True
    error_msgs.append(
        f"{prefix}which: the state dict learns {_described(found)}, the layer "
        f"{_described(layer.which)}. Expected a layer with the same, MaskedConv2d(which=...)."
    )
    return False


def _described(which: tuple[int, ...] | None) -> str:
    return "the first indices" if which is None else f"the indices {list(which)}"


@contextmanager
def after_pre_hooks(layer: nn.Module, *arguments: Any) -> Iterator[None]:
    """Runs the layer's hooks before loading at once, and none of them within.

    They may rename what a checkpoint has, so they come before all that reads it.

    Args:
        arguments: of ``_load_from_state_dict``.
    """
    hooks = layer._load_state_dict_pre_hooks
    for hook in list(hooks.values()):
        hook(*arguments)
    vars(layer)["_load_state_dict_pre_hooks"] = OrderedDict()
    try:
        yield
    finally:
        vars(layer)["_load_state_dict_pre_hooks"] = hooks


def split_plain(
    layer: AssembledConv2d,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    error_msgs: list[str],
) -> None:
    """Replaces a plain convolution's ``weight`` and ``bias`` by the slices that ``layer`` keeps.

    Args:
        state_dict: changed in place. Like the others, as of ``_load_from_state_dict``.
    """
    bias_count = layer.num_learned if layer.slice_dim == 0 else layer.out_channels
    entries = [_Entry("weight", "", layer.weight_shape, layer.slice_dim, layer.num_learned)]
    if layer.has_bias:
        entries.append(_Entry("bias", "bias_", (layer.out_channels,), 0, bias_count))
    # A tensor that becomes the layer's own must not be a view of the other part's memory.
    copied = local_metadata.get("assign_to_params_buffers", False)
    for entry in entries:
        full = state_dict.get(prefix + entry.name)
        if full is None:
            continue
        if tuple(full.shape) != entry.shape:
            error_msgs.append(
                f"size mismatch for {prefix}{entry.name}: the state dict has {list(full.shape)}, "
                f"the layer expects {list(entry.shape)}."
            )
            continue
        forget_frozen(layer)
        del state_dict[prefix + entry.name]
        # Without the graph of a Parameter, which only learned values may have.
        full = full.detach()
        sizes = (entry.learned, entry.shape[entry.dim] - entry.learned)
        if entry.dim == layer.slice_dim:
            full = layer.learned_first(full, entry.dim)
        learned, rest = (p.clone() if copied else p for p in full.split(sizes, entry.dim))
        if entry.learned:
            state_dict[f"{prefix}{entry.own}learned"] = learned
        if layer._buffers.get(f"{entry.own}frozen") is not None:
            state_dict[f"{prefix}{entry.own}frozen"] = rest
        elif not rest.is_meta and rest.count_nonzero():
            warnings.warn(
                f"{prefix}{entry.name}: {int(rest.count_nonzero())} values outside of the learned "
                "slice are not zero and were dropped, as this layer has frozen='zero'",
                stacklevel=2,
            )
