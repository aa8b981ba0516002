"""JSON as modbot writes it: UTF-8, not ASCII-escaped, one object a line, scores with 6 decimals."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

SCORE_DECIMALS = 6

_encoder = msgspec.json.Encoder()


def encode_line(record: object) -> bytes:
    """The record as one JSON line, newline included."""
    return _encoder.encode(record) + b"\n"


def encode_document(document: object) -> bytes:
    """The document as indented JSON that a person can read, newline included."""
    return msgspec.json.format(_encoder.encode(document), indent=2) + b"\n"


def decode(data: bytes | str, kind: type[T]) -> T:
    """`data` as a `kind`; raises `msgspec.DecodeError` (or its `ValidationError`) if it is none, whatever it holds."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def decode_any(data: bytes | str) -> Any:  # noqa: ANN401 - JSON of unknown shape
    """`data` as plain dicts and lists; raises `msgspec.DecodeError`."""
    return decode(data, object)


def score(value: float) -> float:
    """A score with 6 decimals. NaN and infinity are refused before they come here: in JSON they would be null."""
    return round(float(value), SCORE_DECIMALS)
