"""The whole day on the sample images, by the commands a person would type: `make demo`."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modbot.errors import InterruptedRunError, ModbotError, UnmetError
from modbot.files.paths import Partition
from modbot.settings import load
from samples.make import DATE, write_index, write_pictures
from samples.server import SampleServer

PROFILE = "demo"
CANDIDATE = "configs/rules_candidate.yaml"
WIDTH = 120
"""Columns of the table where there is no terminal to measure."""
DAY = ("--profile", PROFILE, "--date", DATE)


@dataclass(frozen=True)
class Result:
    """What a step left: how many records, how many of them failed, and the file to look at."""

    records: int
    failures: int
    look: Path


@dataclass(frozen=True)
class Step:
    """One command of the day, and how its result is read from the files it wrote."""

    name: str
    arguments: tuple[str, ...]
    result: Callable[[Partition], Result]


@dataclass(frozen=True)
class Done:
    """A step that ended well, and the seconds it took from start to exit."""

    step: Step
    result: Result
    seconds: float


def day(host: str) -> tuple[Step, ...]:
    """The steps of the day on the samples that `host` hands out."""
    fetching = ("--model", "open_nsfw", "--qps", "unlimited", "--allow-host", host)
    return (
        Step("split", ("split", *DAY, "--shards", "4"), _split),
        Step("p1 tag", ("tag", *DAY, *fetching, "--parallel", "2"), _tagged),
        Step("p2 analyze", ("analyze", *DAY, "--parallel", "2"), _analyzed),
        Step("p3 scan", ("scan", *DAY), _scanned),
        Step("report", ("report", *DAY), _reported),
        Step("A/B", ("ab", *DAY, "--rulesB", CANDIDATE), _compared),
        Step("uncertain", ("uncertain", *DAY, "--eps", "0.05"), _sampled),
        Step("contract: findings", ("contract", "check-findings", *DAY), _checked),
        Step("contract: report", ("contract", "check-report", *DAY), _reported),
    )


def main() -> int:
    """Runs the day; returns 0 when every step ended well, 130 when it was interrupted, else 1."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        partition = Partition(load().out_dir, PROFILE, DATE)
        done = list(_run_day(partition, console))
    except ModbotError as error:
        console.print(Text(f"demo: {error}", style="red"))
        return 1
    except KeyboardInterrupt:
        return InterruptedRunError.exit_code  # the step that was at work has told of it
    console.print(_table(done))
    console.print(_notes(partition))
    return 0


def _run_day(partition: Partition, console: Console) -> Iterator[Done]:
    """Runs the steps one after the other, as processes. Raises UnmetError for the first that fails."""
    images = partition.root / "samples"
    write_pictures(images)
    with SampleServer(images) as server:
        write_index(partition.index, images, base_url=server.base_url)
        for step in day(server.host):
            console.print(Text(f"$ modbot {shlex.join(step.arguments)}", style="bold"), soft_wrap=True)
            started = monotonic()
            code = subprocess.run([sys.executable, "-m", "modbot.cli.main", *step.arguments], check=False).returncode
            if code:
                raise UnmetError(f"ended with exit code {code}", where=step.name)
            yield Done(step, step.result(partition), monotonic() - started)


def _table(steps: Sequence[Done]) -> Table:
    table = Table(title="The day on the samples", title_justify="left")
    for head in ("step", "records", "seconds", "records/s", "failures", "where to look"):
        table.add_column(head, justify="left" if head in {"step", "where to look"} else "right", overflow="fold")
    for each in steps:
        records, rate = each.result.records, each.result.records / each.seconds
        look = Text(str(each.result.look))
        table.add_row(
            each.step.name, str(records), f"{each.seconds:.1f}", f"{rate:.1f}", str(each.result.failures), look
        )
    table.add_section()
    table.add_row("all", "", f"{sum(each.seconds for each in steps):.1f}", style="bold")
    return table


def _notes(partition: Partition) -> Text:
    """Which samples could not be judged and why, and the verdicts."""
    unjudged = [each for each in _lines(partition.findings) if each["metrics"]["winning"]["origin"] == "unjudged"]
    verdicts = ", ".join(f"{name} {number}" for name, number in _json(partition.latest_scan)["severity"].items())
    lines = [
        "Some samples are broken on purpose; each is a record, and never green:",
        *(f"  {_filename(each)}: {'; '.join(each['reasons'])}" for each in unjudged),
        f"Verdicts: {verdicts}",
    ]
    return Text("\n".join(lines))


def _filename(record: Mapping[str, Any]) -> str:
    return str(record["messages"][0]["attachments"][0]["filename"])


def _split(partition: Partition) -> Result:
    receipt = partition.shards / "shards.json"
    return Result(sum(_json(receipt)["rows"]), 0, receipt)


def _tagged(partition: Partition) -> Result:
    metrics = _json(partition.step_metrics("p1"))
    return Result(metrics["records"], metrics["failed"], partition.merged("p1"))


def _analyzed(partition: Partition) -> Result:
    metrics = _json(partition.step_metrics("p2"))
    return Result(metrics["records"], metrics["nudenet_failed"], partition.merged("p2"))


def _scanned(partition: Partition) -> Result:
    metrics = _json(partition.latest_scan)
    return Result(metrics["total"], metrics["winning"].get("unjudged", 0), partition.findings)


def _checked(partition: Partition) -> Result:
    return Result(_json(partition.latest_scan)["total"], 0, partition.findings)


def _reported(partition: Partition) -> Result:
    return Result(_rows(partition.report), 0, partition.report)


def _compared(partition: Partition) -> Result:
    return Result(_json(partition.ab_compare)["total"], 0, partition.ab_diff)


def _sampled(partition: Partition) -> Result:
    return Result(_rows(partition.uncertain), 0, partition.uncertain)


def _json(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_bytes())


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        yield from map(json.loads, lines)


def _rows(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as rows:
        return sum(1 for _ in csv.DictReader(rows))


if __name__ == "__main__":
    sys.exit(main())
