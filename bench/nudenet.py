"""Processor time of NudeNet an image, from file to detections: modbot's stage against the package's own `detect`.

    python -m bench.nudenet [--rounds 7]

Each way is gone by one process alone, and by one on every core at once, as p2 has them: there the threads that the
package's session has for every core, and that spin, are in each other's way. The bar is of the latter.

modbot's stage is what p2's processes do for an image, in one process: the stored file is read and held against its
digest, decoded, prepared, and the detector runs in one thread. The package's is `bench.baselines.nudenet_package`: its
session cannot be given options, so a third way gives it modbot's, to tell what its threads cost from what its loops do.

The images are the sample photographs, and crops and enlargements of those in which there is something to detect. One
of the photographs has a colour profile, which the package ignores.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing as mp
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from time import process_time, sleep
from typing import Any

from PIL import Image

from bench.baselines.nudenet_package import Found, Package
from modbot.models import registry
from modbot.models.decoder import answer
from modbot.models.decoding import Frame, Given
from modbot.models.execution import Execution
from modbot.models.nudenet import Detector, load_detector
from modbot.models.preparation import PreparedFrame
from modbot.models.providers import open_session
from samples.pictures import PHOTOGRAPHS

ROUNDS = 7
BAR = 0.5
SCORES_BAR = 1e-4

Way = Callable[[Path], list[Found]]


class Stage:
    """modbot's, as p2's decoders and workers run it."""

    def __init__(self, detector: Detector, files: Sequence[Path]) -> None:
        self._detector = detector
        self._digests = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def detect(self, file: Path) -> list[Found]:
        """What it finds in the file."""
        asked = Frame(path=str(file), sha256=self._digests[file], index=0, preparation=self._detector.preparation)
        reply, pixels = answer(asked)
        if not isinstance(reply, Given):
            raise SystemExit(f"{file.name}: {reply}")
        frames = [
            PreparedFrame(head.index, head.width, head.height, own)
            for head, own in zip(reply.frames, pixels, strict=True)
        ]
        return [Found(one.class_, one.score, one.box) for one in self._detector.detect(frames)[0]]


def lay(folder: Path) -> list[Path]:
    """Writes the images."""
    read = {photograph.name: photograph.read() for photograph in PHOTOGRAPHS}
    for name, data in read.items():
        (folder / name).write_bytes(data)
    face = Image.open(BytesIO(read["astronaut.png"])).convert("RGB")
    man = Image.open(BytesIO(read["luispedro.jpg"])).convert("RGB")
    group = Image.new("RGB", (780, 520))
    for x in (0, 260, 520):
        for y in (0, 260):
            group.paste(face.crop((120, 20, 380, 280)), (x, y))
    group.save(folder / "group.png")
    both = Image.new("RGB", (face.width + man.width, face.height))
    both.paste(face, (0, 0))
    both.paste(man, (face.width, 0))
    both.save(folder / "both.png")
    for number, size in enumerate(((3000, 2000), (1300, 260), (200, 900), (160, 160))):
        face.resize(size).save(folder / f"face_{number}.jpg", quality=90)
    man.resize((1200, 1508)).save(folder / "man.jpg", quality=90)
    return sorted(folder.iterdir())


def require_same(files: Sequence[Path], ours: Way, theirs: Way) -> None:
    """Holds every file's detections against each other, and says how many there were."""
    found, apart = 0, 0.0
    for file in files:
        our, their = ours(file), theirs(file)
        if [(one.class_, one.box) for one in our] != [(one.class_, one.box) for one in their]:
            raise SystemExit(f"{file.name}: modbot finds {our}, the package {their}")
        found += len(our)
        apart = max([apart, *(abs(one.score - other.score) for one, other in zip(our, their, strict=True))])
    print(f"{len(files)} images, {found} detections: the same classes and boxes, scores at most {apart:.0e} apart")
    if not found or apart > SCORES_BAR:
        raise SystemExit(f"scores may be {SCORES_BAR:.0e} apart, and there must be some")


def ways(model: registry.Installed, files: Sequence[Path]) -> dict[str, Way]:
    """The three ways, ready to run."""
    cpu = Execution(provider="cpu")
    return {
        "package": Package().detect,
        "package, modbot's session": Package(
            runtime=open_session(model.model, cpu, digest=model.digest).runtime
        ).detect,
        "modbot": Stage(load_detector(model, cpu), files).detect,
    }


def serve(pipe: Connection[Any, Any], model: registry.Installed, files: Sequence[Path]) -> None:
    """A process that goes a way over the files whenever its name comes, and answers with what that cost."""
    ready = ways(model, files)
    for way in ready.values():
        way(files[0])
    pipe.send(0.0)
    while name := pipe.recv():
        sleep(0.1)  # until the threads of the way before spin no more
        pipe.send(cost(ready[name], files))


def cost(way: Way, files: Sequence[Path]) -> float:
    """Milliseconds of this process's processor time an image, all threads."""
    started = process_time()
    for file in files:
        way(file)
    return (process_time() - started) / len(files) * 1000


def together(pipes: Sequence[Connection[Any, Any]], name: str) -> float:
    """What the way costs an image when so many processes go it at once."""
    for pipe in pipes:
        pipe.send(name)
    return statistics.mean([float(pipe.recv()) for pipe in pipes])


def compare(what: str, pipes: Sequence[Connection[Any, Any]], names: Sequence[str], rounds: int) -> float:
    """Prints each way's median, taken in turn; gives modbot's share of the package's."""
    costs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            costs[name].append(together(pipes, name))
    medians = {name: statistics.median(each) for name, each in costs.items()}
    print(what)
    for name, median in medians.items():
        each = " ".join(f"{value:.1f}" for value in costs[name])
        print(f"  {name:<26}{median:6.1f} ms an image  {median / medians['package']:4.2f} x  ({each})")
    return medians["modbot"] / medians["package"]


def main() -> int:
    """Prints what each way costs alone and on all cores; 1: the bar is missed."""
    parser = argparse.ArgumentParser(description="Measure NudeNet's stage against its package.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    model = registry.locate("320n", Path(os.environ.get("MODELS_DIR", "models")).resolve(), kind="detector")
    cores = len(os.sched_getaffinity(0))
    print(f"machine: {platform.machine()}, {cores} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        files = lay(Path(folder))
        ready = ways(model, files)
        require_same(files, ready["modbot"], ready["package"])
        context = mp.get_context("spawn")
        pipes = []
        for _ in range(cores):
            near, far = context.Pipe()
            context.Process(target=serve, args=(far, model, files), daemon=True).start()
            near.recv()
            pipes.append(near)
        compare("one process, the other cores idle:", pipes[:1], list(ready), given.rounds)
        ratio = compare("a process on every core, as p2 runs:", pipes, list(ready), given.rounds)
        for pipe in pipes:
            pipe.send("")
    met = ratio <= BAR
    print(f"modbot, of the package's processor time: {ratio:.2f} (at most {BAR}){'' if met else '  MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
