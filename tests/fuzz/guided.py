"""Looks for inputs that the rules language does not hold for, guided by the code that an input reaches: `make fuzz`.

The arguments are libFuzzer's; the first is a folder, which keeps the inputs that reached something new. What it finds
is written as `crash-…` or `timeout-…` and belongs in `tests/fuzz/found/` as `NAME.fuzz`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped] # installed apart, by `make fuzz` alone

with atheris.instrument_imports(include=["modbot"]):
    from tests.fuzz import rules


def main() -> None:
    """Fuzzes until libFuzzer's limits end it."""
    logging.disable()
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(rules.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, rules.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
