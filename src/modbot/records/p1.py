"""What p1 writes: one record per image, with where it was posted and what the tagger sees in it."""

from __future__ import annotations

import msgspec

ERROR_KINDS = (
    "expired",
    "unauthorised",
    "forbidden_host",
    "fetch_failed",
    "timeout",
    "too_large",
    "not_an_image",
    "decode_failed",
    "inference_failed",
    "bad_row",
)
"""Why a record has no verdict of its own. The list may grow."""

GENERAL_THRESHOLD = 0.35
CHARACTER_THRESHOLD = 0.85
RAW_TAGS = 128
"""`general_raw` holds this many of the highest tags, and every tag of the rules file's groups."""

TagScore = tuple[str, float]


class RecordError(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no image, or no scores. `attempts` counts the requests that were sent."""

    kind: str
    detail: str
    http_status: int | None = None
    attempts: int = 0


class Attachment(msgspec.Struct, kw_only=True):
    """One row of the index, as part of a message. `extra` holds what differs from the message's."""

    id: str | None = None
    filename: str | None = None
    content_type: str | None = None
    file_size: int | None = None
    url: str | None = None
    source: str | None = None
    is_spoiler: bool = False
    row: int
    extra: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Message(msgspec.Struct, kw_only=True):
    """One message that shows the image. `url` is its first attachment's; `extra` keeps unknown columns."""

    message_link: str | None = None
    message_id: str | None = None
    channel_id: str | None = None
    channel_name: str | None = None
    guild_id: str | None = None
    author_id: str | None = None
    author_name: str | None = None
    is_nsfw_channel: bool | None = None
    is_spoiler: bool = False
    created_at: str | None = None
    source: str | None = None
    url: str | None = None
    extra: dict[str, str] = msgspec.field(default_factory=dict)
    attachments: list[Attachment] = msgspec.field(default_factory=list)


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The image as a viewer shows it: width and height in pixels of the upright image, `bytes` of the file.

    `truncated`: not all of it could be read (the file ends early or is broken, the animation is too long); what
    follows was judged on the part that is there.
    """

    width: int
    height: int
    format: str
    bytes: int
    frames: int = 1
    truncated: bool = False


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """The four ratings of a WD14 tagger, each 0 to 1, 6 decimals."""

    general: float
    sensitive: float
    questionable: float
    explicit: float


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """That ratings are calibrated: by the file of this sha256, with these temperatures; `rating` is the model's own."""

    digest: str
    temperatures: dict[str, float]
    rating: Rating


class Wd14(msgspec.Struct, frozen=True, kw_only=True):
    """What the tagger says of one frame. Tags are [name, score], highest first, 6 decimals.

    `calibration` is there where the ratings are calibrated ones.
    """

    model: str
    revision: str
    input_size: int
    rating: Rating
    general: list[TagScore]
    character: list[TagScore]
    general_raw: list[TagScore]
    frame: int = 0
    calibration: Calibrated | msgspec.UnsetType = msgspec.UNSET


class P1Record(msgspec.Struct, kw_only=True):
    """One image, in the shard files of one row, in the merged file of every row that shows it.

    `row` is the first index row. Without an image, `sha256`, `phash`, `image` and `wd14` are None and
    `error` is set.
    """

    row: int
    sha256: str | None = None
    phash: str | None = None
    image: ImageInfo | None = None
    messages: list[Message] = msgspec.field(default_factory=list)
    wd14: Wd14 | None = None
    error: RecordError | None = None
