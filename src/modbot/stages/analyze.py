"""p2: the detector where the ratings say so, and the signals that cross tagger and detector."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from modbot.errors import InputError, ModbotError
from modbot.fetch.store import Store
from modbot.files.journal import JournalLine, ShardFiles, decode_line, digest_of
from modbot.files.paths import Partition
from modbot.files.shards import ShardSet
from modbot.models.decoder_process import start_spare
from modbot.models.decoding import Answer, Decoders
from modbot.models.execution import Execution
from modbot.models.preparation import PreparedFrame
from modbot.models.registry import Installed
from modbot.records import jsonl
from modbot.records.p1 import Message, P1Record, RecordError
from modbot.records.p2 import Detection, Meta, P2Record, XSignals
from modbot.records.progress import Notice, Receipt
from modbot.records.tags import Group, normalise
from modbot.signals import GateMode, SignalConfig, compute, gate_opens
from modbot.stages.flow import Meter, Shift
from modbot.stages.kept import Kept, kept_detections
from modbot.stages.merge import merge_in_order
from modbot.stages.step import Report, Step, one_line, out_of_memory, shard_work

if TYPE_CHECKING:  # it loads ONNX Runtime and OpenCV, which only a worker needs
    from modbot.models.nudenet import Detector


class DetectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs for p2.

    `model`: the detector, checked on disk; None where the gate is `never`. `gate`: `auto`, `always` or `never`;
    `thresholds`: the rules file's, which `auto` compares the ratings with; `nsfw_general`: the patterns of that group;
    `signals`: the signals' numbers and lists; `cores`: how many a worker may keep busy.
    """

    model: Installed | None
    execution: Execution
    gate: GateMode
    thresholds: dict[str, float]
    nsfw_general: tuple[str, ...]
    signals: SignalConfig
    cache_dir: Path
    cores: int


@dataclass(frozen=True)
class Slice:
    """The records of the merged p1 file whose first row is in one shard: bytes `start` to `end`, and their digest.

    `line`: the number of the first one's line, from 1.
    """

    start: int
    end: int
    line: int
    rows: int
    digest: str


@dataclass(frozen=True)
class AnalyzeJob:
    """p2 of one shard: a slice of the merged p1 file."""

    files: ShardFiles
    source: Path
    part: Slice
    settings: str
    inputs: str
    resume: bool
    detecting: DetectSettings

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def rows(self) -> int:
        return self.part.rows

    def resumed(self) -> Self:
        return replace(self, resume=True)

    def run(self, report: Report) -> Receipt:
        """Analyzes the records that the journal does not have yet, and publishes the shard."""
        meter = Meter("decode", "infer", "write")
        detector, decoders = _equipment(self.detecting)
        for warning in detector.warnings if detector else ():
            report(Notice(text=warning))
        shift = Shift(detector)
        with ExitStack() as stack:
            kept = None
            if self.detecting.model is not None and detector is not None:
                kept = stack.enter_context(kept_detections(self.detecting.cache_dir, self.detecting.model, detector))
                for warning in kept.warnings:
                    report(Notice(text=warning))
            analyst = _Analyst(detector, decoders, kept, self.detecting, meter)

            def count() -> dict[str, float]:
                """What p2 counts beside what is counted from its lines, in the end."""
                return {"batch_halved": shift.halved, "nudenet_reused": analyst.reused}

            work = stack.enter_context(shard_work(self, report, count=count, kind=AnalyzedLine))
            todo = (record for record in _read(self.source, self.part) if record.row not in work.recovered)
            for record in analyst.analyze(todo):
                with meter.at("write"):
                    work.append(jsonl.encode_line(record))
            if detector and shift.halved:
                report(out_of_memory(detector.provider, detector.batch))
            running = f"{detector.version} on {detector.provider}, {detector.precision}" if detector else None
            flow = msgspec.structs.asdict(meter.flow(shift))
            return work.finish("p2", {"running": running, "flow": flow, **_tally(work.path)})


