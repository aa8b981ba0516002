"""The commands of `modbot`. Each lives in the module of its name and is imported when asked for."""

from __future__ import annotations

from importlib import import_module

import click

from modbot import __version__

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
