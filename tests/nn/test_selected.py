"""Layers whose learned slices are at any indices, against PyTorch's convolution in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from precision import assert_as_exact
from torch import Tensor, nn

from bench.saved_bytes import saved_bytes
from maskedconv import MaskedConv2d


class Case(NamedTuple):
    """A convolution and the indices of it that are learned."""

    plain: nn.Conv2d
    which: list[int]
    slice_dim: int
    frozen: str
    channels_last: bool

    def layer(self) -> MaskedConv2d:
        layer = MaskedConv2d.from_conv2d(
            self.plain, learned=len(self.which), slice_dim=self.slice_dim, frozen=self.frozen,
            which=self.which,
        )  # fmt: skip
        return layer.to(memory_format=self.memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def expected(self) -> nn.Conv2d:
        """The plain convolution with zeros at the other indices if they are zero."""
        if self.frozen == "zero":
            rest = sorted(set(range(self.plain.weight.size(self.slice_dim))) - set(self.which))
            with torch.no_grad():
                self.plain.weight.index_fill_(self.slice_dim, torch.tensor(rest).long(), 0)
                if self.slice_dim == 0 and self.plain.bias is not None:
                    self.plain.bias[rest] = 0
        return self.plain


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups = draw(st.sampled_from((1, 1, 2, 8)))
    torch.manual_seed(draw(st.integers(0, 99)))
    plain = nn.Conv2d(
        8, draw(st.sampled_from((8, 16))), (3, draw(st.integers(1, 4))),
        stride=draw(st.integers(1, 2)), padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)), groups=groups, bias=draw(st.booleans()),
        dtype=torch.float64,
    )  # fmt: skip
    slice_dim = draw(st.integers(0, 3))
    size = plain.weight.size(slice_dim)
    which = draw(st.lists(st.integers(0, size - 1), max_size=size, unique=True))
    frozen = draw(st.sampled_from(("keep", "zero")))
    return Case(plain, which, slice_dim, frozen, draw(st.booleans()))


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_equals_the_plain_convolution(case: Case) -> None:
    layer, plain = case.layer(), case.expected()
    input = torch.randn(2, 8, 9, 11, dtype=torch.float64).to(memory_format=case.memory_format)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.to_conv2d().weight, plain.weight)
    outputs, grads = zip(*(_step(module, input) for module in (layer, plain)), strict=True)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(grads[0]["input"], grads[1]["input"])
    indices = torch.tensor(sorted(case.which)).long()
    if case.which:
        sliced = grads[1]["weight"].index_select(case.slice_dim, indices)
        torch.testing.assert_close(grads[0]["learned"], sliced)
    bias = grads[1].get("bias")
    if bias is not None:
        expected = bias[indices] if case.slice_dim == 0 else bias
        torch.testing.assert_close(grads[0].get("bias_learned", bias[:0]), expected)


def _step(module: nn.Module, input: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients of the input and of the parameters."""
    leaf = input.clone().requires_grad_()
    output = module(leaf)
    generator = torch.Generator().manual_seed(1)
    # The same in every precision.
    grad = torch.randn(output.shape, dtype=torch.bfloat16, generator=generator)
    output.backward(grad.to(output.dtype))
    assert leaf.grad is not None
    grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return output.detach(), {**grads, "input": leaf.grad}


@pytest.mark.parametrize("which", [[1, 4, 6], [5, 6, 7]])
def test_the_gradient_of_all_filters_gives_the_same(which: list[int]) -> None:
    plain = nn.Conv2d(4, 8, 3, dtype=torch.float64)
    layer = Case(plain, which, 0, "keep", channels_last=True).layer()
    jointly = () if layer.options.jointly else (torch.float64,)
    layer.options = layer.options._replace(jointly=jointly)
    input = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    input = input.to(memory_format=torch.channels_last)
    (output, grads), (expected, whole) = _step(layer, input), _step(plain, input)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grads["learned"], whole["weight"][which])
    torch.testing.assert_close(grads["bias_learned"], whole["bias"][which])


WHICH = {0: [1, 4, 6], 1: [0, 2], 2: [2], 3: [0, 2]}


def _layer(dim: int, frozen: str = "keep", **settings: Any) -> MaskedConv2d:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 8, 3, padding=1, **settings)
    return Case(plain, WHICH[dim], dim, frozen, channels_last=False).layer()


