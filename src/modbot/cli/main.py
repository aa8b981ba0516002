"""`modbot`: the one command line, from its start to its exit code.

What `run` needs is imported here and no more: signals are heeded before anything that takes a while is imported.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from modbot.errors import InterruptedRunError, ModbotError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TextIO

    import click


class _StoppedError(BaseException):
    """A signal told this process to end. Like KeyboardInterrupt it is no Exception: libraries pass over those."""


def main(arguments: list[str], **click_options: Any) -> int:  # noqa: ANN401 - handed on to click
    """Runs one command and gives its exit code; errors are told on stderr in one or two lines.

    0 done, 1 finished but something asked for was not met, 2 the request is wrong, 130 interrupted.
    """
    import click

    from modbot.cli import group

    try:
        code = group.modbot.main(arguments, prog_name="modbot", standalone_mode=False, **click_options)
    except ModbotError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _refuse(error)
    except (_StoppedError, KeyboardInterrupt, click.Abort) as stopped:
        how = str(stopped) or "interrupted"
        way_on = "Go on with --resume." if RESUMABLE.intersection(arguments[:1]) else "Run the same command again."
        return _fail(f"{how}; what was finished is kept\n{way_on}", InterruptedRunError.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`| head`), and nobody is left to tell: whether all was done is not known.
        for stream in (sys.stdout, sys.stderr):
            _silence(stream)
        return ModbotError.exit_code
    except OSError as error:
        # Told at the place where it happens wherever modbot expects it; this is the net under the rest.
        return _fail(f"{error.filename or 'disk'}: {error.strerror or error}", ModbotError.exit_code)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return code if isinstance(code, int) else 0


REQUEST_IS_WRONG = 2

RESUMABLE = frozenset({"fetch", "tag", "analyze"})
"""The commands that have --resume."""


def _refuse(error: click.ClickException) -> int:
    import click

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return REQUEST_IS_WRONG
    context = error.ctx if isinstance(error, click.UsageError) else None
    remedy = f"\nSee '{context.command_path} --help'." if context is not None else ""
    return _fail(error.format_message() + remedy, REQUEST_IS_WRONG)


def _fail(text: str, code: int) -> int:
    import click

    from modbot.words import printable_lines

    click.echo(f"modbot: {printable_lines(text)}", err=True)
    return code


def _silence(stream: TextIO) -> None:
    """Lets the stream go on to nobody."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LOOK_SECONDS = 0.2
"""How often it is looked whether a signal still takes its effect."""


def run(*prefix: str) -> NoReturn:
    """Entry point of `modbot` and of the runbook's scripts, which name their sub-command as `prefix`."""
    _at_signals(_leave)
    from modbot.cli import group  # noqa: F401 - it takes the most of a start

    _at_signals(_stop)
    sys.unraisablehook = _tell_unraisable
    code = InterruptedRunError.exit_code
    with suppress(_StoppedError):  # one that comes while it is told how all ended
        code = main([*prefix, *sys.argv[1:]])
    _heed_no_more()
    sys.exit(code)


def _at_signals(handler: Callable[[int, object], object]) -> None:
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP, and a shell's `&` SIGINT
            signal.signal(number, handler)


def _heed_no_more() -> None:
    """All is done and told: how it ended is not to be blurred any more.

    Ignored, not blocked: a thread that is left would take a signal, and a Python that ends heeds none.
    """
    while True:
        try:
            for number in (*ENDING, signal.SIGALRM):
                signal.signal(number, signal.SIG_IGN)
        except _StoppedError:
            continue
        return


def _leave(*_: object) -> NoReturn:
    """Ends before anything was begun: there is nothing to put away, and nothing to tell."""
    os._exit(InterruptedRunError.exit_code)


def _stop(number: int, _: object) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode) and not stream.isatty():
            _silence(stream)  # a terminal that was closed: what still writes to it must not fail for that
    raise _watched(_StoppedError(f"stopped by {signal.Signals(number).name}"), number)


def _watched(stopped: _StoppedError, number: int) -> _StoppedError:
    """The same; if it is dropped on its way to `main`, another is raised. Nobody else may keep it.

    It is raised in whatever runs at that moment. That may be a callback, whose errors nobody raises, or the import of
    an extension that does without what it fails to find.
    """
    alive = weakref.ref(stopped)

    def look(*_: object) -> None:
        if alive() is None:
            _stop(number, None)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    return stopped


def _tell_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, _StoppedError):
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    run()
