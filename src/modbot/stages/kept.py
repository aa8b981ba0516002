"""Nothing computed twice: what the models said of a content, kept in CACHE_DIR/scores for every later day.

    scores/<model>@<revision>/<digest of weights, precision, preparation and limits>/*.shelf

What is kept is what the model said, not what a record says of it: an edited vocabulary or calibration needs no model.
Nor does another number of frames, but for the animations.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from modbot.files import shelf
from modbot.files.atomic import storage_errors
from modbot.files.journal import digest_of
from modbot.files.shelf import Shelf, ShelfWriter
from modbot.models.preparation import DEFAULT_LIMITS
from modbot.models.registry import Installed
from modbot.records.p1 import ImageInfo
from modbot.records.p2 import Detection

if TYPE_CHECKING:  # they load ONNX Runtime
    from modbot.models.nudenet import Detector
    from modbot.models.tagger import Tagger

Scores = NDArray[np.float32]

_STILL = 0
"""Under which part the scores of a picture of one frame are kept."""

_STEPS = 65_535
_FORMAT = 3
"""Goes up when the same image would get other results from the same model: a change of decoding, of the choice of
frames or of preparation."""


class KeptScores(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the tagger said of a content, and what the record needs beside it.

    `frame`: the one that the scores are of, the worst. `scores`: as `packed` gives them.
    """

    phash: str | None
    image: ImageInfo | None
    frame: int
    scores: bytes


def as_kept(scores: Scores) -> Scores:
    """Scores as they come back when they have been kept, float32 [outputs], 0 to 1, at most 1 / 131,070 off.

    A record is made of these also when they are fresh: so it is the same whether they were kept or not.
    """
    return unpacked(packed(scores))


def packed(scores: Scores) -> bytes:
    """Finite scores from 0 to 1 in 16 bit each, evenly spaced: half the size of float32, and closer than float16."""
    steps: NDArray[np.uint16] = np.rint(np.clip(scores, 0, 1) * np.float32(_STEPS)).astype("<u2")
    return steps.tobytes()


def unpacked(data: bytes) -> Scores:
    """As `as_kept`."""
    return np.frombuffer(data, "<u2").astype(np.float32) / np.float32(_STEPS)


class Kept:
    """The results of one model under one preparation. May be used from several threads; a context manager.

    `warnings`: a line for each file of which only a part, or nothing, could be read; each is told once a process.

    Raises:
        StorageError: from every method, when the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = Lock()
        self._shelf = _shelf(folder)
        self.warnings = [
            f"{path}: kept results are damaged: what cannot be read is computed again; remove the file to hear no more"
            for path in self._shelf.refresh()
        ]
        self._writer: ShelfWriter | None = ShelfWriter(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Makes what was put readable for others. What a thread that was left behind puts later is not kept."""
        with self._lock:
            self._shelf.close()
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()

    def scores(self, sha256: str, *, frames: int) -> KeptScores | None:
        """What the tagger said of this content, at most so many frames looked at, if it is kept."""
        kept: KeptScores | None = self._get(sha256, _STILL, KeptScores)
        return kept or self._get(sha256, _of_frames(frames), KeptScores)

    def put_scores(self, sha256: str, kept: KeptScores, *, frames: int) -> None:
        still = kept.image is not None and kept.image.frames == 1
        self._put(sha256, _STILL if still else _of_frames(frames), kept)

    def detections(self, sha256: str, frame: int) -> list[Detection] | None:
        """What the detector found in this frame, if it is kept."""
        found: list[Detection] | None = self._get(sha256, frame, list[Detection])
        return found

    def put_detections(self, sha256: str, frame: int, found: list[Detection]) -> None:
        self._put(sha256, frame, found)

    def _get(self, sha256: str, part: int, kind: Any) -> Any:  # noqa: ANN401 - msgspec's types are values
        with self._lock:
            payload = self._shelf.get(sha256, part)
            if payload is None and self._writer is not None:
                payload = self._writer.get(sha256, part)
        try:
            return None if payload is None else msgspec.msgpack.decode(payload, type=kind)
        except msgspec.DecodeError:
            return None  # written by another version: computed again

    def _put(self, sha256: str, part: int, value: object) -> None:
        with self._lock:
            if self._writer is None:
                return
            self._writer.put(sha256, msgspec.msgpack.encode(value), part)


def _of_frames(frames: int) -> int:
    """The part of an animation of which at most so many frames are looked at, which are never more than the limit."""
    return min(frames, DEFAULT_LIMITS.frames)


_shelf = lru_cache(maxsize=1)(Shelf)
"""The shelf of this process: what it has read of the indices stays, whatever the number of shards."""


def kept_scores(cache_dir: Path, model: Installed, tagger: Tagger) -> Kept:
    """What this tagger said on any earlier day."""
    return Kept(_folder(cache_dir, model, tagger.precision, tagger.preparation))


def kept_detections(cache_dir: Path, model: Installed, detector: Detector) -> Kept:
    """What this detector found on any earlier day."""
    return Kept(_folder(cache_dir, model, detector.precision, detector.preparation, detector.version))


def _folder(cache_dir: Path, model: Installed, *how: object) -> Path:
    variant = digest_of(_FORMAT, model.digest, asdict(DEFAULT_LIMITS), *how)[:16]
    return cache_dir / "scores" / f"{model.name}@{model.revision}" / variant


def sweep(cache_dir: Path) -> int:
    """Makes readable what killed runs had kept, and gives the number of files. Raises StorageError."""
    root = cache_dir / "scores"
    with storage_errors(root):
        folders = [folder for folder in root.glob("*/*") if folder.is_dir()]
    return sum(map(shelf.sweep, folders))
