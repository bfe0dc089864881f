"""A pass that is not run to its end, as by an exception for which PyTorch calls no hooks."""

from __future__ import annotations

import weakref

import pytest
import torch
from fused_passes import assert_same, run_pass
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from maskedconv import fuse_, unfuse_

IMAGES = torch.randn(2, 3, 12, 12, dtype=torch.float64)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        # A pass that is interrupted would move running statistics.
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)
        self.raised: BaseException | None = None
        self.double()

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        if self.raised is not None:
            raise self.raised
        return self.last(x)


def test_a_pass_without_backward_keeps_nothing():
    model, _ = fused()
    left = []
    for _ in range(3):
        left.append(weakref.ref(model(IMAGES)))
    assert [one() for one in left] == [None] * 3


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("last", [nn.ReLU, nn.Sigmoid, nn.Softmax2d])
def test_a_graph_that_is_left_keeps_nothing(last, backward):
    """The last operation saves its own result, which nothing computes again."""
    model = nn.Sequential(Network(), last())
    fuse_(model, IMAGES)
    result = model(IMAGES)
    if backward:
        result.sum().backward(retain_graph=True)
    left = StorageWeakRef(result.untyped_storage())
    del result
    assert left.expired()


def fused():
    model = Network()
    plain = run_pass(model, IMAGES)
    fuse_(model, IMAGES)
    return model, plain


def interrupt(model, error=KeyboardInterrupt):
    model.raised = error()
    with pytest.raises(error):
        model(IMAGES)
    model.raised = None


def hooks():
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


class Nothing(TorchFunctionMode):
    """A mode that changes nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def assert_as_new(model, plain):
    ours = run_pass(model, IMAGES)
    assert_same(ours, plain)
    assert ours.kept < 0.8 * plain.kept
    assert not _get_current_function_mode_stack()
    assert hooks() is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
def test_the_next_pass_is_as_new(error):
    model, plain = fused()
    for _ in range(2):
        interrupt(model, error)
    assert_as_new(model, plain)


def test_other_operations_are_not_recorded():
    model, plain = fused()
    interrupt(model)
    (session,) = _get_current_function_mode_stack()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    result = F.relu(x * 2)
    assert not session._entries
    (gradient,) = torch.autograd.grad(F.conv2d(result, torch.ones(1, 8, 1, 1).double()).sum(), x)
    assert torch.equal(gradient, 2.0 * (x > 0))
    assert_as_new(model, plain)


@pytest.mark.parametrize("around", [torch.autograd.graph.save_on_cpu, Nothing])
def test_within_another_context(around):
    """Its exit takes the session from the stack, and leaves itself there."""
    model, plain = fused()
    with around():
        interrupt(model)
    assert_as_new(model, plain)
    model.raised = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), around():
        model(IMAGES)
    model.raised = None
    assert_as_new(model, plain)


def test_unfuse_ends_the_session():
    model, _ = fused()
    interrupt(model)
    unfuse_(model)
    assert not _get_current_function_mode_stack()
    assert hooks() is None


def test_contexts_of_later_passes_stay():
    model, plain = fused()
    interrupt(model)
    with Nothing() as mode, torch.autograd.graph.save_on_cpu():
        own = hooks()
        model(IMAGES).sum().backward()
        assert _get_current_function_mode_stack() == [mode]
        assert hooks() == own
    assert_as_new(model, plain)


class Outer(Network):
    """Catches what its module raises."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        try:
            self.inner(x)
        except KeyboardInterrupt:
            x = x + 1
        return super().forward(x)


def test_a_pass_that_catches_it():
    inner, _ = fused()
    inner.raised = KeyboardInterrupt()
    outer = Outer(inner)
    plain = run_pass(outer, IMAGES)
    fuse_(outer, IMAGES)
    assert_as_new(outer, plain)
