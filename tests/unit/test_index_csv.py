from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.errors import InputError
from modbot.files.index_csv import index_lines, open_index, read_rows, to_csv_line
from modbot.files.journal import file_digest
from modbot.files.shards import ShardSet, read_set, shard_name, write_set
from modbot.records.index import COLUMNS, IndexRow, attachment_key

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def rows_of(path: Path, text: str | bytes) -> list[IndexRow]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_rows(path))


def bad_of(path: Path, text: str | bytes) -> list[str | None]:
    return [row.bad for row in rows_of(path, text)]


@given(cells=st.lists(st.tuples(CELL, CELL), max_size=8))
def test_whatever_cells_hold_comes_back(cells: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("index") / "index.csv"
    text = to_csv_line(["url", "channel_name", "caption"])
    text += "".join(to_csv_line(["https://x/1.png", *pair]) for pair in cells)
    rows = rows_of(path, text)
    assert [(row.channel_name or "", row.extra.get("caption", "")) for row in rows] == cells
    assert [row.row for row in rows] == list(range(len(cells)))
    assert not any(row.bad for row in rows)


def test_a_stray_quote_spoils_its_line_and_no_other(tmp_path: Path) -> None:
    text = 'url,note\nhttps://x/1.png,"open\nhttps://x/2.png,ok\nhttps://x/3.png,"shut"\nhttps://x/4.png,ok\n'
    rows = rows_of(tmp_path / "i.csv", text)
    assert [row.url for row in rows] == [f"https://x/{number}.png" for number in (1, 2, 3, 4)]
    assert [row.bad for row in rows] == ["line 2: a quotation mark that is not closed", None, None, None]


def test_a_line_break_inside_quotes_is_text(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "i.csv", 'url,note\r\nhttps://x/1.png,"a\r\nb"\r\nhttps://x/2.png,c\r\n')
    assert [row.extra["note"] for row in rows] == ["a\r\nb", "c"]


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        (b"https://x/1.png", "line 2: 1 cell where the header has 2"),
        (b"https://x/1.png,a,b", "line 2: 3 cells where the header has 2"),
        (b",a", "line 2: no url"),
        (b"ftp://x/1.png,a", "line 2: the url does not begin with https://"),
        (b"javascript:alert(1),a", "line 2: the url does not begin with https://"),
        (b"https:///1.png,a", "line 2: the url does not begin with https://"),
        (b"http://[::1,a", "line 2: the url is no link"),
        (b"https://x:port/1.png,a", "line 2: the url is no link"),
        (b"https://x/a b.png,a", "line 2: the url is no link"),
        (b"https://x/\x07.png,a", "line 2: the url is no link"),
        (b"https://x/" + b"a" * 9000 + b",a", "line 2: the url is no link"),
        (b"https://x/\xff.png,a", "line 2: not UTF-8"),
        (b'https://x/1.png,"a"b', "line 2: ',' expected after '\"'"),
    ],
)
def test_a_malformed_row_is_kept_and_told_with_its_line(line: bytes, bad: str, tmp_path: Path) -> None:
    good = b"https://x/good.png,y"
    assert bad_of(tmp_path / "i.csv", b"\n".join([b"url,note", line, good, b""])) == [bad, None]


def test_a_line_without_end_is_one_malformed_row(tmp_path: Path) -> None:
    endless = b"https://x/1.png," + b"a" * 140_000 + b",https://x/2.png,b" + b"c" * 400_000
    assert bad_of(tmp_path / "i.csv", b"url,note\n" + endless + b"\nhttps://x/3.png,y\n") == [
        "line 2: field larger than field limit (131072)",
        None,
    ]


@pytest.mark.parametrize("column", ["row", "bad_row"])
def test_an_index_must_not_number_its_rows_itself(column: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"column '{column}' is one that shards add"):
        rows_of(tmp_path / "i.csv", f"url,{column}\nhttps://x/1,7\n")


def test_a_header_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes("url,備考\nhttps://x/1.png,猫\n".encode("cp932"))
    with pytest.raises(InputError, match=r"index\.csv: the header is not UTF-8\nSave it as CSV in UTF-8"):
        write_set(path, tmp_path / "shards", profile="p", date="2025-10-01", count=1)


def test_what_cannot_be_used_is_kept_as_it_stands(tmp_path: Path) -> None:
    header = "url,is_nsfw_channel,is_spoiler,file_size,filename,note\n"
    first, second = rows_of(
        tmp_path / "i.csv", header + "https://x/1,maybe,TRUE,12 kB,a.png,n\nhttps://x/2,False,,7,SPOILER_b.png,\n"
    )
    assert (first.is_nsfw_channel, first.is_spoiler, first.file_size) == (None, True, None)
    assert first.extra == {"is_nsfw_channel": "maybe", "file_size": "12 kB", "note": "n"}
    assert (second.is_nsfw_channel, second.is_spoiler, second.file_size) == (False, True, 7)
    assert second.extra == {}


