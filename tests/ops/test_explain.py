"""explain: the backends that ran for a layer, and the reasons against others."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import maskedconv
from maskedconv.nn import BNReLUConv2d
from maskedconv.ops import native
from maskedconv.ops.dispatch import recorded_decisions

x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)


def layer_of(**options):
    return maskedconv.MaskedConv2d(8, 12, 3, **{"learned": 2, **options})


def test_names_the_backend_of_each_operator():
    expected = "reference" if native.module() is None else "native"
    choices = maskedconv.explain(layer_of(), x)
    assert [(c.operator, c.backend) for c in choices] == [
        ("pack_filters", "reference"), ("weight_grad", expected),
    ]  # fmt: skip
    assert "the first that can run" in str(choices)


def test_says_why_another_cannot_run():
    text = str(maskedconv.explain(layer_of(slice_dim=1), x))
    assert "weight_grad: reference" in text
    if native.module() is not None:
        assert "not native: its kernel is for slices of the output filters" in text


def test_a_forced_backend_is_named(monkeypatch):
    monkeypatch.setenv("MASKEDCONV_BACKEND", "reference")
    choices = maskedconv.explain(layer_of(), x)
    assert {c.backend for c in choices} == {"reference"}
    assert "forced by MASKEDCONV_BACKEND" in str(choices)
    choices = maskedconv.explain(layer_of(backend="reference"), x)
    assert "forced by the argument backend" in str(choices)
    monkeypatch.setenv("MASKEDCONV_BACKEND", "native")
    with pytest.raises(RuntimeError, match="which cannot run"):
        maskedconv.explain(layer_of(slice_dim=1), x)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(4, 8), layer_of()

    def forward(self, x):
        return self.conv(self.embedding(x).permute(0, 3, 1, 2))


@pytest.mark.parametrize("learned", [True, False])
def test_inputs_without_a_gradient(learned):
    tokens = torch.zeros(2, 6, 6, dtype=torch.int64)
    choices = maskedconv.explain(Tokens().requires_grad_(learned), tokens)
    assert ("weight_grad" in [one.operator for one in choices]) is learned


def test_nothing_to_choose_and_nothing_changed():
    plain = nn.Conv2d(8, 12, 3)
    assert "nothing to choose" in str(maskedconv.explain(plain, x))
    layer = layer_of()
    maskedconv.explain(layer, x)
    assert layer.learned.grad is None
    with torch.no_grad():
        assert len(maskedconv.explain(nn.Sequential(layer), x)) == 2


def test_outputs_of_any_structure_and_no_random_numbers_drawn():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = layer_of(), layer_of()

        def forward(self, x):
            features = self.one(nn.functional.dropout(x))
            return {"out": (features, None), "count": x.shape[0], "others": [self.two(x)]}

    model, before = Several(), torch.get_rng_state()
    operators = [choice.operator for choice in maskedconv.explain(model, x)]
    assert sorted(operators) == ["pack_filters"] * 2 + ["weight_grad"] * 2
    assert torch.equal(torch.get_rng_state(), before)


FUSED = {
    "masked": lambda: layer_of(),
    "rows": lambda: layer_of(slice_dim=2),
    "zero": lambda: layer_of(frozen="zero"),
    "groups": lambda: layer_of(groups=2),
    "narrow": lambda: maskedconv.MaskedConv2d(24, 24, 1, learned=20),
    "fused": lambda: BNReLUConv2d(nn.BatchNorm2d(8), layer_of()),
    "fused_1x1": lambda: BNReLUConv2d(
        nn.BatchNorm2d(8), maskedconv.MaskedConv2d(8, 12, 1, learned=2)
    ),
}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
def test_what_is_recorded_is_what_runs(make, memory_format, autocast, monkeypatch):
    """The same kernels run in the same order, with and without explain."""
    layer, calls = make(), []
    conv = getattr(layer, "conv", layer)
    input = torch.randn(2, conv.in_channels, 6, 6).to(memory_format=memory_format)
    for operator, backends in [
        (name, sys.modules[f"maskedconv.ops.{name}"].BACKENDS)
        for name in ("pack_filters", "weight_grad", "bn_relu")
    ]:
        for name, backend in backends.items():
            for function in ("run", "run_backward"):
                if hasattr(backend, function):
                    monkeypatch.setattr(
                        backend,
                        function,
                        counted(calls, operator, name, getattr(backend, function)),
                    )
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = layer(input.clone().requires_grad_())
        out.backward(torch.ones_like(out))
        plain, calls[:] = list(calls), []
        choices = maskedconv.explain(layer, input)
    assert calls == plain
    recorded = [(choice.operator, choice.backend) for choice in choices]
    for operator, name in plain:
        # The backward pass is an operator with its own name.
        assert (operator, name) in recorded or (f"{operator}_backward", name) in recorded


def counted(calls, operator, name, original):
    def run(*arguments):
        calls.append((operator, name))
        return original(*arguments)

    return run


def test_a_gradient_that_no_kernel_can_read_is_named():
    layer = layer_of()
    with recorded_decisions() as choices:
        out = layer(x)
        torch.autograd.grad(out, layer.learned, torch.ones(2, *out.shape), is_grads_batched=True)
    assert choices[-1].backend == "reference"
    assert "reads bare memory" in choices[-1].reason
