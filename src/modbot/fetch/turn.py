"""Whose turn it is to fetch from Discord: one run at a time of all that share an OUT_DIR, whatever their profiles.

Discord counts what a bot and an address send, not what a profile does. A run whose images are all stored needs no turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from modbot.errors import BusyError
from modbot.files.lease import Lease


class Turn:
    """The lease at `path`, and the budgets that earlier runs of all profiles left, as `states` finds them."""

    def __init__(self, path: Path, command: str, states: Callable[[], Sequence[Path]]) -> None:
        self._lease = Lease(path, command)
        self.states = states

    def take(self) -> None:
        """Takes the turn; blocks for some seconds where a run of another machine may have died with it.

        Raises:
            BusyError: another run has it.
            InterruptedRunError: `give_back` was called meanwhile.
            StorageError: the folder cannot be written.
        """
        try:
            self._lease.acquire()
        except BusyError as error:
            raise _busy(error) from None

    def check(self) -> None:
        """Raises BusyError once another run took it over, because this one seemed dead."""
        if self._lease.lost:
            raise _busy(BusyError("taken over by another run", where=str(self._lease.path)))

    def give_up(self) -> None:
        """Ends a `take` that still waits."""
        self._lease.stop()

    def give_back(self) -> None:
        """Lets the next run have it."""
        self._lease.release()


def _busy(error: BusyError) -> BusyError:
    return BusyError(
        f"another run is fetching from Discord: {error.what}",
        where=error.where,
        remedy="Run the same command again when it has ended, with --resume: what was finished is kept.",
    )
