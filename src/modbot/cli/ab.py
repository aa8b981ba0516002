"""`modbot ab`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from modbot.cli.judging import MODES, const_option, days_of, environment_mode, inputs_of, mode_option, tell_rules
from modbot.cli.options import PATH, partition_options
from modbot.files.outputs import refuse_clashes
from modbot.files.paths import RULES_FILE
from modbot.records.finding import SEVERITIES
from modbot.settings import load

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
@click.option("--dates", metavar="DAY..DAY", help="Several days as one comparison; overrides --date.")
def ab(**given: Any) -> None:  # noqa: ANN401 - the flags above, by name
    """Compare two rules files on the same day."""
    from modbot.stages.compare import SampleForm, ab_outputs, compare, skip_legacy

    settings = load()
    found, _ = days_of(settings, given["profile"], given["date"], given["dates"], given["analysis"])
    outputs = ab_outputs(found[-1][0], out_dir=given["out_dir"], out_json=given["out_json"], out_csv=given["out_csv"])
    refuse_clashes([*inputs_of(found), ("--rulesA", given["rules_a"]), ("--rulesB", given["rules_b"])], outputs.named)
    form = SampleForm(
        count=given["sample_diff"], minimal=given["samples_minimal"], redact_urls=given["samples_redact_urls"]
    )
    a, b = (_open(given, name, environment_mode(settings)) for name in ("rules_a", "rules_b"))
    modes = (a.mode, b.mode)
    if given["allow_legacy"] and (a.loaded.legacy or b.loaded.legacy):
        compared = skip_legacy(modes, outputs)
    else:
        judges = a.judge("yellow"), b.judge("yellow")
        compared = compare([path for _, path in found], judges, modes, outputs, form)
    _tell(compared, a, b)


def _open(given: Mapping[str, Any], name: str, environment: Mode | None) -> Rulebook:
    from modbot.stages.rulebook import ModeRequest, open_rulebook

    modes = ModeRequest(lock=given["lock_mode"], flag=given["dsl_mode"], environment=environment)
    book = open_rulebook(given[name], modes, consts=dict(given["consts"]))
    tell_rules(book, name[-1].upper())
    return book


def _tell(compared: Compared, a: Rulebook, b: Rulebook) -> None:
    from modbot.cli.show import counts, facts, grid

    document = compared.document
    facts(
        f"A/B of {compared.total} records: {compared.differing} differ",
        [
            ("A", f"{a.path}, mode {a.mode}"),
            ("B", f"{b.path}, mode {b.mode}"),
            ("model", counts(dict(compared.models.most_common()))),
            *(
                (f"cannot match under open_nsfw in {side}", ", ".join(book.account(compared.models)["unmatchable"]))
                for side, book in (("A", a), ("B", b))
            ),
            ("note", document["note"] or ""),
            ("written", ", ".join(str(path) for path in compared.written)),
        ],
    )
    if not compared.total:
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
    grid(
        "rules that gained or lost",
        ("rule", "A", "B", "change"),
        [
            (rule, str(compared.rules_a[rule]), str(compared.rules_b[rule]), f"{change:+d}")
            for rule, change in document["top_rule_delta"].items()
        ],
    )