class AnalyzedLine(JournalLine):
    """A p2 line as its journal sees it: what p1 failed at is no failure of p2."""

    meta: Meta = Meta()

    @property
    def failure(self) -> str | None:
        return "detector_failed" if self.meta.nudenet_error else None


def plan(
    partition: Partition,
    shards: ShardSet,
    *,
    detecting: DetectSettings,
    resume: bool,
    shown: dict[str, Any],
) -> Step:
    """p2 of a day: a job for each shard, over the merged p1 file.

    `shown`: the settings as the manifest tells them.

    Raises:
        InputError: there is no merged p1 file, or it is not of these shards.
    """
    source = partition.merged("p1")
    slices, rows = survey(source, shards)
    settings = digest_of(
        "p2",
        [detecting.model.name, detecting.model.revision, detecting.execution.precision] if detecting.model else None,
        [detecting.gate, detecting.thresholds if detecting.gate == "auto" else None],
        [sorted(detecting.nsfw_general), detecting.signals],
    )
    folder = partition.step_shards("p2")
    jobs = tuple(
        AnalyzeJob(
            files=ShardFiles(folder, name),
            source=source,
            part=part,
            settings=settings,
            inputs=part.digest,
            resume=resume,
            detecting=detecting,
        )
        for name, part in zip(shards.names(), slices, strict=True)
    )
    return Step(
        name="p2",
        profile=partition.profile,
        date=partition.date,
        jobs=jobs,
        settings=shown,
        shard_metrics=partition.shard_metrics("p2"),
        merge=lambda: merge_in_order([job.files.lines for job in jobs], partition.merged("p2"), rows=rows),
        first=start_spare if detecting.model else None,
    )


def survey(source: Path, shards: ShardSet) -> tuple[list[Slice], Sequence[int]]:
    """The slice of the merged p1 file for each shard, and the first row of every record in it, ascending.

    Raises:
        InputError: there is no merged p1 file, or it does not account for every row of the index exactly once.
    """
    starts = shards.starts()
    lengths, counts = [0] * shards.count, [0] * shards.count
    hashes = [sha256() for _ in range(shards.count)]
    seen = bytearray(shards.total)
    firsts = array("Q")
    try:
        lines = source.open("rb")
    except FileNotFoundError:
        remedy = f"Run p1 first: modbot tag --profile {shards.profile or '…'} --date {shards.date}"
        raise InputError("there is no merged p1 file", where=str(source), remedy=remedy) from None
    with lines:
        for number, line in enumerate(lines, 1):
            where = f"{source}, line {number}"
            record = decode_line(line, _Rows, where)
            if firsts and record.row <= firsts[-1]:
                raise _unfit(f"row {record.row} comes after row {firsts[-1]}", where)
            for row in record.rows():
                if row >= shards.total or seen[row]:
                    raise _unfit(f"row {row} is {'there twice' if row < shards.total else 'not of this index'}", where)
                seen[row] = 1
            firsts.append(record.row)
            shard = bisect_right(starts, record.row) - 1
            counts[shard] += 1
            lengths[shard] += len(line)
            hashes[shard].update(line)
    missing = seen.find(0)
    if missing >= 0:
        raise _unfit(f"row {missing} of the index is in no record", str(source))
    slices, start, line_number = [], 0, 1
    for length, count, digest in zip(lengths, counts, hashes, strict=True):
        end = start + length
        slices.append(Slice(start=start, end=end, line=line_number, rows=count, digest=digest.hexdigest()))
        start, line_number = end, line_number + count
    return slices, firsts


def _unfit(what: str, where: str) -> InputError:
    return InputError(what, where=where, remedy="Run p1 again for this day: what is stored is not fetched again.")


class _RowOf(msgspec.Struct):
    row: int


class _Attached(msgspec.Struct):
    attachments: list[_RowOf] = []


class _Rows(msgspec.Struct):
    """Of a merged p1 line, the rows that it stands for."""

    row: int
    messages: list[_Attached] = []

    def rows(self) -> Iterator[int]:
        return (attachment.row for message in self.messages for attachment in message.attachments)


