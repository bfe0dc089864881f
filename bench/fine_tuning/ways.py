"""Ways to fine-tune a pretrained EfficientNet-lite0: networks, training step and files.

Every way learns the new classifier. The slices and LoRA change the 1×1 convolutions, and learn the
norms as well; they leave the others, which are depthwise except for the first, at their values.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import maskedconv
from examples.pretrained import WEIGHTS, backbone
from maskedconv import methods

CLASSES = 10
LEARNED = 0.1
HEAD = "classifier"
NORMS = ("bn1", "bn2", "bn3")
NOT_CONVERTED = ("conv_stem", "*.conv_dw")
LORA = "LoRA (peft)"
SLICES = f"p = {LEARNED}"
FUSED = f"{SLICES}, fuse_"


class Way(NamedTuple):
    """The learned part, and whether BatchNorm normalises with its running statistics."""

    name: str
    is_fixed: bool

    @property
    def statistics(self) -> str:
        return "fixed" if self.is_fixed else "of the batch"

    @property
    def label(self) -> str:
        return f"{self.name}, statistics {self.statistics}"

    @property
    def trained(self) -> Way:
        """The way that computes the same numbers; fuse_ changes none."""
        return self._replace(name=SLICES) if self.name == FUSED else self


def build(way: Way, seed: int) -> nn.Module:
    """The pretrained network, ready for training; ``seed`` draws the new parameters."""
    torch.manual_seed(seed)
    model = BUILDERS[way.name](way.is_fixed).to(memory_format=torch.channels_last).train()
    if way.is_fixed:
        # norm="frozen statistics" of convert_ does this, but not every way uses convert_.
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    if way.name == FUSED:
        maskedconv.fuse_(model, torch.randn(2, 3, 64, 64))
    return model


def learned_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def optimizer_of(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(learned_parameters(model), lr=rate)


def step_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    """One training step, of images [N, 3, H, W] and labels int64 [N]."""
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def save(model: nn.Module, folder: Path) -> int:
    """Writes the learned values to ``folder``; returns the bytes of the files needed to load."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return sum(path.stat().st_size for path in folder.glob("adapter_*"))
    maskedconv.save(model, folder / "task.safetensors", base=WEIGHTS)
    return (folder / "task.safetensors").stat().st_size


def restored(way: Way, folder: Path) -> nn.Module:
    """Another pretrained network with the files of :func:`save`, in evaluation mode."""
    if way.name == LORA:
        return peft().PeftModel.from_pretrained(backbone(CLASSES), folder).eval()
    return maskedconv.load(build(way, seed=1), folder / "task.safetensors").eval()


def peft() -> ModuleType:
    """The package; ImportError says how to install it."""
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise ImportError(
            f"peft cannot be imported ({error}), and {LORA} needs it: pip install peft"
        ) from error


def lora_rank(layers: Iterable[nn.Conv2d]) -> int:
    """The rank at which LoRA of 1×1 ``layers`` learns about as many values as their slices."""
    layers = list(layers)
    slices = sum(round(LEARNED * layer.out_channels) * layer.in_channels for layer in layers)
    return round(slices / sum(layer.in_channels + layer.out_channels for layer in layers))


def _full(is_fixed: bool) -> nn.Module:
    return backbone(CLASSES)


def _head(is_fixed: bool) -> nn.Module:
    return maskedconv.select_learned_(backbone(CLASSES), HEAD, bn_learned=False)


def _norms(is_fixed: bool) -> nn.Module:
    return _converted(methods.norm_only(), is_fixed)


def _slices(is_fixed: bool) -> nn.Module:
    return _converted(methods.slice(LEARNED), is_fixed)


def _converted(method: methods.Method, is_fixed: bool) -> nn.Module:
    return maskedconv.convert_(
        backbone(CLASSES),
        method=method,
        exclude=NOT_CONVERTED,
        norm="frozen statistics" if is_fixed else "learned",
        head=HEAD,
        rest="freeze",
    )


def _lora(is_fixed: bool) -> nn.Module:
    # peft stores BatchNorm's statistics only of norms that it saves in full.
    model = backbone(CLASSES)
    targets = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    }
    rank = lora_rank(targets.values())
    config = peft().LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(targets), modules_to_save=[HEAD, *NORMS]
    )
    adapted: nn.Module = peft().get_peft_model(model, config)
    return adapted


BUILDERS: dict[str, Callable[[bool], nn.Module]] = {
    "full": _full,
    "head": _head,
    "norms and head": _norms,
    SLICES: _slices,
    FUSED: _slices,
    LORA: _lora,
}
WAYS = tuple(Way(name, is_fixed) for name in BUILDERS for is_fixed in (False, True))
TRAINED = tuple(way for way in WAYS if way.trained == way)
