"""p1: every row's image fetched once, hashed and tagged.

Each row goes its way alone (fetch, decode, batch, score, journal), only as many at once as the budget's slots, the
decoders and two batches can hold: the slowest stage sets the pace, and memory stays flat.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from modbot.errors import InputError, ModbotError
from modbot.fetch.coordinator import Coordinator
from modbot.fetch.remote import RemoteCoordinator
from modbot.fetch.store import Store, Stored
from modbot.files.index_csv import read_rows
from modbot.files.journal import ShardFiles, digest_of, file_digest
from modbot.models.calibration import Calibration
from modbot.models.decoding import Answer, Decoders
from modbot.models.execution import Execution
from modbot.models.preparation import Pixels, Preparation
from modbot.models.registry import Installed
from modbot.records import jsonl
from modbot.records.index import IndexRow
from modbot.records.p1 import Attachment, ImageInfo, Message, P1Record, RecordError, Wd14
from modbot.records.progress import Notice, Receipt
from modbot.records.tags import Group
from modbot.stages.fetch import FetchSettings, each, fetcher_of
from modbot.stages.flow import Meter, Shift
from modbot.stages.kept import Kept, KeptScores, as_kept, kept_scores, packed, unpacked
from modbot.stages.step import Report, one_line, out_of_memory, shard_work

if TYPE_CHECKING:  # they load aiohttp and ONNX Runtime, which only a worker needs
    from modbot.fetch.client import Fetcher
    from modbot.models.tagger import Tagger

REMEMBERED = 1024
"""How many contents a shard remembers, so that a picture posted under many links is judged once."""

LINGER_SECONDS = 0.02
"""How long a batch that is not full waits for another image."""

SLACK = 1e-3
"""How far beyond 0 and 1 a device may round a probability."""

Scores = NDArray[np.float32]
"""What the tagger gives for one picture, [outputs]."""


class TagSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to tag: the model (checked on disk), how to run it, and what to keep of its scores.

    `frames`: of an animation, how many at most. `fast_decode`: large JPEGs may be decoded to a part of their size.
    `groups`: the rules file's tag groups; their tags are kept whatever their score. `cores`: how many a worker may keep
    busy, of which a GPU's worker uses all but one to decode; on a CPU one image is decoded while another is scored.
    """

    model: Installed
    execution: Execution
    calibration: Calibration | None
    frames: int
    fast_decode: bool = False
    groups: dict[str, tuple[str, ...]]
    cores: int


@dataclass(frozen=True)
class TagJob:
    """p1 of one shard. `coordinator`: the socket of the run's shared budget."""

    files: ShardFiles
    source: Path
    rows: int
    settings: str
    inputs: str
    resume: bool
    tagging: TagSettings
    fetching: FetchSettings
    coordinator: Path

    @property
    def name(self) -> str:
        return self.files.name

    def resumed(self) -> Self:
        return replace(self, resume=True)

    def run(self, report: Report) -> Receipt:
        """Tags the shard's rows that its journal does not have yet, and publishes it."""
        return asyncio.run(self._run(report))

    async def _run(self, report: Report) -> Receipt:
        async with RemoteCoordinator(self.coordinator) as coordinator:
            return await tag_shard(self, coordinator, report)


def settings_digest(tagging: TagSettings) -> str:
    """The digest of all that shapes p1's lines: model, revision, precision, what is listed, decoding, groups.

    A model of one's own may get other names for its tags, and keep its weights and with them its revision.
    """
    model, calibration = tagging.model, tagging.calibration
    names = file_digest(model.tags) if model.tags.is_file() else None
    return digest_of(
        "p1",
        [model.name, model.revision, names, tagging.execution.precision, model.thresholds],
        calibration.digest if calibration else None,
        tagging.frames,
        tagging.fast_decode,
        tagging.groups,
    )


