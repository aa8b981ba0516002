"""Scores in 16 bit: what comes back, and how far it is from what was put."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Thread

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace

from modbot.records.p1 import ImageInfo
from modbot.records.p2 import Detection
from modbot.stages.kept import Kept, KeptScores, Scores, as_kept, packed, unpacked

SCORES = arrays(np.float32, st.integers(1, 50), elements=st.floats(0, 1, width=32))
DIGEST = hashlib.sha256(b"an image").hexdigest()
INFO = ImageInfo(width=3, height=2, format="PNG", bytes=70)


@given(SCORES)
def test_a_score_comes_back_within_half_a_step(scores: Scores) -> None:
    assert np.abs(as_kept(scores) - scores).max() <= 0.5 / 65_535 + 1e-7


@given(SCORES)
def test_what_came_back_once_comes_back_the_same(scores: Scores) -> None:
    once = as_kept(scores)
    assert np.array_equal(as_kept(once), once)
    assert len(packed(scores)) == 2 * len(scores)


@given(SCORES)
def test_the_order_stays(scores: Scores) -> None:
    assert (np.diff(as_kept(np.sort(scores))) >= 0).all()


def test_the_ends_are_exact_and_rounding_errors_beyond_them_are_cut() -> None:
    assert unpacked(packed(np.array([0, 1, -1e-9, 1.0000001], np.float32))).tolist() == [0, 1, 0, 1]


def test_scores_and_detections_are_there_at_once_and_once_the_run_has_ended(tmp_path: Path) -> None:
    kept = KeptScores(phash="0" * 16, image=INFO, frame=3, scores=packed(np.array([0.25, 0.5], np.float32)))
    found = [Detection(class_="FACE_FEMALE", score=0.731234, box=(1, 2, 3, 4))]
    with Kept(tmp_path) as results:
        assert results.scores(DIGEST, frames=5) is None
        results.put_scores(DIGEST, kept, frames=5)
        results.put_detections(DIGEST, 3, found)
        results.put_detections(DIGEST, 4, [])
        assert results.scores(DIGEST, frames=5) == kept
        assert (results.detections(DIGEST, 3), results.detections(DIGEST, 4)) == (found, [])
    with Kept(tmp_path) as results:
        assert results.scores(DIGEST, frames=5) == kept
        assert (results.detections(DIGEST, 3), results.detections(DIGEST, 4)) == (found, [])
        assert results.detections(DIGEST, 5) is None


def test_only_an_animation_is_another_where_more_frames_are_looked_at(tmp_path: Path) -> None:
    still = KeptScores(phash=None, image=INFO, frame=0, scores=b"\0\0")
    moving = replace(still, image=replace(INFO, format="GIF", frames=9), frame=4)
    other = hashlib.sha256(b"an animation").hexdigest()
    with Kept(tmp_path) as results:
        results.put_scores(DIGEST, still, frames=5)
        results.put_scores(other, moving, frames=5)
        results.put_scores(other, replace(moving, frame=0), frames=1)
    with Kept(tmp_path) as results:
        assert [results.scores(DIGEST, frames=frames) for frames in (1, 5, 7)] == [still] * 3
        assert results.scores(other, frames=5) == moving
        assert results.scores(other, frames=1) == replace(moving, frame=0)
        assert results.scores(other, frames=7) is None
        results.put_scores(other, moving, frames=10**12)


def test_what_another_version_kept_is_computed_again(tmp_path: Path) -> None:
    with Kept(tmp_path) as results:
        results.put_detections(DIGEST, 0, [])
    with Kept(tmp_path) as results:
        assert results.scores(DIGEST, frames=5) is None


def test_several_threads_may_put_and_ask(tmp_path: Path) -> None:
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(200)]
    with Kept(tmp_path) as results:

        def work(part: list[str]) -> None:
            for digest in part:
                results.scores(digest, frames=5)
                results.put_detections(digest, 0, [])

        threads = [Thread(target=work, args=(digests[start::4],)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Kept(tmp_path) as results:
        assert all(results.detections(digest, 0) == [] for digest in digests)


def test_a_damaged_file_is_told_of_once(tmp_path: Path) -> None:
    with Kept(tmp_path) as results:
        results.put_detections(DIGEST, 0, [])
    (path,) = tmp_path.glob("*.shelf")
    path.write_bytes(b"no longer")
    other = path.rename(path.with_name("0123456789ab.1.2.3.shelf"))
    with Kept(tmp_path) as results:
        (warning,) = results.warnings
        assert str(other) in warning
    with Kept(tmp_path) as results:
        assert results.warnings == []


def test_what_comes_after_the_end_is_not_kept(tmp_path: Path) -> None:
    results = Kept(tmp_path)
    results.close()
    results.put_detections(DIGEST, 0, [])
    assert list(tmp_path.iterdir()) == []
