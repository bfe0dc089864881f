"""MaskedConv2d: an nn.Conv2d that learns only a slice of its weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv.nn.distributed  # noqa: F401 (a hook on DistributedDataParallel)
from maskedconv import slices
from maskedconv.checks import check_choice
from maskedconv.functional.checks import check_input
from maskedconv.functional.convolution import convolve
from maskedconv.functional.filter_bank import ExecutionOptions
from maskedconv.functional.padding import evenly_padded
from maskedconv.nn.assembled import AssembledConv2d
from maskedconv.nn.convertible import arguments_of, check_exact, plain_like, take_attributes
from maskedconv.nn.random_weights import seeded
from maskedconv.nn.remembered import remember_draw, remember_frozen
from maskedconv.ops.dispatch import check_backend
from maskedconv.ops.geometry import Pair, filters_format, geometry_of, whole_numbers
from maskedconv.ops.weight_grad.jointly import types_faster_jointly
from maskedconv.tracing import is_traced

# The default of `learned`, so that the error can say more than Python's own.
_NOT_GIVEN = cast(float, object())
_LEARNED_MISSING = (
    "learned is missing; expected a fraction as a float or a count as an int, as in "
    "MaskedConv2d(16, 32, 3, learned=0.1). Code that copies a layer by type(layer)(16, 32, 3) is "
    "made for nn.Conv2d: give it plain convolutions (layer.to_conv2d(), maskedconv.merge_(model))"
)


class MaskedConv2d(AssembledConv2d):
    """Drop-in for ``nn.Conv2d``: ``n`` indices of one weight dimension are learned.

    The weight ``[O, I / groups, kH, kW]`` is always sliced as PyTorch stores it. So with
    ``groups``, dimension 0 learns the first n of all O filters (a depthwise convolution learns the
    filters of its first channels), and dimension 1 the first channels *of each group*.

    Source: Rosenfeld & Tsotsos 2018, section 3. The paper learns the first n filters, the authors'
    code the last n; this layer learns the first unless ``which`` names others.

    Args:
        in_channels ... padding_mode: as in ``nn.Conv2d``.
        learned: a float in [0, 1] is a fraction of the slice dimension, an int a count;
            ``1`` is one filter, ``1.0`` all of them. See :func:`maskedconv.slices.num_learned`.
        slice_dim: 0 output filters, 1 input channels, 2 kernel rows, 3 kernel columns.
        frozen: ``"random"`` keeps the rest of the weight at its random start, ``"zero"`` makes it
            zero (it is then neither stored nor computed).
        which: the indices that are learned, as many as ``learned`` says, in any order; None for the
            first ones. A state dict holds them, and a layer with other ones refuses it.
        backend: "reference", "native", "triton", "cuda", "cuda_wgmma" or "matmul" must run its
            operators, which is an error where it cannot; None (the default) to choose. See
            :func:`maskedconv.explain`.
        seed: draws the initial values from this seed alone; None uses torch's global generator as
            ``nn.Conv2d`` does. Values are always drawn on the CPU.

    Attributes:
        which: the learned indices, ascending; None if they are the first ones.
        learned: Parameter, the learned slice of the weight; an empty tensor outside of
            ``parameters()`` and ``state_dict()`` when nothing is learned.
        frozen: buffer, the rest of the weight; None if there is none or it is zero.
        bias_learned: Parameter, the bias of the learned filters (``slice_dim`` 0), else all of it.
        bias_frozen: buffer, the bias of the frozen random filters, or None.
        weight, bias: the full ``[O, I / groups, kH, kW]`` and ``[O]``, assembled anew at each
            access. In-place changes to them (``nn.init``, ``.data``) are written through;
            replacing or deleting them raises. In compiled code they can be read only: a change in
            place there is lost.

    Input ``[N, C, H, W]`` or ``[C, H, W]``, output as ``nn.Conv2d``. No double backward.

    DistributedDataParallel sends the frozen filters once, when it is made. FSDP2 does not send
    them: every process must make the layer from the same seed, or load the same values.

    Raises:
        TypeError, ValueError: ``learned``, ``slice_dim``, ``frozen``, ``which``, ``backend`` or
            ``seed`` is not one of the above, ``dtype`` is complex, or what ``nn.Conv2d`` raises for
            its own arguments.
    """

    method = "slice"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        *,
        learned: float | int = _NOT_GIVEN,
        slice_dim: int = 0,
        frozen: slices.Frozen = "random",
        which: Sequence[int] | None = None,
        seed: int | None = None,
        backend: str | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if learned is _NOT_GIVEN:
            raise TypeError(_LEARNED_MISSING)
        slices.check_learned(learned)
        check_backend(backend)
        slices.check_seed(seed)
        stride, dilation = whole_numbers("stride", stride), whole_numbers("dilation", dilation)
        if not isinstance(padding, str):
            padding = whole_numbers("padding", padding)
        # A plain convolution without memory checks PyTorch's own arguments and works out its
        # derived attributes (pairs, "same" padding), whatever they are in this version of torch.
        shape: tuple[Any, ...] = (
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode,
        )  # fmt: skip
        plain = nn.Conv2d(*shape, device="meta", dtype=dtype)  # type: ignore[misc]
        if plain.weight.dtype.is_complex:
            raise TypeError(f"dtype is {plain.weight.dtype}; expected a real one")
        nn.Module.__init__(self)
        take_attributes(self, plain)
        self.slice_dim = slices.check_slice_dim(slice_dim)
        self.frozen_mode = slices.check_frozen(frozen)
        self.weight_shape = tuple(plain.weight.shape)
        self.num_learned = slices.num_learned(learned, self.weight_shape[slice_dim], slice_dim)
        self.which = slices.check_indices(which, self.num_learned, self.weight_shape[slice_dim])
        self._selected, self._requires_grad = None, {}
        self.has_bias, self.seed = bool(bias), seed
        learned_shape = (self.num_learned, *self.weight_shape[1:])
        plain_slice = slice_dim == 0 and groups == 1
        jointly = types_faster_jointly(learned_shape, out_channels) if plain_slice else ()
        self.options = ExecutionOptions(check_backend(backend), jointly)
        # Padding that is not a number of zeros is done before the convolution.
        zero_padding = 0 if padding_mode != "zeros" or isinstance(padding, str) else padding
        self._geometry = geometry_of(self.stride, zero_padding, self.dilation, groups)
        self._allocate(torch.device(device) if device is not None else None, plain.weight.dtype)
        self.reset_parameters()

    @classmethod
    def examples(cls) -> tuple[MaskedConv2d, ...]:
        return tuple(cls(2, 2, 1, learned=learned, device="meta") for learned in (0, 1))

    @property
    def backend(self) -> str | None:
        """The backend that must run its operators; None to choose."""
        return self.options.backend or None

    @backend.setter
    def backend(self, backend: str | None) -> None:
        self.options = self.options._replace(backend=check_backend(backend))

    def _allocate(self, device: torch.device | None, dtype: torch.dtype) -> None:
        def part(size: int) -> Tensor:
            shape = list(self.weight_shape)
            shape[self.slice_dim] = size
            return torch.empty(shape, device=device, dtype=dtype)

        if self.num_learned:
            self.register_parameter("learned", nn.Parameter(part(self.num_learned)))
        else:
            self.register_buffer("learned", part(0), persistent=False)
        stored = self.num_frozen if self.frozen_mode == "random" else 0
        self.register_buffer("frozen", part(stored) if stored else None)

        # A bias belongs to the output filters: only a slice of those splits it.
        split = self.slice_dim == 0
        learned_bias = (self.num_learned if split else self.out_channels) * self.has_bias
        frozen_bias = (stored if split else 0) * self.has_bias
        bias = torch.empty(learned_bias + frozen_bias, device=device, dtype=dtype)
        self.register_parameter(
            "bias_learned", nn.Parameter(bias[:learned_bias].clone()) if learned_bias else None
        )
        self.register_buffer("bias_frozen", bias[learned_bias:].clone() if frozen_bias else None)

    def reset_parameters(self) -> None:
        """Draws the full weight and bias as ``nn.Conv2d`` does, from ``seed`` when there is one.

        If all parts are on the meta device, nothing is drawn.
        """
        parts = (self.learned, self.frozen, self.bias_learned, self.bias_frozen)
        if all(part.is_meta for part in parts if part is not None and part.numel()):
            return
        generator = seeded(self.seed)
        weight = torch.empty(self.weight_shape, dtype=self.dtype, device="cpu")
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        self._write_weight(weight)
        if self.has_bias:
            bound = 1 / math.sqrt(max(1, math.prod(self.weight_shape[1:])))
            bias = torch.empty(self.out_channels, dtype=self.dtype, device="cpu")
            self._write_bias(nn.init.uniform_(bias, -bound, bound, generator=generator))
        remember_draw(self, self.seed)

    def forward(self, input: Tensor) -> Tensor:
        own = type(self)._conv_forward is not nn.Conv2d._conv_forward
        if own or "_conv_forward" in self.__dict__ or is_traced(input):
            return self._conv_forward(input, self._full_weight(), self._full_bias())
        if input.dim() != 4 or input.size(1) != self.in_channels:
            check_input(input, self.in_channels, self.groups)
        padding: Pair | str = self.padding
        if self.padding_mode != "zeros":
            pads = self._reversed_padding_repeated_twice
            input, padding = F.pad(input, pads, mode=self.padding_mode), (0, 0)
        elif isinstance(padding, str):
            input, padding = evenly_padded(
                input, self.kernel_size, self.stride, padding, self.dilation
            )
        geometry = self._geometry
        if geometry != (self.stride, padding, self.dilation, self.groups):
            # Attributes were changed, or the padding is "same".
            geometry = geometry_of(self.stride, padding, self.dilation, self.groups)
            if not torch.compiler.is_compiling():
                self._geometry = geometry
        return convolve(input, self.filter_bank, geometry, self.options)

    @classmethod
    def from_conv2d(
        cls,
        conv: nn.Conv2d,
        *,
        learned: float | int,
        slice_dim: int = 0,
        frozen: Literal["keep", "random", "zero"] = "keep",
        which: Sequence[int] | None = None,
        seed: int | None = None,
    ) -> MaskedConv2d:
        """A layer with the geometry, device, dtype and mode of ``conv``, and its backend if any.

        The learned slice starts at ``conv``'s values. The rest keeps them too (``"keep"``), is
        drawn anew from ``seed`` (``"random"``), or is dropped (``"zero"``). The learned
        parts require a gradient if ``conv``'s weight and bias do. Hooks and further attributes stay
        with ``conv``; :func:`maskedconv.convert_` moves them.

        Raises:
            TypeError: ``conv`` is not an ``nn.Conv2d``.
            ValueError: ``conv`` is more than a plain one: a subclass, parametrized, pruned, with
                gradient hooks; or ``frozen`` is none of the three.
            TypeError, ValueError: as the class, of ``learned``, ``slice_dim``, ``which``, ``seed``.
        """
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(f"conv is a {type(conv).__name__}; expected an nn.Conv2d")
        check_exact(conv, MaskedConv2d if isinstance(conv, MaskedConv2d) else nn.Conv2d, "conv")
        check_choice("frozen", frozen, ("keep", *slices.FROZEN_MODES))
        weight, bias = conv.weight, conv.bias
        learns, backend = [part is None or part.requires_grad for part in (weight, bias)], None
        if isinstance(conv, MaskedConv2d):
            learns, backend = conv.learns(), conv.backend
        draws = frozen == "random"
        layer = cls(
            *arguments_of(conv), learned=learned, slice_dim=slice_dim,
            frozen="zero" if frozen == "zero" else "random", which=which, seed=seed,
            backend=backend, device=weight.device if draws else "meta", dtype=weight.dtype,
        )  # fmt: skip
        if not draws:
            # On the meta device nothing was drawn, and all values are those of `conv`.
            layer = layer.to_empty(device=weight.device)
        layer._write_weight(weight, frozen == "keep")
        if bias is not None:
            layer._write_bias(bias, frozen == "keep")
        if frozen == "keep":
            remember_frozen(layer)
        layer._take_requires_grad(learns)
        layer = layer.to(memory_format=filters_format(weight, None))  # type: ignore[call-overload]
        return layer.train(conv.training)

    def drawn_from(self, seed: int) -> MaskedConv2d:
        return MaskedConv2d(
            *arguments_of(self), learned=self.num_learned, slice_dim=self.slice_dim,
            frozen=self.frozen_mode, which=self.which, seed=seed, backend=self.backend,
            device="cpu", dtype=self.learned.dtype,
        )  # fmt: skip

    def to_frozen(self) -> MaskedConv2d:
        return MaskedConv2d.from_conv2d(self, learned=0, slice_dim=self.slice_dim)

    def to_plain(self) -> nn.Conv2d:
        return self.to_conv2d()

    def to_conv2d(self) -> nn.Conv2d:
        """A plain ``nn.Conv2d`` with the same filters (a copy), all of them learned.

        Its weight and bias are frozen only if the learned part here has ``requires_grad=False``; or
        without a learned part, if those of the plain layer that this was made of were frozen.
        Hooks and further attributes stay here; :func:`maskedconv.merge_` moves them.

        Raises:
            ValueError: this layer is more than a MaskedConv2d: a subclass, parametrized, with
                gradient hooks.
        """
        check_exact(self, MaskedConv2d, "the layer")
        weight = self.weight
        conv = plain_like(self, weight.dtype)
        parts = ("weight", weight), ("bias", self.bias)
        for (name, full), learns in zip(parts, self.learns(), strict=True):
            if full is not None:
                values = full.detach().as_subclass(Tensor).clone()
                setattr(conv, name, nn.Parameter(values, requires_grad=learns))
        conv = conv.to(memory_format=filters_format(self.learned, self.frozen))  # type: ignore[call-overload]
        return conv.train(self.training)
