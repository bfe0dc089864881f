"""Convolutions that conversion leaves alone, and the reason that it gives for each."""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.ao.nn.intrinsic.qat import ConvBnReLU2d
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune


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
