from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from modbot.files.lease import hold
from modbot.records.p2 import Detection
from modbot.signals import SignalConfig, exposure_score
from tests.p2_records import plain
from tests.p3_day import DATE, Day, jsonl, table


def test_the_report_of_the_findings_is_the_scans_own(day: Day) -> None:
    day.generated(200)
    day.ok("scan")
    before = day.part.report.read_bytes()
    day.part.report.unlink()
    day.ok("report")
    assert day.part.report.read_bytes() == before


def test_a_filtered_report_is_a_part(day: Day) -> None:
    day.generated(100)
    day.ok("scan")
    before = day.part.report.read_bytes()
    ran = day.ok("report", "--severity", "red")
    assert day.part.report.read_bytes() == before
    rows = table(day.part.report.with_name(f"report_{DATE}.part.csv"))
    assert rows
    assert {row["severity"] for row in rows} == {"red"}
    assert f"{100 - len(rows)} left out" in ran.out
    day.ok("report", "--severity", "red", "--out", "red.csv")
    assert table(Path("red.csv")) == rows


def test_a_report_of_what_is_no_finding_names_the_line(day: Day) -> None:
    day.generated(3)
    day.ok("scan")
    ran = day.run("report", "--findings", day.part.merged("p2"))
    assert ran.code == 2
    assert "line 1 is no finding" in ran.err
    assert day.run("report", "--findings", "none.jsonl").code == 2


def test_hostile_cells_are_inert_and_stay_one_line(day: Day) -> None:
    record = plain(0, message_link="=cmd|'/C calc'!A0", author_id="@SUM(1)")
    record["wd14"]["general_raw"] = [["\uff1d1+1", 0.9], ["line\nbreak", 0.8], ['say "hi", there', 0.7]]
    record["wd14"]["rating"]["general"] = 1.5
    record["xsignals"]["nsfw_margin"] = -0.25
    day.records([json.dumps(record).encode() + b"\n"])
    day.ok("scan")
    assert len(day.part.report.read_text().splitlines()) == 2
    (row,) = table(day.part.report)
    assert row["message_link"] == "'=cmd|'/C calc'!A0"
    assert row["author_id"] == "'@SUM(1)"
    assert row["top_tags"] == '\'=1+1:0.90 | line_break:0.80 | say_"hi",_there:0.70'
    assert row["nsfw_margin"] == "-0.2500"
    day.ok("contract", "check-report")


def test_the_contract_holds_for_a_scan(day: Day) -> None:
    day.generated(200)
    day.ok("scan")
    assert "200 findings, as the contract says" in day.ok("contract", "check-findings").out
    assert "200 rows, as the contract says" in day.ok("contract", "check-report").out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"severity": "pink"}, 'line 2: $.severity: "pink"'),
        ({"reasons": "x"}, "line 2: $.reasons: "),
        ({"wd14": {"rating": {"explicit": "1"}}}, "line 2: $.wd14"),
        ({"metrics": {}}, 'line 2: $.metrics: "winning" is a required property'),
        ({"nudity_detections": [{"class": "X", "score": 1, "box": [1, 2, 3]}]}, "line 2: $.nudity_detections[0].box"),
    ],
)
def test_a_broken_finding_is_named_by_line_and_key(day: Day, change: dict[str, object], said: str) -> None:
    day.generated(3)
    day.ok("scan")
    findings = jsonl(day.part.findings)
    findings[1] |= change
    Path("f.jsonl").write_text("".join(json.dumps(found) + "\n" for found in findings))
    ran = day.run("contract", "check-findings", "--findings", "f.jsonl")
    assert ran.code == 1
    assert said in ran.out
    assert "1 breach of the contract in 3 findings" in ran.err


@pytest.mark.parametrize("key", ["row", "severity", "rule_id", "reasons", "metrics", "messages", "sha256", "xsignals"])
def test_a_missing_key_is_named(day: Day, key: str) -> None:
    day.generated(1)
    day.ok("scan")
    (found,) = jsonl(day.part.findings)
    del found[key]
    Path("f.jsonl").write_text(json.dumps(found))
    ran = day.run("contract", "check-findings", "--findings", "f.jsonl")
    assert ran.code == 1
    assert f'"{key}" is a required property' in ran.out


