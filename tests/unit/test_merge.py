from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import IncompleteError
from modbot.records.jsonl import decode, encode_line
from modbot.records.p1 import Attachment, Message, P1Record, RecordError
from modbot.stages.merge import OPEN_FILES, merge_in_order, merge_p1


def record(row: int, content: int | None, message: int, *, scored: bool = True) -> P1Record:
    """One row: its content (None: there is no image), the message it is of, and whether its scores could be had."""
    url = f"https://x/{row}" if content is not None else f"https://x/lost/{message}"
    attachment = Attachment(id=f"a{row}", url=url, row=row, filename=f"{row}.png", is_spoiler=row % 3 == 0)
    posted = Message(
        message_id=f"m{message}",
        channel_id="c",
        url=url,
        is_nsfw_channel=message % 2 == 0,
        is_spoiler=row % 3 == 0,
        extra={"note": f"n{row}"},
        attachments=[attachment],
    )
    if content is None:
        return P1Record(row=row, messages=[posted], error=RecordError(kind="expired", detail="x", http_status=404))
    error = None if scored else RecordError(kind="inference_failed", detail="x")
    return P1Record(row=row, sha256=f"{content:064x}", phash="0" * 16, messages=[posted], error=error)


def shards_of(folder: Path, records: list[P1Record], count: int, seed: int) -> list[Path]:
    """The records spread over `count` shard files, in the order of chance."""
    chance = random.Random(seed)  # noqa: S311 - chance that can be had again
    shuffled = chance.sample(records, len(records))
    paths = [folder / f"shard_{number}.jsonl" for number in range(count)]
    parts: list[list[bytes]] = [[] for _ in paths]
    for each in shuffled:
        chance.choice(parts).append(encode_line(each))
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(b"".join(part))
    return paths


ROWS = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 4)), st.integers(0, 3)), max_size=25)


@given(rows=ROWS, count=st.integers(1, 5), seed=st.integers(0, 99))
def test_shards_and_order_do_not_show(
    rows: list[tuple[int | None, int]], count: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    records = [record(row, content, message) for row, (content, message) in enumerate(rows)]
    merged = []
    for parts, order in ((1, 0), (count, seed)):
        merge_p1(shards_of(folder, records, parts, order), folder / "merged", rows=range(len(rows)))
        merged.append((folder / "merged").read_bytes())
    assert merged[0] == merged[1]
    found = [decode(line, P1Record) for line in merged[0].splitlines()]
    seen = [a.row for each in found for message in each.messages for a in message.attachments]
    assert sorted(seen) == list(range(len(rows)))
    assert [each.row for each in found] == sorted(each.row for each in found)
    contents = [content for content, _ in rows if content is not None]
    assert sum(each.sha256 is not None for each in found) == len(set(contents))
    for each in found:
        assert len({message.message_id for message in each.messages}) == len(each.messages)


@pytest.mark.parametrize("flags", [(True, False), (False, True), (None, False), (True, None), (True, True)])
def test_a_message_is_in_an_nsfw_channel_only_if_no_row_of_it_says_otherwise(
    flags: tuple[bool | None, bool | None], tmp_path: Path
) -> None:
    rows = [record(row, 1, 5) for row in range(2)]
    for row, flag in zip(rows, flags, strict=True):
        row.messages[0].is_nsfw_channel = flag
    merge_p1(shards_of(tmp_path, rows, 1, 0), tmp_path / "m", rows=range(2))
    (message,) = decode((tmp_path / "m").read_bytes(), P1Record).messages
    assert message.is_nsfw_channel is (False if False in flags else flags[0])


def test_rows_of_one_message_become_one_message(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, [record(0, 1, 5), record(1, 1, 5), record(2, 1, 6)], 2, 1)
    assert merge_p1(shards, tmp_path / "m", rows=range(3)) == 1
    (merged,) = [decode(line, P1Record) for line in (tmp_path / "m").read_bytes().splitlines()]
    first, second = merged.messages
    assert (first.message_id, second.message_id) == ("m5", "m6")
    assert first.url == "https://x/0"
    assert [a.id for a in first.attachments] == ["a0", "a1"]
    # What the second row says beyond the message's own columns stays with its attachment.
    assert first.extra == {"note": "n0"}
    assert first.attachments[1].extra == {"note": "n1"}


@pytest.mark.parametrize("good", [0, 1, 2])
def test_a_record_has_the_scores_of_the_first_row_that_has_any(good: int, tmp_path: Path) -> None:
    shards = shards_of(tmp_path, [record(row, 1, row, scored=row == good) for row in range(3)], 2, 1)
    merge_p1(shards, tmp_path / "m", rows=range(3))
    merged = decode((tmp_path / "m").read_bytes(), P1Record)
    assert merged.error is None
    assert merged.row == 0
    assert [message.message_id for message in merged.messages] == ["m0", "m1", "m2"]


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    count = 3 * OPEN_FILES
    shards = shards_of(tmp_path, [record(row, row % 5, row) for row in range(2 * count)], count, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES + 60, hard))
    try:
        assert merge_p1(shards, tmp_path / "m", rows=range(2 * count)) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_spoiler_in_one_attachment_marks_the_message(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, [record(0, 1, 5), record(1, 1, 5)], 1, 1)
    merge_p1(shards, tmp_path / "m", rows=range(2))
    assert decode((tmp_path / "m").read_bytes(), P1Record).messages[0].is_spoiler


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([0, 2], "row 1 is missing"),
        ([0, 1, 1, 2], "row 1 is there more than once"),
        ([0, 1, 2, 3], "row 3 is not of this index"),
        ([], "row 0 is missing, and 2 more"),
    ],
)
def test_a_row_that_is_not_there_once_stops_the_merge(rows: list[int], told: str, tmp_path: Path) -> None:
    shards = shards_of(tmp_path, [], 1, 0)
    shards[0].write_bytes(b"".join(encode_line(record(row, row, row)) for row in rows))
    with pytest.raises(IncompleteError, match=told):
        merge_p1(shards, tmp_path / "m", rows=range(3))
    assert not (tmp_path / "m").exists()


def test_a_line_that_is_no_record_stops_the_merge(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"{}\n")
    with pytest.raises(IncompleteError, match="not a record"):
        merge_p1([tmp_path / "s"], tmp_path / "m", rows=range(1))


def test_lines_in_order_are_joined(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"row":0,"x":1}\n{"row":3}\n')
    (tmp_path / "b").write_bytes(b'{"row":7}\n')
    assert merge_in_order([tmp_path / "a", tmp_path / "b"], tmp_path / "m", rows=[0, 3, 7]) == 3
    assert (tmp_path / "m").read_bytes() == b'{"row":0,"x":1}\n{"row":3}\n{"row":7}\n'


@pytest.mark.parametrize("rows", [[0, 3], [0, 3, 7, 9], [0, 4, 7], [3, 0, 7]])
def test_lines_out_of_order_are_refused(rows: list[int], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"row":0}\n{"row":3}\n{"row":7}\n')
    with pytest.raises(IncompleteError):
        merge_in_order([tmp_path / "a"], tmp_path / "m", rows=rows)
    assert not (tmp_path / "m").exists()
