"""pack_filters by PyTorch's operators against the whole weight, bit for bit, and the choice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskedconv.ops import pack_filters
from maskedconv.ops.dispatch import chosen_backend, recorded_decisions
from maskedconv.ops.pack_filters import BACKENDS, OPERATOR, PackProblem

FORMATS = [torch.contiguous_format, torch.channels_last]
CASTS = [
    (torch.float32, torch.float32),
    (torch.float64, torch.float64),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.bfloat16, torch.float32),
]


def parts_of(shape, slice_dim, n, dtype):
    whole = torch.randn(shape, dtype=torch.float32).to(dtype)
    return whole, whole.narrow(slice_dim, 0, n), whole.narrow(slice_dim, n, shape[slice_dim] - n)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("source", "target"), CASTS, ids=str)
@pytest.mark.parametrize("slice_dim", range(4))
def test_every_cast_and_format(slice_dim, source, target, memory_format):
    whole, learned, frozen = parts_of((5, 4, 3, 3), slice_dim, 2, source)
    for first in (learned, learned.contiguous(), learned.to(memory_format=memory_format)):
        packed = pack_filters(first, frozen, slice_dim, target, memory_format)
        assert packed.dtype == target
        assert packed.is_contiguous(memory_format=memory_format)
        assert torch.equal(packed, whole.to(target))


@settings(max_examples=50)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 4),
    slice_dim=st.integers(0, 3),
    data=st.data(),
    memory_format=st.sampled_from(FORMATS),
)
def test_any_shape(shape, slice_dim, data, memory_format):
    n = data.draw(st.integers(0, shape[slice_dim]))
    whole, learned, frozen = parts_of(shape, slice_dim, n, torch.float32)
    frozen = frozen if frozen.numel() else None
    packed = pack_filters(learned, frozen, slice_dim, torch.bfloat16, memory_format)
    assert torch.equal(packed, whole.bfloat16())


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("slice_dim", [0, 1])
def test_many_filters_are_packed_like_few(slice_dim, kernel, memory_format, monkeypatch):
    _, *parts = parts_of((5, 4, kernel, kernel), slice_dim, 2, torch.float32)
    for filters_format in FORMATS:
        learned, frozen = (part.contiguous(memory_format=filters_format) for part in parts)
        arguments = learned, frozen, slice_dim, torch.bfloat16, memory_format
        with monkeypatch.context() as patched:
            few = pack_filters(*arguments)
            patched.setattr(BACKENDS["reference"], "_FEW", 0)
            many = pack_filters(*arguments)
        assert torch.equal(many, few)
        assert many.stride() == few.stride()


def test_many_filters_under_vmap():
    learned, frozen = torch.randn(2, 8, 32, 3, 3), torch.randn(500, 32, 3, 3)

    def packed(learned):
        return pack_filters(learned, frozen, 0, torch.bfloat16, torch.contiguous_format)

    expected = torch.stack([packed(each) for each in learned])
    assert torch.equal(torch.vmap(packed)(learned), expected)


def test_nothing_to_assemble_is_not_copied():
    learned, frozen = torch.randn(3, 2, 3, 3), torch.randn(0, 2, 3, 3)
    arguments = (0, torch.float32, torch.contiguous_format)
    assert pack_filters(learned, None, *arguments) is learned
    assert pack_filters(frozen, learned, *arguments) is learned


def test_choice_of_backend(monkeypatch):
    def chosen(dtype):
        parts = torch.randn(2, 2, 3, 3), torch.randn(3, 2, 3, 3)
        problem = PackProblem(*parts, 0, dtype, torch.contiguous_format)
        return chosen_backend(OPERATOR, problem)

    monkeypatch.delenv("MASKEDCONV_BACKEND", raising=False)
    assert chosen(torch.float32) is BACKENDS["reference"]
    assert chosen(torch.float16) is BACKENDS["reference"]
    monkeypatch.setenv("MASKEDCONV_BACKEND", "metal")
    with pytest.raises(ValueError, match="MASKEDCONV_BACKEND is 'metal'; expected one of"):
        chosen(torch.float32)
    monkeypatch.setenv("MASKEDCONV_BACKEND", "cuda")
    with pytest.raises(
        RuntimeError, match=r"'cuda', which cannot run: .*(for cuda|CUDA|installed)"
    ):
        chosen(torch.float32)


def test_no_kernel_is_for_the_cpu():
    """A layer whose backend is "native" has its filters packed by PyTorch's operators."""
    learned, frozen = torch.randn(2, 2, 3, 3), torch.randn(3, 2, 3, 3)
    with recorded_decisions() as decisions:
        packed = pack_filters(
            learned, frozen, 0, torch.float16, torch.channels_last, backend="native"
        )
    assert torch.equal(packed, torch.cat((learned, frozen)).half())
    (decision,) = decisions
    assert (decision.backend, decision.reason) == ("reference", "native has no kernel for it")
