"""`modbot scan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from modbot.cli.judging import (
    const_option,
    crew_size,
    dated,
    days_of,
    environment_mode,
    inputs_of,
    jobs_option,
    mode_option,
    severities,
    severity_option,
    tell_rules,
    unjudged_option,
)
from modbot.cli.options import COUNT, PATH, partition_options
from modbot.errors import SettingError, UnmetError
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import RULES_FILE
from modbot.records.finding import SEVERITIES
from modbot.records.jsonl import encode_document
from modbot.settings import load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.files.paths import Partition
    from modbot.stages.rulebook import ModeRequest, Rulebook
    from modbot.stages.scan import Outputs, ScanJob, Scanned
    from modbot.stages.select import Selection
    from modbot.stages.tally import Tally


@click.command(
    epilog="Example: modbot scan --date 2025-10-01 --rules configs/rules.yaml --since 1970-01-01 --until 2099-12-31"
)
@partition_options
@click.option("--rules", type=PATH, default=RULES_FILE, show_default=True, help="Rules file.")
@click.option("--analysis", type=PATH, help="p2 records.  [default: OUT_DIR/profiles/NAME/p2/p2_DAY.jsonl]")
@click.option("--findings", type=PATH, help="Another place for the findings; the report goes beside them.")
@click.option("--metrics", type=PATH, help="A further place for the metrics.")
@click.option("--trace-jsonl", "trace", type=PATH, help="How each record came to its verdict.")
@click.option("--since", metavar="WHEN", help="Messages from here on: YYYY-MM-DD, ISO 8601, or 7d, 24h ago.")
@click.option("--until", metavar="WHEN", help="Messages up to here; a bare date includes that day.")
@severity_option
@click.option("--channel", "channels", multiple=True, metavar="ID|NAME", help="Only messages of these channels.")
@click.option("--limit", type=COUNT, help="At most so many findings.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out so many findings first.")
@mode_option
@const_option
@unjudged_option
@click.option("--allow-legacy", is_flag=True, help="Go on with a rules file that is not version 2.")
@click.option(
    "--fallback",
    type=click.Choice(["green", "skip"]),
    help="With --allow-legacy: every record green, or nothing written.  [default: skip]",
)
@click.option("--dry-run", is_flag=True, help="Write only what --metrics and --trace-jsonl name.")
@click.option("--print-config", is_flag=True, help="Print what the run rests on, as JSON, before it starts.")
@click.option("--dates", metavar="DAY..DAY", help="Several days, each on its own; overrides --date.")
@jobs_option
def scan(**given: Any) -> None:  # noqa: ANN401 - the flags above, by name
    """p3: judge the day by the rules: findings, report, metrics.

    A run that leaves any record out, or reads another file than the day's own, writes findings_DAY.part.jsonl and
    report_DAY.part.csv: the day's own files are only ever replaced by the whole day.
    """
    Command(given).run()


class Command:
    """One call of `modbot scan`."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._settings = load()
        self._now = datetime.now(UTC)

    def run(self) -> None:
        """Scans the day, or each of the days, and tells what came of it."""
        from modbot.stages.crew import Crew
        from modbot.stages.rulebook import open_rulebook
        from modbot.stages.scan import scan_days
        from modbot.stages.tally import Tally

        given = self._given
        self._check_flags()
        found, missing = days_of(self._settings, given["profile"], given["date"], given["dates"], given["analysis"])
        refuse_clashes(
            [*inputs_of(found), ("--rules", given["rules"])],
            [named for part, _ in found for named in self._outputs(part).named],
        )
        book = open_rulebook(given["rules"], self._modes(), consts=dict(given["consts"]))
        jobs = [job for part, analysis in found if (job := self._job(part, analysis, book)) is not None]
        total = Tally()
        unmet = [f"{date}: no p2 records" for date in missing]
        told = cache(lambda: tell_rules(book))
        if not jobs:
            told()
        # Offset and limit count all that came before.
        whole = bool(given["offset"]) or given["limit"] is not None
        with Crew(crew_size(found, given["jobs"], whole=whole)) as crew:
            for job, scanned in zip(jobs, scan_days(jobs, crew, told), strict=True):
                _tell(self._title, job.partition, book, scanned)
                total.merge(scanned.tally)
                unmet += _unmet(job.partition, job.analysis, scanned)
        if given["dates"] is not None:
            _tell_range(self._title, given["dates"], len(found), total)
        if unmet:
            raise UnmetError(
                "; ".join(unmet), remedy="Analyze what is missing (modbot analyze --resume), and scan it again."
            )

    @property
    def _title(self) -> str:
        return "scan (dry run)" if self._given["dry_run"] else "scan"

    def _check_flags(self) -> None:
        given = self._given
        if given["dry_run"] and given["findings"] is not None:
            raise SettingError("does not go with --dry-run", where="--findings", remedy="Leave one of them out.")
        if given["fallback"] is not None and not given["allow_legacy"]:
            raise SettingError("goes with --allow-legacy", where="--fallback", remedy="Add --allow-legacy.")

    def _job(self, part: Partition, analysis: Path, book: Rulebook) -> ScanJob | None:
        """The day's scan; None where there is nothing to judge by, and that is allowed."""
        from modbot.stages.scan import ScanJob

        given = self._given
        outputs, selection = self._outputs(part), self._selection()
        if given["print_config"]:
            judging = {
                "unjudged": given["unjudged"],
                "consts": dict(given["consts"]),
                "dry_run": given["dry_run"],
            }
            _print_config(part, book, {"analysis": str(analysis), **outputs.shown, **selection.shown, **judging})
        legacy = book.loaded.legacy and given["allow_legacy"]
        if legacy and given["fallback"] != "green":
            click.echo(f"{part.date}: skipped, the rules file is legacy; nothing was written")
            return None
        return ScanJob(
            partition=part,
            analysis=analysis,
            book=book,
            unjudged=given["unjudged"],
            all_green=legacy,
            selection=selection,
            outputs=outputs,
        )

    def _outputs(self, part: Partition) -> Outputs:
        from modbot.stages.scan import outputs_of

        return outputs_of(
            part,
            dry_run=self._given["dry_run"],
            findings=self._path("findings", part),
            metrics=self._path("metrics", part),
            trace=self._path("trace", part),
        )

    def _path(self, name: str, part: Partition) -> Path | None:
        flag = "--trace-jsonl" if name == "trace" else f"--{name}"
        return dated(self._given[name], part.date, flag, many=self._given["dates"] is not None)

    def _modes(self) -> ModeRequest:
        from modbot.stages.rulebook import ModeRequest

        return ModeRequest(flag=self._given["dsl_mode"], environment=environment_mode(self._settings))

    def _selection(self) -> Selection:
        from modbot.stages import select

        tz = ZoneInfo(self._settings.tz)
        given = self._given
        since = None if given["since"] is None else select.since(given["since"], tz, self._now)
        until = None if given["until"] is None else select.until(given["until"], tz, self._now)
        if since is not None and until is not None and since >= until:
            what = f"{given['since']} is not before the end that --until {given['until']} sets"
            raise SettingError(what, where="--since", remedy="Give the earlier time with --since.")
        return select.Selection(
            since=since,
            until=until,
            channels=select.channels(given["channels"]),
            severities=severities(given["severity"]),
            offset=given["offset"],
            limit=given["limit"],
            tz=tz,
        )


