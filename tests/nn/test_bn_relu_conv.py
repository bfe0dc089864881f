"""bn_relu_conv against BatchNorm2d, ReLU and the convolution as three modules."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from precision import assert_as_exact, rms_error
from torch import nn
from torch.nn import functional as F

from maskedconv.nn import BNReLUConv2d, MaskedConv2d, bn_relu, bn_relu_conv, bn_relu_convs

GEOMETRIES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1": {"kernel_size": 1},
    "stride2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride4_k11": {"kernel_size": 11, "stride": 4, "padding": 5},
    "rect": {"kernel_size": (3, 5), "padding": (0, 2), "stride": (2, 1)},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "same": {"kernel_size": 3, "padding": "same"},
    "same_even": {"kernel_size": (4, 2), "padding": "same"},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "no_bias": {"kernel_size": 3, "padding": 1, "bias": False},
}
NORMS = {
    "usual": {},
    "cumulative": {"momentum": None},
    "momentum": {"momentum": 0.3, "eps": 0.1},
    "no_affine": {"affine": False},
    "no_running": {"track_running_stats": False},
}
MODES = [(dim, frozen) for dim in range(4) for frozen in ("random", "zero")]
FORMATS = [torch.contiguous_format, torch.channels_last]


def norm_of(channels=6, dtype=torch.float64, **options):
    bn = nn.BatchNorm2d(channels, **options).to(dtype)
    with torch.no_grad():
        for parameter in bn.parameters():
            parameter.copy_(torch.randn(channels))
        if bn.running_mean is not None:
            bn.running_mean.copy_(torch.randn(channels))
            bn.running_var.copy_(torch.rand(channels) + 0.5)
    return bn


def layer_of(learned=0.4, slice_dim=0, frozen="random", dtype=torch.float64, norm=None, **geometry):
    conv = MaskedConv2d(
        6, 12, **(geometry or GEOMETRIES["3x3"]), learned=learned, slice_dim=slice_dim,
        frozen=frozen, dtype=dtype,
    )  # fmt: skip
    return BNReLUConv2d(norm_of(dtype=dtype, **(norm or {})), conv)


def three_modules(layer, x):
    return layer.conv(F.relu(layer.bn(x)))


def images(*shape, dtype=torch.float64, memory_format=torch.contiguous_format):
    return torch.randn(shape, dtype=dtype).mul(2).add(0.3).to(memory_format=memory_format)


def compare(layer, x, rtol=1e-10, atol=1e-10, steps=2):
    """Outputs, gradients and running statistics of ``layer`` and of its three modules."""
    plain = copy.deepcopy(layer)
    for _ in range(steps):
        layer.zero_grad()
        plain.zero_grad()
        x, plain_x = x.detach().requires_grad_(), x.detach().requires_grad_()
        out, expected = layer(x), three_modules(plain, plain_x)
        torch.testing.assert_close(out, expected, rtol=rtol, atol=atol)
        grad = torch.randn(expected.shape).to(expected.dtype)
        out.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(x.grad, plain_x.grad, rtol=rtol, atol=atol)
        for (name, ours), theirs in zip(layer.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(
                ours.grad, theirs.grad, rtol=rtol, atol=atol, check_stride=False,
                msg=lambda text, name=name: f"{name}: {text}",
            )  # fmt: skip
        x = x + 1
    for (name, ours), theirs in zip(layer.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol, msg=lambda _, n=name: n)


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_the_three_modules(geometry, slice_dim, frozen):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen, **GEOMETRIES[geometry])
    compare(layer, images(2, 6, 9, 13), steps=1)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_every_kind_of_batch_norm(norm, memory_format, training):
    layer = layer_of(norm=NORMS[norm]).to(memory_format=memory_format).train(training)
    compare(layer, images(3, 6, 7, 5, memory_format=memory_format), steps=3)


@pytest.mark.parametrize("learned", ["none", "weight", "bias"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_frozen_affine_and_frozen_filters(learned, training):
    layer = layer_of().train(training)
    layer.bn.weight.requires_grad_(learned == "weight")
    layer.bn.bias.requires_grad_(learned == "bias")
    compare(layer, images(3, 6, 7, 5))
    layer.conv.requires_grad_(False)
    compare(layer, images(3, 6, 7, 5))


@pytest.mark.parametrize("needs", ["input", "norm", "filters"])
def test_gradients_that_are_asked_for_alone(needs):
    layer, x = layer_of(), images(3, 6, 7, 5)
    whole_x = x.clone().requires_grad_()
    out = layer(whole_x)
    wanted = [whole_x, layer.bn.weight, layer.bn.bias, layer.conv.learned]
    whole = torch.autograd.grad(out.square().sum(), wanted)
    layer.bn.requires_grad_(needs == "norm")
    layer.conv.requires_grad_(needs == "filters")
    x.requires_grad_(needs == "input")
    wanted = [t for t in (x, layer.bn.weight, layer.bn.bias, layer.conv.learned) if t.requires_grad]
    alone = torch.autograd.grad(layer(x).square().sum(), wanted)
    chosen = {"input": whole[:1], "norm": whole[1:3], "filters": whole[3:]}[needs]
    torch.testing.assert_close(alone, chosen)


@pytest.mark.parametrize("learned", [0, 1, 5, 1.0])
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_from_nothing_to_all_learned(learned, slice_dim, frozen):
    size = 3 if slice_dim >= 2 else 6
    learned = learned if isinstance(learned, float) else min(learned, size)
    layer = layer_of(learned, slice_dim, frozen)
    compare(layer, images(3, 6, 5, 7), steps=1)


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_memory_formats_and_views(slice_dim, frozen, memory_format):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen).to(memory_format=memory_format)
    x = images(2, 6, 9, 8, memory_format=memory_format)
    compare(layer, x, steps=1)
    assert layer(x).stride() == three_modules(layer, x).stride()
    wide = images(2, 10, 9, 16, memory_format=memory_format)
    compare(layer, wide[:, :6], steps=1)
    compare(layer, wide[:, 2:8, ::2, 1::3], steps=1)


@pytest.mark.parametrize("kind", ["random", "zero", "plain"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("slice_dim", range(4))
def test_gradcheck(slice_dim, training, kind):
    frozen = "zero" if kind == "zero" else "random"
    conv = MaskedConv2d(
        3, 4, 3, stride=2, padding=1, learned=2, slice_dim=slice_dim, frozen=frozen,
        dtype=torch.float64,
    )  # fmt: skip
    layer = BNReLUConv2d(norm_of(3), conv.to_conv2d() if kind == "plain" else conv).train(training)
    x = images(2, 3, 5, 4).requires_grad_()
    torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("params", ["same", "float32"])
def test_other_types(dtype, memory_format, training, params):
    """The errors are those of the three modules; autocast computes in ``dtype``."""
    autocast = params != "same" and dtype.itemsize == 2
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        layer = layer_of(dtype=dtype if params == "same" else torch.float32)
        layer = layer.to(memory_format=memory_format).train(training)
        plain, exact = copy.deepcopy(layer), copy.deepcopy(layer).double()
        x = images(4, 6, 8, 8, dtype=dtype, memory_format=memory_format)
        grad = torch.randn(plain.conv(x.to(plain.conv.weight.dtype)).shape).to(dtype)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            ours, theirs = (
                results_of(layer, layer, x, grad),
                results_of(lambda x, plain=plain: three_modules(plain, x), plain, x, grad),
            )
        assert ours["output"].dtype == ours["input"].dtype == dtype
        for parameter in layer.parameters():
            assert parameter.grad.dtype == parameter.dtype
        double = results_of(
            lambda x, exact=exact: three_modules(exact, x), exact, x.double(), grad.double()
        )
        runs.append((ours, theirs, double))
    for name in runs[0][0]:
        results = ([run[i][name] for run in runs] for i in range(3))
        assert_as_exact(*results, name, measure=rms_error, dtype=dtype)


def results_of(forward, module, x, grad):
    """Output and gradients by name."""
    x = x.detach().requires_grad_()
    out = forward(x)
    out.backward(grad)
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"output": out, "input": x.grad, **grads}


@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_in_single_precision_and_channels_last(slice_dim, frozen, norm, training, surplus):
    """Problems for which the compiled passes run."""
    layer = layer_of(
        slice_dim=slice_dim, frozen=frozen, dtype=torch.float32, norm=NORMS[norm]
    ).train(training)
    wide = images(4, 6 + surplus, 9, 8, dtype=torch.float32, memory_format=torch.channels_last)
    compare(layer, wide[:, :6], rtol=1e-4, atol=1e-4)


def test_a_kernel_that_can_recomputes_the_activation_itself(monkeypatch, request):
    from maskedconv.ops import native as compiled
    from maskedconv.ops.dispatch import forget_decisions
    from maskedconv.ops.weight_grad import BACKENDS, reference

    problems = []

    def run(problem):
        problems.append(problem)
        return reference.run(problem)

    kernel = SimpleNamespace(run=run, cannot_run=lambda problem: "", DEVICES=("cpu",))
    monkeypatch.setitem(BACKENDS, "native", kernel)
    request.addfinalizer(forget_decisions)
    forget_decisions()
    layer, x = layer_of(), images(2, 6, 9, 8)
    compare(layer, x, steps=1)
    fused, plain = problems
    assert fused.scale.shape == fused.shift.shape == (6,)
    assert torch.equal(fused.input, x)
    assert plain.scale is None
    # For a view, PyTorch's passes compute the values for ReLU's mask anyway. Without a mask, and in
    # the compiled passes, the values are not available.
    problems.clear()
    wide = images(2, 10, 9, 8)
    compare(layer, wide[:, :6], steps=1)
    assert all(problem.scale is None for problem in problems)
    problems.clear()
    layer.bn.requires_grad_(False)
    layer(wide[:, :6]).sum().backward()
    assert problems[0].scale is not None
    problems.clear()
    if compiled.module() is not None:
        wide = images(2, 10, 9, 8, dtype=torch.float32, memory_format=torch.channels_last)
        layer_of(dtype=torch.float32)(wide[:, :6].detach().requires_grad_()).sum().backward()
        assert problems[0].scale is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_equals_the_three_modules_under_autocast(dtype):
    layer = layer_of(dtype=torch.float32)
    plain, x = copy.deepcopy(layer), images(4, 6, 8, 8, dtype=dtype)
    results = []
    for module, call in ((layer, layer), (plain, lambda x: three_modules(plain, x))):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = call(own)
        out.float().square().sum().backward()
        results.append([out, own.grad, *(p.grad for p in module.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() / theirs.norm() < 2e-2


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_two_convolutions_of_one_activation(slice_dim, frozen):
    options = {"learned": 0.5, "slice_dim": slice_dim, "frozen": frozen, "dtype": torch.float64}
    bn = norm_of()
    convs = [
        MaskedConv2d(6, 8, 4, stride=2, padding=1, **options),
        MaskedConv2d(6, 8, 2, stride=2, bias=False, **options),
    ]
    plain_bn, *plain_convs = copy.deepcopy([bn, *convs])
    x = images(2, 6, 8, 8)
    own, plain_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    first, second = bn_relu_convs(own, bn, convs)
    (first.sin() * second).sum().backward()
    activation = F.relu(plain_bn(plain_x))
    (plain_convs[0](activation).sin() * plain_convs[1](activation)).sum().backward()
    torch.testing.assert_close(own.grad, plain_x.grad)
    for ours, theirs in zip((bn, *convs), (plain_bn, *plain_convs), strict=True):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert bn.num_batches_tracked == 1
    torch.testing.assert_close(bn.running_var, plain_bn.running_var)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_bn_relu_alone(training):
    bn = norm_of().train(training)
    plain, x = copy.deepcopy(bn), images(2, 6, 5, 5)
    own, plain_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    bn_relu(own, bn).square().sum().backward()
    F.relu(plain(plain_x)).square().sum().backward()
    torch.testing.assert_close(own.grad, plain_x.grad)
    torch.testing.assert_close(bn.weight.grad, plain.weight.grad)
    torch.testing.assert_close(bn.bias.grad, plain.bias.grad)


def kept(forward):
    """Storages that autograd keeps for backward: data pointer to bytes."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    return storages, out


