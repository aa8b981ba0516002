from __future__ import annotations

import asyncio
import threading
import time

import pytest

from modbot.fetch.disk import Disk


def _here() -> bool:
    return threading.current_thread() is threading.main_thread()


def _slowly() -> bool:
    time.sleep(0.01)
    return _here()


def test_a_quick_disk_is_used_in_place_and_a_slow_one_in_threads() -> None:
    async def scene() -> None:
        with Disk() as disk:
            assert all([await disk.run(_here) for _ in range(100)])
            places = [await disk.run(_slowly) for _ in range(40)]
            assert places[:5] == [True] * 5
            assert places[-5:] == [False] * 5

    asyncio.run(scene())


def test_a_disk_that_is_quick_again_is_used_in_place_again() -> None:
    async def scene() -> None:
        with Disk() as disk:
            while not disk._slow:
                await disk.run(_slowly)
            assert not await disk.run(_here)
            places = [await disk.run(_here) for _ in range(100)]
            assert places[:5] == [False] * 5
            assert places[-5:] == [True] * 5

    asyncio.run(scene())


def test_one_stall_changes_nothing() -> None:
    async def scene() -> None:
        with Disk() as disk:
            await disk.run(time.sleep, 0.2)
            assert await disk.run(_here)

    asyncio.run(scene())


def test_what_is_raised_comes_through_either_way() -> None:
    async def scene(disk: Disk) -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            await disk.run(int, "x")

    with Disk() as disk:
        asyncio.run(scene(disk))
        disk._slow = True
        asyncio.run(scene(disk))


def test_a_caller_that_is_cancelled_waits_for_the_end() -> None:
    ended = threading.Event()

    def work() -> None:
        time.sleep(0.1)
        ended.set()

    async def scene() -> None:
        with Disk() as disk:
            disk._slow = True
            task = asyncio.ensure_future(disk.run(work))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set()

    asyncio.run(scene())
