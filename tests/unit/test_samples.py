from __future__ import annotations

import csv
from collections.abc import Iterator
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path

import imagehash
import pytest
from PIL import Image, UnidentifiedImageError

from modbot.records.index import COLUMNS
from samples.make import EXTRA_COLUMN, MISSING, ODD_CAPTION, POSTS, write_index, write_pictures
from samples.pictures import LARGEST, PHOTOGRAPHS, drawings, pictures
from samples.server import SampleServer

BASE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "images"
    write_pictures(folder)
    return folder


@pytest.fixture
def server(images: Path) -> Iterator[SampleServer]:
    with SampleServer(images) as server:
        yield server


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def _ask(server: SampleServer, method: str, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection(server.host, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_samples_are_the_same_every_time() -> None:
    assert drawings() == drawings()
    assert len(pictures()) >= 24
    assert pictures(with_largest=False).keys() == pictures().keys() - {LARGEST}


@pytest.mark.parametrize(
    ("name", "kind", "mode", "size", "frames"),
    [
        ("harbour.jpg", "JPEG", "RGB", (640, 480), 1),
        ("sticker.png", "PNG", "RGBA", (320, 320), 1),
        ("pixel_art.png", "PNG", "P", (256, 256), 1),
        ("depth_map.png", "PNG", "I;16", (256, 256), 1),
        ("lanterns.webp", "WEBP", "RGB", (600, 400), 1),
        ("spinner.gif", "GIF", "P", (200, 200), 8),
        ("print_ready.jpg", "JPEG", "CMYK", (480, 480), 1),
        ("dot.png", "PNG", "RGB", (1, 1), 1),
        (LARGEST, "JPEG", "RGB", (6000, 4000), 1),
    ],
)
def test_every_drawing_is_of_its_kind(
    *, images: Path, name: str, kind: str, mode: str, size: tuple[int, int], frames: int
) -> None:
    with Image.open(images / name) as image:
        assert (image.format, image.mode, image.size, getattr(image, "n_frames", 1)) == (kind, mode, size, frames)


def test_the_wave_moves(images: Path) -> None:
    with Image.open(images / "wave.webp") as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("WEBP", 6)


def test_the_holiday_lies_on_its_side(images: Path) -> None:
    with Image.open(images / "holiday.jpg") as image:
        assert image.size == (360, 480)
        assert image.getexif()[0x0112] == 6


def test_two_look_alike_and_are_not_the_same(images: Path) -> None:
    first, second = (images / "harbour.jpg").read_bytes(), (images / "harbour_resent.jpg").read_bytes()
    assert first != second
    assert imagehash.phash(Image.open(BytesIO(first))) == imagehash.phash(Image.open(BytesIO(second)))


def test_the_broken_ones_are_broken(images: Path) -> None:
    with Image.open(images / "cut_off.jpg") as image, pytest.raises(OSError, match="truncated"):
        image.load()
    with pytest.raises(UnidentifiedImageError):
        Image.open(images / "notes.png")
    assert not (images / MISSING).exists()


def test_every_sample_is_posted(images: Path) -> None:
    assert {post.file for post in POSTS} == {file.name for file in images.iterdir()} | {MISSING}
    assert {photo.name for photo in PHOTOGRAPHS} <= {post.file for post in POSTS}


def test_the_index_has_what_a_day_brings(images: Path, tmp_path: Path) -> None:
    assert write_index(tmp_path / "p0.csv", images, base_url=BASE) == len(POSTS)
    rows = _rows(tmp_path / "p0.csv")
    assert list(rows[0]) == [*COLUMNS, EXTRA_COLUMN]
    assert ODD_CAPTION in {row[EXTRA_COLUMN] for row in rows}
    assert {row["channel_name"] for row in rows if row["is_nsfw_channel"] == "true"} == {"nsfw"}
    assert [row["filename"] for row in rows if row["is_spoiler"] == "true"] == ["SPOILER_flower.jpg"]
    coffee = [row for row in rows if row["url"].endswith("/coffee.png")]
    assert [(row["channel_name"], row["filename"]) for row in coffee] == [
        ("general", "coffee.png"),
        ("nsfw", "morning.png"),
    ]
    assert rows[0]["message_id"] == rows[1]["message_id"]
    assert len({row["attachment_id"] for row in rows}) == len(rows)


def test_repeated_samples_have_links_of_their_own(images: Path, tmp_path: Path) -> None:
    assert write_index(tmp_path / "p0.csv", images, base_url=BASE, rows=200) == 200
    rows = _rows(tmp_path / "p0.csv")
    forwards = sum(row["source"] == "forward" for row in rows)
    assert len({row["url"] for row in rows}) == len(rows) - forwards
    assert len({row["attachment_id"] for row in rows}) == len(rows)


def test_the_server_hands_out_and_counts(server: SampleServer, images: Path) -> None:
    for path in ("/dot.png", "/r/17/dot.png", "/r/17/dot.png"):
        assert _ask(server, "GET", path) == (200, (images / "dot.png").read_bytes())
    assert _ask(server, "GET", f"/{MISSING}")[0] == 404
    assert _ask(server, "GET", "/../pictures.py")[0] == 404
    assert _ask(server, "HEAD", "/dot.png")[0] == 501
    assert server.gets == {"/dot.png": 1, "/r/17/dot.png": 2, f"/{MISSING}": 1, "/../pictures.py": 1}
