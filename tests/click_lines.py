"""Command lines as click sees them: every command of `modbot`, and whether a line would be taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from modbot.cli.group import modbot


def commands(
    group: click.Group = modbot, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and sub-command with the words that lead to it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def parse(arguments: Sequence[str]) -> click.Context:
    """What click makes of `modbot ARGUMENTS`, run nothing. Raises click.UsageError for a line that it refuses."""
    command: click.Command = modbot
    name, rest, context = "modbot", list(arguments), None
    while isinstance(command, click.Group):
        context = command.make_context(name, rest, parent=context)
        found, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None, f"{name} has no command {found}"
        name, command = str(found), inner
    return command.make_context(name, rest, parent=context)