@pytest.mark.parametrize("frozen", ["keep", "zero"])
@pytest.mark.parametrize("dim", WHICH)
def test_gradcheck(dim: int, frozen: str) -> None:
    layer = _layer(dim, frozen, dtype=torch.float64)
    parts = (torch.randn(1, 4, 4, 5).double().requires_grad_(), layer.learned, layer.bias_learned)
    assert torch.autograd.gradcheck(lambda input, *_: layer(input), parts)


@pytest.mark.parametrize("frozen", ["keep", "zero"])
@pytest.mark.parametrize("dim", WHICH)
def test_autocast_is_as_near_as_the_plain_convolution(dim: int, frozen: str) -> None:
    layer = _layer(dim, frozen)
    plain, exact = layer.to_conv2d(), layer.to_conv2d().double()
    steps = []
    for seed in range(5):
        input = torch.randn(2, 4, 7, 6, generator=torch.Generator().manual_seed(seed))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = [_step(module, input) for module in (layer, plain)]
        assert found[0][0].dtype == torch.bfloat16
        found.append(_step(exact, input.double()))
        steps.append([_of_learned(*step, dim) for step in found])
        for module in (layer, plain, exact):
            module.zero_grad()
    for name in steps[0][0]:
        results = ([step[i][name] for step in steps] for i in range(3))
        assert_as_exact(*results, name)


def _of_learned(output: Tensor, grads: dict[str, Tensor], dim: int) -> dict[str, Tensor]:
    """The output and the gradients of a step, of a layer or of the convolution that it equals."""
    indices = torch.tensor(WHICH[dim])
    learned, bias = grads.get("learned"), grads.get("bias_learned")
    if learned is None:
        learned, bias = grads["weight"].index_select(dim, indices), grads["bias"]
        bias = bias[indices] if dim == 0 else bias
    assert bias is not None
    return {"output": output, "input": grads["input"], "learned": learned, "bias": bias}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frozen", ["keep", "zero"])
@pytest.mark.parametrize("dim", WHICH)
def test_compiles_as_one_graph(dim: int, frozen: str, channels_last: bool) -> None:
    layer, input = _layer(dim, frozen, dtype=torch.float64), torch.randn(2, 4, 7, 6).double()
    if channels_last:
        layer, input = (one.to(memory_format=torch.channels_last) for one in (layer, input))
    torch._dynamo.reset()
    expected, grads = _step(layer, input)
    layer.zero_grad()
    output, compiled = _step(torch.compile(layer, fullgraph=True, backend="aot_eager"), input)
    torch.testing.assert_close(output, expected)
    for name in ("learned", "bias_learned"):
        torch.testing.assert_close(compiled[f"_orig_mod.{name}"], grads[name])


@pytest.mark.parametrize("dim", WHICH)
@pytest.mark.parametrize("channels_last", [False, True])
def test_backward_keeps_no_more_than_the_first_slice_does(dim: int, channels_last: bool) -> None:
    layer = _layer(dim)
    first = MaskedConv2d.from_conv2d(layer.to_conv2d(), learned=len(WHICH[dim]), slice_dim=dim)
    input = torch.randn(2, 4, 8, 8)
    if channels_last:
        input = input.to(memory_format=torch.channels_last)
    ours, plain = (saved_bytes(lambda one=one: one(input), ()) for one in (layer, first))
    assert ours == plain


def test_a_depthwise_convolution_keeps_the_chosen_channels() -> None:
    layer = MaskedConv2d(8, 8, 3, groups=8, learned=2, which=[2, 5], bias=False)
    assert saved_bytes(lambda: layer(torch.randn(2, 8, 9, 9)), ()) == 4 * 2 * 2 * 9 * 9


def test_trains_after_inference_mode() -> None:
    layer, input = _layer(0), torch.randn(1, 4, 5, 5)
    moved = layer.to("meta").to_empty(device="cpu")
    with torch.inference_mode():
        moved(input)
    moved(input.requires_grad_()).sum().backward()
    assert moved.learned.grad is not None


def test_a_gradient_of_zeros_without_memory() -> None:
    plain = nn.Conv2d(4, 8, 3)
    layer = Case(plain, [5, 6, 7], 0, "keep", channels_last=True).layer()  # a view of the gradient
    output = layer(torch.randn(1, 4, 5, 5))
    output.backward(torch._efficientzerotensor(output.shape))
    assert layer.learned.grad is not None
    assert not layer.learned.grad.any()
