"""p2 of a shard, on a stand-in for the detector: in which batches it is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from modbot.models.decoding import Answer, PreparedImage
from modbot.models.execution import Execution
from modbot.models.preparation import BlackCorner, Preparation, PreparedFrame
from modbot.records.p1 import ImageInfo, P1Record, Rating, Wd14
from modbot.records.p2 import Detection
from modbot.signals import SignalConfig
from modbot.stages.analyze import DetectSettings, _Analyst
from modbot.stages.flow import Meter
from modbot.stages.kept import Kept

RATING = Rating(general=0.1, sensitive=0.1, questionable=0.1, explicit=0.9)
WD14 = Wd14(model="m", revision="r", input_size=448, rating=RATING, general=[], character=[], general_raw=[])
INFO = ImageInfo(width=8, height=8, format="PNG", bytes=70)


class Detector:
    """Finds nothing, and remembers the batches."""

    version = "stand-in"
    preparation = BlackCorner(size=8)
    batch = 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, batch: Sequence[PreparedFrame]) -> list[list[Detection]]:
        self.batches.append(len(batch))
        return [[] for _ in batch]


class Decoders:
    """Has every frame at once."""

    def frame(self, path: Path, sha256: str, preparation: Preparation, *, index: int) -> Future[Answer]:
        assert (path.name, preparation.side) == (sha256, 8)
        future: Future[Answer] = Future()
        frame = PreparedFrame(index, 8, 8, np.zeros((8, 8, 3), np.uint8))
        future.set_result(PreparedImage(frames=[frame], phash=None, info=None))
        return future


def record(row: int) -> P1Record:
    return P1Record(row=row, sha256=hashlib.sha256(bytes([row])).hexdigest(), image=INFO, wd14=WD14)


def test_the_end_of_a_shard_is_detected_in_batches_as_the_rest_is(tmp_path: Path) -> None:
    settings = DetectSettings(
        model=None,
        execution=Execution(),
        gate="always",
        thresholds={},
        nsfw_general=(),
        signals=SignalConfig(),
        cache_dir=tmp_path,
        cores=1,
    )
    detector = Detector()
    with Kept(tmp_path) as kept:
        analyst = _Analyst(detector, Decoders(), kept, settings, Meter("decode", "infer", "write"))  # type: ignore[arg-type]  # stand-ins
        analyzed = list(analyst.analyze(map(record, range(15))))
    assert [each.row for each in analyzed] == list(range(15))
    assert all(each.meta.nudenet_ran for each in analyzed)
    assert detector.batches == [4, 4, 4, 3]
