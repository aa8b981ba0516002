"""A decoder's process: started, and ended. It loads no library, so that a worker can start one before anything else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from modbot.errors import ModbotError

COMMAND = (sys.executable, "-P", "-m", "modbot.models.decoder")
"""Starts a decoder. Not even the working directory's modules are its own (-P)."""

MEMORY = 2_500_000_000
"""Bytes of address space where nothing else is said.

Pictures of 100 million pixels took 0.9 to 1.8 GB, by format (all but those of 32 bit samples: 3.5 GB).
"""

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TMPDIR", "VIRTUAL_ENV")
"""What a decoder inherits, by how the names begin: whatever takes it over finds no token there."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""The libraries that decode use one core each; the threads that numpy would start only take address space."""


class DecoderProcess:
    """A decoder, and this end of the `socket` to it. It ends with the thread that started it (on Linux), or before.

    Raises:
        ModbotError: it cannot be started.
    """

    def __init__(self, command: Sequence[str] = COMMAND, memory: int = MEMORY) -> None:
        self.ready = False
        """Whether it has said that it can be asked."""
        self.socket, far = socket.socketpair()
        arguments = [str(far.fileno()), str(os.getpid()), str(memory)]
        environment = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
        with far:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this Python, and numbers
                    [*command, *arguments],
                    pass_fds=[far.fileno()],
                    env=environment | _ONE_THREAD,
                    stdin=subprocess.DEVNULL,
                )
            except OSError as error:
                self.socket.close()
                raise ModbotError(f"a decoder process cannot be started ({error.strerror})") from error

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self, *, patience: float = 0) -> None:
        """Ends it, whatever it is at; with `patience`, it has so many seconds to end in its own manner."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._process.kill()
        self._process.wait()
        self.socket.close()

    def manner(self) -> str:
        """How it ended."""
        code = self._process.returncode
        return f"crashed (signal {-code})" if code < 0 else f"ended (exit code {code})"


_spare: list[DecoderProcess] = []


def start_spare() -> None:
    """Starts a decoder that whoever first wants one will take: it gets ready while this process still loads things."""
    with suppress(ModbotError):  # who wants one tries again, and is told
        _spare.append(DecoderProcess())


def started(command: Sequence[str], memory: int) -> DecoderProcess:
    """A decoder: the spare one, if it is like that, or a new one."""
    if _spare and (tuple(command), memory) == (COMMAND, MEMORY):
        return _spare.pop()
    return DecoderProcess(command, memory)
