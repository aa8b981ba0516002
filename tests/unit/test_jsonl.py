from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modbot.records import jsonl


@pytest.mark.parametrize(
    "data", [b"", b"{", b'"\xff"', b'{"\xff": 1}', b"[" * 100_000, b"\xef\xbb\xbf{}", b"9" * 5_000]
)
@pytest.mark.parametrize("kind", [object, dict[str, str], list[Any]])
def test_whatever_is_no_json_is_told_in_one_way(data: bytes, kind: type) -> None:
    with pytest.raises(msgspec.DecodeError):
        jsonl.decode(data, kind)
