"""From scores and boxes to the signals of one image, and whether it is worth a detector at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Literal

from modbot.records.jsonl import score as rounded
from modbot.records.p1 import Rating
from modbot.records.p2 import Detection, XSignals
from modbot.records.tags import Group, total
from modbot.signals.area import union_area
from modbot.signals.config import SignalConfig

GateMode = Literal["auto", "always", "never"]

_EPSILON = 1e-6


def gate_opens(rating: Rating, thresholds: Mapping[str, float], mode: GateMode) -> bool:
    """Whether the detector runs on an image of that rating.

    `auto`: its `questionable` or `explicit` reaches `wd14_questionable` or `wd14_explicit` of the thresholds.
    """
    if mode != "auto":
        return mode == "always"
    return rating.questionable >= thresholds["wd14_questionable"] or rating.explicit >= thresholds["wd14_explicit"]


def compute(  # noqa: PLR0917 - what the signals cross, in the order of the record
    rating: Rating,
    tags: Mapping[str, float],
    detections: Sequence[Detection],
    image_width: int,
    image_height: int,
    nsfw_group: Group,
    config: SignalConfig,
) -> XSignals:
    """The signals of one image, 6 decimals.

    `tags`: normalised name -> score, all of the record's. `detections`: any number; the largest
    `config.max_detections` count. Boxes and sizes in pixels of the upright image.
    """
    found = nlargest(config.max_detections, detections, key=lambda detection: detection.score)
    nsfw_scores = [tags[tag] for tag in nsfw_group.select(tags)]
    exposure = exposure_score(found, config)
    nude = [d for d in found if d.class_ in config.box_classes and d.score >= config.box_threshold]
    unsafe = rating.questionable + rating.explicit
    everything = total((rating.general, rating.sensitive, rating.questionable, rating.explicit, _EPSILON))
    area = image_width * image_height
    return XSignals(
        exposure_score=exposure,
        placement_risk_pre=rounded(
            config.rating_weight * max(rating.questionable, rating.explicit)
            + config.tags_weight * _mean_of_top(nsfw_scores, config.top_tags)
            + config.exposure_weight * exposure
        ),
        nsfw_margin=rounded(max(rating.questionable, rating.explicit) - max(rating.general, rating.sensitive)),
        nsfw_ratio=rounded(unsafe / everything),
        nsfw_general_sum=rounded(total(nsfw_scores)),
        nudity_area_ratio=rounded(union_area((d.box for d in nude), image_width, image_height) / area) if area else 0.0,
        nudity_box_count=len(nude),
    )


def exposure_score(detections: Iterable[Detection], config: SignalConfig) -> float:
    """How exposed the people in the image are, 0 to 1, 6 decimals: the strongest strong and weak detection, joined."""
    found = list(detections)
    strong = config.strong_weight * _largest(found, config.strong_classes, config.strong_threshold)
    weak = config.weak_weight * _largest(found, config.weak_classes, config.weak_threshold)
    return rounded(1 - (1 - strong) * (1 - weak))


def _largest(detections: Iterable[Detection], classes: Collection[str], threshold: float) -> float:
    return max((d.score for d in detections if d.class_ in classes and d.score >= threshold), default=0.0)


def _mean_of_top(scores: Sequence[float], count: int) -> float:
    """The mean of the `count` largest scores, or of all where there are fewer; 0 of none."""
    top = nlargest(count, scores)
    return total(top) / len(top) if top else 0.0