# Bytes of the five numbers that are kept for each of 6 channels.
STATISTICS = 5 * 6 * 8


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_only_the_input_and_small_tensors_are_kept(slice_dim, frozen, memory_format):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen).to(memory_format=memory_format)
    x = images(4, 6, 16, 16, memory_format=memory_format).requires_grad_()
    storages, _ = kept(lambda: layer(x))
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers())}
    new = {pointer: size for pointer, size in storages.items() if pointer not in own}
    if (slice_dim, frozen) == (1, "zero"):
        # Less than that: 2 of 6 channels, copied.
        assert x.untyped_storage().data_ptr() not in new
        assert sum(new.values()) <= x.nbytes * 2 / 6 + STATISTICS
    else:
        assert new.pop(x.untyped_storage().data_ptr()) == x.nbytes
        assert sum(new.values()) <= STATISTICS


def test_two_convolutions_keep_the_input_once():
    bn, x = norm_of(), images(4, 6, 16, 16).requires_grad_()
    convs = [MaskedConv2d(6, 8, k, learned=3, dtype=torch.float64) for k in (1, 3)]
    own = {p.data_ptr() for m in (bn, *convs) for p in (*m.parameters(), *m.buffers())}
    storages, _ = kept(lambda: bn_relu_convs(x, bn, convs))
    assert (
        sum(size for pointer, size in storages.items() if pointer not in own)
        <= x.nbytes + STATISTICS
    )


