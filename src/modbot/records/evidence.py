"""What p3 needs of a p2 line, however odd the line: a fast typed reading, and a tolerant one behind it.

Nothing that stands in a line ends a run. A line is read in full; or with doubts, where a part of the evidence is
missing or broken; or not at all, and then it is a record with the error `unreadable`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from modbot.records.jsonl import encode_line
from modbot.records.p1 import RecordError
from modbot.records.p2 import Detection, P2Record, XSignals
from modbot.records.tags import normalise

RATINGS = ("general", "sensitive", "questionable", "explicit")
OWN_KEYS = ("severity", "rule_id", "rule_title", "reasons", "metrics")
"""The keys that p3 adds to a record. A line that has them already (a finding that is judged again) loses them."""

UNREADABLE = "unreadable"
NOT_FINITE = "not_finite"
SCORES_MISSING = "scores_missing"
TRUNCATED = "truncated"
DETECTOR_FAILED = "detector_failed"
EVIDENCE_MISSING = "evidence_missing"
OUT_OF_RANGE = "out_of_range"

_SIGNALS = frozenset(XSignals.__struct_fields__)
_MAX_INT = 2**63 - 1


LARGEST = 1e9
_WITHIN = msgspec.Meta(ge=-int(LARGEST), le=int(LARGEST))
Whole = Annotated[int, _WITHIN]
Number = Whole | Annotated[float, _WITHIN]
"""A number that can be a signal: one beyond these bounds is as broken as an infinite one, and its sums would be."""

Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""What a model can give for a rating, a tag, a detection."""


class _Normalised(dict[str, str]):
    """Tag as spelled -> tag as normalised, for those met lately: half the time of a cached function."""

    _MOST = 65_536

    def __missing__(self, tag: str) -> str:
        if len(self) >= self._MOST:
            self.clear()
        self[tag] = normalised = normalise(tag)
        return normalised


_normalised = _Normalised()


class Fault(NamedTuple):
    """Why a record, or a part of its evidence, cannot be relied on."""

    kind: str
    detail: str


class Attached(msgspec.Struct, gc=False):
    """An attachment, as far as it bears on a verdict."""

    is_spoiler: bool = False


class Post(msgspec.Struct, gc=False):
    """A message that shows the image. `is_nsfw_channel` is None where the message does not say."""

    message_link: str | None = None
    message_id: str | None = None
    channel_id: str | None = None
    channel_name: str | None = None
    author_id: str | None = None
    created_at: str | None = None
    is_nsfw_channel: bool | None = None
    is_spoiler: bool = False
    attachments: list[Attached] = []


class Picture(msgspec.Struct, gc=False):
    """Width and height in pixels of the upright image; `truncated`: the file ends early."""

    width: Whole = 0
    height: Whole = 0
    truncated: bool = False


class Tagged(msgspec.Struct, gc=False):
    """The tagger's scores, as the record spells the tags. `calibration` is there where the ratings are calibrated."""

    model: str | None = None
    rating: dict[str, Score] = {}
    general: list[tuple[str, Score]] = []
    general_raw: list[tuple[str, Score]] = []
    calibration: object = None


class Seen(Detection, frozen=True, kw_only=True):
    """A detection whose score can be one, and whose box can be in an image."""

    score: Score
    box: tuple[Whole, Whole, Whole, Whole]


class Detector(msgspec.Struct, gc=False):
    """What became of the detector."""

    nudenet_ran: bool = False
    nudenet_error: str | None = None


class Failure(msgspec.Struct, gc=False):
    """The record's own error."""

    kind: str
    detail: str = ""


