"""Layers that are more than a plain convolution are skipped and reported with the reason."""

from __future__ import annotations

import warnings

import pytest
import torch
from odd_convolutions import CASES, OF_MODELS, Scaled
from torch import nn

import maskedconv
from maskedconv import MaskedConv2d, conversion_report, convert_, merge_


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
    with pytest.warns(UserWarning, match=f"convert_ left 1 of . layers alone: 0: .*{reason}"):
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
        convert_(model, learned=1, rest="learn")
    assert [str(w.message).partition(". ")[0] for w in caught] == [
        "convert_ left 6 of 7 layers alone: 0, 1, 2, 3 and 2 more: a subclass of Conv2d: Scaled"
    ]
    assert caught[0].filename == __file__


def test_no_warning_for_a_layer_that_is_excluded(recwarn):
    convert_(
        nn.Sequential(Scaled(3, 3, 1), nn.Conv2d(3, 3, 1)), learned=1, exclude="0", rest="learn"
    )
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
    model = nn.Sequential(
        Scaled(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(2, 2), nn.BatchNorm1d(2)
    )
    model[1] = MaskedConv2d(3, 3, 1, learned=1)
    model[3].bias.requires_grad_(False)
    model[4].requires_grad_(False)
    report = conversion_report(model)
    assert report == maskedconv.ConversionReport(
        converted=("1",),
        convertible=("2",),
        left_alone={"0": "a subclass of Conv2d: Scaled"},
        learned=4,
        others={"0": ("Scaled", 12, 0), "2": ("Conv2d", 12, 0), "3": ("Linear", 4, 2)},
        norms={"4": ("BatchNorm1d", 0, 4)},
        which={},
    )
    assert str(report).splitlines() == [
        "1 converted, 1 convertible, 1 left alone",
        "0: a subclass of Conv2d: Scaled",
        "converted: 4 values learned",
        "norms, frozen: 1 BatchNorm1d (4), 0 values learned, 4 frozen",
        "not converted, learned: 1 Scaled (0), 12 values learned, 0 frozen",
        "not converted, learned: 1 Conv2d (2), 12 values learned, 0 frozen",
        "not converted, learned in part: 1 Linear (3), 4 values learned, 2 frozen",
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