async def tag_shard(job: TagJob, coordinator: Coordinator, report: Report) -> Receipt:
    """Does one shard: every row a line in the journal, then the receipt.

    Raises:
        ModbotError: what ends the run (a full disk, a stopped budget, a model or a decoder that does not start).
    """
    loop = asyncio.get_running_loop()
    meter = Meter("fetch", "decode", "infer", "write")
    decoders = _decoders(job.tagging.cores)
    decoders.add(1)
    # The model is read while the first images are fetched and the decoder starts.
    loading = loop.run_in_executor(None, _equipment, job)
    store = Store(job.fetching.cache_dir)
    async with AsyncExitStack() as stack:
        fetcher = fetcher_of(job.fetching, store, coordinator)
        judge = _Judge(loading, decoders, store, job.tagging, meter)
        work = stack.enter_context(
            shard_work(job, report, count=lambda: {**msgspec.structs.asdict(fetcher.counters), **judge.counters()})
        )
        # A network volume may take its time for a line; the transfers must not stand still meanwhile.
        writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="journal"))
        await stack.enter_async_context(fetcher)
        await stack.enter_async_context(judge)

        async def do(row: IndexRow) -> None:
            record = await _record(row, fetcher, judge, meter)
            with meter.at("write"):
                await loop.run_in_executor(writer, lambda: work.append(jsonl.encode_line(record)))

        async def loaded() -> int:
            tagger, kept = await asyncio.shield(loading)
            for warning in (*tagger.warnings, *kept.warnings):
                report(Notice(text=warning))
            on_cpu = tagger.provider in {"cpu", "openvino"}
            decoding = decoders.add(1 if on_cpu else job.tagging.cores - 1)
            judge.start(tagger, kept)
            return decoding + (tagger.lanes + 1) * tagger.batch

        todo = (row for row in read_rows(job.source) if row.row not in work.recovered)
        await each(do, todo, at_once=job.fetching.concurrency, more=loaded())
        tagger, _ = await loading
        if judge.shift.halved:
            report(out_of_memory(tagger.provider, tagger.batch))
        detail = {
            "model": tagger.name,
            "provider": tagger.provider,
            "precision": tagger.precision,
            "flow": msgspec.structs.asdict(meter.flow(judge.shift)),
        }
        return work.finish("p1", detail)


class _Equipment(NamedTuple):
    """What takes a while to come: the tagger, and what it said of any content before."""

    tagger: Tagger
    kept: Kept


def _equipment(job: TagJob) -> _Equipment:
    tagging = job.tagging
    tagger = _tagger(tagging.model, tagging.execution, fast=tagging.fast_decode)
    return _Equipment(tagger, kept_scores(job.fetching.cache_dir, tagging.model, tagger))


@lru_cache(maxsize=1)
def _tagger(model: Installed, execution: Execution, *, fast: bool) -> Tagger:
    """The tagger of this process: loaded once, whatever the number of shards."""
    from modbot.models.tagger import load_tagger

    return load_tagger(model, execution, fast=fast)


_decoders = lru_cache(maxsize=1)(Decoders)
"""The decoders of this process: started once, whatever the number of shards."""


async def _record(row: IndexRow, fetcher: Fetcher, judge: _Judge, meter: Meter) -> P1Record:
    """The p1 record of one row. A stored image that is not what its digest says is fetched once more."""
    record = P1Record(row=row.row, messages=[_message(row)])
    for _ in range(2):
        with meter.at("fetch"):
            outcome = await fetcher.fetch(row)
        if isinstance(outcome, RecordError):
            record.error = outcome
            return record
        judged = await judge(outcome)
        if judged is not None:
            break
    else:
        detail = "the stored image does not match its digest, twice: the disk under CACHE_DIR returns other bytes"
        record.error = RecordError(kind="fetch_failed", detail=detail)
        return record
    if judged.image is not None:
        record.sha256, record.phash, record.image = outcome.sha256, judged.phash, judged.image
    record.wd14, record.error = judged.wd14, judged.error
    return record


