"""A model with several tasks, one of them active, switched by reference."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

from torch import Tensor, nn

from maskedconv.nn.drawing import draw_learned_
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.tasks.arguments import check_head, check_name
from maskedconv.tasks.following import Following
from maskedconv.tasks.names import entry_names
from maskedconv.tasks.places import Value, check_not_taken, copies_of, find_places, write
from maskedconv.tasks.stored import Stored, check_alike, count_bytes, make_stored, take_mode
from maskedconv.tasks.turns import Turns

# All that exist: two over one module would each store the other's values as its own.
_EXISTING: weakref.WeakSet[Switching] = weakref.WeakSet()


class Switching(nn.Module):
    """The part of :class:`maskedconv.Tasks` that holds, adds and switches tasks.

    The values of each task are in modules with the names of the model's, and those of the active
    one in the model too. So ``nn.Module`` itself finds all of them, in an order and under names
    that do not depend on which task is active. Calls of all threads run one at a time.
    """

    def __init__(self, model: nn.Module, *, head: str | None = None) -> None:
        super().__init__()
        self._head = head
        self._places = find_places(model, head)
        check_not_taken(self._places, [one._places for one in _EXISTING])
        self._layers = [one for one in model.modules() if isinstance(one, PartlyLearned)]
        self._stored: dict[str, Stored] = {}
        self._active: str | None = None
        # Before the model, so that a value of the active task is found here first.
        self.tasks = nn.Module()
        self.model = model
        self._following = Following()
        self._following.register(model)
        self._prepare()

    def _prepare(self) -> None:
        """Makes the attributes that a copy or pickle does not have."""
        self._turns = Turns()
        self._is_empty = False  # whether the model has no values of any task
        self._following.attach(self)
        _EXISTING.add(self)

    def __getstate__(self) -> dict[str, Any]:
        with self._alone():
            if self._is_empty:
                raise RuntimeError("a batch of several tasks runs; expected a copy after it")
            state = vars(self).items()
            return {key: one for key, one in state if key not in ("_turns", "_is_empty")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As without this method, but no other thread changes the tasks meanwhile."""
        other = memo[id(self)] = type(self).__new__(type(self))
        with self._alone():
            other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, in the order in which they were added."""
        return tuple(self._stored)

    @property
    def active(self) -> str | None:
        """The task whose values the model has; None if there are no tasks."""
        return self._active

    def add(self, name: str, *, head: nn.Module | None = None, seed: int | None = None) -> None:
        """Adds a task that starts as a copy of the active one, and makes it active.

        The first task takes the model's own values, unless there is a ``seed``.

        Args:
            name: not empty, and without a dot.
            head: of this task; None for a copy of the present one.
            seed: draws the learned values anew, as :class:`maskedconv.Ensemble` does.

        Raises:
            TypeError, ValueError: an argument is not one of these, the task exists, ``head`` has a
                part of another task or of the model, or the values cannot be drawn anew. The tasks
                are then as before.
            RuntimeError: another thread is within :meth:`using`.
        """
        copied = bool(self._stored) or seed is not None
        with self._alone(), self._added(name, head, copied=copied):
            if seed is not None:
                draw_learned_(self.model, seed)

    def set(self, name: str) -> None:
        """Makes a task active. Nothing is copied.

        Raises:
            ValueError: there is no such task, or the model alone was moved to another device or
                dtype.
            RuntimeError: another thread is within :meth:`using`.
        """
        with self._alone():
            self._turns.check()
            self._switch(name)

    def _switch_in_backward(self, name: str) -> bool:
        """Makes a task active that may not exist any more; says whether it does."""
        with self._turns.alone(always=True):
            if exists := name in self._stored:
                self._switch(name)
            return exists

    def _switch(self, name: str) -> None:
        stored = self._task(name)
        if name != self._active:
            present = self._present()
            check_alike(name, stored.values(), present)
            self._stored[str(self._active)].fill(present)
            self._put(stored.values())
            self._active = name
        self._following.switched()

    def _alone(self) -> AbstractContextManager[None]:
        """Context that other threads wait for."""
        return self._turns.alone()

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Context in which a task is active, and after it the one before.

        It is for one thread; others may call the tasks within it, and use the same task.

        Raises:
            ValueError: as :meth:`set`.
            RuntimeError: another thread is within such a context.
        """
        with self._turns.of_this_thread(), self._switched(name):
            yield

    @contextmanager
    def _switched(self, name: str) -> Iterator[None]:
        """As :meth:`using`, within a call that other threads wait for."""
        with self._alone():
            # There is one, or the switch fails.
            before = str(self._active)
            self._switch(name)
            self._turns.returns.append(before)
        try:
            yield
        finally:
            with self._alone():
                self._turns.returns.pop()
                self._switch(before)

    def remove(self, name: str) -> None:
        """Removes a task. After the last one, the model keeps its values.

        Raises:
            ValueError: there is no such task; or it is active, and others exist; or a block of
                :meth:`using` makes it active again at its end.
        """
        with self._alone():
            self._task(name)
            if name == self._active and len(self._stored) > 1:
                raise ValueError(f"task {name!r} is active; expected another, so set one first")
            if name in self._turns.returns:
                raise ValueError(
                    f"task {name!r} is made active again at the end of using(); expected another, "
                    "or a call after that"
                )
            self._forget(name)
            if name == self._active:
                self._active = None

    def nbytes(self, name: str) -> int:
        """Bytes in memory of a task's own values.

        Raises:
            ValueError: there is no such task.
        """
        with self._alone():
            stored = self._task(name)
            return count_bytes(self._present() if name == self._active else stored.values())

    def named_modules(self, *arguments: Any, **options: Any) -> Any:
        """As ``nn.Module``, after the model's values are stored as those of the active task."""
        self._store_present()
        return super().named_modules(*arguments, **options)

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """All tasks, ``tasks.<name>.<...>``, and once what they share, ``model.<...>``."""
        with self._alone():
            self._store_present()
            state = super().state_dict(*arguments, **options)
            for name, _ in self._active_names():
                state.pop(f"{options.get('prefix', '')}model.{name}", None)
        return state

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """As ``nn.Module``, of all tasks."""
        with self._alone():
            return super().load_state_dict(*arguments, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        with self._alone():
            if self._active is not None:  # A buffer in two places would become two.
                self._stored[self._active].fill([None] * len(self._places))
            try:
                return super()._apply(fn, recurse)
            finally:
                self._store_present()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self._store_present()
        for name, own in self._active_names():
            if (key := f"{prefix}tasks.{self._active}.{own}") in state_dict:
                state_dict[f"{prefix}model.{name}"] = state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _active_names(self) -> list[tuple[str, str]]:
        """Names of the active task's values in the model, and under which they are stored."""
        return [] if self._active is None else entry_names(self.model, self._places)

    def _task(self, name: str) -> Stored:
        if name not in self._stored:
            known = ", ".join(self._stored) or "none"
            raise ValueError(f"name is {name!r}; expected one of the tasks: {known}")
        return self._stored[name]

    def _present(self) -> list[Value]:
        return [place.value for place in self._places]

    def _store_present(self) -> None:
        """Stores the values that the model has now, which others may have put there."""
        with self._alone():
            if self._active is not None and not self._is_empty:
                self._stored[self._active].fill(self._present())

    def _put(self, values: list[Value]) -> None:
        """Gives the model the values of a task."""
        if self._head is not None:
            take_mode(values[0], self._places[0].value)
        write(self._places, values)
        for layer in self._layers:
            layer.values_replaced()

    @contextmanager
    def _emptied(self) -> Iterator[dict[str, list[Value]]]:
        """Context in which the model has no values of a task; gives those of all."""
        self._store_present()
        self._is_empty = True
        write(self._places, [None] * len(self._places))
        self._following.switched()
        try:
            yield {name: one.values() for name, one in self._stored.items()}
        finally:
            self._put(self._stored[str(self._active)].values())
            self._is_empty = False

    @contextmanager
    def _added(self, name: str, head: nn.Module | None, *, copied: bool) -> Iterator[None]:
        """Adds a task with the present values, and removes it if the context fails."""
        self._turns.check()
        check_name(name, self._stored)
        if head is not None:
            place = self._places[0] if self._head else None
            check_head(head, self, place, first=not self._stored)
        present, before = self._present(), self._active
        values = copies_of(present) if copied else list(present)
        if head is not None:
            values[0] = head
        if before is not None:
            self._stored[before].fill(present)
        self._put(values)
        self._stored[name] = make_stored(self._places)
        self._stored[name].fill(values)
        self.tasks._modules[name] = self._stored[name].root
        self._active = name
        try:
            yield
        except BaseException:
            self._forget(name)
            self._put(present)
            self._active = before
            raise

    def _forget(self, name: str) -> None:
        del self._stored[name], self.tasks._modules[name]
