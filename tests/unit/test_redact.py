from __future__ import annotations

import json
from typing import Any

import pytest

from modbot.records.jsonl import decode_any, encode_line
from modbot.stages.redact import redacted


def without_links(record: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    line = redacted(encode_line(record))
    assert line.endswith(b"\n")
    return decode_any(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://a.example/b?c=d#e now", "see [URL] now"),
        ("HTTP://A.EXAMPLE", "[URL]"),
        ("<discord://x/y>", "<[URL]>"),
        ("www.a.example", "[URL]"),
        ("cdn.discordapp.com/attachments/1/2/a.png", "[URL]"),
        ("discord.gg/abc", "[URL]"),
        ("score 0.5/1.0 and a/b", "score 0.5/1.0 and a/b"),
        ("file.png", "file.png"),
        ("見て https://例え.jp/あ です", "見て [URL] です"),
    ],
)
def test_links_in_a_text_are_replaced(text: str, expected: str) -> None:
    assert without_links({"note": text}) == {"note": expected}


def test_url_fields_are_null_wherever_they_are() -> None:
    record = {"url": "x", "message_link": "y", "proxy_url": "z", "urls": ["a", "b"], "deep": [{"URL": "c", "id": "1"}]}
    assert without_links(record) == {
        "url": None,
        "message_link": None,
        "proxy_url": None,
        "urls": [None, None],
        "deep": [{"URL": None, "id": "1"}],
    }


def test_what_is_no_text_stays() -> None:
    assert without_links({"a": 1, "b": None, "c": True, "url": None}) == {"a": 1, "b": None, "c": True, "url": None}


def test_a_link_is_found_however_it_is_spelled() -> None:
    line = (
        rb'{"\u0075rl" : "x", "note": "see https:\/\/a.example\/ \"b\\",'
        rb' "discord.gg/a": {"urls": [["y", {"z": "w"}, "v"]]}}'
    )
    assert json.loads(redacted(line)) == {
        "url": None,
        "note": 'see [URL] "b\\',
        "[URL]": {"urls": [[None, {"z": "w"}, None]]},
    }


def test_what_holds_no_link_stays_byte_for_byte() -> None:
    line = '{"a": [1e999, -0.0, 1E5, true, null], "b" :"あ","c":{},"d":[ ], "e": %s}\n' % ("9" * 5_000)
    assert redacted(line.encode()).decode() == line


def test_no_line_is_too_deep() -> None:
    deep = b'{"a":[' * 5_000 + b'"www.a.example"' + b"]}" * 5_000
    assert redacted(deep) == deep.replace(b"www.a.example", b"[URL]")
