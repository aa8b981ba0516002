"""What the integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from samples.make import write_pictures
from samples.server import SampleServer
from tests.p3_day import Day


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Day:
    monkeypatch.chdir(tmp_path)
    for name in ("MODBOT_DSL_MODE", "MODBOT_PROFILE", "MODBOT_TZ", "OUT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Day(tmp_path, capsys)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "images"
    write_pictures(folder, with_largest=False)
    return folder


@pytest.fixture(scope="module")
def server(images: Path) -> Iterator[SampleServer]:
    with SampleServer(images) as running:
        yield running
