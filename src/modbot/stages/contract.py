"""Checks findings and reports against what other people's scripts rely on."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
from jsonschema_rs import Draft202012Validator

from modbot.errors import InputError
from modbot.records.finding import REPORT_COLUMNS, SEVERITIES
from modbot.records.jsonl import decode, decode_any
from modbot.stages.lines import numbered_lines
from modbot.words import counted

SCHEMA = "p3_findings.schema.json"
KEPT = 20
"""So many problems are told; the others are counted."""

_NUMBER = re.compile(r"-?\d+\.\d{4}")
_COUNT = re.compile(r"\d+")
_SCORED = re.compile(r".+:-?\d+\.\d{2}")
_NUMBERS = frozenset(
    name
    for name in REPORT_COLUMNS
    if name.startswith(("wd14_rating_", "nsfw_")) or name in {"exposure_score", "placement_risk_pre", "animals_sum"}
)
_SCORED_LISTS = frozenset({"top_tags", "nudity_tops", "violence_tags"})


@dataclass
class Checked:
    """What a check found. `problems` are the first ones, each with line and key; `count` is all of them."""

    lines: int = 0
    count: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        self.count += 1
        if len(self.problems) < KEPT:
            self.problems.append(problem)


def load_schema() -> dict[str, Any]:
    """The JSON Schema of a finding."""
    schema: dict[str, Any] = json.loads(resources.files("modbot.records").joinpath(SCHEMA).read_text("utf-8"))
    return schema


def check_findings(path: Path) -> Checked:
    """Validates every line of a findings file against the JSON Schema.

    Raises:
        InputError: the file cannot be read.
    """
    checked = Checked()
    validator = finding_validator()
    for number, line in numbered_lines(path, what="the findings", remedy="Run the scan first: modbot scan"):
        checked.lines += 1
        problem = _finding_problem(line, validator)
        if problem is not None:
            checked.add(f"line {number}: {problem}")
    return checked


def finding_validator() -> Draft202012Validator:
    """What holds a decoded finding against the schema."""
    return Draft202012Validator(load_schema())


def _finding_problem(line: bytes, validator: Draft202012Validator) -> str | None:
    try:
        finding = decode_any(line)
    except msgspec.DecodeError as broken:
        return f"broken JSON ({broken})"
    if validator.is_valid(finding):
        return None
    error = next(validator.iter_errors(finding))
    what = error.message if len(error.message) <= 200 else f"{error.message[:200]}…"  # noqa: PLR2004 - a line's width
    return f"{_json_path(error.instance_path)}: {what}"


def _json_path(keys: Iterable[str | int]) -> str:
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)


def check_report(path: Path, findings: Path | None) -> Checked:
    """Checks a report's header, each row's severity and number formats, and its rows against the findings.

    `findings`: the file that the report is of; None leaves that comparison out.

    Raises:
        InputError: a file cannot be read.
    """
    checked = Checked()
    usual = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as text:
            rows = csv.reader(text, strict=True)
            header = next(rows, [])
            if header[: len(REPORT_COLUMNS)] != list(REPORT_COLUMNS):
                checked.add(_header_problem(header))
                return checked
            _check_rows(checked, rows, len(header), findings)
    except OSError as error:
        raise InputError(
            f"the report cannot be read ({error.strerror})",
            where=str(path),
            remedy="Run the scan, or write it from the findings: modbot report",
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        checked.add(f"row {checked.lines + 2}: no CSV in UTF-8 ({error})")
    finally:
        # The limit is the process's: others rely on the usual one.
        csv.field_size_limit(usual)
    return checked


def _header_problem(header: list[str]) -> str:
    place, expected, found = next(
        (place, expected, found)
        for place, (expected, found) in enumerate(zip_longest(REPORT_COLUMNS, header, fillvalue="nothing"), 1)
        if expected != found
    )
    return f"row 1: column {place} is {found!r}, not {expected!r}"


def _check_rows(checked: Checked, rows: Iterator[list[str]], width: int, findings: Path | None) -> None:
    severities = iter(()) if findings is None else _severities(findings)
    for number, row in enumerate(rows, 2):
        checked.lines += 1
        expected = next(severities, None)
        for problem in _row_problems(row, width):
            checked.add(f"row {number}: {problem}")
        if expected is not None and row and row[0] in SEVERITIES and row[0] != expected:
            checked.add(f"row {number}: severity is {row[0]!r}, the finding's is {expected!r}")
        if expected is None and findings is not None:
            checked.add(f"row {number}: there is no finding for it")
    missing = sum(1 for _ in severities)
    if missing:
        checked.add(counted(missing, "finding has no row", "findings have no row"))


class _Severity(msgspec.Struct):
    severity: Any = None


def _severities(findings: Path) -> Iterator[Any]:
    for _, line in numbered_lines(findings, what="the findings", remedy="Run the scan first: modbot scan"):
        try:
            yield decode(line, _Severity).severity
        except msgspec.DecodeError:
            # That the finding itself is broken is for check-findings to tell; here it is a row that it should have.
            yield "unreadable"


def _row_problems(row: list[str], width: int) -> Iterator[str]:
    if len(row) != width:
        yield f"{counted(len(row), 'cell')}, not {width}"
        return
    cells = dict(zip(REPORT_COLUMNS, row, strict=False))
    if cells["severity"] not in SEVERITIES:
        yield f"severity is {cells['severity']!r}"
    if cells["is_nsfw_channel"] not in {"true", "false"}:
        yield f"is_nsfw_channel is {cells['is_nsfw_channel']!r}, not true or false"
    if not _COUNT.fullmatch(cells["message_count"]):
        yield f"message_count is {cells['message_count']!r}, no whole number"
    for name in REPORT_COLUMNS:
        if name in _NUMBERS and cells[name] and not _NUMBER.fullmatch(cells[name]):
            yield f"{name} is {cells[name]!r}, no number with 4 decimals"
        if name in _SCORED_LISTS and cells[name]:
            yield from (
                f"{name} holds {item!r}, no name:0.93"
                for item in cells[name].split(" | ")
                if not _SCORED.fullmatch(item)
            )
