"""Ensembles whose members share their frozen values."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from maskedconv.checkpoint import save
from maskedconv.checkpoint.loading import load_together
from maskedconv.checkpoint.masks import check_scores_used
from maskedconv.checks import check_int
from maskedconv.nn.drawing import draw_learned_
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.rerandomise import rerandomises
from maskedconv.seeds import Purpose, mixed_seed
from maskedconv.slices import check_seed


class Ensemble(nn.Module):
    """Copies of a model that are trained separately and share their frozen values.

    Frozen are the buffers of partly learned layers and the parameters that do not require a
    gradient when the ensemble is made. They stay shared under ``.to()`` of the ensemble, in copies
    and in pickles of it; ``.to()`` of a member copies them.
    Weights that a supermask draws anew during training (``rerandomise_every``) are not shared.
    Members are trained one by one, as ``ensemble.members[i]``, or through the sum of their losses.

    Args:
        model: the start of every member; it shares its frozen values as well.
        members: how many there are, at least 1.
        seed: draws the learned part of each member anew, from a seed of its own; None keeps the
            values of ``model``. Other modules draw their learned values by ``reset_parameters``.

    Call with what a member takes; the output is ``[members, ...]``.

    Raises:
        TypeError, ValueError: ``members`` is no whole number of at least 1, or ``seed`` neither an
            int nor None; or a layer cannot be drawn anew from it, as of ``random_positions``.

    Warns:
        UserWarning: no ``reset_parameters`` sets a learned value, which keeps that of ``model``.
    """

    def __init__(self, model: nn.Module, members: int, *, seed: int | None = None) -> None:
        super().__init__()
        check_int("members", members, 1)
        check_seed(seed)
        shared = {id(tensor): tensor for tensor in _frozen(model).values()}
        self.members = nn.ModuleList(copy.deepcopy(model, dict(shared)) for _ in range(members))
        if seed is not None:
            for index, member in enumerate(self.members):
                draw_learned_(member, mixed_seed(seed, index, Purpose.MEMBER))

    def forward(self, *arguments: Any) -> Tensor:
        """The outputs of all members, ``[members, N, classes]`` for a classifier."""
        return torch.stack([member(*arguments) for member in self.members])

    def mean(self, *arguments: Any) -> Tensor:
        """The mean of the members' outputs, ``[N, classes]``."""
        return self(*arguments).mean(0)

    def probabilities(self, *arguments: Any) -> Tensor:
        """The mean of the members' softmax over the last dimension, ``[N, classes]``."""
        return self(*arguments).softmax(-1).mean(0)

    def disagreement(self, *arguments: Any) -> Tensor:
        """Share of the pairs of members that predict different classes, ``[N]``, in [0, 1].

        Raises:
            ValueError: there is one member only.
        """
        count = len(self.members)
        if count < 2:
            raise ValueError("the ensemble has 1 member; expected at least 2 to disagree")
        chosen = self(*arguments).argmax(-1)
        different = (chosen.unsqueeze(0) != chosen.unsqueeze(1)).sum((0, 1))
        return different / (count * (count - 1))

    def save(self, folder: str | Path, *, masks: bool = False) -> None:
        """Writes ``member_0.safetensors`` with the frozen values, and the others without them.

        A member with frozen values that it does not share has all of them in its file. Files of
        members that are in the folder are replaced once all are written; those of further members,
        as of a larger ensemble, are removed.

        Args:
            masks: as of :func:`maskedconv.save`.

        Raises:
            ValueError, OSError: as :func:`maskedconv.save`.
        """
        if not masks:
            check_scores_used(self.members, "masks=True")
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as new:
            self._write(new, masks)
            for index in range(len(self.members)):
                _file(new, index).replace(_file(folder, index))
        for index in _saved(folder):
            if index >= len(self.members):
                _file(folder, index).unlink()

    def _write(self, folder: str, masks: bool) -> None:
        first = _file(folder, 0)
        held = {id(tensor) for _, _, tensor in _entries(self.members[0])}
        for index, member in enumerate(self.members):
            # The first file has what the members share, and not what one of them froze later.
            alone = any(id(tensor) not in held for tensor in _frozen(member).values())
            whole = index == 0 or alone
            base = None if whole else first
            save(member, _file(folder, index), frozen=whole, masks=masks, base=base)

    def load(self, folder: str | Path) -> Self:
        """Loads the files of :meth:`save` into the members. A failed load changes nothing.

        Equal values that are frozen in the files, and were learned in plain members, become shared.

        Raises:
            ValueError, OSError: as :func:`maskedconv.load`; there is another number of files; or
                they have different values for what the members share.
        """
        found = len(_saved(folder))
        if found != len(self.members):
            raise ValueError(f"{folder} has {found} members; expected {len(self.members)}")
        before = [tensor for member in self.members for tensor in _frozen(member).values()]
        load_together(list(self.members), [_file(folder, i) for i in range(found)])
        self._share({id(tensor) for tensor in before})
        return self

    def _share(self, known: set[int]) -> None:
        """Makes one tensor of equal frozen values of the members, except those with these ids."""
        shared: dict[tuple[Any, ...], Tensor] = {}
        for member in self.members:
            for name, tensor in _frozen(member).items():
                if id(tensor) not in known:
                    one = shared.setdefault((name, tensor.dtype, tensor.device), tensor)
                    if torch.equal(one, tensor):
                        path, _, key = name.rpartition(".")
                        setattr(member.get_submodule(path), key, one)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = list(_entries(self.members))
        super()._apply(fn, recurse)
        # One tensor stays one tensor. Values that were frozen later were never shared.
        after: dict[int, Any] = {}
        for entries, key, tensor in before:
            entries[key] = after.setdefault(id(tensor), entries[key])
        return self


def _entries(members: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """The registry, its key, and the tensor of every parameter and buffer."""
    for module in members.modules():
        for entries in (module._parameters, module._buffers):
            yield from ((entries, key, one) for key, one in entries.items() if one is not None)


def _file(folder: str | Path, index: int) -> Path:
    return Path(folder) / f"member_{index}.safetensors"


def _saved(folder: str | Path) -> list[int]:
    """The indices of the members that have a file in the folder."""
    paths = Path(folder).glob("member_*.safetensors")
    indices = [(path, path.stem.removeprefix("member_")) for path in paths]
    return [int(i) for path, i in indices if i.isdecimal() and path == _file(folder, int(i))]


def _frozen(model: nn.Module) -> dict[str, Tensor]:
    """The tensor of every frozen value, by its name."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        own = [(key, p) for key, p in module.named_parameters(recurse=False) if not p.requires_grad]
        if isinstance(module, PartlyLearned) and not rerandomises(module):
            own += [(key, getattr(module, key)) for key in module.frozen_buffers()]
        found |= {f"{name}.{key}": tensor for key, tensor in own if tensor is not None}
    return found
