"""The numbers and lists behind the signals: the defaults, and what a settings file may change of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from modbot.errors import SettingError

_FILE = "configs/xsignals.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalConfig:
    """Every number and list that the signals are made of. Scores and thresholds lie between 0 and 1.

    Class names are NudeNet's, upper case.
    """

    strong_classes: frozenset[str] = frozenset(
        {
            "FEMALE_BREAST_EXPOSED",
            "FEMALE_GENITALIA_EXPOSED",
            "MALE_GENITALIA_EXPOSED",
            "BUTTOCKS_EXPOSED",
            "ANUS_EXPOSED",
        }
    )
    weak_classes: frozenset[str] = frozenset(
        {
            "FEMALE_BREAST_COVERED",
            "FEMALE_GENITALIA_COVERED",
            "BUTTOCKS_COVERED",
            "ANUS_COVERED",
            "BELLY_EXPOSED",
            "MALE_BREAST_EXPOSED",
        }
    )
    strong_threshold: float = 0.60
    weak_threshold: float = 0.50
    strong_weight: float = 1.0
    weak_weight: float = 0.6
    box_classes: frozenset[str] = frozenset(
        {"FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_EXPOSED"}
    )
    box_threshold: float = 0.60
    max_detections: int = 10
    rating_weight: float = 0.5
    tags_weight: float = 0.3
    exposure_weight: float = 0.7
    top_tags: int = 3

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = _FILE) -> SignalConfig:
        """The defaults with `values` over them, as YAML gives them; `nsfw_general` in it is not ours, and passed over.

        Raises `SettingError` for a key that does not exist or a value that cannot be used.
        """
        defaults = cls()
        taken: dict[str, Any] = {}
        known = [field.name for field in fields(cls)]
        for key, value in values.items():
            if key == "nsfw_general":
                continue
            if key not in known:
                raise SettingError(
                    f"there is no setting `{key}`", where=where, remedy=f"The settings are: {', '.join(known)}."
                )
            taken[key] = _CHECKS[type(getattr(defaults, key))](value, f"{where}: {key}")
        return cls(**taken)


def _classes(value: object, where: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        _refuse("must be a list of class names", where, "Write one NudeNet class a line, such as `- BELLY_EXPOSED`.")
    return frozenset(item.strip().upper() for item in value)


def _weight(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or math.isnan(value):
        _refuse(f"{value!r} is no number between 0 and 1", where, "Give a number such as 0.6.")
    return float(value)


def _whole(value: object, where: str) -> int:
    if type(value) is not int or value < 1:
        _refuse(f"{value!r} is no whole number above 0", where, "Give a number such as 3.")
    return value


def _refuse(what: str, where: str, remedy: str) -> NoReturn:
    raise SettingError(what, where=where, remedy=remedy)


_CHECKS = {frozenset: _classes, float: _weight, int: _whole}
