"""What the language knows by name: the numbers a record brings, the signals that are exported, the functions."""

from __future__ import annotations

from typing import NamedTuple

RATINGS = ("general", "sensitive", "questionable", "explicit", "safe")
"""`rating.<name>` that is 0 when the record lacks it; any further key of the record can be read as well."""

XSIGNALS = (
    "exposure_score",
    "placement_risk_pre",
    "nsfw_margin",
    "nsfw_ratio",
    "nsfw_general_sum",
    "nudity_area_ratio",
    "nudity_box_count",
)
"""The numbers that p2 computed."""

SIGNAL_ALIASES = {"exposure_area": "nudity_area_ratio", "exposure_count": "nudity_box_count"}

GROUP_SIGNALS = {
    "violence_sum": ("sum", "violence"),
    "violence_max": ("max", "violence"),
    "minors_sum": ("sum", "minors"),
    "minors_peak": ("max", "minors"),
    "gore_sum": ("sum", "gore"),
    "gore_peak": ("max", "gore"),
    "drug_score": ("max", "drugs"),
    "animals_sum": ("sum", "animal_subjects"),
    "animals_peak": ("max", "animal_subjects"),
    "animal_context_peak": ("max", "animal_contexts"),
    "sexual_explicit_sum": ("sum", "sexual_explicit"),
    "sexual_modifier_sum": ("sum", "sexual_modifiers"),
    "dismember_peak": ("max", "dismember"),
}
"""Built-in number -> what it takes of which group; 0 where the file has no such group."""

EXPOSURE_PEAK = "exposure_peak"

BUILT_INS = frozenset({*XSIGNALS, *SIGNAL_ALIASES, *GROUP_SIGNALS, EXPOSURE_PEAK, "attachment_count"})
"""The identifiers without a dot; a feature of the file may override each."""

EXPORTED = {
    **{name: name for name in (*XSIGNALS, *SIGNAL_ALIASES, EXPOSURE_PEAK, *GROUP_SIGNALS)},
    "violence_peak": "violence_max",
    "minors_max": "minors_peak",
    "gore_max": "gore_peak",
    "animals_max": "animals_peak",
    "placement_risk": "placement_risk_pre",
}
"""Exported signal -> the identifier it is the value of. `metrics.<name>` reads these."""

CONSTANTS = {"WD14_QUES": 0.35, "WD14_EXPL": 0.20}
THRESHOLDS = {"wd14_questionable": 0.35, "wd14_explicit": 0.20}


class Parameters(NamedTuple):
    """What a function takes: parameter names in order, and how many of them are required."""

    names: tuple[str, ...]
    required: int


GROUP_THRESHOLD = 0.35
"""What `gt` is when `any` and `count` do not say."""

FUNCTIONS = {
    "score": Parameters(("tag",), 1),
    "sum": Parameters(("group",), 1),
    "max": Parameters(("group",), 1),
    "min": Parameters(("group",), 1),
    "any": Parameters(("group", "gt"), 1),
    "count": Parameters(("group", "gt"), 1),
    "topk_sum": Parameters(("group", "k", "gt"), 2),
    "clamp": Parameters(("x", "lo", "hi"), 3),
    "nude.has": Parameters(("class",), 1),
    "nude.any": Parameters(("prefix", "min", "suffix"), 0),
}
"""Every call the language has. `sum`, `max` and `min` also take numbers."""
