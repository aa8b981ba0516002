from __future__ import annotations

from modbot.words import counted


def test_one_is_one() -> None:
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [counted(number, "shard matches", "shards match") for number in (1, 2)] == [
        "1 shard matches",
        "2 shards match",
    ]
