"""Writes and restores a training's state, for one process or several."""

from __future__ import annotations

from maskedconv.training import interrupts
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.ranks import Ranks
from maskedconv.training.state import Position


class Saving:
    """The checkpoint of a training. The first process has it, and all save and stop together.

    Args:
        checkpoint: of the first process; None if nothing is saved. Other processes pass None.
        rank: number of this process.
    """

    def __init__(self, checkpoint: Checkpoint | None, ranks: Ranks, rank: int) -> None:
        self._checkpoint, self._ranks, self._rank = checkpoint, ranks, rank
        self._saves = ranks.of_first(checkpoint is not None)

    def restore(self, position: Position) -> None:
        """Continues from the stored state, if there is one."""
        if not self._saves:
            return
        state = self._ranks.of_first(self._checkpoint.take() if self._checkpoint else None)
        if state is None:
            return
        own = state.get("others", [])[self._rank - 1] if self._rank else {}
        position.restore({**state, **own})

    def write_if_due(self, position: Position) -> None:
        """Writes if it is time to, or a stop was requested; errors as :meth:`write`."""
        due = self._checkpoint.due() if self._checkpoint else interrupts.requested()
        if self._saves and self._ranks.any(due):
            self.write(position)

    def stop_requested(self) -> bool:
        """Whether this process is to save and stop."""
        return self._saves and interrupts.requested()

    def write(self, position: Position) -> None:
        """Writes the state of all processes.

        Raises:
            StoreError: it cannot be written.
            KeyboardInterrupt: it is written, and a stop was requested of a process.
        """
        stop = self._ranks.any(interrupts.requested())
        states = self._ranks.gather(position.state_of_other())
        try:
            if self._checkpoint is not None:
                self._checkpoint.write({**position.state(), "others": states[1:]})
        finally:
            # The others wait, as the end of one process ends all.
            self._ranks.any(stop)
        if stop:
            raise KeyboardInterrupt
