"""Every way modbot fails on purpose.

    ModbotError                 exit 1
    ├── RequestError            exit 2   the request is wrong: nothing was done
    │   ├── SettingError                 a setting or flag that cannot be used
    │   ├── InputError                   a file that is missing, unreadable or not what it should be
    │   ├── RulesError                   a rules file that cannot be run
    │   └── ModelError                   a model that is not there or not the one that was pinned
    ├── UnmetError              exit 1   finished, but something that was asked for was not met
    │   ├── BusyError                    another run holds the partition
    │   ├── IncompleteError              a step's lines do not account for every row exactly once
    │   └── ShardsFailedError            some shards did not finish; the rest is kept
    ├── StorageError            exit 1   the disk refused: full, read-only, gone
    ├── DeviceError             exit 1   what runs a model fails, whatever it is shown
    ├── RateLimitError          exit 1   a server must not be asked any further for now; what was finished is kept
    └── InterruptedRunError     exit 130 stopped by a signal; what was finished is kept

Foreign exceptions are translated into these where the foreign library is called, and nowhere else.
"""

from __future__ import annotations

from typing import ClassVar


class ModbotError(Exception):
    """An error that is told to a person: where it is, what is wrong, what to do.

    `str()` gives one or two lines: `where: what`, then the remedy.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n{self.remedy}" if self.remedy else head

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


def _rebuild(kind: type[ModbotError], what: str, where: str | None, remedy: str | None) -> ModbotError:
    return kind(what, where=where, remedy=remedy)


class RequestError(ModbotError):
    """The request cannot be carried out as it stands."""

    exit_code = 2


class SettingError(RequestError):
    """A flag, an environment variable or a line of `.env` that cannot be used."""


class InputError(RequestError):
    """An input file that is missing, unreadable, or not what it should be."""


class RulesError(RequestError):
    """A rules file that cannot be run."""


class ModelError(RequestError):
    """A model that is not on disk, or not the one that was pinned."""


class UnmetError(ModbotError):
    """The command ended, but something that was asked for was not met."""


class BusyError(UnmetError):
    """Another run holds the partition."""


class IncompleteError(UnmetError):
    """The lines of a step do not account for every row exactly once; nothing is merged."""


class ShardsFailedError(UnmetError):
    """Some shards did not finish."""


class StorageError(ModbotError):
    """The disk refused: full, read-only or gone."""


class DeviceError(ModbotError):
    """What runs a model fails for one image after the other; a new process may be able to use it again."""


class RateLimitError(ModbotError):
    """A server must not be asked any further for now; everything finished so far is kept."""


class InterruptedRunError(ModbotError):
    """Stopped by a signal; everything finished so far is kept."""

    exit_code = 130
