from __future__ import annotations

import pytest

from modbot.stages.redact import redacted


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
    assert redacted({"note": text}) == {"note": expected}


def test_url_fields_are_null_wherever_they_are() -> None:
    record = {"url": "x", "message_link": "y", "proxy_url": "z", "urls": ["a", "b"], "deep": [{"URL": "c", "id": "1"}]}
    assert redacted(record) == {
        "url": None,
        "message_link": None,
        "proxy_url": None,
        "urls": [None, None],
        "deep": [{"URL": None, "id": "1"}],
    }


def test_what_is_no_text_stays() -> None:
    assert redacted({"a": 1, "b": None, "c": True, "url": None}) == {"a": 1, "b": None, "c": True, "url": None}