def _message(row: IndexRow) -> Message:
    attachment = Attachment(
        id=row.attachment_id,
        filename=row.filename,
        content_type=row.content_type,
        file_size=row.file_size,
        url=row.url,
        source=row.source,
        is_spoiler=row.is_spoiler,
        row=row.row,
    )
    return Message(
        message_link=row.message_link,
        message_id=row.message_id,
        channel_id=row.channel_id,
        channel_name=row.channel_name,
        guild_id=row.guild_id,
        author_id=row.author_id,
        author_name=row.author_name,
        is_nsfw_channel=row.is_nsfw_channel,
        is_spoiler=row.is_spoiler,
        created_at=row.created_at,
        source=row.source,
        url=row.url,
        extra=row.extra,
        attachments=[attachment],
    )


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What the tagger makes of one content: image and scores, or an error, or (inference failed) image and error."""

    phash: str | None = None
    image: ImageInfo | None = None
    wd14: Wd14 | None = None
    error: RecordError | None = None


class _Judge:
    """Judges each content once: has it decoded, scores it in a batch, and remembers it for a while.

    `loading` gives what it is done with; until then, images wait.
    """

    def __init__(
        self, loading: asyncio.Future[_Equipment], decoders: Decoders, store: Store, settings: TagSettings, meter: Meter
    ) -> None:
        self._loading = loading
        self._decoders = decoders
        self._store = store
        self._frames = settings.frames
        self._calibration = settings.calibration
        self._keep = Group(chain.from_iterable(settings.groups.values()))
        self._batcher = _Batcher()
        self._meter = meter
        self._known: OrderedDict[str, asyncio.Task[Judged | None]] = OrderedDict()
        self._tasks: set[asyncio.Task[Judged | None]] = set()
        self._inferred = 0
        self._reused = 0
        self.shift = Shift(None)
        self._kept: Kept | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends what is still under way, as it is when another row's error ends the run."""
        await _cancelled(self._tasks)
        await self._batcher.close()
        if self._kept is not None:
            await asyncio.to_thread(self._kept.close)

    def start(self, tagger: Tagger, kept: Kept) -> None:
        """Begins to score, and to keep the scores."""
        self._kept = kept
        self.shift = Shift(tagger)
        self._batcher.start(tagger)

    def counters(self) -> dict[str, float]:
        return {"inferred": self._inferred, "reused": self._reused, "batch_halved": self.shift.halved}

    async def __call__(self, stored: Stored) -> Judged | None:
        """What there is to say of a stored content; None if its bytes are not what its digest says."""
        task = self._known.get(stored.sha256)
        if task is not None:
            self._reused += 1
            return await asyncio.shield(task)
        task = self._known[stored.sha256] = asyncio.create_task(self._judge(stored.sha256))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        judged = await asyncio.shield(task)
        if judged is None:
            self._known.pop(stored.sha256, None)
        return judged

    async def _judge(self, sha256: str) -> Judged | None:
        tagger, kept = await asyncio.shield(self._loading)
        said = await asyncio.to_thread(kept.scores, sha256, frames=self._frames)
        if said is None:
            fresh = await self._computed(tagger, sha256)
            if not isinstance(fresh, KeptScores):
                return fresh
            self._inferred += 1
            await asyncio.to_thread(kept.put_scores, sha256, fresh, frames=self._frames)
            said = fresh
        else:
            self._reused += 1
        wd14 = tagger.describe(unpacked(said.scores), keep=self._keep.matches, frame=said.frame)
        if self._calibration is not None:
            wd14 = self._calibration.apply(wd14)
        return Judged(phash=said.phash, image=said.image, wd14=wd14)

    async def _computed(self, tagger: Tagger, sha256: str) -> KeptScores | Judged | None:
        """What is kept of the content's worst frame, or why there is nothing to keep."""
        prepared = await self._prepared(sha256, tagger.preparation)
        if prepared is None:
            return None
        if isinstance(prepared, RecordError):
            return Judged(error=prepared)
        scores = await self._scores([frame.pixels for frame in prepared.frames])
        if isinstance(scores, RecordError):
            return Judged(phash=prepared.phash, image=prepared.info, error=scores)
        worst = _worst(tagger, scores)
        frame = prepared.frames[worst].index
        return KeptScores(phash=prepared.phash, image=prepared.info, frame=frame, scores=packed(scores[worst]))

    async def _prepared(self, sha256: str, preparation: Preparation) -> Answer:
        """The content as the tagger takes it; None if it is not there, or was damaged and is gone now."""
        with self._meter.at("decode"):
            path = self._store.path(sha256)
            future = self._decoders.image(path, sha256, preparation, frames=self._frames)
            prepared = await asyncio.wrap_future(future)
        if prepared is None:
            await asyncio.to_thread(_discard, self._store, sha256)
        return prepared

    async def _scores(self, pictures: Sequence[Pixels]) -> list[Scores] | RecordError:
        """A row of scores for each picture."""
        with self._meter.at("infer"):
            rows = await asyncio.gather(*map(self._batcher.score, pictures), return_exceptions=True)
        scores: list[Scores] = []
        for row in rows:
            if isinstance(row, Exception) and not isinstance(row, ModbotError):
                return RecordError(kind="inference_failed", detail=one_line(row))
            if isinstance(row, BaseException):
                raise row
            if detail := _no_probabilities(row):
                return RecordError(kind="inference_failed", detail=detail)
            scores.append(row)
        return scores


