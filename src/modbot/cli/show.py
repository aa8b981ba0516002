"""Results as they are told on stdout: a table on a terminal, plain lines elsewhere. What they hold is made inert."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

import click

from modbot.words import printable


def facts(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """A title and lines of name and text; what has no text is left out."""
    shown = [(name, printable(text)) for name, text in pairs if text]
    if not sys.stdout.isatty():
        click.echo(title)
        for name, text in shown:
            click.echo(f"{name}: {text}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    # Folded, not cut: a path is there to be copied.
    table.add_column(overflow="fold")
    for name, text in shown:
        table.add_row(Text(name), Text(text))
    Console().print(table)


def grid(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A title and a table; the first column is text, the others are numbers. Nothing if there are no rows."""
    rows = [[printable(item) for item in row] for row in rows]
    if not rows:
        return
    if not sys.stdout.isatty():
        click.echo(f"{title}:")
        for name, *numbers in rows:
            click.echo(f"  {name}: {', '.join(f'{head} {n}' for head, n in zip(header[1:], numbers, strict=True))}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for place, head in enumerate(header):
        table.add_column(Text(head), justify="right" if place else "left")
    for row in rows:
        table.add_row(*(Text(item) for item in row))
    Console().print(table)


def counts(numbers: Mapping[str, int]) -> str:
    """`red 3, orange 0`; empty for none."""
    return ", ".join(f"{name} {count}" for name, count in numbers.items())
