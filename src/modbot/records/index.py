"""A row of the p0 index: one link to one image, and where it was posted."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

COLUMNS = (
    "guild_id",
    "channel_id",
    "channel_name",
    "message_id",
    "message_link",
    "created_at",
    "author_id",
    "author_name",
    "is_nsfw_channel",
    "source",
    "attachment_id",
    "filename",
    "content_type",
    "file_size",
    "url",
    "phash_hex",
    "phash_distance_ref",
    "note",
    "is_spoiler",
)
"""The columns of the index, in order. `url` alone is required; further columns are kept as `extra`."""

DISCORD_CDN_HOSTS = frozenset({"cdn.discordapp.com", "media.discordapp.net", "images-ext-1.discordapp.net"})
_SIGNATURE = frozenset({"ex", "is", "hm"})


class IndexRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the index, every cell checked.

    `row` counts from 0 in the index. An empty cell is None. `bad` says what is malformed about the row
    (with its line number); such a row is carried to the end as a record with the error `bad_row`.
    """

    row: int
    url: str | None = None
    guild_id: str | None = None
    channel_id: str | None = None
    channel_name: str | None = None
    message_id: str | None = None
    message_link: str | None = None
    created_at: str | None = None
    author_id: str | None = None
    author_name: str | None = None
    is_nsfw_channel: bool | None = None
    source: str | None = None
    attachment_id: str | None = None
    filename: str | None = None
    content_type: str | None = None
    file_size: int | None = None
    is_spoiler: bool = False
    extra: dict[str, str] = msgspec.field(default_factory=dict)
    bad: str | None = None

    @property
    def key(self) -> str:
        """What the row's link names, whatever its signature: rows with equal keys are one fetch."""
        return f"row:{self.row}" if self.url is None else attachment_key(self.url)


def attachment_key(url: str) -> str:
    """The part of a link that names the attachment: a Discord CDN link without its signature, else the link.

    Discord signs links with `ex` (expiry), `is` (issued) and `hm`; the same attachment is handed out under
    many signatures. What is no link names itself.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if (parts.hostname or "") not in DISCORD_CDN_HOSTS:
        return urlunsplit(parts._replace(fragment=""))
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k not in _SIGNATURE]
    return urlunsplit(parts._replace(query=urlencode(query), fragment=""))