def _no_probabilities(scores: Scores) -> str | None:
    """What is wrong with scores that are none; they would be cut to 0 and 1, and pass for a verdict."""
    if not np.isfinite(scores).all():
        return "the model gave a score that is no finite number"
    if scores.min() < -SLACK or scores.max() > 1 + SLACK:
        return f"the model gave scores from {scores.min():.3g} to {scores.max():.3g}, which are no probabilities"
    return None


def _discard(store: Store, sha256: str) -> None:
    """Has the store look at a content that could not be read: it removes what is damaged."""
    with suppress(InputError):
        store.read(sha256)


def _worst(tagger: Tagger, scores: Sequence[Scores]) -> int:
    """Which of the frames has the worst rating, of equals the first."""
    return max(range(len(scores)), key=lambda number: (tagger.badness(as_kept(scores[number])), -number))


class _Batcher:
    """Collects pictures into batches; a batch goes when it is full, or when nothing came for `LINGER_SECONDS`.

    While one is with the model, the next fills up.
    """

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[Pixels, asyncio.Future[Scores]]] = asyncio.Queue()
        self._lanes: list[asyncio.Task[None]] = []

    def start(self, tagger: Tagger) -> None:
        self._lanes += [asyncio.create_task(self._run(tagger)) for _ in range(tagger.lanes)]

    async def score(self, pixels: Pixels) -> Scores:
        """The picture's scores.

        Raises:
            DeviceError: what runs the model is broken.
            Exception: what the model raised for this picture alone.
        """
        future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((pixels, future))
        return await future

    async def close(self) -> None:
        await _cancelled(self._lanes)

    async def _run(self, tagger: Tagger) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="infer") as thread:
            while True:
                batch = await self._collect(tagger.batch)
                scores = await loop.run_in_executor(thread, self._infer, tagger, [pixels for pixels, _ in batch])
                for (_, future), result in zip(batch, scores, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)

    async def _collect(self, size: int) -> list[tuple[Pixels, asyncio.Future[Scores]]]:
        batch = [await self._waiting.get()]
        with suppress(TimeoutError):
            while len(batch) < size:
                batch.append(await asyncio.wait_for(self._waiting.get(), LINGER_SECONDS))
        return batch

    def _infer(self, tagger: Tagger, pictures: list[Pixels]) -> list[Scores | Exception]:
        """Runs in one of the threads. A batch that fails is tried one by one: one picture takes no other with it.

        What is wrong with the device is the matter of them all.
        """
        try:
            return list(tagger.scores(pictures))
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises becomes the record's error
            if len(pictures) == 1 or isinstance(error, ModbotError):
                return [error] * len(pictures)
        results: list[Scores | Exception] = []
        for picture in pictures:
            (result,) = self._infer(tagger, [picture])
            if isinstance(result, ModbotError):
                return [result] * len(pictures)
            results.append(result)
        return results


async def _cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels the tasks and waits until they have ended; how they ended no longer matters to anybody."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
