"""``MaskedConv2d(which=...)``: the layer against the plain convolution that it stands for."""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from maskedconv import BNReLUConv2d, MaskedConv2d

WHICH = {0: [5, 1, 2], 1: [3, 1, 0], 2: [2], 3: [2, 0]}


def _plain() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float64)


def _layer(plain: nn.Conv2d, dim: int, **settings: Any) -> MaskedConv2d:
    which = WHICH[dim]
    return MaskedConv2d.from_conv2d(
        plain, learned=len(which), slice_dim=dim, which=which, **settings
    )


def _input(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 7, 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("dim", WHICH)
def test_survives_copies_and_to_empty(dim: int) -> None:
    plain = _plain()
    layer = _layer(plain, dim)
    for copy in (deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copy(_input(1)), layer(_input(1)))
    other = deepcopy(layer).to("meta").to_empty(device="cpu")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, plain.weight)
    with torch.no_grad():
        other.weight.zero_()
    assert not other.learned.any()
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other.weight, plain.weight)
    assert torch.equal(other.to(torch.float32).weight, plain.to(torch.float32).weight)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("own", [None, [0, 5]])
@pytest.mark.parametrize("other", [None, [0, 5], [1, 5]])
def test_a_state_dict_goes_to_its_own_indices_alone(
    own: list[int] | None, other: list[int] | None, strict: bool
) -> None:
    layer, source = (MaskedConv2d(4, 6, 3, learned=2, which=which) for which in (own, other))
    before, state = layer.weight.clone(), source.state_dict()
    if own == other:
        layer.load_state_dict(state, strict=strict)
        assert torch.equal(layer.weight, source.weight)
        return
    with pytest.raises(RuntimeError, match=r"which: the state dict learns the .*, the layer the"):
        nn.Sequential(layer).load_state_dict({f"0.{k}": v for k, v in state.items()}, strict)
    assert torch.equal(layer.weight, before)
    state.pop("which", None)
    if other == [1, 5] and own is not None:
        with pytest.raises(RuntimeError, match="learns the first indices, the layer the indices"):
            layer.load_state_dict(state, strict)


@pytest.mark.parametrize("dim", WHICH)
def test_runs_after_a_fused_norm(dim: int) -> None:
    layer, input = _layer(_plain(), dim), _input()
    norm = nn.BatchNorm2d(4, dtype=torch.float64)
    expected = layer(F.relu(deepcopy(norm)(input)))
    torch.testing.assert_close(BNReLUConv2d(norm, layer)(input), expected)


def test_the_first_indices_need_no_order() -> None:
    assert MaskedConv2d(4, 6, 3, learned=3, which=[2, 0, 1]).filter_bank.selected is None


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("abc", TypeError, "which is 'abc'"),
        ([1.0, 2.0], TypeError, "list of ints"),
        ([1], ValueError, "which has 1 indices; expected the 2"),
        ([1, 1], ValueError, "different indices from 0 to 5"),
        ([1, 6], ValueError, "different indices from 0 to 5"),
        ([-1, 2], ValueError, "different indices from 0 to 5"),
    ],
)
def test_refuses_other_indices(which: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MaskedConv2d(4, 6, 3, learned=2, which=which)


def test_pytorchs_distributed_state_dicts_hold_the_indices() -> None:
    model, other = (nn.Sequential(_layer(_plain(), 0)) for _ in range(2))
    nn.init.zeros_(other[0].learned)
    state = get_model_state_dict(model)
    assert state["0.which"].tolist() == [1, 2, 5]
    set_model_state_dict(other, state)
    assert torch.equal(other[0].weight, model[0].weight)


class _Doubled(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * 2


@pytest.mark.parametrize("dim", WHICH)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("changed", ["pruned", "parametrized"])
def test_changed_learned_filters(dim: int, bias: bool, changed: str) -> None:
    plain = _plain() if bias else nn.Conv2d(4, 6, 3, padding=1, bias=False).double()
    layer = _layer(plain, dim)
    if changed == "pruned":
        prune.random_unstructured(layer, "learned", 1.0)
    else:
        parametrize.register_parametrization(layer, "learned", _Doubled())
    weight = plain.weight.detach().clone()
    places = [slice(None)] * dim + [sorted(WHICH[dim])]
    weight[tuple(places)] *= 0 if changed == "pruned" else 2
    expected = F.conv2d(_input(), weight, plain.bias, padding=1)
    assert torch.allclose(layer(_input()), expected)
    layer(_input()).sum().backward()
    assert all(one.grad is not None for one in layer.parameters())
    traced = torch.fx.symbolic_trace(nn.Sequential(layer))
    assert torch.allclose(traced(_input()), expected)
