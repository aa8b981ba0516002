"""What p1 makes of a GPU: images a second from the store, against a bare loop on ready arrays.

    python -m bench.gpu [--images 1500] [--provider cuda --provider tensorrt]

Builds models of the WD taggers' sizes with random weights, lays distinct images into a store, and prints a table with
the card's name for docs/benchmarks.md. The rate of p1 is that of the images by which a long run is longer than a short
one, so that starting and loading do not count. Where there is no GPU it says so and ends with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from time import monotonic
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
from PIL import Image

from bench.vit_model import BASE, LARGE, Vit, build
from modbot.models.execution import Execution
from modbot.models.gpu import Gpu, this_gpu
from modbot.models.providers import open_session
from modbot.models.registry import sha256_of

BAR = 0.95
BATCHES = (48, 96)
PRECISIONS = ("fp32", "fp16")
PROVIDERS = ("cuda", "tensorrt")
SHORT_OF_LONG = 4
"""A short run has one in so many of the images."""

BARE_SECONDS = 10.0


@dataclass(frozen=True)
class Case:
    """One line of the table, before it is measured."""

    model: str
    provider: str
    precision: str
    batch: int


@dataclass(frozen=True)
class Measured:
    """Images a second of p1 and of the bare loop, p1's share of time with the device at work, its slowest stage."""

    case: Case
    bare: float
    p1: float
    busy: float
    bottleneck: str

    @property
    def ratio(self) -> float:
        return self.p1 / self.bare


def table(rows: Iterable[Measured]) -> str:
    """The rows as docs/benchmarks.md has them."""
    lines = [
        "| model | provider | precision | batch | bare, images/s | p1, images/s | ratio | device busy | bottleneck |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        case = row.case
        lines.append(
            f"| {case.model} | {case.provider} | {case.precision} | {case.batch} | {row.bare:.1f} | {row.p1:.1f} "
            f"| {row.ratio:.2f} | {row.busy:.0%} | {row.bottleneck} |"
        )
    return "\n".join(lines)


class Bench:
    """A store with distinct images below `root`, and the models to run on them."""

    def __init__(self, root: Path, vits: dict[str, Vit], *, images: int, seconds: float = BARE_SECONDS) -> None:
        self._root = root
        self._vits = vits
        self._seconds = seconds
        self._images = images
        for name, vit in vits.items():
            build(root / "models" / name, vit)
        self._short = self._lay("short", images // SHORT_OF_LONG)
        self._long = self._lay("long", images)

    def _lay(self, name: str, images: int) -> Path:
        """An index of `images` pictures, no two of any index alike."""
        folder = self._root / "images" / name
        folder.mkdir(parents=True)
        random = np.random.default_rng(len(name))
        links = []
        for number in range(images):
            path = folder / f"{number:06}.jpg"
            coarse = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC).save(path, quality=90)
            links.append(path.as_uri())
        index = self._root / f"{name}.csv"
        index.write_text("url\n" + "\n".join(links) + "\n", encoding="utf-8")
        return index

    def fill(self, model: str, provider: str) -> None:
        """Fetches every image into the store, and starts everything once that is slow the first time."""
        for index in (self._short, self._long):
            self._p1(Case(model, provider, "fp32", BATCHES[0]), index)

    def measure(self, case: Case) -> Measured:
        """One line of the table."""
        bare = self._bare(case)
        short, long = self._p1(case, self._short), self._p1(case, self._long)
        more = self._images - self._images // SHORT_OF_LONG
        rate = more / (long["wall_time_s"] - short["wall_time_s"])
        stages = long["stages"]
        return Measured(case, bare, rate, stages["infer_busy"], stages["bottleneck"])

    def _bare(self, case: Case) -> float:
        """Images a second of `session.run` on one ready array, again and again."""
        path = self._root / "models" / case.model / "model.onnx"
        how = Execution(
            provider=case.provider,
            precision=case.precision,
            batch=case.batch,
            required=True,
            cache_dir=self._root / "cache",
        )
        # By its own digest, so that p1 finds the engine or the fp16 copy that is made here.
        runtime = open_session(path, how, digest=sha256_of(path)).runtime
        size = self._vits[case.model].size
        pictures = np.random.default_rng(0).random((case.batch, size, size, 3), dtype=np.float32) * 255
        feed = {runtime.get_inputs()[0].name: pictures}
        for _ in range(3):
            runtime.run(None, feed)
        started, done = monotonic(), 0
        while (passed := monotonic() - started) < self._seconds:
            runtime.run(None, feed)
            done += case.batch
        return done / passed

    def _p1(self, case: Case, index: Path) -> dict[str, Any]:
        """The metrics of one run of p1. What it kept of scores is removed first: they are to be computed."""
        rmtree(self._root / "cache" / "scores", ignore_errors=True)
        out = self._root / "out" / index.stem
        command = [sys.executable, "-m", "modbot.cli.main", "tag", "--input", str(index), "--out", f"{out}.jsonl"]
        command += ["--metrics", f"{out}.json", "--model", case.model, "--provider", case.provider]
        command += ["--precision", case.precision, "--batch-size", str(case.batch), "--require-provider"]
        command += ["--qps", "unlimited", "--concurrency", "64"]
        places = {name: str(self._root / name.split("_")[0].lower()) for name in ("MODELS_DIR", "CACHE_DIR", "OUT_DIR")}
        env = {**os.environ, **places, "MODBOT_FILE_ROOT": str(self._root / "images")}
        done = subprocess.run(command, cwd=self._root, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr.strip()}")
        metrics: dict[str, Any] = json.loads(Path(f"{out}.json").read_bytes())
        if metrics["failed"] or metrics["batch_halved"] or metrics["inferred"] != metrics["rows"]:
            raise SystemExit(f"{case}: not all was as it should be: {json.dumps(metrics)}")
        return metrics


def cases(providers: Sequence[str]) -> list[Case]:
    """Every line of the table: the large model in full, the small one to see which stage bounds it."""
    large = [Case("large", *rest) for rest in _product(providers)]
    return [*large, *(Case("base", provider, "fp16", BATCHES[-1]) for provider in providers)]


def _product(providers: Sequence[str]) -> list[tuple[str, str, int]]:
    return [(provider, precision, batch) for provider in providers for precision in PRECISIONS for batch in BATCHES]


def heading(gpu: Gpu) -> str:
    """What the table was measured on."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{gpu.name}, {gpu.total} MiB; {cores} CPU cores; ONNX Runtime {ort.__version__}, Python "
        f"{platform.python_version()}; large: {LARGE.parameters / 1e6:.0f} M parameters, base: "
        f"{BASE.parameters / 1e6:.0f} M, both at {LARGE.size} pixels"
    )


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measure p1 on a GPU.")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--provider", action="append", choices=PROVIDERS)
    chosen = parser.parse_args()
    gpu = this_gpu()
    if gpu is None:
        sys.stderr.write("bench.gpu: there is no GPU here (nvidia-smi does not answer)\n")
        return 1
    providers = chosen.provider or PROVIDERS
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), {"large": LARGE, "base": BASE}, images=chosen.images)
        bench.fill("base", providers[0])
        rows = []
        for case in cases(providers):
            rows.append(bench.measure(case))
            sys.stderr.write(f"{rows[-1]}\n")
    print(f"{heading(gpu)}\n\n{table(rows)}")
    slow = [row.case for row in rows if row.case.model == "large" and row.ratio < BAR]
    print(f"\np1 at least {BAR} x the bare loop with the large model: {'missed' if slow else 'met'}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
