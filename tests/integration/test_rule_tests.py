"""`modbot rules test` and `validate`: the file's own tests, and tests made of judged records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modbot.records.evidence import read
from modbot.records.finding import UNJUDGED
from modbot.rules import Mode, load_rules
from modbot.signals import SignalConfig
from modbot.stages.hashlists import HashList, HashLists
from modbot.stages.judge import RulesJudge
from modbot.stages.rule_tests import as_test, as_yaml, run_tests
from modbot.stages.rulebook import ModeRequest, open_rulebook, signals_of
from tests.p2_records import RULES, odd_lines, plain
from tests.p3_day import DATE, Day

TESTS = """\
tests:
  - name: adult content
    record: {rating: {explicit: 0.9}}
    expect: {severity: red, rule_id: ADULT}
  - name: not in an NSFW channel
    record: {rating: {explicit: 0.9}, channel: {is_nsfw: true}}
    expect: {severity: green, rule_id: null}
"""
WRONG = """\
  - name: a sword
    record: {tags: {long sword: 0.5, guro: 0.2}, nudity: [{class: BELLY_EXPOSED, score: 0.7}]}
    expect: {severity: orange, rule_id: GORE}
"""


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Day:
    monkeypatch.chdir(tmp_path)
    return Day(tmp_path, capsys)


def test_tests_that_pass_say_so(day: Day) -> None:
    day.rules.write_text(RULES + TESTS, encoding="utf-8")
    assert "2 tests, all passed" in day.ok("rules", "test", date=None).out
    assert "0 warnings, 2 tests" in day.ok("rules", "validate", date=None).out


def test_a_test_that_fails_is_explained(day: Day) -> None:
    day.rules.write_text(RULES + TESTS + WRONG, encoding="utf-8")
    ran = day.run("rules", "test", date=None)
    assert ran.code == 1
    assert "3 tests, 1 failed" in ran.err
    assert f"configs/rules.yaml:{(RULES + TESTS).count(chr(10)) + 1}: a sword" in ran.out
    assert "expected orange (GORE), got yellow (MILD)" in ran.out
    assert "it has the highest priority (5) of the 2 yellow rules that matched" in ran.out
    assert "gore_peak is 0.2, asked for >= 0.5 (gap 0.3)" in ran.out
    assert "VIOLENCE" not in ran.out


def test_a_failing_test_fails_the_check(day: Day) -> None:
    day.rules.write_text(RULES + TESTS + WRONG, encoding="utf-8")
    ran = day.run("rules", "validate", date=None)
    assert ran.code == 2
    assert "expected orange (GORE), got yellow (MILD)" in ran.out
    assert "refused: 0 errors, 0 warnings, 3 tests, 1 failed" in ran.err


def test_the_check_as_data_holds_issues_and_tests(day: Day) -> None:
    day.rules.write_text(RULES + TESTS + WRONG + "nonsense: 1\n", encoding="utf-8")
    ran = day.run("rules", "validate", "--json", date=None)
    told = json.loads(ran.out)
    assert ran.code == 2
    assert [(issue["code"], issue["level"], issue["hint"] is not None) for issue in told["issues"]] == [
        ("R2-K001", "warning", True)
    ]
    assert (told["tests"]["total"], told["tests"]["failed"], told["tests"]["broken"]) == (3, 1, 0)
    failed = told["tests"]["results"][2]
    assert failed["expected"] == {"severity": "orange", "rule_id": "GORE"}
    assert failed["got"] == {"severity": "yellow", "rule_id": "MILD"}
    assert failed["explained"]["explanation"]["nearest"] == "GORE"
    assert "explained" not in told["tests"]["results"][0]


def test_the_results_as_data(day: Day) -> None:
    day.rules.write_text(RULES + TESTS, encoding="utf-8")
    told = json.loads(day.ok("rules", "test", "--json", date=None).out)
    assert [result["passed"] for result in told["tests"]["results"]] == [True, True]


def test_a_test_that_cannot_be_read_is_no_pass(day: Day) -> None:
    day.rules.write_text(
        RULES + TESTS.replace("severity: green", "severity: red").replace("record:", "recrod:", 1), encoding="utf-8"
    )
    ran = day.run("rules", "test", date=None)
    assert ran.code == 1
    assert "did you mean `record`?" in ran.out
    assert "2 tests, 1 failed, 1 broken" in ran.err
    assert day.run("rules", "validate", date=None).code == 2


def test_a_constant_can_be_tried_out(day: Day) -> None:
    rules = RULES.replace("gore_peak >= 0.5", "gore_peak >= const_gore").replace(
        "thresholds:\n", "thresholds:\n  gore: 0.5\n"
    )
    day.rules.write_text(rules + TESTS + WRONG, encoding="utf-8")
    assert day.run("rules", "test", date=None).code == 1
    day.ok("rules", "test", "--const", "gore=0.2", date=None)


def test_rules_that_cannot_run_are_refused(day: Day) -> None:
    day.rules.write_text("version: 1\n", encoding="utf-8")
    ran = day.run("rules", "test", date=None)
    assert ran.code == 2
    assert "legacy" in ran.err


def test_tests_see_what_a_scan_sees(day: Day) -> None:
    """Signals are computed, errors and doubts are unjudged, hash lists are named."""
    Path("configs/hashlists.yaml").write_text("spam: {sha256: []}\nother: {}\n", encoding="utf-8")
    rules = RULES + (
        "  - {id: SPAM, severity: red, when: known.spam}\n"
        "tests:\n"
        "  - {record: {nudity: [{class: ANUS_EXPOSED, score: 0.9}]}, expect: {rule_id: MILD}}\n"
        "  - {record: {nudity: [{class: ANUS_EXPOSED, score: 0.9}], xsignals: {exposure_score: 0}},"
        " expect: {rule_id: null}}\n"
        "  - {record: {error: expired}, expect: {severity: yellow, rule_id: null}}\n"
        "  - {record: {doubts: [truncated]}, expect: {severity: yellow, rule_id: null}}\n"
        "  - {record: {rating: {explicit: 0.9}, doubts: [truncated]}, expect: {severity: red, rule_id: ADULT}}\n"
        "  - {record: {known: [spam]}, expect: {rule_id: SPAM}}\n"
        "  - {record: {known: [other]}, expect: {severity: green}}\n"
    )
    day.rules.write_text(rules, encoding="utf-8")
    assert "7 tests, all passed" in day.ok("rules", "test", date=None).out


def test_a_judged_record_becomes_a_test_that_passes(day: Day) -> None:
    record = plain(3)
    record["wd14"]["general_raw"] += [["yes", 0.4], ["secret_tag", 0.9]]
    rules = RULES.replace("[child, loli]", "[child, loli, 'yes']")
    day.rules.write_text(rules, encoding="utf-8")
    day.records([json.dumps(record, ensure_ascii=False).encode()])
    printed = day.ok("rules", "test", "--record", record["message_link"]).out
    day.rules.write_text(f"{rules}tests:\n{printed}", encoding="utf-8")
    assert "1 test, all passed" in day.ok("rules", "test", date=None).out
    case = yaml.safe_load(printed)[0]
    assert case["name"] == f"{DATE}, row 3"
    assert case["record"]["tags"]["yes"] == 0.4
    for private in (
        "http",
        "discord",
        record["author_id"],
        record["messages"][0]["author_name"],
        "secret_tag",
        "room-",
    ):
        assert private not in printed


def test_a_message_that_is_not_there_is_told(day: Day) -> None:
    day.generated(3)
    ran = day.run("rules", "test", "--record", "https://discord.com/channels/1/2/3")
    assert ran.code == 2
    assert "no record of the message https://discord.com/channels/1/2/3" in ran.err


EVERYTHING = (
    RULES
    + """\
  - {id: KNOWN, severity: red, when: known.spam}
  - {id: SPOILER, severity: orange, when: message.is_spoiler && attachment_count != 1}
  - id: ODD
    severity: orange
    priority: 2
    when: score(":d") > 0.5 || nude.has("X_EXPOSED") || rating.beauty / rating.safe > 0.9
