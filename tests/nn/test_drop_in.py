"""MaskedConv2d as a drop-in replacement for nn.Conv2d in existing code."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from precision import assert_as_exact
from torch import nn

from maskedconv.nn import MaskedConv2d

MODES = [(dim, frozen) for dim in range(4) for frozen in ("random", "zero")]


def layer_of(slice_dim=0, frozen="random", learned=2, **options):
    return MaskedConv2d(
        4, 6, 3, padding=1, learned=learned, slice_dim=slice_dim, frozen=frozen, **options
    )


def zero_outside(weight, layer):
    weight = weight.clone()
    weight.narrow(layer.slice_dim, layer.num_learned, layer.num_frozen).zero_()
    return weight


@pytest.mark.parametrize("slice_dim", range(4))
def test_same_start_as_conv2d(slice_dim):
    torch.manual_seed(3)
    plain = nn.Conv2d(4, 6, 3)
    torch.manual_seed(3)
    layer = MaskedConv2d(4, 6, 3, learned=2, slice_dim=slice_dim)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)


def test_seed_alone_decides_the_start():
    first = layer_of(seed=5)
    state = torch.get_rng_state()
    second = layer_of(seed=5, learned=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, layer_of(seed=6).weight)


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_loads_plain_state_dict(slice_dim, frozen):
    plain, layer = nn.Conv2d(4, 6, 3, padding=1), layer_of(slice_dim, frozen)
    if frozen == "zero":
        with pytest.warns(UserWarning, match="were dropped"):
            layer.load_state_dict(plain.state_dict())
        assert torch.equal(layer.weight, zero_outside(plain.weight, layer))
    else:
        layer.load_state_dict(plain.state_dict())
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)


def test_loads_plain_state_dict_inside_a_model():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3))
    model = nn.Sequential(
        MaskedConv2d(3, 4, 3, bias=False, learned=1),
        nn.BatchNorm2d(4),
        MaskedConv2d(4, 6, 3, learned=0),
    )
    model.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model(x), plain(x))


def test_state_dict_of_wrong_shape_is_named():
    with pytest.raises(RuntimeError, match=r"size mismatch for weight: .*\[6, 4, 5, 5\].*3, 3"):
        layer_of().load_state_dict(nn.Conv2d(4, 6, 5).state_dict())


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
@pytest.mark.parametrize("learned", [0, 2, 1.0])
def test_state_dict_round_trip(slice_dim, frozen, learned):
    layer, other = layer_of(slice_dim, frozen, learned), layer_of(slice_dim, frozen, learned)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(layer.weight, other.weight)
    assert torch.equal(layer.bias, other.bias)


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_deepcopy_and_pickle(slice_dim, frozen):
    layer, x = layer_of(slice_dim, frozen), torch.randn(1, 4, 5, 5)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
        with torch.no_grad():
            other.learned.add_(1)
        assert not torch.equal(other(x), layer(x))


@pytest.mark.parametrize("learned", [0, 2])
@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_to_moves_all_parts(learned, frozen):
    layer = layer_of(frozen=frozen, learned=learned).to(torch.float64)
    assert layer(torch.randn(1, 4, 5, 5, dtype=torch.float64)).dtype == torch.float64
    assert layer.half().weight.dtype == torch.float16
    meta = layer.to("meta")
    assert meta.weight.is_meta
    assert meta(torch.randn(1, 4, 5, 5, device="meta", dtype=torch.float16)).shape == (1, 6, 5, 5)


def test_made_on_meta_device():
    with torch.device("meta"):
        layer = layer_of()
    assert layer.learned.is_meta
    assert layer.frozen.is_meta
    layer.to_empty(device="cpu").reset_parameters()
    assert layer.weight.isfinite().all()


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_initialisers_are_written_through(slice_dim, frozen):
    layer = layer_of(slice_dim, frozen)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.zeros_(layer.bias)
    assert (layer.learned == 2).all()
    expected = torch.full((6, 4, 3, 3), 2.0)
    assert torch.equal(
        layer.weight, zero_outside(expected, layer) if frozen == "zero" else expected
    )
    assert not layer.bias.any()
    layer.weight.data.fill_(3)
    assert (layer.learned == 3).all()
    with torch.no_grad():
        layer.weight[0].mul_(2)
        layer.weight.detach().view(-1)[0] = 7
    assert layer.learned.flatten()[0] == 7
    assert layer.weight[0].max() == 7
    torch.manual_seed(1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    torch.manual_seed(1)
    assert torch.equal(layer.learned, layer.weight.narrow(slice_dim, 0, layer.num_learned))
    drawn = nn.init.kaiming_normal_(torch.empty(6, 4, 3, 3), mode="fan_out")
    assert torch.equal(layer.learned, drawn.narrow(slice_dim, 0, layer.num_learned))


def test_what_cannot_be_written_through_raises():
    layer = layer_of()
    for change in (
        lambda: setattr(layer.weight, "data", torch.zeros(6, 4, 3, 1)),
        lambda: setattr(layer.weight, "grad", torch.zeros(6, 4, 3, 3)),
        lambda: setattr(layer.weight, "requires_grad", False),
        lambda: layer.weight.requires_grad_(False),
    ):
        with pytest.raises(RuntimeError, match="assembled"):
            change()
    with pytest.raises((KeyError, AttributeError, TypeError)):
        layer.weight = nn.Parameter(torch.zeros(6, 4, 3, 3))


def test_weight_is_differentiable_towards_learned():
    layer = layer_of()
    layer.weight.square().sum().backward()
    torch.testing.assert_close(layer.learned.grad, 2 * layer.learned)


@pytest.mark.parametrize("frozen", ["keep", "random", "zero"])
@pytest.mark.parametrize("slice_dim", range(4))
def test_from_conv2d_and_back(frozen, slice_dim):
    plain = nn.Conv2d(4, 6, (3, 5), stride=2, padding=1, dilation=2, groups=2, dtype=torch.float64)
    layer = MaskedConv2d.from_conv2d(plain.eval(), learned=1, slice_dim=slice_dim, frozen=frozen)
    assert not layer.training
    assert torch.equal(layer.learned, plain.weight.narrow(slice_dim, 0, 1))
    assert torch.equal(layer.weight, plain.weight) == (frozen == "keep")
    x, back = torch.randn(2, 4, 12, 12, dtype=torch.float64), layer.to_conv2d()
    assert type(back) is nn.Conv2d
    assert type(back.weight.data) is torch.Tensor
    torch.testing.assert_close(layer(x), back(x))
    if frozen == "keep":
        assert torch.equal(plain(x), back(x))


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(slice_dim, frozen, dtype):
    """Dtypes, and the errors of output and gradient, are those of the plain convolution."""
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        layer = layer_of(slice_dim, frozen)
        plain, x = layer.to_conv2d(), torch.randn(2, 4, 8, 8)
        exact = copy.deepcopy(plain).double()
        with torch.autocast("cpu", dtype=dtype):
            outputs = [layer(x), plain(x)]
        assert outputs[0].dtype == outputs[1].dtype == dtype
        outputs.append(exact(x.double()))
        for output in outputs:
            output.to(torch.promote_types(output.dtype, torch.float32)).square().sum().backward()
        assert layer.learned.grad.dtype == layer.bias_learned.grad.dtype == torch.float32
        grads = [c.weight.grad.narrow(slice_dim, 0, layer.num_learned) for c in (plain, exact)]
        runs.append((outputs, [layer.learned.grad, *grads]))
    for part, name in enumerate(("output", "gradient")):
        results = ([run[part][i] for run in runs] for i in range(3))
        assert_as_exact(*results, name, dtype=dtype)


def test_a_subclass_with_its_own_convolution():
    """As weight standardisation overrides ``_conv_forward``."""

    def of(base):
        class Doubled(base):
            def _conv_forward(self, input, weight, bias):
                return super()._conv_forward(input, 2 * weight, bias)

        return Doubled

    layer = of(MaskedConv2d)(4, 6, 3, learned=2)
    plain = of(nn.Conv2d)(4, 6, 3)
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
        plain.bias.copy_(layer.bias)
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_compile_fullgraph(slice_dim, frozen):
    layer = layer_of(slice_dim, frozen)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    out = layer(x)
    grads = torch.autograd.grad(out.square().sum(), [x, layer.learned, layer.bias_learned])
    compiled_out = compiled(x)
    torch.testing.assert_close(compiled_out, out)
    compiled_grads = torch.autograd.grad(
        compiled_out.square().sum(), [x, layer.learned, layer.bias_learned]
    )
    torch.testing.assert_close(compiled_grads, grads)


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=5e-4),
}


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16-autocast"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("slice_dim", range(4))
def test_frozen_values_do_not_move_by_a_bit(slice_dim, optimiser, autocast):
    model = nn.Sequential(
        MaskedConv2d(3, 8, 3, padding=1, learned=0.4, slice_dim=slice_dim),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        MaskedConv2d(8, 6, 3, learned=2, slice_dim=slice_dim),
    )
    layers = (model[0], model[3])
    before = [copy.deepcopy(layer) for layer in layers]
    step = OPTIMISERS[optimiser](model.parameters())
    for _ in range(100):
        step.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = model(torch.randn(4, 3, 8, 8))
        out.float().square().mean().backward()
        step.step()
    for layer, start in zip(layers, before, strict=True):
        assert torch.equal(layer.frozen.view(torch.int32), start.frozen.view(torch.int32))
        if slice_dim == 0:
            bits = layer.bias_frozen.view(torch.int32)
            assert torch.equal(bits, start.bias_frozen.view(torch.int32))
        assert not torch.equal(layer.learned, start.learned)


def test_repr_names_what_is_learned():
    assert "learned=2/6, slice_dim=0, frozen='random'" in repr(layer_of())
