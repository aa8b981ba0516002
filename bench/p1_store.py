"""p1 from the store on two cores, against the processor time that its stages take alone, with open_nsfw.

    python -m bench.p1_store [--images 600]

Two cores could do 2 / (seconds of processor time an image costs) images a second if nothing came on top: no processes,
pipes, queues, locks, records. Each stage is timed in this process, one image after the other. One process means one on
one core: its worker and its decoder share it, or it would be two. On a machine that others use
as well, p1's own processor time says more than its pace.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time

from bench.store_day import Rate, StoreDays
from modbot.files.journal import Journal, ShardFiles
from modbot.models import registry
from modbot.models.decoder import prepare
from modbot.models.imaging import decode, phash
from modbot.models.tagger import open_tagger
from modbot.records import jsonl
from modbot.records.p1 import Message, P1Record

MODEL = "open_nsfw"
SHARE_BAR, SCALING_BAR = 0.85, 1.7
ROUNDS = 3


class Clock:
    """Processor time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """Counts the block's processor time to the stage."""
        started = process_time()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + process_time() - started


def alone(pictures: list[Path], models: Path, folder: Path) -> dict[str, float]:
    """Seconds of processor time an image, by stage: the same calls as p1's, in one process."""
    tagger = open_tagger(MODEL, models_dir=models, provider="cpu")
    clock = Clock()
    with Journal(ShardFiles(folder, "shard_00"), settings="", inputs="", resume=False) as journal:
        for row, path in enumerate(pictures):
            with clock.at("hash"):
                data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
            with clock.at("decode"):
                decoded = decode(data, max_frames=5)
            with clock.at("hash"):
                look = phash(decoded.frames[0].picture)
            with clock.at("preprocess"):
                pixels = prepare(decoded.frames[0].picture, tagger.preparation)
            with clock.at("model"):
                (scores,) = tagger.scores([pixels])
            with clock.at("write"):
                wd14 = tagger.describe(scores, keep=lambda _: False)
                messages = [Message(url=path.as_uri())]
                record = P1Record(row=row, sha256=digest, phash=look, image=decoded.info, messages=messages, wd14=wd14)
                journal.append(jsonl.encode_line(record))
    return {stage: seconds / len(pictures) for stage, seconds in clock.seconds.items()}


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measure p1 from the store.")
    parser.add_argument("--images", type=int, default=600)
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if cores < 2:  # noqa: PLR2004 - it is about two
        raise SystemExit("bench.p1_store: two cores are needed")
    models = Path(os.environ.get("MODELS_DIR", "models")).resolve()
    registry.locate(MODEL, models, kind="tagger")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        days = StoreDays(root, models, short=chosen.images // 4, long=chosen.images, size=(1280, 960))
        days.fill(MODEL)
        costs = alone(days.pictures[: chosen.images // 3], models, root / "alone")
        # In turn, so that whatever else this machine does meets them alike.
        ways = {"one": (1, 1), "two": (2, 2), "one, unbound": (1, 2)}
        rates: dict[str, list[Rate]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, (parallel, on) in ways.items():
                rates[way].append(days.rate(MODEL, parallel=parallel, cores=on))
    one, two, unbound = (statistics.median(rate.images for rate in each) for each in rates.values())
    used = statistics.median(rate.seconds for rate in rates["two"])
    together = sum(costs.values())
    ideal = 2 / together
    print(f"machine: {platform.machine()}, {cores} cores, Python {platform.python_version()}")
    stages = ", ".join(f"{stage} {seconds * 1000:.1f}" for stage, seconds in costs.items())
    print(f"stages alone, ms of processor time an image: {stages}; together {together * 1000:.1f}")
    print(f"two cores could do {ideal:.1f} images/s")
    for way, each in rates.items():
        images = [rate.images for rate in each]
        print(f"{way:<13}{statistics.median(images):6.1f} images/s  ({' '.join(f'{rate:.1f}' for rate in images)})")
    print(f"two processes on two cores, where images spend their time: {rates['two'][-1].stages}")
    print(f"of what two cores could do: {two / ideal:.2f} (bar: {SHARE_BAR})")
    print(f"p1's processor time an image: {used * 1000:.1f} ms, of which the stages are {together / used:.2f}")
    print(f"two processes against one: {two / one:.2f} x (bar: {SCALING_BAR}); unbound one: {unbound / one:.2f} x")
    return 0 if two / ideal >= SHARE_BAR and two / one >= SCALING_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
