"""Generated p2 records: realistic ones, and ones with everything wrong that a line can have."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from modbot.records.jsonl import encode_line
from modbot.records.p1 import Attachment, ImageInfo, Message, Rating, RecordError, Wd14
from modbot.records.p2 import Detection, Meta, P2Record, XSignals

DAY = datetime(2025, 10, 1, tzinfo=UTC)

RULES = """\
version: 2
rule_titles:
  ADULT: Adult content outside NSFW channels
  GORE: Gore
  VIOLENCE: Violence
  MILD: "Mild exposure / 軽度の露出"
groups:
  nsfw_general: [nipples, pussy, penis, sex, nude]
  violence: [blood, weapon, "*sword*"]
  gore: [guro, intestines, severed_limb]
  minors: [child, loli]
  animal_subjects: [dog, cat]
thresholds:
  wd14_questionable: 0.35
  wd14_explicit: 0.20
features:
  adult: "max(rating.explicit, 0.5 * exposure_score)"
rules:
  - id: ADULT
    severity: red
    priority: 10
    when: "rating.explicit >= 0.75 && !channel.is_nsfw"
    reasons: ["explicit {rating.explicit:.2f}", "adult {adult:.2f}"]
  - id: GORE
    severity: orange
    when: "gore_peak >= 0.5"
    reasons: ["gore {gore_peak:.2f}"]
  - id: VIOLENCE
    severity: yellow
    when: "count(violence, gt=0.35) >= 1"
    reasons: ["violence {violence_sum:.2f}"]
  - id: MILD
    severity: yellow
    priority: 5
    when: "exposure_score >= 0.3"
