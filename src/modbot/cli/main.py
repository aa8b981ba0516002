"""`modbot`: the one command line. Each sub-command lives in the module of its name and is imported when asked for."""

from __future__ import annotations

import os
import signal
import stat
import sys
import weakref
from importlib import import_module
from typing import Any, NoReturn, TextIO

import click

from modbot import __version__
from modbot.errors import InterruptedRunError, ModbotError

COMMANDS = {
    "index": ("modbot.cli.index", "Make the p0 index from a folder of images or a list of links."),
    "split": ("modbot.cli.split", "p0: split the day's index into shards."),
    "fetch": ("modbot.cli.fetch", "Fetch the images into the store, ahead of p1 and without a model."),
    "tag": ("modbot.cli.tag", "p1: fetch each image once, hash it, tag it."),
    "analyze": ("modbot.cli.analyze", "p2: detect nudity where the ratings say so, compute the signals."),
    "scan": ("modbot.cli.scan", "p3: judge the day by the rules: findings, report, metrics."),
    "explain": ("modbot.cli.explain", "Why a record got its verdict, rule by rule, and how near another was."),
    "ab": ("modbot.cli.ab", "Compare two rules files on the same day."),
    "rules": ("modbot.cli.rules", "Check a rules file, and run its own tests."),
    "report": ("modbot.cli.report", "Write the report CSV from the findings."),
    "contract": ("modbot.cli.contract", "Check findings or a report against their contract."),
    "uncertain": ("modbot.cli.uncertain", "Sample the records nearest to the thresholds for review."),
    "cache": ("modbot.cli.cache", "Look into the store of images, check it, make room."),
    "models": ("modbot.cli.models", "List, fetch and verify the models."),
}
"""Name -> the module that defines a click command of that name, and its one line in `modbot --help`."""


class _StoppedError(BaseException):
    """A signal told this process to end. Like KeyboardInterrupt it is no Exception: libraries pass over those."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"modbot.cli.{cmd_name} defines no command of its name")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: modbot split --date 2025-10-01 --shards 10",
)
@click.version_option(__version__, prog_name="modbot")
def modbot() -> None:
    """Moderate the images of a Discord server in bulk.

    The day: index -> split -> tag (p1) -> analyze (p2) -> scan (p3). Every step can be killed and goes on where it was.
    """


def main(arguments: list[str], **click_options: Any) -> int:  # noqa: ANN401 - handed on to click
    """Runs one command and gives its exit code; errors are told on stderr in one or two lines.

    0 done, 1 finished but something asked for was not met, 2 the request is wrong, 130 interrupted.
    """
    try:
        code = modbot.main(arguments, prog_name="modbot", standalone_mode=False, **click_options)
    except ModbotError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _refuse(error)
    except (_StoppedError, KeyboardInterrupt, click.Abort) as stopped:
        how = str(stopped) or "interrupted"
        return _fail(f"{how}; what was finished is kept\nGo on with --resume.", InterruptedRunError.exit_code)
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


def _refuse(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return REQUEST_IS_WRONG
    context = error.ctx if isinstance(error, click.UsageError) else None
    remedy = f"\nSee '{context.command_path} --help'." if context is not None else ""
    return _fail(error.format_message() + remedy, REQUEST_IS_WRONG)


def _fail(text: str, code: int) -> int:
    click.echo(f"modbot: {text}", err=True)
    return code


def _silence(stream: TextIO) -> None:
    """Lets the stream go on to nobody."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LOOK_SECONDS = 0.2
"""How often it is looked whether a signal still takes its effect."""


def run(*prefix: str) -> NoReturn:
    """Entry point of `modbot` and of the runbook's scripts, which name their sub-command as `prefix`."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP, and a shell's `&` SIGINT
            signal.signal(number, _stop)
    sys.unraisablehook = _tell_unraisable
    code = main([*prefix, *sys.argv[1:]])
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # all is done and told: how it ended is not to be blurred any more
    sys.exit(code)


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
