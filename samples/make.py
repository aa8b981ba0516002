"""Writes the sample images and the p0 index that lists them: `python -m samples.make DIR [--repeat N]`."""

from __future__ import annotations

import argparse
import csv
import io
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path

from modbot.files.atomic import write_bytes
from modbot.records.index import COLUMNS
from samples.pictures import LARGEST, pictures

DATE = "2025-10-01"
BASE_URL = "http://127.0.0.1:8765"
INDEX_NAME = "p0.csv"
IMAGES_NAME = "images"
MISSING = "gone.jpg"
"""The name that no server has: its link answers 404."""
EXTRA_COLUMN = "caption"
"""A column that modbot does not know, and keeps."""
ODD_CAPTION = 'A comma, a "quote",\na second line, and 日本語'

_GUILD = 1120000000000000000
_CHANNELS = {"general": 1120000000000000101, "art": 1120000000000000102, "nsfw": 1120000000000000103}
_AUTHORS = {"user_a": 1100000000000000201, "user_b": 1100000000000000202, "ユーザーC": 1100000000000000203}
_DISCORD_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
_BETWEEN_MESSAGES = timedelta(minutes=20)


@dataclass(frozen=True)
class Post:
    """One row of the sample index.

    `file` is the sample that the link leads to, `shown_as` the name it was posted under, `under` a folder that makes
    the link another one; `with_previous`: in the same message as the row before.
    """

    file: str
    channel: str = "general"
    author: str = "user_a"
    source: str = "attachment"
    shown_as: str | None = None
    under: str = ""
    caption: str = ""
    with_previous: bool = False


POSTS = (
    Post("astronaut.png"),
    Post("rocket.jpg", with_previous=True),
    Post("brick.png", "art", "user_b"),
    Post("camera.png"),
    Post("cell.png", author="user_b"),
    Post("chelsea.png", author="ユーザーC", caption=ODD_CAPTION),
    Post("clock_motion.png"),
    Post("coins.png", author="user_b"),
    Post("grass.png", "art"),
    Post("gravel.png", "art"),
    Post("hubble_deep_field.jpg", author="ユーザーC"),
    Post("retina.jpg"),
    Post("china.jpg", author="user_b"),
    Post("flower.jpg", "art", shown_as="SPOILER_flower.jpg"),
    Post("luispedro.jpg", source="embed_image"),
    # The same picture under two names, in a channel for everybody and in an NSFW one.
    Post("coffee.png"),
    Post("coffee.png", "nsfw", "user_b", shown_as="morning.png", under="again"),
    # The same link as above, forwarded: one fetch.
    Post("rocket.jpg", "art", "user_b", source="forward"),
    # Two that look alike: one drawing, encoded twice.
    Post("harbour.jpg", "art", "ユーザーC"),
    Post("harbour_resent.jpg", "nsfw", "ユーザーC"),
    Post("sticker.png", source="sticker"),
    Post("pixel_art.png", "art"),
    Post("depth_map.png", "art"),
    Post("lanterns.webp", source="embed_thumbnail"),
    Post("spinner.gif"),
    Post("wave.webp", "art"),
    Post("print_ready.jpg", "art", "user_b"),
    Post("holiday.jpg", author="ユーザーC", caption="夜の港"),
    Post("dot.png"),
    Post(LARGEST, "art", source="link"),
    Post("cut_off.jpg", "nsfw"),
    Post("notes.png"),
    Post(MISSING, author="user_b"),
)


def write_pictures(folder: Path, *, with_largest: bool = True) -> None:
    """Writes the sample files into `folder`, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in pictures(with_largest=with_largest).items():
        (folder / name).write_bytes(data)


def write_index(path: Path, images: Path, *, base_url: str, date: str = DATE, rows: int | None = None) -> int:
    """Writes the p0 index of the samples that lie in `images` (and of the one that is missing) to `path`.

    `base_url` is what the links begin with. `rows` None lists each sample once; a number lists that many, the
    samples repeated under distinct links. Returns the number of rows.
    """
    sizes = {file.name: file.stat().st_size for file in images.iterdir()}
    posts = [post for post in POSTS if post.file in sizes or post.file == MISSING]
    wanted = len(posts) if rows is None else rows
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, EXTRA_COLUMN], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(islice(_rows(posts, sizes, base_url.rstrip("/"), date), wanted))
    write_bytes(path, text.getvalue().encode())
    return wanted


def _rows(posts: Sequence[Post], sizes: Mapping[str, int], base_url: str, date: str) -> Iterator[dict[str, str]]:
    """The rows of the posts, again and again; from the second round on each link has the round in its path."""
    midnight = datetime.fromisoformat(date).replace(tzinfo=UTC)
    message = -1
    for turn in count():
        base = f"{base_url}/r/{turn}" if turn else base_url
        for post in posts:
            message += not post.with_previous
            yield _row(post, sizes.get(post.file), base, midnight, message)


def _row(post: Post, size: int | None, base: str, midnight: datetime, message: int) -> dict[str, str]:
    created = midnight + message * _BETWEEN_MESSAGES % timedelta(days=1)
    channel, shown_as = _CHANNELS[post.channel], post.shown_as or post.file
    message_id = _snowflake(created, message)
    return {
        "guild_id": str(_GUILD),
        "channel_id": str(channel),
        "channel_name": post.channel,
        "message_id": str(message_id),
        "message_link": f"https://discord.com/channels/{_GUILD}/{channel}/{message_id}",
        "created_at": created.isoformat(),
        "author_id": str(_AUTHORS[post.author]),
        "author_name": post.author,
        "is_nsfw_channel": str(post.channel == "nsfw").lower(),
        "source": post.source,
        "attachment_id": str(message_id + (1 << 21) + post.with_previous),
        "filename": shown_as,
        "content_type": mimetypes.guess_type(shown_as)[0] or "",
        "file_size": "" if size is None else str(size),
        "url": "/".join(part for part in (base, post.under, post.file) if part),
        "is_spoiler": str(shown_as.startswith("SPOILER_")).lower(),
        EXTRA_COLUMN: post.caption,
    }


def _snowflake(created: datetime, number: int) -> int:
    """An id as Discord gives them: milliseconds since 2015 above 22 bits, here with the message's number."""
    return int((created - _DISCORD_EPOCH) / timedelta(milliseconds=1)) << 22 | number % (1 << 21)


def main() -> None:
    """Writes `DIR/images/` and `DIR/p0.csv`."""
    parser = argparse.ArgumentParser(
        prog="python -m samples.make", description="Write the sample images and their index."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="gets images/ and p0.csv")
    parser.add_argument("--base-url", default=BASE_URL, help="what the links begin with (default: %(default)s)")
    parser.add_argument("--date", default=DATE, help="the day of the messages (default: %(default)s)")
    parser.add_argument("--repeat", type=int, metavar="N", help="N rows: the samples again under distinct links")
    chosen = parser.parse_args()
    images = chosen.folder / IMAGES_NAME
    write_pictures(images)
    index = chosen.folder / INDEX_NAME
    rows = write_index(index, images, base_url=chosen.base_url, date=chosen.date, rows=chosen.repeat)
    print(f"{index}: {rows} rows; {images}: {len(list(images.iterdir()))} files")
    print(f"Hand them out with: python -m samples.server {images}")


if __name__ == "__main__":
    main()
