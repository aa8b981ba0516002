"""A shard with images that crash and hang the decoder: each becomes a record, and the others are tagged."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modbot.fetch.coordinator import LocalCoordinator
from modbot.files.journal import ShardFiles
from modbot.models import registry
from modbot.models.decoding import Bounds, Decoders
from modbot.models.execution import Execution
from modbot.stages import tag
from modbot.stages.fetch import FetchSettings
from modbot.stages.tag import TagJob, TagSettings, tag_shard
from tests.real_day import REPOSITORY
from tests.tiny_models import build

COMMAND = (sys.executable, "-m", "tests.misbehaving_decoder")
TEXTS = {"crash": b"crash 11", "hang": b"hang", "text": b"nothing", "babble": b"babble"}


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    pool = Decoders(2, bounds=Bounds(seconds=3), command=COMMAND)
    monkeypatch.setattr(tag, "_decoders", lambda _: pool)
    yield pool
    pool.close()


@pytest.mark.usefixtures("decoders")
def test_every_image_ends_as_a_record(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, text in TEXTS.items():
        (images / name).write_bytes(text)
    for colour in ("red", "green", "blue"):
        png = BytesIO()
        Image.new("RGB", (20, 20), colour).save(png, "PNG")
        (images / colour).write_bytes(png.getvalue())
    names = ["red", *TEXTS, "green", "blue", "crash"]
    rows = "".join(f"{(images / name).as_uri()}\n" for name in names)
    (tmp_path / "shard_00.csv").write_text(f"url\n{rows}")
    build(tmp_path / "models" / "tiny")
    job = TagJob(
        files=ShardFiles(tmp_path / "p1", "shard_00"),
        source=tmp_path / "shard_00.csv",
        rows=len(names),
        settings="settings",
        inputs="inputs",
        resume=False,
        tagging=TagSettings(
            model=registry.locate("tiny", tmp_path / "models", kind="tagger"),
            execution=Execution(provider="cpu"),
            frames=5,
            groups={},
            calibration=None,
            cores=2,
        ),
        fetching=FetchSettings(
            cache_dir=tmp_path / "cache",
            concurrency=4,
            allow_hosts=(),
            file_root=images,
            token=None,
            discord_api="http://127.0.0.1",
        ),
        coordinator=tmp_path / "none",
    )

    async def run() -> Any:  # noqa: ANN401 - a receipt, looked into below
        async with LocalCoordinator(qps=math.inf, concurrency=4) as coordinator:
            return await tag_shard(job, coordinator, lambda _: None)

    receipt = asyncio.run(run())
    lines = map(json.loads, job.files.lines.read_text().splitlines())
    errors = {names[record["row"]]: record["error"] and record["error"]["detail"] for record in lines}
    assert {name for name, error in errors.items() if error is None} == {"red", "green", "blue"}
    assert errors["crash"] == "the decoder crashed (signal 11)"
    assert errors["hang"] == "took longer than 3 s"
    assert receipt.errors == {"decode_failed": 4, "not_an_image": 1}
    assert set(receipt.detail["flow"]["seconds"]) == {"fetch", "decode", "infer", "write"}
    assert receipt.counters["inferred"] == 3
