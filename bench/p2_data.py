"""A day of p2 records as the taggers leave them, about 3 KB each, the same for the same count.

What costs time to make (scores by tag) is drawn from a pool; identity, messages, ratings and detections are each
record's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from modbot.records.jsonl import encode_line
from modbot.records.p1 import Attachment, ImageInfo, Message, Rating, RecordError, Wd14
from modbot.records.p2 import Detection, Meta, P2Record, XSignals

TAGS_EACH = 72
"""Of `general_raw`; more would make the record longer than the 3 KB that the bars are set for."""

FAILED, CUT, UNSEEN = 50, 41, 37
"""Every so many-th record has an error, an image that was read in part, a detector that failed."""

POOL = 3_000
MODEL = "wd-eva02-large-tagger-v3"
CLASSES = ("FEMALE_BREAST_EXPOSED", "BELLY_EXPOSED", "FACE_FEMALE", "FEET_EXPOSED", "FEMALE_BREAST_COVERED")

_COLOURS = ("black", "blue", "brown", "green", "grey", "pink", "purple", "red", "white", "yellow")
_THINGS = ("bag", "belt", "bow", "coat", "dress", "eyes", "flower", "gloves", "hair", "hat", "shirt", "shoes", "skirt")
_SCENES = ("city", "cloud", "field", "forest", "indoors", "lake", "moon", "night", "rain", "sky", "snow", "tree")
COMMON = (
    *("1girl", "1boy", "solo", "smile", "open_mouth", "looking_at_viewer", "long_hair", "short_hair", "sitting"),
    *(f"{colour}_{thing}" for colour in _COLOURS for thing in _THINGS),
    *_SCENES,
    *(f"{first}_{second}" for first, second in pairwise(_SCENES)),
    *("food", "drink", "book", "phone", "text", "english_text", "monochrome", "sketch", "scan", "photo_(medium)"),
)
NAMED = (
    *("dog", "cat", "horse", "bird", "animal", "nude", "nipples", "topless", "sex", "penis", "cum_on_body", "bondage"),
    *("blood", "blood_on_face", "injury", "corpse", "guro", "severed_head", "child", "female_child", "loli", "baby"),
    *("drugs", "marijuana", "see-through", "no_panties", "cameltoe", "bestiality", "dismemberment", "undressing"),
)
"""Tags of the default rules' groups, most of them with the small scores that the tagger keeps them with."""


def write(path: Path, count: int) -> None:
    """Writes `count` records as the day's p2 file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.writelines(lines(count))


def lines(count: int) -> Iterator[bytes]:
    """`count` records as lines."""
    chance = random.Random(count)  # noqa: S311 - data of a benchmark, no secrets
    pool = [_tags(chance) for _ in range(min(POOL, count))]
    for row in range(count):
        yield encode_line(_record(row, pool[row % len(pool)], chance))


def _tags(chance: random.Random) -> list[tuple[str, float]]:
    named = [(tag, round(chance.random() ** 40, 6)) for tag in NAMED]
    common = [(tag, round(chance.random() ** 5, 6)) for tag in chance.sample(COMMON, TAGS_EACH - len(NAMED))]
    return sorted(named + common, key=lambda pair: -pair[1])


def _record(row: int, tags: list[tuple[str, float]], chance: random.Random) -> P2Record:
    messages = [_message(row, place, chance) for place in range(2 if row % 10 == 0 else 1)]
    first = messages[0]
    base: dict[str, Any] = {
        "row": row,
        "messages": messages,
        "guild_id": first.guild_id,
        "channel_id": first.channel_id,
        "message_id": first.message_id,
        "message_link": first.message_link,
        "created_at": first.created_at,
        "author_id": first.author_id,
        "source": first.source,
        "is_nsfw_channel": all(message.is_nsfw_channel for message in messages),
    }
    if row % FAILED == 0:
        return P2Record(**base, error=RecordError(kind="expired", detail="HTTP 404", http_status=404, attempts=2))
    sensitive, questionable, explicit = chance.random(), chance.random() ** 4, chance.random() ** 6
    rating = Rating(
        general=round(1 - sensitive / 2, 6),
        sensitive=round(sensitive, 6),
        questionable=round(questionable, 6),
        explicit=round(explicit, 6),
    )
    detections = [
        Detection(class_=chance.choice(CLASSES), score=round(chance.uniform(0.2, 0.99), 6), box=(10, 20, 100, 120))
        for _ in range(chance.choice((0, 0, 0, 1, 3)))
    ]
    exposure = round(max((found.score for found in detections), default=0.0) * 0.6, 6)
    return P2Record(
        **base,
        sha256=f"{chance.getrandbits(256):064x}",
        phash=f"{chance.getrandbits(64):016x}",
        image=ImageInfo(width=1200, height=900, format="JPEG", bytes=100_000 + row, truncated=row % CUT == 0),
        wd14=Wd14(
            model=MODEL,
            revision="main",
            input_size=448,
            rating=rating,
            general=[pair for pair in tags if pair[1] >= 0.35],  # noqa: PLR2004 - the contract's
            character=[],
            general_raw=tags,
        ),
        nudity_detections=detections,
        xsignals=XSignals(
            exposure_score=exposure,
            placement_risk_pre=round(0.5 * max(questionable, explicit) + 0.7 * exposure, 6),
            nsfw_margin=round(max(questionable, explicit) - sensitive, 6),
            nsfw_ratio=round((questionable + explicit) / 2, 6),
            nsfw_general_sum=round(explicit, 6),
            nudity_area_ratio=round(0.0111 * len(detections), 6),
            nudity_box_count=len(detections),
        ),
        meta=Meta(
            nudenet_version="320n",
            nudenet_ran=bool(detections),
            wd_model=MODEL,
            wd_revision="main",
            wd_input_size=448,
            nudenet_error="inference failed" if row % UNSEEN == 0 else None,
        ),
    )


def _message(row: int, place: int, chance: random.Random) -> Message:
    channel, message = str(chance.randrange(1, 6)), str(1_420_000_000_000_000_000 + row * 10 + place)
    url = f"https://cdn.discordapp.com/attachments/{channel}/{message}/image.png"
    return Message(
        message_link=f"https://discord.com/channels/1/{channel}/{message}",
        message_id=message,
        channel_id=channel,
        channel_name=f"room-{channel}",
        guild_id="1",
        author_id=str(chance.randrange(100, 140)),
        author_name=chance.choice(("Aki", "山田", "=cmd")),
        is_nsfw_channel=channel in {"4", "5"},
        created_at=f"2025-10-01T{row // 3600 % 24:02d}:{row // 60 % 60:02d}:{row % 60:02d}+00:00",
        source="attachment",
        url=url,
        attachments=[Attachment(id=message, filename="image.png", url=url, source="attachment", row=row)],
    )