def test_a_byte_order_mark_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    assert len(rows_of(tmp_path / "i.csv", "\ufeffurl\nhttps://x/1\n\n\nhttps://x/2\n\n".encode())) == 2


def test_an_index_that_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_bytes(b"".join(index_lines([{"url": "https://x/1", "channel_name": 'a,"b"'}])))
    with open_index(path) as index:
        assert tuple(index.header) == COLUMNS
    (row,) = read_rows(path)
    assert (row.url, row.channel_name) == ("https://x/1", 'a,"b"')


class TestShards:
    @given(total=st.integers(1, 40), count=st.integers(1, 12))
    def test_every_row_is_in_one_shard_with_its_number(
        self, total: int, count: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("shards")
        index = folder / "index.csv"
        index.write_text("url,note\n" + "".join(f"https://x/{row},n{row}\n" for row in range(total)))
        shards, problems = write_set(index, folder / "s", profile="current", date="2025-10-01", count=count)
        assert problems == []
        assert read_set(folder / "s") == shards
        assert shards.total == total
        assert max(shards.rows) - min(shards.rows) <= 1
        rows = [row for name in shards.names() for row in read_rows(folder / "s" / f"{name}.csv")]
        assert [row.row for row in rows] == list(range(total))
        assert [row.url for row in rows] == [f"https://x/{number}" for number in range(total)]

    def test_the_row_number_is_the_last_column(self, tmp_path: Path) -> None:
        index = tmp_path / "index.csv"
        index.write_text("url,note\nhttps://x/0,a\nnope,b\n")
        write_set(index, tmp_path / "s", profile="current", date="2025-10-01", count=1)
        rows = list(csv.reader(io.StringIO((tmp_path / "s" / "shard_00.csv").read_text())))
        assert rows[0] == ["url", "note", "bad_row", "row"]
        assert [row[-1] for row in rows[1:]] == ["0", "1"]
        assert rows[2][2] == "line 3: the url does not begin with https://"

    def test_fewer_shards_leave_none_of_an_older_split(self, tmp_path: Path) -> None:
        index = tmp_path / "index.csv"
        index.write_text("url\n" + "https://x/1\n" * 9)
        write_set(index, tmp_path / "s", profile="current", date="2025-10-01", count=7)
        write_set(index, tmp_path / "s", profile="current", date="2025-10-01", count=2)
        assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
            "shard_00.csv",
            "shard_01.csv",
            "shards.json",
        ]

    def test_a_split_that_breaks_off_leaves_no_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index = tmp_path / "index.csv"
        index.write_text("url\n" + "https://x/1\n" * 9)
        write_set(index, tmp_path / "s", profile="current", date="2025-10-01", count=3)
        monkeypatch.setattr("modbot.files.shards.to_csv_line", _break_at_the_fifth_line())
        with pytest.raises(KeyboardInterrupt):
            write_set(index, tmp_path / "s", profile="current", date="2025-10-01", count=3)
        assert read_set(tmp_path / "s") is None

    def test_an_index_that_grows_meanwhile_is_not_split(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index = tmp_path / "index.csv"
        index.write_text("url\n" + "https://x/1\n" * 9)

        def grow(path: Path) -> str:
            digest = file_digest(path)
            with path.open("a") as more:
                more.write("https://x/2\n")
            return digest

        monkeypatch.setattr("modbot.files.shards.file_digest", grow)
        with pytest.raises(InputError, match="it changed while it was split"):
            write_set(index, tmp_path / "s", profile="current", date="2025-10-01", count=3)
        assert read_set(tmp_path / "s") is None

    def test_names_are_as_wide_as_the_last(self) -> None:
        assert shard_name(3, 5) == "shard_03"
        assert shard_name(3, 1000) == "shard_003"
        assert shard_name(3, 1001) == "shard_0003"

    def test_a_set_that_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "shards.json").write_text("{}")
        with pytest.raises(InputError, match="not a shard set"):
            read_set(tmp_path)

    def test_starts_are_the_first_rows(self) -> None:
        shards = ShardSet(source="x", digest="x", date="x", count=3, rows=[2, 0, 3])
        assert shards.starts() == [0, 2, 2, 5]


def _break_at_the_fifth_line() -> object:
    lines = iter(range(5))

    def line(cells: list[object]) -> str:
        if next(lines, None) is None:
            raise KeyboardInterrupt
        return to_csv_line(cells)

    return line


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (
            "https://cdn.discordapp.com/attachments/1/2/a.png?ex=1&is=2&hm=3",
            "https://cdn.discordapp.com/attachments/1/2/a.png",
        ),
        ("https://media.discordapp.net/a.png?ex=1&width=300&hm=3", "https://media.discordapp.net/a.png?width=300"),
        ("https://other.example/a.png?ex=1", "https://other.example/a.png?ex=1"),
        ("https://other.example/a.png#part", "https://other.example/a.png"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_a_signature_does_not_name_an_attachment(url: str, key: str) -> None:
    assert attachment_key(url) == key
