"""One odd frame among a hundred is one of the five that a model sees, wherever it stands and whatever else moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from modbot.models.frames import most_different
from modbot.models.imaging import decode, decode_frame

COUNT, LIMIT, SIDE = 100, 5, 64

Change = Callable[[Image.Image], Image.Image]


@cache
def scene(width: int = SIDE, height: int = SIDE, seed: int = 0) -> Image.Image:
    """Soft discs of all colours."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), tuple(int(c) for c in rng.integers(40, 216, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(25):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(4, 20)
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(1))


def grainy(picture: Image.Image, amount: float, seed: int) -> Image.Image:
    grain = np.random.default_rng(seed).normal(0, amount, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def still() -> list[Image.Image]:
    return [scene()] * COUNT


def noisy() -> list[Image.Image]:
    return [grainy(scene(), 20, seed) for seed in range(COUNT)]


def shaking() -> list[Image.Image]:
    """By up to five pixels, and never the same twice running."""
    steps = np.random.default_rng(2).permutation(36).tolist() * 3
    return [
        scene(SIDE + 6, SIDE + 6).crop((x, y, x + SIDE, y + SIDE)) for x, y in (divmod(i, 6) for i in steps[:COUNT])
    ]


def passing() -> list[Image.Image]:
    """A camera that turns, until nothing is left of what it began with."""
    return [scene(SIDE + COUNT, SIDE).crop((x, 0, x + SIDE, SIDE)) for x in range(COUNT)]


def brightening() -> list[Image.Image]:
    return [scene().point([level * (i + 1) // COUNT for level in range(256)] * 3) for i in range(COUNT)]


def approaching() -> list[Image.Image]:
    whole = scene(3 * SIDE, 3 * SIDE)
    return [whole.resize((SIDE, SIDE), box=(i / 2, i / 2, 3 * SIDE - i / 2, 3 * SIDE - i / 2)) for i in range(COUNT)]


def scenes(count: int) -> Callable[[], list[Image.Image]]:
    def frames() -> list[Image.Image]:
        return [grainy(scene(seed=10 + i * count // COUNT), 8, seed=i) for i in range(COUNT)]

    return frames


ANIMATIONS: dict[str, Callable[[], list[Image.Image]]] = {
    "still": still,
    "noisy": noisy,
    "shaking": shaking,
    "passing": passing,
    "brightening": brightening,
    "approaching": approaching,
    "two scenes": scenes(2),
    "four scenes": scenes(4),
    "twenty scenes": scenes(20),
}


def another_drawing(picture: Image.Image) -> Image.Image:
    return scene(*picture.size, seed=99)


def a_shape(picture: Image.Image) -> Image.Image:
    """White over 26 x 24 of its 64 x 64 pixels, which is 15 %."""
    changed = picture.copy()
    ImageDraw.Draw(changed).rectangle((14, 20, 39, 43), fill="white")
    return changed


def a_line_of_text(picture: Image.Image) -> Image.Image:
    changed = picture.copy()
    draw = ImageDraw.Draw(changed)
    draw.rectangle((2, 28, 61, 40), fill="white")
    draw.text((4, 29), "LOOK HERE", fill="black")
    return changed


ODD: dict[str, Change] = {"another drawing": another_drawing, "a shape": a_shape, "text": a_line_of_text}


def thumbnail(picture: Image.Image) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.asarray(picture.resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("animation", ANIMATIONS)
def test_an_odd_frame_is_chosen_wherever_it_stands(animation: str, odd: str) -> None:
    frames = ANIMATIONS[animation]()
    plain = [thumbnail(frame) for frame in frames]
    missed = []
    for place in range(COUNT) if odd == "a shape" else (*range(0, COUNT, 7), COUNT - 1):
        looks = [*plain[:place], thumbnail(ODD[odd](frames[place])), *plain[place + 1 :]]
        chosen = most_different(enumerate(looks), LIMIT)
        assert chosen[0] == 0
        assert chosen == sorted(set(chosen))
        assert len(chosen) <= LIMIT
        if place not in chosen:
            missed.append(place)
    assert missed == []


def encoded(frames: Sequence[Image.Image], name: str) -> bytes:
    file = BytesIO()
    options = {"lossless": True, "method": 0, "quality": 0} if name == "WEBP" else {}
    frames[0].save(file, name, save_all=True, append_images=frames[1:], duration=40, **options)
    return file.getvalue()


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["GIF", "WEBP", "PNG"]),
    animation=st.sampled_from([name for name in ANIMATIONS if name != "still"]),
    odd=st.sampled_from(list(ODD)),
    place=st.just(0) | st.just(COUNT - 1) | st.integers(1, COUNT - 2),
)
def test_an_odd_frame_of_a_file_is_chosen(name: str, animation: str, odd: str, place: int) -> None:
    frames = ANIMATIONS[animation]()
    frames[place] = ODD[odd](frames[place])
    data = encoded(frames, name)
    decoded = decode(data, max_frames=LIMIT)
    assert decoded.info.frames == COUNT
    assert place in [frame.index for frame in decoded.frames]


# Neither scene is odd here, however long it lasts: what differs most is what is wanted.
def test_scenes_of_which_none_is_odd_are_all_chosen() -> None:
    looks = [thumbnail(frame) for frame in scenes(LIMIT)()]
    chosen = most_different(enumerate(looks), LIMIT)
    assert [place * LIMIT // COUNT for place in chosen] == list(range(LIMIT))


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_few_are_frame_0_and_the_odd_one(limit: int) -> None:
    frames = noisy()
    frames[70] = a_shape(frames[70])
    chosen = most_different(((i, thumbnail(frame)) for i, frame in enumerate(frames)), limit)
    assert len(chosen) == limit
    assert chosen[0] == 0
    assert limit == 1 or 70 in chosen


def test_an_odd_frame_alone_in_its_file_is_had_again_by_its_number() -> None:
    frames = passing()
    frames[41] = a_shape(frames[41])
    data = encoded(frames, "WEBP")
    (odd,) = [frame for frame in decode(data, max_frames=LIMIT).frames if frame.index == 41]
    assert odd.picture.tobytes() == decode_frame(data, 41).tobytes() == frames[41].tobytes()