def test_a_torn_finding_is_named(day: Day) -> None:
    Path("f.jsonl").write_text('{"severity": ')
    ran = day.run("contract", "check-findings", "--findings", "f.jsonl")
    assert ran.code == 1
    assert "line 1: broken JSON" in ran.out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("severity,rule_id", "rule_id,severity", "row 1: column 1 is 'rule_id', not 'severity'"),
        (",sha256\n", "\n", "row 1: column 24 is 'nothing', not 'sha256'"),
        ("\ngreen,", "\nGREEN,", "severity is 'GREEN'"),
        ("\ngreen,", "\nred,", "severity is 'red', the finding's is 'green'"),
        (",true,", ",yes,", "is_nsfw_channel is 'yes'"),
        (",0.0000,", ",0,", "no number with 4 decimals"),
        (":0.9", ":.9", "no name:0.93"),
    ],
)
def test_a_broken_report_is_named_by_row_and_column(day: Day, old: str, new: str, said: str) -> None:
    day.generated(30)
    day.ok("scan")
    text = day.part.report.read_text()
    assert old in text
    day.part.report.write_text(text.replace(old, new, 1))
    ran = day.run("contract", "check-report")
    assert ran.code == 1
    assert said in ran.out


def test_a_report_with_rows_too_few_or_too_many_is_told(day: Day) -> None:
    day.generated(5)
    day.ok("scan")
    lines = day.part.report.read_text().splitlines(keepends=True)
    day.part.report.write_text("".join(lines[:-2]))
    assert "2 findings have no row" in day.run("contract", "check-report").out
    day.part.report.write_text("".join([*lines, lines[-1]]))
    assert "row 7: there is no finding for it" in day.run("contract", "check-report").out


def test_trailing_columns_are_welcome(day: Day) -> None:
    day.generated(3)
    day.ok("scan")
    lines = day.part.report.read_text().splitlines()
    day.part.report.write_text("".join(f"{line},x\n" for line in lines))
    day.ok("contract", "check-report")


def test_uncertain_records_are_the_nearest_first(day: Day) -> None:
    ratings = {
        "far": (0.9, 0.9),
        "near e": (0.9, 0.205),
        "nearer q": (0.351, 0.9),
        "edge": (0.37, 0.9),
        "out": (0.371, 0.9),
    }
    records = []
    for name, (questionable, explicit) in ratings.items():
        record = plain(0, message_link=name)
        record["wd14"]["rating"] |= {"questionable": questionable, "explicit": explicit}
        record["xsignals"]["exposure_score"] = 0.0
        records.append(json.dumps(record).encode() + b"\n")
    exposed = plain(0, message_link="exposed")
    exposed["wd14"]["rating"] |= {"questionable": 0.9, "explicit": 0.9}
    exposed["xsignals"]["exposure_score"] = 0.31
    day.records([*records, json.dumps(exposed).encode() + b"\n", json.dumps(plain(49)).encode() + b"\n"])
    ran = day.ok("uncertain")
    rows = table(day.part.uncertain)
    assert [row["message_link"] for row in rows] == ["nearer q", "near e", "exposed", "edge"]
    assert [row["nearest"] for row in rows] == ["questionable", "explicit", "exposure", "questionable"]
    assert list(rows[0])[:4] == ["message_link", "questionable", "explicit", "exposure"]
    assert rows[1]["explicit"] == "0.205000"
    assert "4 of 4 uncertain records; 1 record without scores" in ran.out
    day.ok("uncertain", "--topn", "2", "--out", "u.csv")
    assert table(Path("u.csv")) == rows[:2]
    day.ok("uncertain", "--q-thr", "0.9", "--e-thr", "0.5", "--eps", "0", "--out", "u.csv")
    assert len(table(Path("u.csv"))) == 3


