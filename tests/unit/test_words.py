from __future__ import annotations

from modbot.words import counted, printable, printable_lines


def test_one_is_one() -> None:
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [counted(number, "shard matches", "shards match") for number in (1, 2)] == [
        "1 shard matches",
        "2 shards match",
    ]


def test_what_a_stranger_wrote_moves_no_cursor_and_turns_no_writing_round() -> None:
    assert printable("a\tb\x1b[2Jc\u202ed\r\n犬") == "a    b\ufffd[2Jc\ufffdd\ufffd\ufffd犬"
    assert printable_lines("one\x1b\ntwo\r") == "one\ufffd\ntwo\ufffd"
