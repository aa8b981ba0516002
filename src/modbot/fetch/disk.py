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
"""A disk that takes longer than this on average is waited for in threads."""

_THREADS = 8
_MEMORY = 32
_OUTLIER_S = 0.05


class Disk:
    """Runs blocking work: in place while the disk answers at once, in threads from the moment it does not.

    A local disk takes less time than handing the work to a thread and back; a network volume takes so much that every
    other transfer would stand still. A context manager; leaving it waits for what is under way.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="modbot-store")
        self._average = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """What `work` returns or raises; a caller that is cancelled waits for its end: nothing goes on behind it."""
        if self._average > SLOW_S:
            return await self._in_thread(work, *args)
        begin = time.perf_counter()
        try:
            return work(*args)
        finally:
            took = min(time.perf_counter() - begin, _OUTLIER_S)  # one stall is no slow disk
            self._average += (took - self._average) / _MEMORY

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        job = asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])
            raise