@pytest.mark.parametrize("flag", ["--eps", "--q-thr", "--e-thr", "--exposure-thr"])
@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "1.5", "-0.1", "x"])
def test_a_threshold_that_is_no_score_is_refused(day: Day, flag: str, value: str) -> None:
    day.generated(3)
    ran = day.run("uncertain", f"{flag}={value}")
    assert ran.code == 2
    assert flag in ran.err
    assert not day.part.uncertain.exists()


def test_the_exposure_that_a_record_lacks_is_computed_whatever_the_rules_file_says(day: Day) -> None:
    record = plain(0)
    record["wd14"]["rating"] |= {"questionable": 0.9, "explicit": 0.9}
    record["nudity_detections"] = [{"class": min(SignalConfig().strong_classes), "score": 0.9, "box": [0, 0, 9, 9]}]
    exposure = exposure_score(msgspec.convert(record["nudity_detections"], list[Detection]), SignalConfig())
    day.records([json.dumps({**record, "xsignals": None}).encode() + b"\n"])
    day.rules.write_text("[")
    day.ok("uncertain", "--exposure-thr", str(exposure))
    (row,) = table(day.part.uncertain)
    assert float(row["exposure"]) == exposure > 0


@pytest.mark.parametrize(
    ("rules", "flags", "code"),
    [
        ("{good}", (), 0),
        ("{good}", ("--treat-warnings-as-errors",), 0),
        ('{good}  - {{id: UNTITLED, severity: red, when: "1 > 2"}}\n', (), 0),
        ('{good}  - {{id: UNTITLED, severity: red, when: "1 > 2"}}\n', ("--treat-warnings-as-errors",), 2),
        ('{good}  - {{id: GORE, severity: red, when: "2 ** 3"}}\n', (), 2),
        ('{good}  - {{id: GORE, severity: red, when: "2 ** 3"}}\n', ("--allow-disabled",), 0),
        ('{good}  - {{id: GORE, severity: red, when: "2 ** 3"}}\n', ("--allow-disabled", "--mode", "strict"), 2),
        ("version: 1\n", ("--allow-disabled",), 2),
        ("[", (), 2),
    ],
)
def test_validate_ends_with_the_code_of_what_it_found(day: Day, rules: str, flags: tuple[str, ...], code: int) -> None:
    day.rules.write_text(rules.format(good=day.rules.read_text()) if "{good}" in rules else rules)
    assert day.run("rules", "validate", *flags, date=None).code == code


def test_validate_tells_issues_as_data(day: Day) -> None:
    day.rules.write_text(day.rules.read_text() + '  - {id: GORE, severity: red, when: "2 ** 3"}\n')
    ran = day.run("rules", "validate", "--json", date=None)
    told = json.loads(ran.out)
    assert told["status"] == "invalid"
    assert told["rule_ids"] == ["ADULT", "GORE", "VIOLENCE", "MILD"]
    assert "R2-E001" in {issue["code"] for issue in told["issues"]}
    assert "R2-E001" in day.run("rules", "validate", date=None).out


def test_validate_without_a_file_is_an_issue_of_its_own(day: Day) -> None:
    ran = day.run("rules", "validate", "--rules", "none.yaml", date=None)
    assert ran.code == 2
    assert "R2-IO" in ran.out


def test_validate_prints_where_the_mode_is_from(day: Day) -> None:
    ran = day.ok("rules", "validate", "--mode", "strict", "--print-config", date=None)
    assert '"mode_source": "--mode"' in ran.out


@pytest.mark.parametrize("command", [("report",), ("uncertain",), ("ab", "--rulesB", "configs/candidate.yaml")])
def test_a_partition_that_another_run_holds_is_left_alone(day: Day, command: tuple[str, ...]) -> None:
    day.generated(3)
    day.ok("scan")
    before = sorted(Path("out").rglob("*"))
    with hold(day.part, "modbot tag"):
        ran = day.run(*command)
    assert ran.code == 1
    assert "held by 'modbot tag'" in ran.err
    assert sorted(Path("out").rglob("*")) == before
