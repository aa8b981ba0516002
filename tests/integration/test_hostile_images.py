"""Whatever an image file holds, it ends as a picture or as an error of a known kind, within the limits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

import pytest

from modbot.models.decoding import Answer, Bounds, Decoders, PreparedImage
from modbot.models.imaging import FORMATS
from modbot.models.preparation import WhiteSquare
from modbot.records.p1 import RecordError
from tests.hostile_images import NASTIES, hostile_images, seeds

SIZE = 64
KINDS = {"not_an_image", "decode_failed", "too_large"}
ENDLESS = "jpeg-many-scans"


def asked(folder: Path, images: Iterable[tuple[str, bytes]], bounds: Bounds) -> dict[str, Answer]:
    """What decoders make of the images, by name."""
    pool = Decoders(2, bounds=bounds)
    pool.add(2)
    futures: dict[str, Future[Answer]] = {}
    for name, data in images:
        path = folder / name
        path.write_bytes(data)
        futures[name] = pool.image(path, hashlib.sha256(data).hexdigest(), WhiteSquare(size=SIZE), frames=3)
    answers = {name: future.result() for name, future in futures.items()}
    pool.close()
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    images = ((name, data) for name, data in hostile_images() if name != ENDLESS)
    return asked(tmp_path_factory.mktemp("hostile"), images, Bounds(seconds=60, memory=2 << 30))


def outcome(answer: Answer) -> str:
    if isinstance(answer, RecordError):
        return answer.kind
    assert answer is not None
    assert answer.info is not None
    return "read in part" if answer.info.truncated else "read"


def test_the_seeds_are_whole(tmp_path: Path) -> None:
    whole = asked(tmp_path, seeds().items(), Bounds())
    assert {outcome(answer) for answer in whole.values()} == {"read"}
    formats = {answer.info.format for answer in whole.values() if isinstance(answer, PreparedImage) and answer.info}
    assert formats == {*FORMATS, "MPO"}


def test_each_is_a_picture_or_an_error_of_a_known_kind(answers: dict[str, Answer]) -> None:
    counts = Counter(map(outcome, answers.values()))
    print(f"{len(answers)} broken and hostile images: {dict(counts.most_common())}")  # noqa: T201 - for who asks (-s)
    assert len(answers) >= 300
    assert counts.keys() <= KINDS | {"read", "read in part"}
    for answer in answers.values():
        if isinstance(answer, RecordError):
            assert answer.detail
            assert "\n" not in answer.detail
        else:
            assert answer is not None
            assert {frame.pixels.shape for frame in answer.frames} == {(SIZE, SIZE, 3)}


def test_none_ends_its_decoder(answers: dict[str, Answer]) -> None:
    errors = {name: answer.detail for name, answer in answers.items() if isinstance(answer, RecordError)}
    signs = ("took longer", "crashed", "exit code")
    assert {name: detail for name, detail in errors.items() if any(sign in detail for sign in signs)} == {}


def test_one_that_takes_hours_is_ended(tmp_path: Path) -> None:
    (answer,) = asked(tmp_path, [(ENDLESS, NASTIES[ENDLESS]())], Bounds(seconds=3)).values()
    assert answer == RecordError(kind="decode_failed", detail="took longer than 3 s")


def test_a_file_that_was_cut_is_never_taken_for_a_whole_one(answers: dict[str, Answer]) -> None:
    # The further pictures of an MPO are not shown, and may be missing.
    cuts = {name: outcome(answer) for name, answer in answers.items() if "-cut-" in name and "mpo" not in name}
    assert {name for name, how in cuts.items() if how == "read"} == set()
    assert sum(how == "read in part" for how in cuts.values()) > 40


def test_bombs_do_not_go_off(answers: dict[str, Answer]) -> None:
    bombs = {name: outcome(answer) for name, answer in answers.items() if name.startswith("bomb-")}
    assert bombs == dict.fromkeys(bombs, "too_large") | {
        "bomb-png-below-the-limit": "read",
        "bomb-gif-canvas-below-the-limit": "read in part",
        "bomb-tiff-deflate": "read",
        "bomb-avif": "decode_failed",
        "bomb-jpeg-below-the-limit": "read",
        "bomb-jpeg-progressive": "read",
    }


@pytest.mark.parametrize("name", ["svg", "icon", "jpeg-2000", "heif", "photoshop", "movie", "pcx", "targa", "portable"])
def test_formats_that_are_not_read_are_no_images(answers: dict[str, Answer], name: str) -> None:
    assert outcome(answers[name]) == "not_an_image"


def test_broken_profiles_and_exif_take_nothing_from_a_picture(answers: dict[str, Answer]) -> None:
    metadata = {name: outcome(answers[name]) for name in NASTIES if name.startswith(("icc-", "exif-"))}
    assert metadata == dict.fromkeys(metadata, "read") | {"icc-bomb": "read in part"}


def test_decoders_say_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noisy = [(name, data) for name, data in hostile_images() if name.startswith("tiff-")]
    asked(tmp_path, noisy, Bounds())
    assert capfd.readouterr() == ("", "")