"""
)
SCORES = st.floats(0, 1).map(lambda score: round(score, 6))
TAGS = st.one_of(
    st.sampled_from(
        ["guro", "yes", "no", "~", "1", ":d", "null", "long sword", "Guro", "あ", "a: b", "#x", "'", "{x}"]
    ),
    st.text(min_size=1, max_size=6),
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "rating": st.dictionaries(st.sampled_from(["general", "explicit", "beauty", "safe", "no: 1"]), SCORES),
        "tags": st.lists(st.tuples(TAGS, SCORES), max_size=6),
        "nudity": st.lists(
            st.fixed_dictionaries(
                {
                    "class": st.sampled_from(["BELLY_EXPOSED", "x_exposed", "a\nb"]),
                    "score": SCORES,
                    "box": st.just([0, 0, 9, 9]),
                }
            ),
            max_size=2,
        ),
        "is_nsfw_channel": st.booleans(),
        "is_spoiler": st.booleans(),
        "attachments": st.integers(0, 3),
        "xsignals": st.just({}),
        "nudenet_error": st.sampled_from([None, "failed: https://x.example/1"]),
        "error": st.sampled_from([None, {"kind": "expired", "detail": "https://x.example/2"}]),
        "sha256": st.just("f" * 64),
    },
)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    record = plain(1)
    message = record["messages"][0]
    message["is_nsfw_channel"] = changes.get("is_nsfw_channel", False)
    message["attachments"] *= changes.get("attachments", 1)
    record["messages"] = [message]
    record["wd14"]["rating"] = changes.get("rating", record["wd14"]["rating"])
    record["wd14"]["general_raw"] = changes.get("tags", record["wd14"]["general_raw"])
    record["nudity_detections"] = changes.get("nudity", record["nudity_detections"])
    record["meta"]["nudenet_error"] = changes.get("nudenet_error")
    for key in ("is_spoiler", "xsignals", "error", "sha256"):
        record[key] = changes.get(key, record.get(key))
    return record


LISTS = HashLists({"spam": HashList(sha256=frozenset({"f" * 64}))})


def made(source: str, line: bytes, mode: Mode) -> tuple[str, Any]:
    """The test that is made of a record, and the record's verdict."""
    ruleset = load_rules(source.encode(), file="rules.yaml", mode=mode, lists=LISTS.lists).ruleset
    assert ruleset is not None
    group = ruleset.groups["nsfw_general"]
    judge = RulesJudge(ruleset, unjudged=UNJUDGED, lists=LISTS, signals=signals_of(group, SignalConfig()))
    judged = judge(read(line, 1))
    return as_yaml([as_test(judge, judged, "made")]), {
        "severity": judged.outcome.severity,
        "rule_id": judged.outcome.rule_id,
    }


