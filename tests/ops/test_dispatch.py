"""The dispatch: new backends, and remembered and recorded decisions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from maskedconv import MaskedConv2d
from maskedconv.ops import dispatch
from maskedconv.ops.dispatch import ANY, Operator


class Problem(NamedTuple):
    values: Tensor
    backend: str = ""

    def tensors(self):
        return (self.values,)

    def kind(self):
        return self.values.device, self.values.dtype


class Backend:
    """A backend for float32 that counts its calls."""

    def __init__(self, *devices):
        self.DEVICES, self.asked = devices, 0

    def cannot_run(self, problem):
        self.asked += 1
        return "" if problem.values.dtype == torch.float32 else "its kernel is for float32"


@pytest.fixture
def operator():
    reference = SimpleNamespace(cannot_run=lambda problem: "")
    backends = {"reference": reference, "new": Backend("cpu"), "by name": Backend()}
    yield Operator("double", backends)
    del dispatch._operators["double"]
    dispatch.forget_decisions()


def backend_of(operator, problem):
    """The name of the backend, and how it was recorded."""
    with dispatch.recorded_decisions() as decisions:
        backend, _ = dispatch.dispatch(operator, problem)
    (decision,) = decisions
    assert backend is operator.backends[decision.backend]
    assert dispatch.chosen_backend(operator, problem) is backend
    return decision.backend, str(decision)


def test_a_kernel_for_the_device_runs_if_it_can(operator):
    assert backend_of(operator, Problem(torch.ones(2)))[0] == "new"
    name, text = backend_of(operator, Problem(torch.ones(2, dtype=torch.float64)))
    assert name == "reference"
    assert "not new: its kernel is for float32" in text


def test_a_decision_is_remembered_for_each_kind(operator):
    for _ in range(3):
        dispatch.dispatch(operator, Problem(torch.ones(2)))
    assert operator.backends["new"].asked == 1
    dispatch.dispatch(operator, Problem(torch.ones(2, dtype=torch.float64)))
    assert operator.backends["new"].asked == 2
    dispatch.forget_decisions()
    dispatch.dispatch(operator, Problem(torch.ones(2)))
    assert operator.backends["new"].asked == 3


def test_a_new_backend_can_be_named_by_argument_and_variable(operator, monkeypatch):
    problem = Problem(torch.ones(2))
    assert MaskedConv2d(2, 2, 1, learned=1, backend="by name").backend == "by name"
    name, text = backend_of(operator, problem._replace(backend="by name"))
    assert name == "by name"
    assert "forced by the argument backend" in text
    monkeypatch.setenv(dispatch.VARIABLE, "by name")
    assert dispatch.backend_or_any("") != ANY
    name, text = backend_of(operator, problem)
    assert name == "by name"
    assert f"forced by {dispatch.VARIABLE}" in text
    monkeypatch.delenv(dispatch.VARIABLE)
    assert dispatch.backend_or_any("") == ANY
    assert backend_of(operator, problem._replace(backend=ANY))[0] == "new"


def test_a_backend_that_is_named_must_be_able_to_run(operator, monkeypatch):
    double = Problem(torch.ones(2, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"'new', which cannot run: its kernel is for float32"):
        dispatch.dispatch(operator, double._replace(backend="new"))
    monkeypatch.setenv(dispatch.VARIABLE, "metal")
    with pytest.raises(ValueError, match="MASKEDCONV_BACKEND is 'metal'; expected one of"):
        dispatch.dispatch(operator, double)


def test_what_no_kernel_can_read_goes_to_the_reference(operator):
    name, text = backend_of(operator, Problem(torch.ones(2, device="meta")))
    assert name == "reference"
    assert "reads bare memory" in text


def test_an_override_reaches_the_operators_that_have_such_a_backend(operator):
    """A layer can name a backend that only one of its operators has."""
    name, text = backend_of(operator, Problem(torch.ones(2), "triton"))
    assert name == "reference"
    assert "triton has no kernel for it" in text
    layer = MaskedConv2d(3, 8, 3, learned=4, backend="new")
    torch.testing.assert_close(layer(x := torch.ones(1, 3, 5, 5)), layer.to_conv2d()(x))
    with pytest.raises(ValueError, match="backend is 'newer'"):
        MaskedConv2d(3, 8, 3, learned=4, backend="newer")
