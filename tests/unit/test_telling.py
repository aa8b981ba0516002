from __future__ import annotations

import pytest
from msgspec.structs import replace

from modbot.cli.progress import Tally, telling
from modbot.records.progress import Notice, ShardAdvanced, ShardFailed, ShardFinished, ShardStarted
from tests.engine_jobs import receipt


def finished(shard: str, lines: int, *, reused: bool = False, **errors: int) -> ShardFinished:
    return ShardFinished(receipt=replace(receipt(shard), lines=lines, errors=errors), reused=reused)


def test_lines_are_counted_whatever_the_order_of_the_shards() -> None:
    tally = Tally(30)
    tally.hear(finished("a", 10, reused=True, timeout=1))
    tally.hear(ShardStarted(shard="b", rows=10, done=4, failed=2))
    tally.hear(ShardStarted(shard="c", rows=10, done=0, failed=0))
    assert (tally.done, tally.failed, tally.rate) == (14, 3, 0.0)
    tally.hear(ShardAdvanced(shard="b", done=7, failed=2))
    tally.hear(ShardAdvanced(shard="c", done=5, failed=0))
    assert (tally.done, tally.failed) == (22, 3)
    assert tally.rate > 0
    tally.hear(ShardStarted(shard="b", rows=10, done=6, failed=2))  # its worker died before a line was on disk
    assert (tally.done, tally.failed) == (21, 3)
    tally.hear(finished("b", 10, timeout=2, expired=1))
    tally.hear(finished("c", 10))
    assert str(tally).startswith("30/30 (")
    assert str(tally).endswith("/s), 4 failed")


def test_what_a_line_of_the_log_quotes_is_inert(capsys: pytest.CaptureFixture[str]) -> None:
    with telling("p1", 1) as tell:
        tell(Notice(text="shard\x1b]0;owned\x07.csv"))
        tell(ShardFailed(shard="a", error="x\u202ey\nagain"))
    assert capsys.readouterr().err == "p1: warning: shard\ufffd]0;owned\ufffd.csv\np1: a failed: x\ufffdy\nagain\n"
