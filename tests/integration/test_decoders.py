"""Decoders that crash, hang, babble or are killed take down one image, and nothing is left of them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modbot.errors import ModbotError
from modbot.models.decoder import prepare
from modbot.models.decoder_process import COMMAND, start_spare
from modbot.models.decoding import Answer, Bounds, Decoders, PreparedImage
from modbot.models.imaging import decode, phash
from modbot.models.preparation import BlackCorner, Preparation, SqueezedJpeg, WhiteSquare
from modbot.records.p1 import RecordError
from tests.real_day import REPOSITORY, descendants, until

MISBEHAVING = (sys.executable, "-m", "tests.misbehaving_decoder")
SMALL = WhiteSquare(64)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]))


class Pool:
    """Decoders, and a folder from which they are asked for files by what is in them."""

    def __init__(
        self, folder: Path, count: int = 1, *, bounds: Bounds | None = None, command: Sequence[str] = MISBEHAVING
    ) -> None:
        self._folder = folder
        self.decoders = Decoders(count, bounds=bounds or Bounds(), command=command)
        self.decoders.add(count)

    def stored(self, data: bytes) -> tuple[Path, str]:
        digest = hashlib.sha256(data).hexdigest()
        path = self._folder / digest
        path.write_bytes(data)
        return path, digest

    def ask(self, data: bytes, preparation: Preparation = SMALL, *, frames: int = 1) -> Answer:
        return self.decoders.image(*self.stored(data), preparation, frames=frames).result(timeout=60)

    def begun_by(self, data: bytes) -> list[int]:
        """The decoders that began with these bytes, by process id."""
        path = self.stored(data)[0].with_suffix(".log")
        return [int(line) for line in path.read_text().split()] if path.exists() else []


Pools = Callable[..., Pool]


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    """Makes pools, and closes them."""
    with ExitStack() as stack:

        def make(count: int = 1, **settings: Any) -> Pool:  # noqa: ANN401 - a pool's own
            pool = Pool(tmp_path, count, **settings)
            stack.callback(pool.decoders.close)
            return pool

        yield make


def png(size: tuple[int, int] = (90, 40), colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def failed(answer: Answer) -> str:
    assert isinstance(answer, RecordError), answer
    assert answer.kind == "decode_failed"
    return answer.detail


def works(pool: Pool) -> bool:
    return isinstance(pool.ask(png()), PreparedImage)


@pytest.mark.parametrize("preparation", [WhiteSquare(448), SqueezedJpeg(256, 224), BlackCorner(320)])
def test_an_image_comes_as_it_would_in_this_process(pools: Pools, preparation: Preparation) -> None:
    pool = pools(command=COMMAND)
    gif = BytesIO()
    frames = [Image.new("RGB", (70, 50), colour) for colour in ("red", "green", "blue")]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    for data in (png(), gif.getvalue()):
        answer = pool.ask(data, preparation, frames=5)
        wanted = decode(data, max_frames=5)
        assert isinstance(answer, PreparedImage)
        assert (answer.info, answer.phash) == (wanted.info, phash(wanted.frames[0].picture))
        for ours, theirs in zip(answer.frames, wanted.frames, strict=True):
            assert (ours.index, ours.width, ours.height) == (theirs.index, *theirs.picture.size)
            assert np.array_equal(ours.pixels, prepare(theirs.picture, preparation))
        single = pool.decoders.frame(*pool.stored(data), preparation, index=wanted.frames[-1].index).result()
        assert isinstance(single, PreparedImage)
        assert np.array_equal(single.frames[0].pixels, answer.frames[-1].pixels)


def test_a_decoder_that_was_started_ahead_is_taken(pools: Pools) -> None:
    start_spare()
    ahead = list(descendants(os.getpid()))
    assert len(ahead) == 1
    own = pools(command=MISBEHAVING)  # another command, another decoder
    assert works(own)
    assert len(list(descendants(os.getpid()))) == 2
    pool = pools(2, command=COMMAND)
    assert works(pool)
    assert len(list(descendants(os.getpid()))) == 3
    assert set(ahead) < set(descendants(os.getpid()))


def test_bytes_that_are_not_there_or_not_what_their_digest_says_are_none(pools: Pools) -> None:
    pool = pools(command=COMMAND)
    path, digest = pool.stored(png())
    path.write_bytes(png(colour="blue"))
    assert pool.decoders.image(path, digest, SMALL, frames=1).result() is None
    path.unlink()
    assert pool.decoders.frame(path, digest, SMALL, index=0).result() is None


@pytest.mark.parametrize(
    ("order", "detail"),
    [
        ("crash 11", "the decoder crashed (signal 11)"),
        ("crash 6", "the decoder crashed (signal 6)"),
        ("crash 9", "the decoder crashed (signal 9)"),
        ("exit 3", "the decoder ended (exit code 3)"),
    ],
)
def test_a_crash_costs_one_image_and_is_tried_once_more(pools: Pools, order: str, detail: str) -> None:
    pool = pools(2)
    assert failed(pool.ask(order.encode())) == detail
    assert len(set(pool.begun_by(order.encode()))) == 2
    assert works(pool)


def test_a_crash_that_does_not_come_again_costs_nothing(pools: Pools) -> None:
    pool = pools()
    answer = pool.ask(b"crash_once")
    assert isinstance(answer, RecordError)
    assert answer.kind == "not_an_image"
    assert len(pool.begun_by(b"crash_once")) == 2


def test_many_crashes_at_once_do_not_stand_in_each_others_way(pools: Pools) -> None:
    pool = pools(2)
    orders = [f"crash 11 {number}".encode() for number in range(3)]
    futures = [pool.decoders.image(*pool.stored(data), SMALL, frames=1) for data in [*orders, png()]]
    answers = [future.result(timeout=60) for future in futures]
    assert [failed(answer) for answer in answers[:-1]] == ["the decoder crashed (signal 11)"] * 3
    assert isinstance(answers[-1], PreparedImage)


def test_what_takes_too_long_is_ended(pools: Pools) -> None:
    pool = pools(bounds=Bounds(seconds=1.5))
    assert works(pool)
    assert failed(pool.ask(b"hang")) == "took longer than 1.5 s"
    (pid,) = pool.begun_by(b"hang")
    assert not Path(f"/proc/{pid}").exists()
    assert works(pool)


def test_an_image_that_is_costly_to_decode_is_ended_too(pools: Pools) -> None:
    pool = pools(bounds=Bounds(seconds=0.3), command=COMMAND)
    assert failed(pool.ask(png((9_000, 9_000)))) == "took longer than 0.3 s"


def test_what_takes_too_much_memory_is_too_large(pools: Pools) -> None:
    pool = pools(bounds=Bounds(memory=400 << 20))
    answer = pool.ask(b"eat 500000000")
    assert failed(answer).startswith("the decoder ended")
    pool = pools(bounds=Bounds(memory=400 << 20), command=COMMAND)
    assert works(pool)
    answer = pool.ask(png((9_000, 9_000)))
    assert isinstance(answer, RecordError)
    assert answer.kind == "too_large"
    assert works(pool)


def test_a_decoder_that_babbles_is_not_believed(pools: Pools) -> None:
    pool = pools()
    assert failed(pool.ask(b"babble")).startswith("the decoder")
    assert works(pool)


def test_a_decoder_that_is_killed_between_two_images_is_not_missed(pools: Pools) -> None:
    pool = pools()
    pool.ask(b"a text")
    (pid,) = pool.begun_by(b"a text")
    os.kill(pid, signal.SIGKILL)
    assert works(pool)


def test_a_decoder_that_does_not_start_ends_the_run(pools: Pools, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModbotError, match=r"did not start: it ended \(exit code 1\)"):
        pools(command=(sys.executable, "-m", "modbot.no_such_module")).ask(png())
    with pytest.raises(ModbotError, match="cannot be started"):
        pools(command=("/no/such/program",))
    assert "no_such_module" in capfd.readouterr().err


def test_no_secret_reaches_a_decoder(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISCORD_BOT_TOKEN", "MODBOT_ALLOW_HOSTS", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    pool = pools()
    works(pool)
    (child,) = descendants(os.getpid())
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"secret" not in environment


ASKING = """
import sys, time
from pathlib import Path
from modbot.models.decoding import Decoders
from modbot.models.preparation import WhiteSquare
decoders = Decoders(2, command=(sys.executable, "-m", "tests.misbehaving_decoder"))
decoders.add(2)
futures = [decoders.image(Path(path), "", WhiteSquare(64), frames=1) for path in sys.argv[1:]]
print("asked", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_decoders_end_with_the_process_that_asks(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "hang").write_bytes(b"hang")
    asking = subprocess.Popen([sys.executable, "-c", ASKING, str(tmp_path / "hang")], cwd=REPOSITORY)
    until((tmp_path / "hang.log").exists)
    children = list(descendants(asking.pid))
    assert len(children) == 2
    asking.send_signal(number)
    asking.wait()
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), seconds=5)


def test_signals_to_the_group_are_left_to_the_process_that_asks(pools: Pools) -> None:
    pool = pools()
    assert works(pool)
    (child,) = descendants(os.getpid())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child, number)
    time.sleep(0.2)
    assert works(pool)
    assert list(descendants(os.getpid())) == [child]