def check_round_trip(folder: Path, line: bytes, mode: Mode) -> None:
    printed, verdict = made(EVERYTHING, line, mode)
    path, lists = folder / "rules.yaml", folder / "hashlists.yaml"
    path.write_text(f"{EVERYTHING}tests:\n{printed}", encoding="utf-8")
    lists.write_text("spam: {}\n", encoding="utf-8")
    book = open_rulebook(path, ModeRequest(flag=mode), hashlists=lists, xsignals=folder / "none.yaml")
    ran = run_tests(book)
    assert ran.is_good, (printed, book.loaded.issues)
    assert [dict(result.got) for result in ran.results] == [verdict]
    assert "http" not in printed


@pytest.mark.parametrize("mode", ["warn", "strict"])
@settings(max_examples=80, deadline=None)
@given(changes=CHANGES)
def test_any_judged_record_becomes_a_test_that_passes(
    tmp_path_factory: pytest.TempPathFactory, mode: Mode, changes: dict[str, Any]
) -> None:
    line = json.dumps(changed(changes), ensure_ascii=False).encode()
    check_round_trip(tmp_path_factory.mktemp("made"), line, mode)


@pytest.mark.parametrize("name", odd_lines())
def test_an_odd_record_becomes_a_test_that_passes(tmp_path: Path, name: str) -> None:
    check_round_trip(tmp_path, odd_lines()[name], "warn")