class Evidence(msgspec.Struct, gc=False):
    """The part of a p2 record that verdicts, filters and reports read."""

    row: int | None = None
    sha256: str | None = None
    phash: str | None = None
    image: Picture | None = None
    messages: list[Post] = []
    wd14: Tagged | None = None
    error: Failure | None = None
    channel_id: str | None = None
    message_id: str | None = None
    message_link: str | None = None
    created_at: str | None = None
    author_id: str | None = None
    is_nsfw_channel: bool = False
    is_spoiler: bool = False
    nudity_detections: list[Seen] | None = None
    xsignals: dict[str, Number] = {}
    meta: Detector | None = None

    @property
    def posts(self) -> list[Post]:
        """The messages; a record without any is taken as the one message of its flat copies."""
        return self.messages or [
            Post(
                message_link=self.message_link,
                message_id=self.message_id,
                channel_id=self.channel_id,
                author_id=self.author_id,
                created_at=self.created_at,
            )
        ]

    @property
    def link(self) -> str | None:
        """The link to the first message."""
        return self.message_link or self.posts[0].message_link

    @property
    def channel_is_nsfw(self) -> bool:
        """Whether every message is in an NSFW channel; the record's own flag speaks for messages that do not say."""
        if not self.messages:
            return self.is_nsfw_channel
        for post in self.messages:
            said = post.is_nsfw_channel
            if not (self.is_nsfw_channel if said is None else said):
                return False
        return True

    @property
    def shown_as_spoiler(self) -> bool:
        """Whether the record, any message or any attachment is marked as a spoiler."""
        if self.is_spoiler:
            return True
        for post in self.messages:
            if post.is_spoiler:
                return True
            for attached in post.attachments:
                if attached.is_spoiler:
                    return True
        return False

    @property
    def attachment_count(self) -> int:
        """The attachments of all messages."""
        return sum([len(post.attachments) for post in self.messages])

    @property
    def detections(self) -> list[Seen]:
        """What the detector saw; empty where it did not run, too."""
        return self.nudity_detections or []

    @property
    def signals(self) -> dict[str, int | float] | None:
        """p2's signals by name; None where one is missing: all are to be computed then."""
        return self.xsignals if self.xsignals.keys() >= _SIGNALS else None

    @property
    def model(self) -> str | None:
        """The tagger; None without scores."""
        return None if self.wd14 is None else self.wd14.model or "unknown"

    @property
    def calibrated(self) -> bool:
        """Whether the ratings are other than the tagger gave them."""
        return self.wd14 is not None and self.wd14.calibration is not None

    @property
    def rating(self) -> dict[str, float]:
        """The tagger's ratings; empty without scores."""
        return {} if self.wd14 is None else self.wd14.rating

    def tags(self) -> dict[str, float]:
        """Normalised tag -> its largest score: of `general_raw` when it holds any, else of `general`."""
        if self.wd14 is None:
            return {}
        pairs = self.wd14.general_raw or self.wd14.general
        tags = {_normalised[name]: score for name, score in pairs}
        if len(tags) < len(pairs):
            for name, score in pairs:
                tag = _normalised[name]
                tags[tag] = max(tags[tag], score)
        return tags


class Reading(NamedTuple):
    """A p2 line that was read. `line` is a valid JSON object without newline, nothing of p3's in it.

    `doubts` say what of the evidence is missing or broken; `skipped_tags` counts the items of the tag list that are no
    tag and score.
    """

    line: bytes
    evidence: Evidence
    doubts: tuple[Fault, ...] = ()
    skipped_tags: int = 0


class _Line(Evidence, gc=False):
    """A p2 line, with what would clash with p3's own keys."""

    severity: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    rule_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    rule_title: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    reasons: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    metrics: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def clashes(self) -> bool:
        unset = msgspec.UNSET
        return not (
            self.severity is unset
            and self.rule_id is unset
            and self.rule_title is unset
            and self.reasons is unset
            and self.metrics is unset
        )


_decode = msgspec.json.Decoder(_Line).decode


def read(line: bytes, number: int) -> Reading:
    """Reads line `number` (from 1) of a p2 file. Raises nothing, whatever the line holds."""
    line = line.strip()
    try:
        if not line.isascii():
            line.decode()
        evidence = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_odd(line, number)
    if evidence.clashes():
        return _read_odd(line, number)
    return Reading(line, evidence, _gaps(evidence))


def _gaps(evidence: Evidence) -> tuple[Fault, ...]:
    """What is missing of the evidence by the record's own account."""
    found = [] if evidence.error is not None else _missing(evidence)
    if evidence.image is not None and evidence.image.truncated:
        found.append(Fault(TRUNCATED, "the image was read in part"))
    if evidence.meta is not None and evidence.meta.nudenet_error is not None:
        found.append(Fault(DETECTOR_FAILED, evidence.meta.nudenet_error))
    return tuple(found)


def _missing(evidence: Evidence) -> list[Fault]:
    """What p2 tells of every image that was judged, and the record does not."""
    meta = evidence.meta
    found = []
    if evidence.wd14 is None or not evidence.wd14.rating:
        found.append(Fault(SCORES_MISSING, "the record holds no ratings"))
    if evidence.sha256 is None:
        found.append(_lacks("sha256"))
    if evidence.image is None:
        found.append(_lacks("image"))
    if meta is None:
        found.append(_lacks("meta"))
    elif meta.nudenet_ran and evidence.nudity_detections is None:
        found.append(_lacks("nudity_detections, though the detector ran"))
    return found


