from __future__ import annotations

from modbot.cli.progress import Tally
from modbot.records.progress import Receipt, ShardAdvanced, ShardFinished, ShardStarted


def receipt(shard: str, lines: int, **errors: int) -> Receipt:
    return Receipt(
        step="p1",
        shard=shard,
        rows=lines,
        lines=lines,
        errors=errors,
        settings="",
        input="",
        output="",
        finished_at="",
        counters={},
        detail={},
    )


def test_lines_are_counted_whatever_the_order_of_the_shards() -> None:
    tally = Tally(30)
    tally.hear(ShardFinished(receipt=receipt("a", 10, timeout=1), reused=True))
    tally.hear(ShardStarted(shard="b", rows=10, done=4, failed=2))
    tally.hear(ShardStarted(shard="c", rows=10, done=0, failed=0))
    assert (tally.done, tally.failed, tally.rate) == (14, 3, 0.0)
    tally.hear(ShardAdvanced(shard="b", done=7, failed=2))
    tally.hear(ShardAdvanced(shard="c", done=5, failed=0))
    assert (tally.done, tally.failed) == (22, 3)
    assert tally.rate > 0
    tally.hear(ShardStarted(shard="b", rows=10, done=6, failed=2))  # its worker died before a line was on disk
    assert (tally.done, tally.failed) == (21, 3)
    tally.hear(ShardFinished(receipt=receipt("b", 10, timeout=2, expired=1)))
    tally.hear(ShardFinished(receipt=receipt("c", 10)))
    assert str(tally).startswith("30/30 (")
    assert str(tally).endswith("/s), 4 failed")