def _print_config(part: Partition, book: Rulebook, config: Mapping[str, Any]) -> None:
    shown = {"profile": part.profile, "date": part.date, "rules": book.shown, **config}
    click.echo(encode_document(shown).decode(), nl=False)


def _tell(title: str, part: Partition, book: Rulebook, scanned: Scanned) -> None:
    from modbot.cli.show import counts, facts

    tally, metrics = scanned.tally, scanned.metrics
    seconds, rate = metrics["wall_time_s"], metrics["throughput_rps"]
    facts(
        f"{title} {part.profile} {part.date}: {counted(tally.total, 'finding')} in {seconds:.1f} s ({rate:.0f}/s)",
        [
            *_lines(tally),
            ("rules", f"{book.path}, mode {book.mode}"),
            ("cannot match under open_nsfw", ", ".join(metrics["ruleset"]["unmatchable"])),
            ("could not be evaluated", counts(_failures(metrics["ruleset"]["evaluation_issues"]))),
            ("written", ", ".join(str(path) for path in scanned.written) or "nothing"),
        ],
    )
    if scanned.partial_by:
        kept = any(".part." in path.name for path in scanned.written)
        stay = ": the day's own findings and report stay as they were" if kept else ""
        click.echo(f"A part of the day (by {', '.join(scanned.partial_by)}){stay}.", err=True)


def _unmet(part: Partition, analysis: Path, scanned: Scanned) -> Iterator[str]:
    from modbot.stages.scan import OTHER_COUNT

    if OTHER_COUNT in scanned.partial_by:
        read = counted(scanned.tally.read, "record")
        yield f"{part.date}: {analysis} holds {read}, and p2 counted {scanned.extent.records}: it is no whole day"


def _tell_range(title: str, dates: str, done: int, total: Tally) -> None:
    from modbot.cli.show import facts

    facts(f"{title} {dates}: {counted(total.total, 'finding')} of {counted(done, 'day')}", _lines(total))


def _lines(tally: Tally) -> list[tuple[str, str]]:
    from modbot.cli.show import counts
    from modbot.stages.tally import TOP_RULES

    return [
        ("severity", counts({name: tally.severity[name] for name in SEVERITIES})),
        ("top rules", counts(dict(tally.rules.most_common(TOP_RULES)))),
        ("not judged", counts(dict(tally.unjudged.most_common()))),
        ("model", counts(dict(tally.models.most_common()))),
        ("calibrated ratings", str(tally.calibrated or "")),
        ("left out", counts(tally.filtered)),
        ("without a date", str(tally.undated or "")),
    ]


def _failures(issues: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {owner: sum(kinds.values()) for owner, kinds in issues.items()}
