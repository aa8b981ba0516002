"""Processes: whether one that left its name on a shared disk lives, and what every process of ours owes others."""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

FROM_A_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""A terminal sends them to every process; workers leave them to the one that leads."""

ENDING = (*FROM_A_TERMINAL, signal.SIGTERM)
"""What ends a run, by an error raised in its main thread."""

_PR_SET_PDEATHSIG = 1
_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


@cache
def process_table() -> str | None:
    """Names the process table that this process's id is an entry of: this machine, this boot, this container.

    None where that cannot be told (no /proc): then a process id on a shared disk means nothing.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        namespace = bytes(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    return hashlib.sha256(socket.gethostname().encode() + boot + namespace).hexdigest()[:12]


@cache
def own_name() -> str:
    """As `process_table`; where that cannot be told, a name that no other process has."""
    return process_table() or secrets.token_hex(6)


def started(pid: int) -> str | None:
    """When the process started, in ticks since boot: tells it from a later one of the same id.

    None if there is no such process, or it has ended and is only waited for.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else rest[18]


def owner() -> str:
    """This process, to be a part of a file's name: `<process table>.<pid>.<start>`."""
    pid = os.getpid()
    return f"{own_name()}.{pid}.{started(pid)}"


def lives(name: str) -> bool | None:
    """Whether the process that `owner()` gave this name lives; None if that cannot be told from here."""
    table, pid, start = name.split(".")
    return started(int(pid)) == start if table == process_table() else None


def end_with(parent: int) -> None:
    """Ends this process at once when its parent, the process `parent`, ends.

    An orphan must not go on with what a later run takes over. On Linux the kernel sees to it, and for it the parent is
    the thread that started this process: that thread must live as long as this process is to.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=follow, daemon=True).start()


def give_large_blocks_back() -> None:
    """Lets the C library return a freed picture's memory at once.

    Left to itself, glibc learns from the first large picture to keep such blocks for the next: with pictures of all
    sizes a process holds on to hundreds of megabytes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Keeps the signals that end a run until the block has ended, and a terminal's from a process started in it.

    A worker of which only a half was started, or that is told to end before it can see to that, ends with a traceback.
    """
    came: list[int] = []
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in heeded}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_A_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for noted in came:
        signal.raise_signal(noted)


def leave_the_terminal() -> None:
    """Has this process, which `signals_held_back` started, heed no signal that a terminal sends to all."""
    for number in FROM_A_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_A_TERMINAL)
