"""Tasks: files of single tasks, and batches of several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maskedconv import checkpoint
from maskedconv.nn.scored import scored_layers
from maskedconv.superposition import infer, merged
from maskedconv.tasks.mixed import Mixed
from maskedconv.tasks.rows import Order, order_of, rows_of
from maskedconv.tasks.switching import Switching


class Tasks(Switching):
    """Several tasks over one model, of which one is active. The frozen values exist once.

    A task has its own values of everything that is learned: parameters that require a gradient,
    buffers that are not frozen (running statistics, positions drawn by ``convert_``), and the head.
    Values that are frozen at construction are shared by all tasks. A switch exchanges references
    and copies nothing, so that an optimizer of a task's parameters stays valid while other tasks
    are active::

        tasks = Tasks(model, head="fc")
        tasks.add("flowers")
        tasks.add("birds", head=nn.Linear(512, 200))
        optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1)
        ...  # train the birds
        tasks.set("flowers")

    ``model`` stays the module that computes, with the values of the active task. ``.to()``,
    ``parameters()``, ``state_dict()``, copies and pickles of this module are those of all tasks.
    After it was made, the model is neither converted nor merged, nor is more of it unfrozen.

    A backward pass that computes parts of the model again (activation checkpointing) does so with
    the values of the task of the forward pass, if that was a call of these tasks or of ``model``.
    Calls of several threads run one at a time, and so do blocks of :meth:`using`; a call of
    ``model`` outside of such a block may meet another task.

    Args:
        model: of any method; converted, if it is to be.
        head: name of a module of which each task has its own copy; output sizes may differ.

    Attributes:
        model: the model with the values of the active task.

    Raises:
        TypeError, ValueError: there is no such head, or other modules use parts of it. The model
            draws frozen weights anew in training (``rerandomise_every``), is wrapped by
            DistributedDataParallel, has an extra state, holds a learned value that is no plain
            entry of its module, as ``nn.LSTM`` does, or has the values of another ``Tasks``.
    """

    def __init__(self, model: nn.Module, *, head: str | None = None) -> None:
        super().__init__(model, head=head)
        self._mixed = Mixed(model, self._places)

    def save(self, name: str, path: str | Path, **options: Any) -> None:
        """Writes one task to a file, without the frozen values, as :func:`maskedconv.save`.

        Args:
            options: of :func:`maskedconv.save`.

        Raises:
            ValueError, OSError: as :func:`maskedconv.save`; there is no such task; or a layer uses
                the mask of a task of ``Supermasks``, and ``masks`` is not True.
        """
        with self._alone(), self._switched(name):
            checkpoint.save(self.model, path, **options)

    def load(self, name: str, path: str | Path, *, head: nn.Module | None = None) -> None:
        """Adds a task from a file of :meth:`save` or :func:`maskedconv.save`; makes it active.

        Args:
            name: of the new task.
            head: of the size that the file has; None for a copy of the present one. Its values
                become those of the file.

        Raises:
            ValueError, OSError: as :func:`maskedconv.load`; the task exists; or the frozen values
                or the layers of the file are not those of the model. The tasks are then as before.
            RuntimeError: another thread is within :meth:`using`.
        """
        with self._alone(), self._added(name, head, copied=bool(self.names)):
            # The copy of a task with a held mask would go on using it.
            for layer in scored_layers(self.model):
                layer.hold_mask(None)
            checkpoint.load(self.model, path, keep_frozen=True)

    def forward(
        self, *arguments: Any, task_ids: Sequence[str] | Tensor | None = None, **options: Any
    ) -> Any:
        """The output of the model for the active task, or for the tasks of ``task_ids``.

        A batch of several tasks gives what each gives for its rows alone, and gradients reach the
        parameters of each. In evaluation, modules that all tasks share run once on the whole batch,
        and so do BatchNorm and the frozen filters of convolutions that learn output filters
        (``slice_dim`` 0, without groups). Results may then differ by rounding. The first batch of
        each shape runs twice more with one added row: jointly, and one task after another. If the
        outputs differ by more than √ε of the largest, with the ε of the least precise type in use,
        or if the model cannot run jointly, a warning says why, and one task is computed after
        another. The same holds in training and under ``saved_tensors_hooks``.

        Args:
            arguments: of the model; with ``task_ids``, the first is a tensor ``[N, ...]``, and all
                tensors of N rows are divided.
            task_ids: a name for each row, or int64 ``[N]``, indices of :attr:`names`.
            options: of the model; none with ``task_ids``.

        Returns:
            The output of the model; with ``task_ids``, a tensor ``[N, ...]`` in the order of the
            batch.

        Raises:
            TypeError, ValueError: ``task_ids`` do not fit, or the model returns no tensor of N
                rows, or tensors of different sizes; see :meth:`rows`; or there are no tasks.
            RuntimeError: a backward pass computes the whole model again, and nothing says for
                which task, as under ``checkpoint(model, x, use_reentrant=True)``.
        """
        if task_ids is None:
            with self._alone():
                return self.model(*arguments, **options)
        if options:
            raise TypeError(f"{next(iter(options))} is given with task_ids; expected positions")
        outputs, order = self._mixed_outputs(arguments, task_ids)
        pairs = zip(order.groups, outputs, strict=True)
        sizes = {group.task: list(output.shape[1:]) for group, output in pairs}
        if len({str(size) for size in sizes.values()}) > 1:
            raise ValueError(
                f"the outputs of the tasks differ in size ({sizes}); expected one size, or a call "
                "of rows(), which returns a list"
            )
        return order.joined(outputs)

    def rows(self, *arguments: Any, task_ids: Sequence[str] | Tensor) -> list[Tensor]:
        """As :meth:`forward`, for heads of different sizes: the output of each row, in a list.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        outputs, order = self._mixed_outputs(arguments, task_ids)
        return order.listed(outputs)

    def infer(self, *arguments: Any) -> str:
        """The task that a batch is probably of, by one gradient step (Wortsman et al. 2020).

        All values are the mean over the tasks. The result is the task whose coefficient, if
        increased, lowers the entropy of the output the most; see :mod:`maskedconv.superposition`.
        The source does this for supermasks; the other methods are an extension of this package.
        More inputs make the result more certain.

        Args:
            arguments: of the model, of one task, such as ``[N, C, H, W]``; the output is
                ``[N, classes]``.

        Raises:
            ValueError: there are no tasks, heads differ in size, or a layer cannot be merged.
        """
        if not self.names:
            raise ValueError("there are no tasks; expected at least one")
        with self._alone():
            return infer({name: partial(self._merged, name) for name in self.names}, *arguments)

    def _merged(self, name: str) -> nn.Module:
        with self._switched(name):
            return merged(self.model)

    def _mixed_outputs(
        self, arguments: Sequence[Any], task_ids: Sequence[str] | Tensor
    ) -> tuple[list[Tensor], Order]:
        first = arguments[0] if arguments else None
        if not isinstance(first, Tensor) or rows_of(first) < 0:
            raise TypeError("task_ids is given; expected a tensor [N, ...] as the first argument")
        if not self.names:
            raise ValueError("there are no tasks; expected at least one")
        with self._alone():
            order = order_of(task_ids, self.names, rows_of(first))
            return self._mixed.outputs(self, arguments, order), order
