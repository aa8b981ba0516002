"""What p2 writes: the p1 record, the nudity detections, and the signals that cross both."""

from __future__ import annotations

import msgspec

from modbot.records.p1 import P1Record

DETECTION_CLASSES = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)
"""NudeNet 3's classes, in the order of its output rows."""


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """One detection. `box` is [x, y, width, height] in pixels of the upright image; `score` 0 to 1."""

    class_: str = msgspec.field(name="class")
    score: float
    box: tuple[int, int, int, int]


class XSignals(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that cross the tagger and the detector: see `modbot.signals`."""

    exposure_score: float = 0.0
    placement_risk_pre: float = 0.0
    nsfw_margin: float = 0.0
    nsfw_ratio: float = 0.0
    nsfw_general_sum: float = 0.0
    nudity_area_ratio: float = 0.0
    nudity_box_count: int = 0


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """How p2 came to the record. `gate` is the mode (`auto`, `always`, `never`)."""

    nudenet_version: str | None = None
    nudenet_ran: bool = False
    gate: str = "auto"
    wd_model: str | None = None
    wd_revision: str | None = None
    wd_input_size: int | None = None
    nudenet_error: str | None = None


class P2Record(P1Record, kw_only=True):
    """The p1 record with p2's part behind it. The flat copies are the first message's.

    `is_nsfw_channel` is True only if every message of the record is in an NSFW channel.
    """

    guild_id: str | None = None
    channel_id: str | None = None
    message_id: str | None = None
    message_link: str | None = None
    created_at: str | None = None
    author_id: str | None = None
    source: str | None = None
    is_nsfw_channel: bool = False
    nudity_detections: list[Detection] = msgspec.field(default_factory=list)
    xsignals: XSignals = msgspec.field(default_factory=XSignals)
    meta: Meta = msgspec.field(default_factory=Meta)
