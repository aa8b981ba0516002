"""p1 of a shard as a GPU would do it: bound buffers, two batches on their way, a memory that is too small."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from modbot.errors import DeviceError
from modbot.fetch.coordinator import LocalCoordinator
from modbot.files.index_csv import read_rows
from modbot.files.journal import ShardFiles
from modbot.models import registry
from modbot.models.calibration import Calibration, Temperatures
from modbot.models.catalogue import Thresholds
from modbot.models.execution import Execution
from modbot.models.preparation import Pixels
from modbot.models.registry import Installed
from modbot.models.sessions import FAILURES, Session
from modbot.models.tagger import Tagger, Wd14Tagger, open_tagger
from modbot.records import jsonl
from modbot.records.p1 import P1Record, Rating
from modbot.records.progress import Event, Notice, Receipt
from modbot.stages import tag
from modbot.stages.fetch import FetchSettings
from modbot.words import counted
from tests.tiny_models import TAGS, build, write_tags

COUNT = 24


def pictures(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:02}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        png = BytesIO()
        Image.new("RGB", (40, 40), (number * 11, 255 - number * 10, 90)).save(png, format="PNG")
        path.write_bytes(png.getvalue())
    return paths


def on_a_gpu(model: Installed, *, batch: int, room: int) -> Wd14Tagger:
    """The tagger on a device whose memory takes `room` images at once; the device is the CPU."""
    runtime = ort.InferenceSession(model.model, providers=["CPUExecutionProvider"])
    run = runtime.run_with_iobinding

    def small(binding: ort.IOBinding) -> None:
        run(binding)
        if len(binding.copy_outputs_to_cpu()[0]) > room:
            raise RuntimeError("CUDA failure 2: out of memory")

    runtime.run_with_iobinding = small
    shapes = (None, 448, 448, 3), (None, len(TAGS))
    return Wd14Tagger(model, Session(runtime, "cuda", (), *shapes, batch=batch, device="cpu"))


def tagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tagger: Tagger, model: Installed
) -> tuple[Receipt, list[P1Record], list[str]]:
    source = tmp_path / "index.csv"
    links = [path.as_uri() for path in pictures(tmp_path / "images")]
    source.write_text("url\n" + "\n".join(links) + "\n")
    assert len(list(read_rows(source))) == COUNT
    monkeypatch.setattr(tag, "_tagger", lambda *_, **__: tagger)
    monkeypatch.setattr(tag, "LINGER_SECONDS", 3.0)  # so that the first batch is full, however slow the machine
    execution = Execution(provider="cuda")
    job = tag.TagJob(
        files=ShardFiles(tmp_path / "shards", "shard_00"),
        source=source,
        rows=COUNT,
        settings="0" * 64,
        inputs="1" * 64,
        resume=False,
        tagging=tag.TagSettings(model=model, execution=execution, calibration=None, frames=1, groups={}, cores=2),
        fetching=FetchSettings(
            cache_dir=tmp_path / "cache",
            concurrency=4,
            allow_hosts=(),
            file_root=tmp_path / "images",
            token=None,
            discord_api="https://discord.com/api/v10",
        ),
        coordinator=tmp_path / "unused",
    )
    told: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.text)

    async def shard() -> Receipt:
        async with LocalCoordinator(qps=math.inf, concurrency=4) as coordinator:
            return await tag.tag_shard(job, coordinator, report)

    receipt = asyncio.run(shard())
    lines = job.files.lines.read_bytes().splitlines()
    return receipt, sorted((jsonl.decode(line, P1Record) for line in lines), key=lambda record: record.row), told


@pytest.mark.parametrize(("room", "batch", "halved"), [(100, 8, 0), (3, 2, 2), (1, 1, 3)])
def test_a_shard_is_tagged_whatever_the_memory_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, batch: int, halved: int
) -> None:
    build(tmp_path / "models" / "tiny")
    model = registry.installed("tiny", tmp_path / "models", kind="tagger")
    tagger = on_a_gpu(model, batch=8, room=room)
    receipt, records, told = tagged(tmp_path, monkeypatch, tagger, model)
    assert (tagger.batch, tagger.lanes) == (batch, 2)
    assert receipt.counters["batch_halved"] == halved
    assert receipt.errors == {}
    assert told == (
        [f"cuda: out of memory; went on with {counted(batch, 'image')} a batch (--batch-size)"] if halved else []
    )
    reference = open_tagger("tiny", models_dir=tmp_path / "models", provider="cpu")
    for number, record in enumerate(records):
        pixels = np.full((448, 448, 3), (90, 255 - number * 10, number * 11), np.uint8)
        expected = reference.describe(reference.scores([pixels])[0], keep=lambda _: False)
        assert record.wd14 is not None
        for name in Rating.__struct_fields__:
            assert math.isclose(getattr(record.wd14.rating, name), getattr(expected.rating, name), abs_tol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "why"), [(math.nan, "no finite number"), (-0.01, "no probabilities"), (1.01, "no probabilities")]
)
def test_what_is_no_probability_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: float, why: str
) -> None:
    """As a model gives logits whose export forgot the sigmoid."""
    build(tmp_path / "models" / "tiny")
    model = registry.installed("tiny", tmp_path / "models", kind="tagger")
    tagger = on_a_gpu(model, batch=8, room=100)

    def scores(batch: Sequence[Pixels]) -> NDArray[np.float32]:
        return np.full((len(batch), len(TAGS)), (*[0.5] * (len(TAGS) - 1), spoil), np.float32)

    monkeypatch.setattr(tagger, "scores", scores)
    _, records, _ = tagged(tmp_path, monkeypatch, tagger, model)
    assert all(record.wd14 is None for record in records)
    assert {record.error.kind for record in records if record.error} == {"inference_failed"}
    assert all(why in record.error.detail for record in records if record.error)


def test_a_device_that_breaks_ends_the_shard_and_spoils_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "models" / "tiny")
    model = registry.installed("tiny", tmp_path / "models", kind="tagger")
    runtime = ort.InferenceSession(model.model, providers=["CPUExecutionProvider"])
    run = runtime.run_with_iobinding
    done: list[int] = []

    def breaks(binding: ort.IOBinding) -> None:
        done.append(1)
        if len(done) > 1:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        run(binding)

    runtime.run_with_iobinding = breaks
    session = Session(runtime, "cuda", (), (None, 448, 448, 3), (None, len(TAGS)), batch=8, device="cpu")
    with pytest.raises(DeviceError, match="cuda: gives no results any more: CUDA failure 700"):
        tagged(tmp_path, monkeypatch, Wd14Tagger(model, session), model)
    (journal,) = ShardFiles(tmp_path / "shards", "shard_00").journals()
    lines = journal.read_bytes().splitlines()
    assert len(lines) <= 8  # of the one batch that was well
    assert all(b'"error":null' in line for line in lines)
    assert len(done) <= 2 * (1 + FAILURES)


def test_what_shapes_a_line_is_in_the_settings_digest(tmp_path: Path) -> None:
    build(tmp_path / "tiny")
    model = registry.installed("tiny", tmp_path, kind="tagger")
    plain = tag.TagSettings(model=model, execution=Execution(), calibration=None, frames=1, groups={}, cores=1)
    temperatures = Temperatures(general=1.0, sensitive=1.0, questionable=1.0, explicit=2.0)
    calibration = Calibration(model="tiny", revision="r", temperatures=temperatures, file="f", digest="d")
    others = [
        replace(plain, model=dataclasses.replace(model, thresholds=Thresholds(general=0.5))),
        replace(plain, execution=Execution(precision="fp16")),
        replace(plain, calibration=calibration),
        replace(plain, frames=2),
    ]
    assert len({tag.settings_digest(each) for each in [plain, *others]}) == 5
    same = [
        replace(plain, execution=Execution(provider="cuda", batch=7, required=True, cache_dir=tmp_path)),
        replace(plain, cores=9),
    ]
    before = tag.settings_digest(plain)
    assert {tag.settings_digest(each) for each in same} == {before}
    write_tags(model.tags, [TAGS[0]._replace(name="sfw"), *TAGS[1:]])
    assert tag.settings_digest(plain) != before
