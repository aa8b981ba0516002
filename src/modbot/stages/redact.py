"""Records without their links: for those who may see verdicts, and not the messages."""

from __future__ import annotations

import re
from typing import Any

PLACEHOLDER = "[URL]"
_URL_KEYS = re.compile(r"(?:.*_)?(?:url|link|uri|href)s?", re.IGNORECASE)
_URL = re.compile(
    r"(?:[a-z][a-z0-9+.-]{0,30}://|www\.|(?<![\w.-])(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}/)[^\s<>\"'|]*", re.IGNORECASE
)
"""With a scheme, with `www.`, or a host name with a path behind it."""


def redacted(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON of any shape
    """The value with every URL field null, and every URL in a text replaced by `[URL]`."""
    if isinstance(value, dict):
        return {_URL.sub(PLACEHOLDER, name): redacted(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, key) for item in value]
    if isinstance(value, str):
        return None if _URL_KEYS.fullmatch(key) else _URL.sub(PLACEHOLDER, value)
    return value
