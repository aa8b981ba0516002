"""Signals: numbers that cross the tagger's scores with the detector's boxes. Numbers in, numbers out."""

from __future__ import annotations

from modbot.signals.area import Box, union_area
from modbot.signals.compute import GateMode, compute, exposure_score, gate_opens
from modbot.signals.config import SignalConfig

__all__ = ["Box", "GateMode", "SignalConfig", "compute", "exposure_score", "gate_opens", "union_area"]
