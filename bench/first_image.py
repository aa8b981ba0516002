"""From the start of p1 to its first tagged image, all of them stored already, without what the model takes to load.

    python -m bench.first_image [--model open_nsfw]

The image counts as tagged once its line is in the journal.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from time import monotonic

from bench.store_day import StoreDays
from modbot.models import registry
from modbot.models.execution import Execution
from modbot.models.tagger import load_tagger

BAR = 2.0
ROUNDS = 7


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measure how soon p1 has its first image.")
    parser.add_argument("--model", default="open_nsfw")
    model = parser.parse_args().model
    models = Path(os.environ.get("MODELS_DIR", "models")).resolve()
    installed = registry.locate(model, models, kind="tagger")
    loads, firsts = [], []
    with tempfile.TemporaryDirectory() as scratch:
        days = StoreDays(Path(scratch), models, short=4, long=20, size=(1280, 960))
        days.fill(model)
        for _ in range(ROUNDS):
            started = monotonic()
            load_tagger(installed, Execution(provider="cpu"))
            loads.append(monotonic() - started)
            firsts.append(days.first_line(model))
    load, first = statistics.median(loads), statistics.median(firsts)
    print(f"machine: {platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    print(f"first line: {first:.2f} s  ({' '.join(f'{each:.2f}' for each in firsts)})")
    print(f"the model's own load: {load:.2f} s")
    print(f"without it: {first - load:.2f} s (bar: {BAR:.0f} s)")
    return 0 if first - load < BAR else 1


if __name__ == "__main__":
    sys.exit(main())