def _lacks(name: str) -> Fault:
    return Fault(EVIDENCE_MISSING, f"the record holds no {name}")


def _read_odd(line: bytes, number: int) -> Reading:
    """The tolerant reading: any JSON object, in any encoding, with anything in it."""
    doubts: list[Fault] = []
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = line.decode("utf-8-sig", "replace")
        doubts.append(Fault(UNREADABLE, f"line {number}: not UTF-8"))
    try:
        record = _plain(json.loads(text))
        if not isinstance(record, dict):
            return unreadable(number, "no JSON object")
        for key in OWN_KEYS:
            record.pop(key, None)
        encoded = encode_line(record).rstrip()
    except (ValueError, RecursionError) as error:
        return unreadable(number, _why(error))
    try:
        evidence: Evidence = _decode(encoded)
        skipped = 0
    except msgspec.DecodeError:
        odd = _Odd()
        evidence = odd.evidence(record)
        doubts += odd.doubts
        skipped = odd.skipped_tags
    return Reading(encoded, evidence, (*doubts, *_gaps(evidence)), skipped)


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON ({error.msg}, character {error.pos + 1})"
    return "nested too deeply" if isinstance(error, RecursionError) else f"broken JSON ({error})"


def unreadable(number: int, why: str) -> Reading:
    """The record that stands for a line that is no record: p2's shape, nothing known, the line number in the error."""
    detail = f"line {number}: {why}"
    shape = msgspec.to_builtins(P2Record(row=0, error=RecordError(kind=UNREADABLE, detail=detail)))
    shape["row"] = None
    return Reading(encode_line(shape).rstrip(), Evidence(error=Failure(UNREADABLE, detail)))


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON of unknown shape
    """The value as JSON can hold it: numbers that are none become null, half surrogate pairs a replacement."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if -_MAX_INT <= value <= _MAX_INT else _wide(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_text(key): _plain(item) for key, item in value.items()}
    return value


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def _wide(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _string(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int)) else None


def _number(value: object) -> float | None:
    """The number, from a number or its text: NaN for one out of all bounds, None for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST else math.nan