def _read(source: Path, part: Slice) -> Iterator[P1Record]:
    """The records of a slice. Raises InputError, which names the line, where one is none: `survey` reads only rows."""
    with source.open("rb") as lines:
        lines.seek(part.start)
        for number in range(part.line, part.line + part.rows):
            try:
                record = jsonl.decode(lines.readline(), P1Record)
            except msgspec.DecodeError as error:
                remedy = "Run p1 again with --resume: it merges its shards anew."
                raise InputError(f"no p1 record ({error})", where=f"{source}, line {number}", remedy=remedy) from None
            yield record


def _tally(path: Path) -> dict[str, Any]:
    """The shard's numbers and the taggers of its records, from its lines: the same whatever the interruptions."""
    taggers: set[str] = set()
    counts = {"records": 0, "nudenet_executed": 0, "nudenet_skipped": 0, "nudenet_failed": 0}
    with path.open("rb") as lines:
        for line in lines:
            meta = jsonl.decode(line, AnalyzedLine).meta
            counts["records"] += 1
            taggers |= {meta.wd_model} if meta.wd_model else set()
            fate = "failed" if meta.nudenet_error else "executed" if meta.nudenet_ran else "skipped"
            counts[f"nudenet_{fate}"] += 1
    return {"counts": counts, "taggers": sorted(taggers)}


def _equipment(settings: DetectSettings) -> tuple[Detector | None, Decoders | None]:
    """The detector and the decoders of this process, kept from shard to shard; neither where none is to run."""
    if settings.model is None:
        return None, None
    decoders = _decoders(settings.cores)
    decoders.add(1)  # It starts while the model is read.
    detector = _detector(settings.model, settings.execution)
    if detector.provider not in {"cpu", "openvino"}:
        decoders.add(settings.cores - 1)
    return detector, decoders


@lru_cache(maxsize=1)
def _detector(model: Installed, execution: Execution) -> Detector:
    from modbot.models.nudenet import load_detector

    return load_detector(model, execution)


_decoders = lru_cache(maxsize=1)(Decoders)

_Found = list[Detection] | str
"""Detections, or why there are none."""

_Awaited = Future[Answer] | list[Detection] | None
"""A frame on its way, or what was found in it before; None: the detector is not to be asked."""


def _judged_frame(record: P1Record) -> tuple[str, int]:
    """The content, and the number of the frame that p1 judged."""
    return record.sha256 or "", record.wd14.frame if record.wd14 else 0


