"""A decoder that does what the bytes tell it to, for tests of the pool: `python -m tests.misbehaving_decoder`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from modbot.models import decoder
from modbot.models.decoding import Reply, Request
from modbot.models.preparation import Pixels


def answer(request: Request) -> tuple[Reply, list[Pixels]]:
    """Images are decoded; a text is carried out, and noted in a file beside the one that it stands in."""
    path = Path(request.path)
    order, detail, *_ = [*path.read_bytes()[:100].decode("latin-1").split(" "), ""]
    with path.with_suffix(".log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    match order:
        case "crash":
            os.kill(os.getpid(), int(detail))
        case "crash_once" if path.with_suffix(".log").read_text().count("\n") == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(int(detail))
        case "hang":
            time.sleep(60)
        case "babble":
            os.write(int(sys.argv[1]), b"\xff" * 5_000_000)
        case "eat":
            bytearray(int(detail))
    return decoder.answer(request)


if __name__ == "__main__":
    decoder.serve(answer)
