"""`modbot ab`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from modbot.cli.judging import (
    MODES,
    const_option,
    crew_size,
    days_of,
    environment_mode,
    inputs_of,
    jobs_option,
    mode_option,
    tell_rules,
)
from modbot.cli.options import PATH, partition_options
from modbot.errors import UnmetError
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import RULES_FILE
from modbot.records.finding import SEVERITIES
from modbot.settings import load
from modbot.words import counted

if TYPE_CHECKING:
    from modbot.rules import Mode
    from modbot.stages.compare import Compared
    from modbot.stages.rulebook import Rulebook


@click.command(
    epilog="Example: modbot ab --date 2025-10-01 --rulesA configs/rules.yaml --rulesB configs/rules_candidate.yaml"
)
@partition_options
@click.option("--rulesA", "rules_a", type=PATH, default=RULES_FILE, show_default=True, help="Rules file of side A.")
@click.option("--rulesB", "rules_b", type=PATH, required=True, help="Rules file of side B.")
@click.option("--analysis", type=PATH, help="p2 records.  [default: OUT_DIR/profiles/NAME/p2/p2_DAY.jsonl]")
@click.option("--out-dir", type=PATH, help="A folder that gets all three files as well.")
@click.option("--out-json", type=PATH, help="The comparison goes here only.")
@click.option("--out-csv", type=PATH, help="The diff goes here only.")
@click.option(
    "--sample-diff", type=click.IntRange(min=0), default=200, show_default=True, help="How many of the largest."
)
@click.option(
    "--samples-minimal", is_flag=True, help="Samples with identity, verdicts, short reasons, key scores only."
)
@click.option("--samples-redact-urls", is_flag=True, help="No links in the samples.")
@click.option("--lock-mode", type=MODES, help="Mode of both sides, whatever else is said.")
@mode_option
@const_option
@click.option("--allow-legacy", is_flag=True, help="A side that is not version 2 is no error: only a note is written.")
@click.option("--dates", metavar="DAY..DAY", help="Several days, each on its own and all as one; overrides --date.")
@jobs_option
def ab(**given: Any) -> None:  # noqa: ANN401 - the flags above, by name
    """Compare two rules files on the same day.

    Over several days the files hold the whole range; each day has its own beside them, with the date in the name.
    """
    from modbot.stages.compare import AbJob, SampleForm, ab_outputs, compare_days, day_outputs, skip_legacy
    from modbot.stages.crew import Crew

    settings = load()
    found, missing = days_of(settings, given["profile"], given["date"], given["dates"], given["analysis"])
    environment = environment_mode(settings)
    several = given["dates"] is not None
    whole = ab_outputs(found[-1][0], out_dir=given["out_dir"], out_json=given["out_json"], out_csv=given["out_csv"])
    days = [day_outputs(part, out_dir=given["out_dir"]) for part, _ in found] if several else [whole]
    outputs = [*days, whole] if several else [whole]
    refuse_clashes(
        [*inputs_of(found), ("--rulesA", given["rules_a"]), ("--rulesB", given["rules_b"])],
        chain.from_iterable(each.named for each in outputs),
    )
    form = SampleForm(
        count=given["sample_diff"], minimal=given["samples_minimal"], redact_urls=given["samples_redact_urls"]
    )
    books = _open(given, "rules_a", environment), _open(given, "rules_b", environment)
    told = cache(lambda: _tell_rules(books))
    if given["allow_legacy"] and any(book.loaded.legacy for book in books):
        told()
        _tell(skip_legacy(books, outputs), *books)
    else:
        jobs = [
            AbJob(analysis=analysis, books=books, outputs=each, form=form)
            for (_, analysis), each in zip(found, days, strict=True)
        ]
        with Crew(crew_size(found, given["jobs"])) as crew:
            compared = compare_days(jobs, whole if several else None, crew, told)
        _tell(compared, *books)
        if missing:
            raise UnmetError(
                "; ".join(f"{date}: no p2 records" for date in missing),
                remedy="Analyze what is missing (modbot analyze --resume), and compare again.",
            )


def _open(given: Mapping[str, Any], name: str, environment: Mode | None) -> Rulebook:
    from modbot.stages.rulebook import ModeRequest, open_rulebook

    modes = ModeRequest(lock=given["lock_mode"], flag=given["dsl_mode"], environment=environment)
    return open_rulebook(given[name], modes, consts=dict(given["consts"]))


def _tell_rules(books: tuple[Rulebook, Rulebook]) -> None:
    for book, side in zip(books, "AB", strict=True):
        tell_rules(book, side)


def _tell(compared: Compared, a: Rulebook, b: Rulebook) -> None:
    from modbot.cli.show import counts, facts, grid

    document, found = compared.document, compared.found
    facts(
        f"A/B of {counted(found.total, 'record')}: {counted(found.samples.seen, 'differs', 'differ')}",
        [
            ("A", f"{a.path}, mode {a.mode}"),
            ("B", f"{b.path}, mode {b.mode}"),
            ("model", counts(dict(found.models.most_common()))),
            *(
                (f"cannot match under open_nsfw in {side}", ", ".join(book.account(found.models)["unmatchable"]))
                for side, book in (("A", a), ("B", b))
            ),
            ("note", document["note"] or ""),
            ("written", ", ".join(str(path) for path in compared.written)),
        ],
    )
    if not found.total:
        return
    counts_a, counts_b, delta = (document[name] for name in ("countsA", "countsB", "delta"))
    grid(
        "verdicts",
        ("severity", "A", "B", "change"),
        [(name, str(counts_a[name]), str(counts_b[name]), f"{delta[name]:+d}") for name in SEVERITIES],
    )
    grid(
        "A (rows) to B (columns)",
        ("A", *SEVERITIES),
        [(x, *(str(document["confusion"].get(f"{x}->{y}", 0)) for y in SEVERITIES)) for x in SEVERITIES],
    )
    won_a, won_b = (side.won for side in found.sides)
    grid(
        "rules that gained or lost",
        ("rule", "A", "B", "change"),
        [
            (rule, str(won_a[rule]), str(won_b[rule]), f"{change:+d}")
            for rule, change in document["top_rule_delta"].items()
        ],
    )
    for side in "AB":
        grid(
            f"rules of {side} that match together",
            ("rule", "matches", "won", "alone", "most with", "share"),
            [
                (
                    rule,
                    *(str(shared[name]) for name in ("matches", "won", "alone")),
                    shared["most_with"] or "",
                    f"{shared['share']:.0%}",
                )
                for rule, shared in document[f"overlap{side}"].items()
            ],
        )