class _Analyst:
    """Records in, p2 records out, in order; pictures are decoded ahead and detected in batches.

    Without a detector (and decoders, and what it found before) the gate is `never`. `reused`: for how many records the
    detector was not asked again.
    """

    def __init__(
        self,
        detector: Detector | None,
        decoders: Decoders | None,
        kept: Kept | None,
        settings: DetectSettings,
        meter: Meter,
    ) -> None:
        self.reused = 0
        self._kept = kept
        self._detector = detector
        self._decoders = decoders
        self._settings = settings
        self._meter = meter
        self._store = Store(settings.cache_dir)
        self._nsfw = Group(settings.nsfw_general)

    def analyze(self, records: Iterable[P1Record]) -> Iterator[P2Record]:
        waiting: deque[tuple[P1Record, _Awaited]] = deque()
        gated = 0
        for record in records:
            awaited = self._known(record)
            waiting.append((record, awaited))
            gated += isinstance(awaited, Future)
            # One batch is decoded while the one before it is detected.
            if gated >= 2 * self._batch or len(waiting) >= 64 * self._batch:
                ready = [waiting.popleft() for _ in range(len(waiting) // 2 or 1)]
                gated -= sum(isinstance(awaited, Future) for _, awaited in ready)
                yield from self._finish(ready)
        yield from self._finish(waiting)

    @property
    def _batch(self) -> int:
        """Images that are best detected at once; fewer, once the device's memory did not hold them."""
        return self._detector.batch if self._detector else 1

    def _known(self, record: P1Record) -> _Awaited:
        """What was found before in the frame that p1 judged, or the frame on its way; None: the gate stays closed."""
        if self._detector is None or self._decoders is None or self._kept is None or not self._gate(record):
            return None
        sha256, index = _judged_frame(record)
        found = self._kept.detections(sha256, index)
        if found is not None:
            self.reused += 1
            return found
        return self._decoders.frame(self._store.path(sha256), sha256, self._detector.preparation, index=index)

    def _gate(self, record: P1Record) -> bool:
        if record.image is None or record.wd14 is None:
            return False
        return gate_opens(record.wd14.rating, self._settings.thresholds, self._settings.gate)

    def _prepared(self, record: P1Record, decoding: Future[Answer]) -> PreparedFrame | str:
        """The decoded frame, or why there is none."""
        with self._meter.at("decode"):
            found = decoding.result()
        if isinstance(found, RecordError):
            return f"{found.kind}: {found.detail}"
        return found.frames[0] if found else self._missing(record.sha256 or "")

    def _missing(self, sha256: str) -> str:
        """Why a stored image could not be read; the store removes what is damaged."""
        try:
            self._store.read(sha256)
        except InputError as error:
            return error.what
        return "this image was damaged in the store, and is whole again"

    def _finish(self, records: Iterable[tuple[P1Record, _Awaited]]) -> Iterator[P2Record]:
        batch = self._batch
        ready = [
            (record, self._prepared(record, awaited) if isinstance(awaited, Future) else awaited)
            for record, awaited in records
        ]
        frames = [frame for _, frame in ready if isinstance(frame, PreparedFrame)]
        fresh: Iterator[_Found] = iter(
            found for at in range(0, len(frames), batch) for found in self._detect(frames[at : at + batch])
        )
        for record, known in ready:
            if not isinstance(known, PreparedFrame):
                yield self._record(record, known)
                continue
            found = next(fresh)
            if self._kept is not None and isinstance(found, list):
                self._kept.put_detections(*_judged_frame(record), found)
            yield self._record(record, found)

    def _detect(self, batch: Sequence[PreparedFrame]) -> Sequence[_Found]:
        """A batch that fails is tried image by image, so that one takes no other with it."""
        if self._detector is None:
            raise AssertionError("a frame was decoded for no detector")
        try:
            with self._meter.at("infer"):
                return self._detector.detect(batch)
        except ModbotError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises becomes the record's error
            return [one_line(error)] if len(batch) == 1 else [self._detect([one])[0] for one in batch]

    def _record(self, record: P1Record, found: _Found | None) -> P2Record:
        detections = found if isinstance(found, list) else []
        wd14 = record.wd14
        first = record.messages[0] if record.messages else Message()
        return P2Record(
            **{name: getattr(record, name) for name in P1Record.__struct_fields__},
            guild_id=first.guild_id,
            channel_id=first.channel_id,
            message_id=first.message_id,
            message_link=first.message_link,
            created_at=first.created_at,
            author_id=first.author_id,
            source=first.source,
            is_nsfw_channel=bool(record.messages) and all(m.is_nsfw_channel is True for m in record.messages),
            nudity_detections=detections,
            xsignals=self._signals(record, detections),
            meta=Meta(
                nudenet_version=self._detector.version if self._detector else None,
                nudenet_ran=isinstance(found, list),
                gate=self._settings.gate,
                wd_model=wd14.model if wd14 else None,
                wd_revision=wd14.revision if wd14 else None,
                wd_input_size=wd14.input_size if wd14 else None,
                nudenet_error=found if isinstance(found, str) else None,
            ),
        )

    def _signals(self, record: P1Record, detections: list[Detection]) -> XSignals:
        if record.wd14 is None or record.image is None:
            return XSignals()
        return compute(
            record.wd14.rating,
            {normalise(tag): score for tag, score in reversed(record.wd14.general_raw or record.wd14.general)},
            detections,
            record.image.width,
            record.image.height,
            self._nsfw,
            self._settings.signals,
        )
