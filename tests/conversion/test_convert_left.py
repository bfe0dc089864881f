"""Layers that are more than a plain convolution are skipped and reported with the reason."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.ao.nn.intrinsic.qat import ConvBnReLU2d
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import maskedconv
from maskedconv import MaskedConv2d, conversion_report, convert_, merge_


class Standardized(nn.Conv2d):
    """Like the convolutions of NF-ResNet and BiT: standardizes the weight at each call."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.full((self.out_channels, 1, 1, 1), 1.7))

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, self.gain * (self.weight - mean), self.bias)


class SamePadded(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Scaled(nn.Conv2d):
    scale = 3.0

    def forward(self, x):
        return super().forward(x) * self.scale


class OtherConvForward(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight.abs(), bias)


class OtherWeight(nn.Conv2d):
    def __getattr__(self, name):
        value = super().__getattr__(name)
        return value.sign() if name == "weight" else value


class OwnParameter(nn.Parameter):
    pass


class OwnTensor(torch.Tensor):
    """A tensor subclass, like quantized and distributed tensors."""


def patched(conv):
    conv.forward = functools.partial(lambda x, old: old(x) * 2, old=conv.forward)
    return conv


def patched_conv_forward(conv):
    old = conv._conv_forward
    conv._conv_forward = lambda x, weight, bias: old(x, weight * 2, bias)
    return conv


def with_child(conv):
    conv.adapter = nn.Conv2d(4, 4, 1)
    conv.register_forward_hook(lambda module, args, output: module.adapter(output))
    return conv


def with_buffer(conv):
    conv.register_buffer("mask", torch.zeros(4, 1, 1, 1))
    conv.register_forward_hook(lambda module, args, output: output * module.mask.view(1, 4, 1, 1))
    return conv


def with_parameter(conv):
    conv.alpha = nn.Parameter(torch.tensor(2.0))
    conv.register_forward_hook(lambda module, args, output: output * module.alpha)
    return conv


def with_weight(conv, weight):
    conv.weight = weight
    return conv


def plain_weight(conv):
    weight = conv.weight.detach()
    del conv.weight
    conv.weight = weight
    return conv


def with_gradient_hook(conv):
    conv.weight.register_hook(lambda grad: grad * 0)
    return conv


def with_accumulation_hook(conv):
    conv.bias.register_post_accumulate_grad_hook(lambda parameter: None)
    return conv


def with_old_backward_hook(conv):
    conv.register_backward_hook(lambda module, grad_input, grad_output: None)
    return conv


def with_state_hook(conv):
    conv.register_state_dict_post_hook(lambda module, state, prefix, meta: None)
    return conv


def with_load_hook(conv):
    conv.register_load_state_dict_pre_hook(lambda *args: None)
    return conv


def with_own_hook(conv):
    conv.calls = 0

    def count(module, args):
        conv.calls += 1

    conv.register_forward_pre_hook(count)
    return conv


def with_attribute(conv, name, value):
    setattr(conv, name, value)
    return conv


def with_importance(conv):
    conv.weight.importance = torch.ones_like(conv.weight)
    return conv


def smaller(conv):
    conv.weight = nn.Parameter(conv.weight[:, :1].detach())
    return conv


def quantization_aware(conv):
    return ConvBnReLU2d(3, 4, 3, qconfig=get_default_qat_qconfig("x86"))


CASES = {
    "standardized": (lambda c: Standardized(3, 4, 3), "a subclass of Conv2d: Standardized"),
    "same padding": (lambda c: SamePadded(3, 4, 3), "SamePadded"),
    "scaled": (lambda c: Scaled(3, 4, 3), "Scaled"),
    "_conv_forward": (lambda c: OtherConvForward(3, 4, 3), "OtherConvForward"),
    "weight": (lambda c: OtherWeight(3, 4, 3), "OtherWeight"),
    "lazy": (lambda c: nn.LazyConv2d(4, 3), "a subclass of Conv2d: LazyConv2d"),
    "ConvBnReLU2d": (quantization_aware, "a subclass of Conv2d: ConvBnReLU2d"),
    "weight_norm hook": (nn.utils.weight_norm, "further parameters: weight_g, weight_v"),
    "spectral_norm hook": (nn.utils.spectral_norm, "further parameters: weight_orig"),
    "weight_norm": (parametrizations.weight_norm, "parametrized: weight by _WeightNorm"),
    "spectral_norm": (parametrizations.spectral_norm, "parametrized: weight by _SpectralNorm"),
    "pruned": (lambda c: prune.random_unstructured(c, "weight", 0.5), "weight_orig"),
    "forward": (patched, "its forward is replaced on the instance"),
    "_conv_forward on it": (patched_conv_forward, "its _conv_forward is replaced"),
    "submodule": (with_child, "it has further modules: adapter"),
    "buffer": (with_buffer, "it has further buffers: mask"),
    "parameter": (with_parameter, "it has further parameters: alpha"),
    "parameter subclass": (
        lambda c: with_weight(c, OwnParameter(c.weight.data)), "its weight is a OwnParameter"
    ),
    "tensor subclass": (
        lambda c: with_weight(c, nn.Parameter(c.weight.data.as_subclass(OwnTensor))),
        "its weight is a OwnTensor",
    ),
    "mkldnn": (lambda c: with_weight(c, nn.Parameter(c.weight.data.to_mkldnn())), "_mkldnn"),
    "old backward hook": (with_old_backward_hook, "it has a hook of register_backward_hook"),
    "plain tensor": (plain_weight, "its weight is not among its parameters"),
    "gradient hook": (with_gradient_hook, "its weight has a gradient hook"),
    "accumulation hook": (with_accumulation_hook, "its bias has a gradient hook"),
    "state dict hook": (with_state_hook, "it has state_dict_hooks"),
    "loading hook": (with_load_hook, "it has load_state_dict_pre_hooks"),
    "hook with a reference": (with_own_hook, r"also held in 0\._forward_pre_hooks"),
    "attribute": (lambda c: with_attribute(c, "seed", 3), "its attribute seed means"),
    "view": (lambda c: with_attribute(c, "first", c.weight[0]), r"weight is shared with 0\.first"),
    "tensor of a weight": (with_importance, "its weight carries a tensor, importance"),
    "other shape": (smaller, "other shapes"),
    "compiled": (lambda c: c.compile(backend="eager") or c, "its _compiled_call_impl is replaced"),
}  # fmt: skip


# Detected only in a model with other modules, or if attributes are moved.
OF_MODELS = {"hook with a reference", "attribute", "view"}


@pytest.fixture(params=CASES)
def case(request):
    torch.manual_seed(0)
    make, reason = CASES[request.param]
    with warnings.catch_warnings():
        # PyTorch's own warnings about its old weight_norm and lazy modules.
        warnings.simplefilter("ignore")
        layer = make(nn.Conv2d(3, 4, 3))
    model = nn.Sequential(layer, nn.ReLU(), nn.Conv2d(4, 5, 1)).eval()
    if request.param in ("lazy", "mkldnn"):  # Not run: no weight yet, and inputs of another kind.
        return model, None, reason
    return model, torch.randn(2, layer.weight.size(1), 6, 6), reason


@torch.no_grad()
def test_it_is_left_alone_beside_others(case):
    model, x, reason = case
    expected = None if x is None else model(x)
    layer = model[0]
    with pytest.warns(UserWarning, match=f"convert_ left 1 of . convolutions alone: 0: .*{reason}"):
        convert_(model, learned=0.5, include="[02]")
    assert model[0] is layer
    assert type(model[2]) is MaskedConv2d
    report = conversion_report(model)
    assert report.converted == ("2",)
    assert list(report.left_alone) == ["0"]
    if x is not None:
        assert torch.equal(model(x), expected)


def test_it_is_an_error_where_it_is_named(case):
    model, _, reason = case
    before = list(model.modules())
    with pytest.raises(ValueError, match=f"include has '0', but .* leaves alone 0: .*{reason}"):
        convert_(model, learned=0.5, include=["0", "2"])
    with pytest.raises(ValueError, match=f"no nn.Conv2d to convert: 0: .*{reason}"):
        convert_(model, learned=0.5, exclude=["2", "*.adapter"] if "adapter" in reason else "2")
    assert all(now is then for now, then in zip(model.modules(), before, strict=True))


@pytest.mark.parametrize("case", sorted(CASES.keys() - OF_MODELS), indirect=True)
def test_the_layer_alone_is_refused(case):
    model, _, reason = case
    with pytest.raises(ValueError, match=f"conv is more than a plain Conv2d .*{reason}"):
        MaskedConv2d.from_conv2d(model[0], learned=1)


def test_reasons_are_grouped_in_one_warning():
    model = nn.Sequential(*(Scaled(3, 3, 1) for _ in range(6)), nn.Conv2d(3, 3, 1))
    with pytest.warns(UserWarning, match="left 6") as caught:
        convert_(model, learned=1)
    assert [str(w.message).partition(". ")[0] for w in caught] == [
        "convert_ left 6 of 7 convolutions alone: 0, 1, 2, 3 and 2 more: "
        "a subclass of Conv2d: Scaled"
    ]
    assert caught[0].filename == __file__


def test_no_warning_for_a_layer_that_is_excluded(recwarn):
    convert_(nn.Sequential(Scaled(3, 3, 1), nn.Conv2d(3, 3, 1)), learned=1, exclude="0")
    assert not recwarn.list


def test_nothing_changes_where_warnings_are_errors():
    model = nn.Sequential(Scaled(3, 3, 1), nn.Conv2d(3, 3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="left 1 of 2"):
            convert_(model, learned=1)
    assert type(model[1]) is nn.Conv2d


def test_a_layer_that_was_lazy_is_a_plain_one():
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    model(torch.randn(1, 3, 5, 5))
    assert type(convert_(model, learned=1)[0]) is MaskedConv2d


def test_attributes_set_after_construction_are_read():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model[0].padding, model[0].stride, model[0].dilation = (2, 1), (2, 2), (2, 1)
    x = torch.randn(2, 3, 9, 9)
    expected = model(x)
    assert torch.equal(convert_(model, learned=1)[0](x), expected)
    reflecting = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    reflecting[0].padding = (2, 2)
    with pytest.raises(ValueError, match="its _reversed_padding_repeated_twice was changed"):
        convert_(reflecting, learned=1)


class Held(nn.Module):
    """Calls its convolutions from a plain list, which conversion does not reach."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.steps = [("first", self.first)]

    def forward(self, x):
        for _, step in self.steps:
            x = step(x)
        return self.second(x)


def test_a_layer_in_a_plain_list_is_left_alone():
    model = Held()
    with pytest.warns(UserWarning, match="first: it is also held in steps"):
        convert_(model, learned=1)
    assert model.first is model.steps[0][1]


def test_tensors_without_memory_of_the_usual_kind_do_not_matter():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Module())
    model[1].sparse = nn.Parameter(torch.eye(3).to_sparse())
    model[1].register_buffer("compressed", torch.eye(3).to_sparse())
    assert type(convert_(model, learned=1)[0]) is MaskedConv2d


class Recorder:
    def __init__(self, layers):
        self.layers = list(layers)

    def hook(self, module, args, output):
        self.layers.append(module)


def test_a_layer_that_a_hook_of_another_refers_to_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    model[1].register_forward_hook(Recorder([model[0]]).hook)
    with pytest.warns(UserWarning, match=r"0: it is also held in 1\._forward_hooks"):
        convert_(model, learned=1)


def test_a_module_of_which_one_name_is_selected_is_left_alone():
    conv = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(conv, nn.Conv2d(3, 3, 1), conv)
    with pytest.warns(UserWarning, match="0: it is the same module as 2, which is not selected"):
        convert_(model, learned=1, exclude="2")
    assert model[0] is model[2] is conv
    assert type(model[1]) is MaskedConv2d
    with pytest.raises(ValueError, match=r"include has '0'.* same module as 2"):
        convert_(model, learned=1, include="0")
    assert convert_(model, learned=1)[0] is model[2] is not conv


def test_a_wrapped_model_is_refused():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Conv2d(3, 3, 1)))
        with pytest.raises(ValueError, match="model is a DistributedDataParallel"):
            convert_(model, learned=1)
        with pytest.raises(ValueError, match="0 is a DistributedDataParallel"):
            merge_(nn.Sequential(model))
    finally:
        torch.distributed.destroy_process_group()


def test_report():
    model = nn.Sequential(Scaled(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(2, 2))
    model[1] = MaskedConv2d(3, 3, 1, learned=1)
    report = conversion_report(model)
    assert report == maskedconv.ConversionReport(
        ("1",), ("2",), {"0": "a subclass of Conv2d: Scaled"}
    )
    assert str(report).splitlines() == [
        "1 converted, 1 convertible, 1 left alone",
        "0: a subclass of Conv2d: Scaled",
    ]


class Doubled(MaskedConv2d):
    def forward(self, input):
        return super().forward(input) * 2


def test_merge_leaves_alone_what_it_does_not_know():
    model = nn.Sequential(Doubled(3, 3, 1, learned=1), MaskedConv2d(3, 3, 1, learned=2))
    x = torch.randn(1, 3, 4, 4)
    expected = model(x)
    with pytest.warns(UserWarning, match="merge_ left 1 of 2 .*0: a subclass of MaskedConv2d: Dou"):
        merge_(model)
    assert [type(layer) for layer in model] == [Doubled, nn.Conv2d]
    torch.testing.assert_close(model(x), expected)
    with pytest.raises(ValueError, match=r"none of the model's .* can be merged: 0: a sub"):
        merge_(model)
    with pytest.raises(ValueError, match="more than a plain MaskedConv2d"):
        model[0].to_conv2d()


@pytest.mark.parametrize("learned", [0, 1, 3])
def test_merge_leaves_alone_hooks_of_parameters(learned):
    model = nn.Sequential(MaskedConv2d(3, 3, 1, learned=learned), MaskedConv2d(3, 3, 1, learned=2))
    model[0].register_state_dict_post_hook(lambda *args: None)
    model[1].learned.register_hook(lambda grad: grad)
    with pytest.raises(ValueError, match="0: it has state_dict_hooks; 1: its learned has a grad"):
        merge_(model)
