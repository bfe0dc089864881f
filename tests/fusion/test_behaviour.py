"""Fused models behave as plain ones, and what cannot be computed again is left alone and named."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from fused_passes import assert_same, run_pass
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.ops import FrozenBatchNorm2d

from maskedconv import fuse_, unfuse_

IMAGES = torch.randn(2, 3, 12, 12, dtype=torch.float64)


def chain(*norms: nn.Module, activation: nn.Module | None = None) -> nn.Sequential:
    """Convolution, norm, ReLU, and so on, in double precision."""
    layers: list[nn.Module] = []
    for index, norm in enumerate(norms or (nn.BatchNorm2d(8), nn.BatchNorm2d(8))):
        layers += [nn.Conv2d(8 if index else 3, 8, 3, padding=1), norm]
        layers.append(activation or nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(8, 4, 3)).double()


def check(model: nn.Module, share: float = 0.8) -> None:
    plain = run_pass(model, IMAGES)
    fuse_(model, IMAGES)
    fused = run_pass(model, IMAGES)
    assert_same(fused, plain)
    assert fused.kept < share * plain.kept


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True), nn.SiLU()),
        *(nn.SiLU(inplace=True), nn.Hardswish(), nn.Hardswish(inplace=True), nn.GELU()),
        *(nn.LeakyReLU(0.1), nn.LeakyReLU(0.1, inplace=True), nn.ELU(), nn.ELU(inplace=True)),
        *(nn.Mish(), nn.Mish(inplace=True), nn.Sigmoid(), nn.Tanh(), nn.Softplus()),
    ],
    ids=repr,
)
def test_activations(activation):
    check(chain(activation=activation))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(8, momentum=None),
        nn.BatchNorm2d(8, affine=False),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.GroupNorm(2, 8),
        nn.InstanceNorm2d(8),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.LayerNorm([8, 12, 12]),
        nn.RMSNorm([8, 12, 12]),
    ],
    ids=repr,
)
def test_norms(norm):
    check(chain(norm, copy.deepcopy(norm)))
    model = chain(norm, copy.deepcopy(norm)).eval()
    expected = run_pass(model, IMAGES)
    fuse_(model, IMAGES)
    assert_same(run_pass(model, IMAGES), expected)


def test_hooks_subclasses_and_shared_modules():
    class Doubled(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input) * 2

    shared = nn.BatchNorm2d(8)
    model = chain(shared, Doubled(8), shared)
    seen = []
    model[1].register_forward_hook(lambda module, args, output: output + 1)
    model[4].register_forward_hook(lambda module, args, output: output.mul_(3))
    model[4].register_full_backward_hook(lambda *args: seen.append("backward"))
    check(model)
    assert seen


def test_a_forward_pass_in_training_before_the_backward_pass():
    """Changes running statistics that were used in evaluation mode."""
    model = chain().eval()
    results = []
    for _ in range(2):
        model.zero_grad()
        before = copy.deepcopy(model.state_dict())
        output = model(IMAGES)
        with torch.no_grad():
            model.train()(IMAGES * 5)
        output.sum().backward()
        results.append(model[-1].weight.grad.clone())
        model.eval().load_state_dict(before)
        fuse_(model, IMAGES)
    assert torch.equal(*results)


class Custom(nn.Module):
    """Computes in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3)
        self.double()


class Changing(Custom):
    """Changes a tensor without a trace after it was used."""

    def forward(self, input):
        scale = torch.ones(1, 8, 1, 1, dtype=torch.float64)
        result = self.out(F.relu(self.norm(self.conv(input)) * scale))
        scale.data.mul_(2)
        return result


@pytest.mark.parametrize("inside", [False, True])
def test_values_that_change_without_a_trace_are_left_alone(inside):
    model: nn.Module = Changing()
    if inside:
        model.out = nn.Conv2d(8, 3, 3, padding=3).double()
        model = nn.Sequential(model, chain())
    plain = run_pass(model, IMAGES)
    with pytest.warns(UserWarning, match="left alone .*differs when it is computed again"):
        report = fuse_(model, IMAGES)
    assert "0" in report.left_alone if inside else report.left_alone.keys() == {""}
    assert report.fused == (("1.1", "1.4") if inside else ())
    fused = run_pass(model, IMAGES)
    assert_same(fused, plain)
    assert fused.kept < plain.kept if inside else fused.kept == plain.kept


def test_a_part_of_a_concatenation_that_is_changed_later():
    class Changing(Custom):
        def forward(self, input):
            first, second = self.conv(input), self.conv(input * 2)
            joined = torch.cat((first, second))
            result = self.out(F.relu(self.norm(joined)))
            first.mul_(2)
            return result + first[:, :2, 1:-1, 1:-1].mean()

    model = Changing()
    plain = run_pass(model, IMAGES)
    with pytest.warns(UserWarning, match="left alone"):
        fuse_(model, IMAGES)
    assert_same(run_pass(model, IMAGES), plain)


