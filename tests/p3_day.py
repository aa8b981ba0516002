"""A day of generated p2 records in a folder of its own, and commands run on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modbot.cli.main import main
from modbot.files.paths import Partition
from tests.p2_records import CANDIDATE, RULES, lines, write

DATE = "2025-10-01"


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Day:
    """The working directory of an operator: configs, and the p2 records of one day."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.part = Partition(Path("out"), "current", DATE)
        self._capsys = capsys
        self.rules = folder / "configs" / "rules.yaml"
        self.rules.parent.mkdir()
        self.rules.write_text(RULES, encoding="utf-8")
        (folder / "configs" / "candidate.yaml").write_text(CANDIDATE, encoding="utf-8")

    def records(self, data: Iterable[bytes], date: str = DATE) -> None:
        """The p2 records of a day."""
        write(Partition(Path("out"), "current", date).merged("p2"), list(data))

    def generated(self, count: int, seed: int = 0, date: str = DATE) -> None:
        """So many generated records."""
        self.records(lines(count, seed, raw_tags=30), date)

    def run(self, *arguments: str | Path, date: str | None = DATE) -> Ran:
        """Runs one command; `--date` is added."""
        self._capsys.readouterr()
        dated = [] if date is None else ["--date", date]
        code = main([*map(str, arguments), *dated])
        said = self._capsys.readouterr()
        return Ran(code, said.out, said.err)

    def ok(self, *arguments: str | Path, date: str | None = DATE) -> Ran:
        """Runs one command that must succeed."""
        ran = self.run(*arguments, date=date)
        assert ran.code == 0, ran.err
        return ran


def jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def document(path: Path) -> dict[str, Any]:
    """A JSON document."""
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))
