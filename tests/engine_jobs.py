"""Shard jobs that misbehave, importable by worker processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from modbot.errors import DeviceError, StorageError
from modbot.files.journal import ShardFiles
from modbot.records.progress import Event, Receipt


def receipt(name: str) -> Receipt:
    return Receipt(
        step="p1",
        shard=name,
        rows=0,
        lines=0,
        errors={},
        settings="",
        input="",
        output="",
        finished_at="",
        counters={},
        detail={},
    )


@dataclass(frozen=True)
class Job:
    """Writes the process it ran in beside its files, and then does what `manner` says.

    `well`; `dies` (every time); `dies_once`; `breaks` (its device, every time); `breaks_once`;
    `raises`; `full` (a full disk); `dies_afterwards`: a moment behind its receipt; `slow`.
    """

    files: ShardFiles
    manner: str
    resume: bool = False
    settings: str = ""
    inputs: str = ""
    rows: int = 0

    @property
    def name(self) -> str:
        return self.files.name

    def resumed(self) -> Self:
        return replace(self, resume=True)

    def traces(self) -> list[Path]:
        return sorted(self.files.folder.glob(f"{self.name}.*.ran"))

    def run(self, report: Callable[[Event], None]) -> Receipt:  # noqa: ARG002 - it has nothing to tell
        (self.files.folder / f"{self.name}.{os.getpid()}.{'again' if self.resume else 'first'}.ran").touch()
        match self.manner:
            case "dies":
                os._exit(1)
            case "dies_once" if not self.resume:
                os._exit(1)
            case "breaks":
                raise DeviceError("gives no results any more", where="cuda")
            case "breaks_once" if not self.resume:
                raise DeviceError("gives no results any more", where="cuda")
            case "raises":
                raise ZeroDivisionError("a defect")
            case "full":
                raise StorageError("the disk is full", where="x")
            case "dies_afterwards":
                threading.Timer(0.05, lambda: os._exit(1)).start()
            case "slow":
                time.sleep(30)
        return receipt(self.name)
