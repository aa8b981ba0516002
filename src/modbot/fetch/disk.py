"""Where the store's work is done, so that a slow disk holds up nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

T = TypeVar("T")

SLOW_S = 0.003
"""A disk that takes longer than this on average is waited for in threads,"""

QUICK_S = SLOW_S / 3
"""and one that takes less than this is no longer: a disk that others keep busy for a while is slow for a while."""

_THREADS = 8
_MEMORY = 32
_OUTLIER_S = 0.05


class Disk:
    """Runs blocking work: in place while the disk answers at once, in threads while it does not.

    A local disk takes less time than handing the work to a thread and back; a network volume takes so much that every
    other transfer would stand still. A context manager; leaving it waits for what is under way.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="modbot-store")
        self._average = 0.0
        self._slow = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """What `work` returns or raises; a caller that is cancelled waits for its end: nothing goes on behind it."""
        if not self._slow:
            return self._timed(work, *args)
        job = asyncio.get_running_loop().run_in_executor(self._threads, partial(self._timed, work, *args))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])
            raise

    def _timed(self, work: Callable[..., T], *args: object) -> T:
        begin = time.perf_counter()
        try:
            return work(*args)
        finally:
            self._note(time.perf_counter() - begin)

    def _note(self, took: float) -> None:
        """Takes the time of one piece of work into account; of two that end at once, one may not count."""
        self._average += (min(took, _OUTLIER_S) - self._average) / _MEMORY  # one stall is no slow disk
        self._slow = self._average > (QUICK_S if self._slow else SLOW_S)
