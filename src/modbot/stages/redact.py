"""Records without their links: for those who may see verdicts, and not the messages."""

from __future__ import annotations

import re

import msgspec

PLACEHOLDER = "[URL]"
_URL_KEYS = re.compile(r"(?:.*_)?(?:url|link|uri|href)s?", re.IGNORECASE)
_URL = re.compile(
    r"(?:[a-z][a-z0-9+.-]{0,30}://|www\.|(?<![\w.-])(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}/)[^\s<>\"'|]*", re.IGNORECASE
)
"""With a scheme, with `www.`, or a host name with a path behind it."""

_TOKEN = re.compile(r'(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")(?P<colon>\s*:)?|(?P<open>[\[{])|(?P<close>[\]}])')


def redacted(line: bytes) -> bytes:
    """The JSON line with every URL field null, and every URL in a text replaced by `[URL]`.

    Token by token, so that no line is too deep and no number too large.
    """
    key = ""
    outer: list[str] = []

    def redact(token: re.Match[str]) -> str:
        nonlocal key
        if token["open"]:
            outer.append(key)
        elif token["close"]:
            key = outer.pop()
        else:
            text = msgspec.json.decode(token["text"], type=str)
            if token["colon"]:
                key = text
            elif _URL_KEYS.fullmatch(key):
                return "null"
            return msgspec.json.encode(_URL.sub(PLACEHOLDER, text)).decode() + (token["colon"] or "")
        return token[0]

    return _TOKEN.sub(redact, line.decode()).encode()
