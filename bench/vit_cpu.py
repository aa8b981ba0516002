"""p1 on a CPU with a model of WD14's real size, against bare `session.run` loops in as many processes.

    python -m bench.vit_cpu [--images 16]

The model is a ViT-B/16 at 448 with 10,861 outputs and random weights. The bare loops run on a ready array, again and
again, each in a process of its own with one thread, all at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import monotonic

import numpy as np

from bench.store_day import Rate, StoreDays
from bench.vit_model import BASE, build
from modbot.models.execution import Execution
from modbot.models.providers import open_session

MODEL = "base"
BAR = 0.95
PROCESSES = 2
ROUNDS = 5


def loop(model: Path, images: int, together: Barrier) -> None:
    """Runs the model so many times."""
    runtime = open_session(model, Execution(provider="cpu"), digest="bench").runtime
    picture = np.random.default_rng(0).random((1, BASE.size, BASE.size, 3), dtype=np.float32) * 255
    feed = {runtime.get_inputs()[0].name: picture}
    runtime.run(None, feed)
    together.wait()
    for _ in range(images):
        runtime.run(None, feed)
    together.wait()


def bare(model: Path, images: int) -> float:
    """Images a second of PROCESSES loops."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(PROCESSES + 1)
    each = images // PROCESSES
    processes = [context.Process(target=loop, args=(model, each, together)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    together.wait()
    started = monotonic()
    together.wait()
    passed = monotonic() - started
    for process in processes:
        process.join()
    return each * PROCESSES / passed


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measure p1 with a model of WD14's size on a CPU.")
    parser.add_argument("--images", type=int, default=16)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        model = build(root / "models" / MODEL, BASE) / "model.onnx"
        days = StoreDays(root, root / "models", short=PROCESSES, long=chosen.images, size=(1280, 960))
        days.fill(MODEL)
        loops: list[float] = []
        rates: list[Rate] = []
        # In turn, and held against each other round by round: a machine that is shared changes its pace by more, from
        # one minute to the next, than what is to be seen.
        for _ in range(ROUNDS):
            loops.append(bare(model, chosen.images))
            rates.append(days.rate(MODEL, parallel=PROCESSES, cores=PROCESSES))
    p1 = [rate.images for rate in rates]
    ratios = [own / ready for own, ready in zip(p1, loops, strict=True)]
    ratio = statistics.median(ratios)
    cores = len(os.sched_getaffinity(0))
    print(f"machine: {platform.machine()}, {cores} cores, Python {platform.python_version()}")
    print(f"ViT-B/16 at {BASE.size}, {BASE.parameters / 1e6:.0f} M parameters, fp32, {PROCESSES} processes")
    for name, each in (("bare loops", loops), ("p1", p1)):
        print(f"{name:<11}{statistics.median(each):6.3f} images/s  ({' '.join(f'{rate:.3f}' for rate in each)})")
    print(f"where p1's images spend their time: {rates[-1].stages}")
    each_round = " ".join(f"{one:.2f}" for one in ratios)
    print(f"p1 against the bare loops, of the same round: {ratio:.2f} x (bar: {BAR})  ({each_round})")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
