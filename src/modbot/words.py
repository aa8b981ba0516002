"""How things are told to people."""

from __future__ import annotations


def counted(count: int, one: str, more: str | None = None) -> str:
    """`1 record`, `2 records`; `more` where the plural is another: `1 shard matches`, `2 shards match`."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"