def test_the_activation_is_not_even_alive_behind_the_forward_pass():
    """No tensor of the activation's size remains besides the saved tensors."""
    import gc

    layer, x = layer_of(), images(4, 6, 16, 16).requires_grad_()
    before = {id(o) for o in gc.get_objects() if issubclass(type(o), torch.Tensor)}
    out = layer(x)
    after = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    new = [o for o in after if id(o) not in before]
    assert [o.shape for o in new if o.numel() >= x.numel()] == [out.shape]


@pytest.mark.parametrize("norm", ["usual", "cumulative"])
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_compiled_training_step_is_the_same(slice_dim, frozen, norm):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen, norm=NORMS[norm])
    other, x = copy.deepcopy(layer), images(2, 6, 6, 6)
    torch.compiler.reset()  # else the cases count as recompilations of one function
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    results = []
    for call, module in ((layer, layer), (compiled, other)):
        own = x.clone().requires_grad_()
        out = call(own)
        out.square().sum().backward()
        results.append(
            [out.detach(), own.grad, *(p.grad for p in module.parameters()), *module.buffers()]
        )
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12, check_stride=False)


def test_hooks_and_other_modules_still_run():
    layer, x = layer_of(), images(2, 6, 5, 5)
    expected, seen = layer(x), []
    for module in (layer.bn, layer.conv):
        handle = module.register_forward_hook(lambda module, *_: seen.append(type(module)))
        torch.testing.assert_close(layer(x), expected)
        handle.remove()
    assert seen == [nn.BatchNorm2d, MaskedConv2d]

    class Doubled(nn.BatchNorm2d):
        def forward(self, input):
            return 2 * super().forward(input)

    doubled = Doubled(6).double()
    doubled.load_state_dict(layer.bn.state_dict())
    torch.testing.assert_close(bn_relu(x, doubled), 2 * bn_relu(x, layer.bn))