class _Odd:
    """Takes what can be used from a record of unexpected types, and notes what could not."""

    def __init__(self) -> None:
        self.doubts: list[Fault] = []
        self.skipped_tags = 0

    def evidence(self, raw: Mapping[str, Any]) -> Evidence:
        return Evidence(
            row=row if isinstance(row := raw.get("row"), int) else None,
            sha256=_string(raw.get("sha256")),
            phash=_string(raw.get("phash")),
            image=self._picture(raw.get("image")),
            messages=[self._post(item) for item in _objects(raw.get("messages"))],
            wd14=self._tagged(raw.get("wd14")),
            error=self._failure(raw.get("error")),
            channel_id=_string(raw.get("channel_id")),
            message_id=_string(raw.get("message_id")),
            message_link=_string(raw.get("message_link")),
            created_at=_string(raw.get("created_at")),
            author_id=_string(raw.get("author_id")),
            is_nsfw_channel=_flag(raw.get("is_nsfw_channel")) or False,
            is_spoiler=_flag(raw.get("is_spoiler")) or False,
            nudity_detections=self._detections(raw.get("nudity_detections")),
            xsignals=self._signals(raw.get("xsignals")),
            meta=self._detector(raw.get("meta")),
        )

    def _finite(self, value: object, what: str) -> float | None:
        """A finite number, or None; one that is there and not finite, or a text, is a doubt."""
        number = _number(value)
        if number is not None and not math.isfinite(number):
            self.doubts.append(Fault(NOT_FINITE, f"{what} is no finite number"))
            return None
        if number is not None and isinstance(value, str):
            self.doubts.append(Fault(NOT_FINITE, f"{what} is text, not a number"))
        return number

    def _score(self, value: object, what: str) -> float | None:
        """As `_finite`; one that no model gives is a doubt, too."""
        number = self._finite(value, what)
        if number is not None and not 0 <= number <= 1:
            self.doubts.append(Fault(OUT_OF_RANGE, f"{what} is {number:g}, not 0 to 1"))
        return number

    def _picture(self, value: object) -> Picture | None:
        if not isinstance(value, dict):
            return None
        width, height = (self._finite(value.get(side, 0), f"image.{side}") for side in ("width", "height"))
        return Picture(
            width=int(width or 0),
            height=int(height or 0),
            truncated=_flag(value.get("truncated")) or False,
        )

    def _post(self, raw: Mapping[str, Any]) -> Post:
        return Post(
            message_link=_string(raw.get("message_link")),
            message_id=_string(raw.get("message_id")),
            channel_id=_string(raw.get("channel_id")),
            channel_name=_string(raw.get("channel_name")),
            author_id=_string(raw.get("author_id")),
            created_at=_string(raw.get("created_at")),
            is_nsfw_channel=_flag(raw.get("is_nsfw_channel")),
            is_spoiler=_flag(raw.get("is_spoiler")) or False,
            attachments=[
                Attached(is_spoiler=_flag(item.get("is_spoiler")) or False) for item in _objects(raw.get("attachments"))
            ],
        )

    def _tagged(self, value: object) -> Tagged | None:
        if not isinstance(value, dict):
            return None
        return Tagged(
            model=_string(value.get("model")),
            rating=self._rating(_object(value.get("rating"))),
            general=self._pairs(value.get("general"), "general"),
            general_raw=self._pairs(value.get("general_raw"), "general_raw"),
            calibration=value.get("calibration"),
        )

    def _rating(self, raw: Mapping[str, Any]) -> dict[str, float]:
        rating = {}
        for key, value in raw.items():
            number = (self._score if key in RATINGS else self._finite)(value, f"rating.{key}")
            if number is not None:
                rating[key] = number
            elif key in RATINGS and _number(value) is None:
                self.doubts.append(Fault(NOT_FINITE, f"rating.{key} is no number"))
        return rating

    def _pairs(self, value: object, key: str) -> list[tuple[str, float]]:
        if value is not None and not isinstance(value, list):
            self.doubts.append(Fault(UNREADABLE, f"wd14.{key} is no list"))
        pairs = []
        for item in _items(value):
            name, score = self._pair(item)
            if name is None or score is None:
                self.skipped_tags += 1
            else:
                pairs.append((name, score))
        return pairs

    def _pair(self, item: object) -> tuple[str | None, float | None]:
        match item:
            case [str(name), value] | {"name": str(name), "score": value}:
                return name, self._score(value, f"the score of tag {name!r}")
            case _:
                return None, None

    def _failure(self, value: object) -> Failure | None:
        if value is None:
            return None
        raw = _object(value)
        kind = _string(raw.get("kind")) or "unknown"
        return Failure(kind, _string(raw.get("detail")) or ("" if raw else str(value)[:200]))

    def _detections(self, value: object) -> list[Seen] | None:
        if value is None:
            return None
        if not isinstance(value, list):
            self.doubts.append(Fault(UNREADABLE, "nudity_detections is no list"))
        return [found for item in _items(value) if (found := self._detection(item)) is not None]

    def _detection(self, item: object) -> Seen | None:
        raw = _object(item)
        name = _string(raw.get("class"))
        score = self._score(raw.get("score"), f"the score of detection {name!r}") if name is not None else None
        if name is None or score is None:
            self.doubts.append(Fault(UNREADABLE, "a detection without a class and a score"))
            return None
        return Seen(class_=name, score=score, box=self._box(raw.get("box"), name))

    def _box(self, value: object, name: str) -> tuple[int, int, int, int]:
        items = list(_items(value))
        sides = [int(side) for item in items if (side := _number(item)) is not None and math.isfinite(side)]
        is_box = len(items) == len(sides) == 4  # noqa: PLR2004 - x, y, width, height
        if not is_box or any(isinstance(item, str) for item in items):
            self.doubts.append(Fault(UNREADABLE, f"the box of detection {name!r} is no [x, y, width, height]"))
        return (sides[0], sides[1], sides[2], sides[3]) if is_box else (0, 0, 0, 0)

    def _signals(self, value: object) -> dict[str, int | float]:
        if value is not None and not isinstance(value, dict):
            self.doubts.append(Fault(UNREADABLE, "xsignals is no object"))
        signals = {}
        for name, item in _object(value).items():
            number = self._finite(item, f"xsignals.{name}")
            if number is not None:
                signals[name] = number
            elif name in _SIGNALS and _number(item) is None:
                self.doubts.append(Fault(NOT_FINITE, f"xsignals.{name} is no number"))
        return signals

    def _detector(self, value: object) -> Detector | None:
        if not isinstance(value, dict):
            return None
        error = value.get("nudenet_error")
        return Detector(
            nudenet_ran=_flag(value.get("nudenet_ran")) or False,
            nudenet_error=None if error is None else _string(error) or str(error)[:200],
        )


def _items(value: object) -> Iterable[Any]:
    return value if isinstance(value, list) else ()