"""

CANDIDATE = (
    RULES.replace("rating.explicit >= 0.75", "rating.explicit >= 0.6")
    .replace("id: MILD", "id: SOFT")
    .replace("  MILD:", "  SOFT:")
)

TAGS = (
    *("1girl", "solo", "long_hair", "smile", "dog", "cat", "blood", "weapon", "long_sword", "nude", "nipples", "sex"),
    *("guro", "child", "sky", "tree", "water", "food", "text", "hat", "outdoors", "night", "animal_ears"),
    *(f"general_tag_{number:03d}" for number in range(200)),
)

CLASSES = ("FEMALE_BREAST_EXPOSED", "BELLY_EXPOSED", "FACE_FEMALE", "FEET_EXPOSED", "FEMALE_BREAST_COVERED")


def record(row: int, seed: int = 0, *, raw_tags: int = 128) -> P2Record:
    """One record; the same for the same arguments. Every 50th has an error, every 37th a broken detector."""
    chance = random.Random(f"{seed}/{row}")  # noqa: S311 - test data, not secrets
    messages = [_message(row, place, chance) for place in range(chance.choice((1, 1, 1, 1, 2, 3)))]
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
    if row % 50 == 49:
        return P2Record(**base, error=RecordError(kind="expired", detail="HTTP 404", http_status=404, attempts=2))
    explicit, questionable, sensitive = chance.random() ** 3, chance.random() ** 2, chance.random()
    rating = Rating(
        general=round(1 - sensitive / 2, 6),
        sensitive=round(sensitive, 6),
        questionable=round(questionable, 6),
        explicit=round(explicit, 6),
    )
    tags = sorted(
        ((tag, round(chance.random() ** 2, 6)) for tag in chance.sample(TAGS, min(raw_tags, len(TAGS)))),
        key=lambda pair: -pair[1],
    )
    detections = [
        Detection(class_=chance.choice(CLASSES), score=round(chance.uniform(0.2, 0.99), 6), box=(10, 20, 100, 120))
        for _ in range(chance.choice((0, 0, 1, 3)))
    ]
    return P2Record(
        **base,
        sha256=f"{chance.getrandbits(256):064x}",
        phash=f"{chance.getrandbits(64):016x}",
        image=ImageInfo(width=800, height=600, format="JPEG", bytes=100_000 + row, truncated=row % 41 == 40),
        wd14=Wd14(
            model="wd-eva02-large-tagger-v3",
            revision="main",
            input_size=448,
            rating=rating,
            general=[pair for pair in tags if pair[1] >= 0.35],
            character=[],
            general_raw=tags,
        ),
        nudity_detections=detections,
        xsignals=XSignals(
            exposure_score=round(max((d.score for d in detections), default=0.0) * 0.9, 6),
            placement_risk_pre=round(explicit / 2, 6),
            nsfw_margin=round(explicit - sensitive, 6),
            nsfw_ratio=round(explicit / 2, 6),
            nsfw_general_sum=round(explicit, 6),
            nudity_area_ratio=0.025 * len(detections),
            nudity_box_count=len(detections),
        ),
        meta=Meta(
            nudenet_version="320n",
            nudenet_ran=True,
            wd_model="wd-eva02-large-tagger-v3",
            wd_revision="main",
            wd_input_size=448,
            nudenet_error="inference failed" if row % 37 == 36 else None,
        ),
    )


def _message(row: int, place: int, chance: random.Random) -> Message:
    channel, message = str(chance.randrange(1, 6)), str(10_000 + row * 10 + place)
    at = DAY + timedelta(minutes=chance.randrange(-1440, 2880))
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
        created_at=at.isoformat(),
        source="attachment",
        url=url,
        attachments=[Attachment(id=message, filename="image.png", url=url, source="attachment", row=row)],
    )


def lines(count: int, seed: int = 0, *, raw_tags: int = 128) -> Iterator[bytes]:
    """`count` records as lines, about 4 KB each (3 KB with 90 raw tags)."""
    return (encode_line(record(row, seed, raw_tags=raw_tags)) for row in range(count))


def plain(number: int = 0, **changes: object) -> dict[str, Any]:
    """A record as plain JSON values, with some of its top level changed."""
    return {**msgspec.json.decode(encode_line(record(number))), **changes}


def odd_lines() -> dict[str, bytes]:
    """Lines of every kind that a p2 file should not hold, by what is odd about them."""
    good = json.dumps(plain(1), ensure_ascii=False)
    rating, wd14 = plain(1)["wd14"]["rating"], plain(1)["wd14"]
    odd: dict[str, Any] = {
        "strings for numbers": plain(1, wd14={**wd14, "rating": {name: str(value) for name, value in rating.items()}}),
        "numbers for strings": plain(1, sha256=12, author_id=99, message_link=7),
        "lists for objects": plain(1, wd14=[], image=[], meta=[], xsignals=[]),
        "objects for lists": plain(1, messages={}, nudity_detections={"class": "X"}),
        "text for everything": dict.fromkeys(plain(1), "x"),
        "null for everything": dict.fromkeys(plain(1)),
        "tags as objects": plain(1, wd14={**wd14, "general_raw": [{"name": "guro", "score": 0.9}, ["dog"], 7, None]}),
        "boxes as text": plain(1, nudity_detections=[{"class": "BELLY_EXPOSED", "score": "0.9", "box": "1,2,3,4"}]),
        "error as text": plain(1, error="boom"),
        "error as list": plain(1, error=[1]),
        "own keys": plain(1, severity="green", rule_id="X", rule_title="x", reasons=["x"], metrics={"x": 1}),
        "nothing": {},
        "huge integer": plain(1, row=10**40),
        "date as number": plain(1, created_at=1759300000, messages=[{"created_at": 1759300000}]),
    }
    encoded = {name: json.dumps(value, ensure_ascii=False).encode() for name, value in odd.items()}
    return {
        **encoded,
        "not a number": good.replace(str(rating["explicit"]), "NaN").encode(),
        "infinite": good.replace(str(rating["explicit"]), "1e999").encode(),
        "torn": good[: len(good) // 2].encode(),
        "not JSON": b"\x00\x01\x02 not json",
        "a list": b"[1, 2]",
        "a number": b"5",
        "latin-1": good.replace("image.png", "im\xe4ge.png").encode("latin-1", "replace"),
        "half a surrogate pair": good.replace("image.png", "\\ud800.png").encode(),
        "byte order mark": b"\xef\xbb\xbf" + good.encode(),
        "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "twice": good.encode() * 2,
        "carriage return": good.encode() + b"\r",
    }


def write(path: Path, data: Iterator[bytes] | list[bytes]) -> Path:
    """Writes the lines to a file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.writelines(data)
    return path