def test_checkpointed_deep_copied_and_pickled():
    layer, x = layer_of(), images(2, 6, 5, 5)
    expected = layer.eval()(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), expected)
    assert set(layer.state_dict()) == {
        "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked",
        "conv.learned", "conv.frozen", "conv.bias_learned", "conv.bias_frozen",
    }  # fmt: skip


def test_changed_filters_before_backward_are_noticed():
    layer, x = layer_of(), images(2, 6, 5, 5)
    out = layer(x)
    with torch.no_grad():
        layer.conv.learned.add_(1)
    with pytest.raises(RuntimeError, match="inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("batch", [0, 1])
def test_batches_too_small_for_statistics(training, batch):
    layer = layer_of(kernel_size=1).train(training)
    x = images(batch, 6, 1, 1).requires_grad_()
    if training and batch:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(x)
    elif training:
        compare(layer, x)
    else:
        layer(x).sum().backward()
        assert x.grad.shape == x.shape


def test_bad_input_is_refused():
    layer = layer_of()
    with pytest.raises(ValueError, match="bn has 5 channels; expected the 6"):
        BNReLUConv2d(nn.BatchNorm2d(5), layer.conv)
    with pytest.raises(ValueError, match="4D"):
        layer(images(6, 5, 5))
    with pytest.raises(RuntimeError, match="6"):
        layer(images(2, 5, 5, 5))
    with pytest.raises((TypeError, RuntimeError)):
        layer(images(2, 6, 5, 5, dtype=torch.float32))
    with pytest.raises(ValueError, match="input has 5 channels; expected 6"):
        bn_relu_conv(images(2, 5, 9, 9), norm_of(5), layer.conv)