def test_norms_of_their_own_kind_are_named():
    class OwnNorm(nn.Module):
        def forward(self, input):
            return input - input.mean((2, 3), keepdim=True)

    model = chain(nn.BatchNorm2d(8), FrozenBatchNorm2d(8), OwnNorm())
    plain = run_pass(model, IMAGES)
    with pytest.warns(UserWarning, match="does not compute by a norm of torch.nn.functional"):
        report = fuse_(model, IMAGES)
    assert set(report.left_alone) == {"4", "7"}
    assert report.fused == ("1",)
    assert "left alone: 4: FrozenBatchNorm2d" in str(report)
    assert_same(run_pass(model, IMAGES), plain)


def test_an_error_ends_the_pass():
    model = chain()
    plain = run_pass(model, IMAGES)
    fuse_(model, IMAGES)
    with pytest.raises(RuntimeError):
        model(IMAGES[:, :2])
    assert torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    fused = run_pass(model, IMAGES)
    assert_same(fused, plain)
    assert fused.kept < plain.kept


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_stay_fused(copied):
    model = chain()
    plain = run_pass(model, IMAGES)
    fuse_(model, IMAGES)
    again = run_pass(copied(model), IMAGES)
    assert_same(again, plain)
    assert again.kept < plain.kept
    assert run_pass(unfuse_(model), IMAGES).kept == plain.kept
    assert not model._forward_pre_hooks
    assert not model._forward_hooks_always_called


def test_several_backward_passes():
    """Passes through one graph, through a part of it, and through a gradient."""
    results = []
    model = chain()
    for _ in range(2):
        images = IMAGES.clone().requires_grad_()
        output = model(images)
        first = torch.autograd.grad(output.sum(), images, retain_graph=True)[0]
        part = torch.autograd.grad(output[0, 0, 0, 0], model[-1].weight, retain_graph=True)[0]
        gradient = torch.autograd.grad(output.square().sum(), images, create_graph=True)[0]
        second = torch.autograd.grad(gradient.square().sum(), model[0].weight)[0]
        results.append((first, part, gradient.detach(), second))
        fuse_(model, IMAGES)
    for ours, plain in zip(*results, strict=True):
        assert torch.equal(ours, plain)


def test_nested_models_and_surrounding_hooks():
    inner = chain()
    model = nn.Sequential(inner, nn.BatchNorm2d(4).double(), nn.ReLU(), nn.Conv2d(4, 2, 1).double())
    plain = run_pass(model, IMAGES)
    fuse_(inner, IMAGES)
    fuse_(model, IMAGES)
    fused = run_pass(model, IMAGES)
    assert_same(fused, plain)
    assert fused.kept < 0.7 * plain.kept
    with torch.autograd.graph.save_on_cpu():
        model(IMAGES).sum().backward()


def test_activation_checkpointing():
    class Checkpointed(Custom):
        def forward(self, input):
            hidden = self.conv(input)
            hidden = checkpoint(lambda x: F.relu(self.norm(x)), hidden, use_reentrant=False)
            return self.out(F.relu(hidden * 2))

    model = Checkpointed()
    plain = run_pass(model, IMAGES)
    fuse_(model, IMAGES)
    assert_same(run_pass(model, IMAGES), plain)


def test_autocast():
    model, images, gradients = chain().float(), IMAGES.float(), []
    for _ in range(2):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            model(images).float().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        fuse_(model, images)
    for ours, plain in zip(*gradients, strict=True):
        assert torch.equal(ours, plain)


def test_graphs_are_recorded_as_before():
    model = chain()
    plain = run_pass(model, IMAGES)
    fuse_(model, IMAGES)
    expected = model.eval()(IMAGES)
    assert torch.equal(torch.jit.trace(model, IMAGES)(IMAGES), expected)
    assert torch.equal(torch.export.export(model, (IMAGES,)).module()(IMAGES), expected)
    parameters = dict(model.named_parameters())
    gradients = torch.func.grad(
        lambda values: torch.func.functional_call(model, values, (IMAGES,)).sum()
    )(parameters)
    assert gradients.keys() == parameters.keys()
    model.train()
    compiled = torch.compile(model, backend="eager")
    assert_same(run_pass(model, IMAGES), plain)
    assert torch.equal(compiled(IMAGES).detach(), plain.output)


def test_a_fused_model_is_scripted_only_after_unfuse():
    model = chain().eval()
    fuse_(model, IMAGES)
    with pytest.raises(RuntimeError, match="attached"):
        torch.jit.script(model)
    assert torch.equal(torch.jit.script(unfuse_(model))(IMAGES), model(IMAGES))


def test_the_model_is_as_before():
    model = chain()
    model.train()[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    fuse_(model, IMAGES)
    assert model.training
    assert not model[1].training
    assert model[0].weight.grad.eq(1).all()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_bad_arguments():
    model = chain()
    with pytest.raises(ValueError, match="inputs are missing; expected what the model is called"):
        fuse_(model)
    with pytest.raises(ValueError, match=r"0 is a DataParallel; fuse the model before it is"):
        fuse_(nn.Sequential(nn.DataParallel(model)), IMAGES)
    with pytest.raises(ValueError, match="no output that depends on a parameter that requires"):
        fuse_(model.requires_grad_(False), IMAGES)
