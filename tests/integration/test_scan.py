from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modbot.files.lease import hold_file
from modbot.files.paths import Partition
from tests.p2_records import odd_lines, plain
from tests.p3_day import DATE, Day, document, jsonl, table


def test_a_finding_is_the_records_own_bytes_and_what_is_new(day: Day) -> None:
    day.generated(60)
    day.ok("scan")
    records = day.part.merged("p2").read_bytes().splitlines()
    findings = day.part.findings.read_bytes().splitlines()
    assert len(findings) == len(records) == 60
    for record, found in zip(records, findings, strict=True):
        assert found.startswith(record[:-1] + b',"severity":')


def test_every_output_stands_and_agrees(day: Day) -> None:
    day.generated(200)
    ran = day.ok("scan", "--metrics", "m.json", "--trace-jsonl", "t.jsonl")
    findings, report = jsonl(day.part.findings), table(day.part.report)
    metrics = document(day.part.scan_metrics)
    assert metrics == document(day.part.latest_scan) == document(Path("m.json"))
    assert [row["severity"] for row in report] == [found["severity"] for found in findings]
    assert metrics["total"] == len(findings) == sum(metrics["severity"].values()) == sum(metrics["winning"].values())
    for severity, count in metrics["severity"].items():
        assert count == sum(found["severity"] == severity for found in findings)
    for rule, count in metrics["rules"].items():
        assert count == sum(found["rule_id"] == rule for found in findings)
    assert sum(metrics["winning_ratio"].values()) == pytest.approx(1, abs=1e-5)
    trace = jsonl(Path("t.jsonl"))
    assert [line["sha256"] for line in trace] == [found["sha256"] for found in findings]
    assert trace[0]["signals"]["exposure_score"] == findings[0]["metrics"]["exposure_score"]
    assert f"red {metrics['severity']['red']}" in ran.out
    assert "wd-eva02-large-tagger-v3 196" in ran.out
    assert "expired 4" in ran.out
    assert "(from the default)" in ran.err
    leftovers = [path for path in Path().rglob("*") if path.suffix == ".tmp" or path.name.startswith("lease")]
    assert not leftovers


def test_records_that_cannot_be_judged_are_never_green(day: Day) -> None:
    day.generated(200)
    day.ok("scan", "--unjudged", "orange")
    errors = [found for found in jsonl(day.part.findings) if found["error"] is not None]
    assert errors
    for found in errors:
        assert (found["severity"], found["rule_id"]) == ("orange", None)
        assert found["reasons"] == ["not judged: expired (HTTP 404)"]
        assert found["metrics"]["winning"] == {
            "origin": "unjudged",
            "severity": "orange",
            "rule_id": None,
            "priority": None,
        }
    for found in jsonl(day.part.findings):
        if found["meta"]["nudenet_error"] or (found["image"] or {}).get("truncated"):
            assert found["severity"] != "green"


def test_unjudged_cannot_be_set_to_green(day: Day) -> None:
    day.generated(1)
    assert day.run("scan", "--unjudged", "green").code == 2


def test_odd_lines_end_nothing_and_are_all_accounted_for(day: Day) -> None:
    odd = odd_lines()
    day.records([line + b"\n" for line in odd.values()])
    ran = day.ok("scan", "--since", "1970-01-01", "--until", "2099-12-31")
    findings = dict(zip(odd, jsonl(day.part.findings), strict=True))
    assert document(day.part.scan_metrics)["total"] == len(odd) == len(table(day.part.report))
    for name in ("torn", "not JSON", "a list", "a number", "deep", "twice"):
        number = list(odd).index(name) + 1
        assert findings[name]["severity"] == "yellow"
        assert findings[name]["error"]["kind"] == "unreadable"
        assert findings[name]["error"]["detail"].startswith(f"line {number}: ")
        assert findings[name]["reasons"][0].startswith(f"not judged: unreadable (line {number}: ")
    assert findings["own keys"]["rule_id"] == findings["carriage return"]["rule_id"] == "GORE"
    assert findings["strings for numbers"]["rule_id"] == "GORE"
    assert findings["tags as objects"]["reasons"] == ["gore 0.90"]
    assert findings["not a number"]["wd14"]["rating"]["explicit"] is None
    assert findings["error as text"]["reasons"] == ["not judged: unknown (boom)"]
    assert not any(found["severity"] == "green" for found in findings.values())
    assert "unreadable 7" in ran.out


def test_a_torn_last_line_is_a_finding(day: Day) -> None:
    whole = json.dumps(plain(0)).encode()
    day.records([whole + b"\n", whole[:300]])
    day.ok("scan")
    assert [found["error"] is None for found in jsonl(day.part.findings)] == [True, False]


def test_a_part_of_the_day_never_replaces_the_day(day: Day) -> None:
    day.generated(100)
    day.ok("scan")
    before = day.part.findings.read_bytes(), day.part.report.read_bytes()
    ran = day.ok("scan", "--severity", "red,orange")
    assert (day.part.findings.read_bytes(), day.part.report.read_bytes()) == before
    part = day.part.findings.with_name(f"findings_{DATE}.part.jsonl")
    assert {found["severity"] for found in jsonl(part)} == {"red", "orange"}
    assert len(table(day.part.report.with_name(f"report_{DATE}.part.csv"))) == len(jsonl(part))
    assert "A part of the day" in ran.err
    assert f"findings_{DATE}.part.jsonl" in ran.out


def test_another_file_than_the_days_own_is_a_part(day: Day) -> None:
    day.generated(20)
    day.ok("scan")
    before = day.part.findings.read_bytes(), day.part.report.read_bytes()
    Path("other.jsonl").write_bytes(b"".join(day.part.merged("p2").read_bytes().splitlines(keepends=True)[:3]))
    ran = day.ok("scan", "--analysis", "other.jsonl")
    assert (day.part.findings.read_bytes(), day.part.report.read_bytes()) == before
    assert len(jsonl(day.part.findings.with_name(f"findings_{DATE}.part.jsonl"))) == 3
    assert "A part of the day (by analysis): the day's own" in ran.err
    assert _extent(day) == (True, ["analysis"])
    day.ok("scan", "--analysis", day.part.merged("p2").absolute())
    assert _extent(day) == (False, [])


def test_the_metrics_say_what_they_are_of(day: Day) -> None:
    day.generated(20)
    day.ok("scan")
    assert _extent(day) == (False, [])
    day.ok("scan", "--offset", "2", "--limit", "1")
    assert _extent(day) == (True, ["offset", "limit"])
    assert document(day.part.latest_scan) == document(day.part.scan_metrics)


def _extent(day: Day) -> tuple[bool, list[str]]:
    context = document(day.part.scan_metrics)["context"]
    return context["partial"], context["partial_by"]


@pytest.mark.parametrize("kept", [0, 19])
def test_a_p2_file_that_was_cut_is_no_whole_day(day: Day, kept: int) -> None:
    day.generated(20)
    metrics = day.part.step_metrics("p2")
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"records": 20}')
    day.ok("scan")
    before = day.part.findings.read_bytes()
    records = day.part.merged("p2")
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:kept]))
    ran = day.run("scan")
    assert ran.code == 1
    assert f"{records} holds {kept} records, and p2 counted 20" in ran.err
    assert day.part.findings.read_bytes() == before
    assert len(jsonl(day.part.findings.with_name(f"findings_{DATE}.part.jsonl"))) == kept
    assert _extent(day) == (True, ["records"])


def test_p2_metrics_that_cannot_be_read_are_named(day: Day) -> None:
    day.generated(2)
    day.part.step_metrics("p2").parent.mkdir(parents=True)
    day.part.step_metrics("p2").write_text("{")
    ran = day.run("scan")
    assert ran.code == 2
    assert str(day.part.step_metrics("p2")) in ran.err


def test_filters_that_leave_nothing_out_write_the_day(day: Day) -> None:
    day.generated(50)
    day.ok("scan", "--since", "1970-01-01", "--until", "2099-12-31", "--limit", "50")
    assert len(jsonl(day.part.findings)) == 50


def test_named_findings_take_the_part_and_the_report_lies_beside(day: Day) -> None:
    day.generated(50)
    day.ok("scan", "--limit", "5", "--findings", "some/f.jsonl")
    assert len(jsonl(Path("some/f.jsonl"))) == len(table(Path("some/f.report.csv"))) == 5
    assert not day.part.findings.exists()


def test_a_dry_run_writes_only_what_was_named(day: Day) -> None:
    day.generated(300)
    ran = day.ok("scan", "--dry-run", "--limit", "256", "--metrics", "dry.json")
    assert document(Path("dry.json"))["total"] == 256
    assert document(Path("dry.json"))["filtered"]["limit"] == 44
    assert "scan (dry run) current 2025-10-01: 256 findings" in ran.out
    assert "written: dry.json" in ran.out
    assert document(Path("dry.json"))["throughput_rps"] > 0
    assert "written: nothing" in day.ok("scan", "--dry-run").out
    written = {str(path) for path in Path("out").rglob("*") if path.is_file()}
    assert written == {str(day.part.merged("p2"))}


def test_parts_and_the_filtered_add_up(day: Day) -> None:
    day.generated(120)
    day.ok("scan")
    whole = day.part.findings.read_bytes().splitlines()
    pieces = []
    for offset in (0, 50, 100):
        day.ok("scan", "--offset", str(offset), "--limit", "50", "--findings", "piece.jsonl", "--metrics", "m.json")
        metrics = document(Path("m.json"))
        assert metrics["total"] + sum(metrics["filtered"].values()) == 120
        pieces += Path("piece.jsonl").read_bytes().splitlines()
    assert [_untimed(line) for line in pieces] == [_untimed(line) for line in whole]


def _untimed(line: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(line)
    metrics = found["metrics"]
    assert isinstance(metrics, dict)
    del metrics["eval_ms"]
    return found


def test_a_channel_keeps_a_record_when_any_message_is_in_it(day: Day) -> None:
    day.generated(100)
    day.ok("scan", "--channel", "#room-2", "--channel", "4", "--findings", "c.jsonl")
    kept = {found["row"] for found in jsonl(Path("c.jsonl"))}
    records = jsonl(day.part.merged("p2"))
    assert kept == {r["row"] for r in records if {"2", "4"} & {m["channel_id"] for m in r["messages"]}}
    assert 0 < len(kept) < 100


def test_records_without_a_date_are_kept_and_counted(day: Day) -> None:
    odd = plain(0, created_at=None, messages=[{**plain(0)["messages"][0], "created_at": "yesterday"}])
    day.records([json.dumps(odd).encode() + b"\n"])
    ran = day.ok("scan", "--since", "2025-01-01")
    assert document(day.part.scan_metrics)["undated"] == 1
    assert "without a date: 1" in ran.out


LEGACY = "version: 1\nrules: []\n"


def test_legacy_rules_end_with_the_way_out(day: Day) -> None:
    day.generated(3)
    day.rules.write_text(LEGACY)
    ran = day.run("scan")
    assert ran.code == 2
    assert "--allow-legacy --fallback green" in ran.err
    assert not day.part.findings.exists()


def test_legacy_rules_with_fallback_green_write_every_record_green(day: Day) -> None:
    day.generated(60)
    day.rules.write_text(LEGACY)
    day.ok("scan", "--allow-legacy", "--fallback", "green")
    for found in jsonl(day.part.findings):
        assert (found["severity"], found["rule_id"], found["reasons"]) == (
            "green",
            None,
            ["legacy_ruleset_unsupported"],
        )
    assert document(day.part.scan_metrics)["winning"] == {"legacy": 60}
    day.ok("contract", "check-findings")
    day.ok("contract", "check-report")


def test_legacy_rules_are_skipped_by_default_when_allowed(day: Day) -> None:
    day.generated(3)
    day.rules.write_text(LEGACY)
    ran = day.ok("scan", "--allow-legacy")
    assert "skipped" in ran.out
    assert [path for path in Path("out").rglob("*") if path.is_file()] == [day.part.merged("p2")]


@pytest.mark.parametrize(
    ("flags", "environment", "own", "said"),
    [
        (("--dsl-mode", "warn"), "strict", "strict", "mode warn (from --dsl-mode)"),
        ((), "warn", "strict", "mode warn (from MODBOT_DSL_MODE)"),
        ((), "", "strict", "mode strict (from the file's dsl_mode)"),
        ((), "", "loud", "mode warn (from the default)"),
    ],
)
def test_the_banner_says_which_source_of_the_mode_won(
    day: Day, *, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], environment: str, own: str, said: str
) -> None:
    day.generated(1)
    day.rules.write_text(f"dsl_mode: {own}\n{day.rules.read_text()}")
    monkeypatch.setenv("MODBOT_DSL_MODE", environment)
    ran = day.ok("scan", *flags)
    assert said in ran.err
    ruleset = document(day.part.scan_metrics)["ruleset"]
    assert said == f"mode {ruleset['mode']} (from {ruleset['mode_source']})"


def test_constants_from_the_command_line_win(day: Day) -> None:
    day.generated(50)
    day.rules.write_text(day.rules.read_text() + '  - {id: ALL, severity: red, when: "const_LIMIT >= 1"}\n')
    assert day.run("scan", "--dsl-mode", "strict").code == 2
    day.ok("scan", "--const", "LIMIT=1")
    assert document(day.part.scan_metrics)["rules"].get("ALL") == 47
    assert day.run("scan", "--const", "LIMIT").code == 2
    assert day.run("scan", "--const", "LIMIT=nan").code == 2


def test_print_config_is_json_on_stdout(day: Day) -> None:
    day.generated(1)
    flags = ("--unjudged", "orange", "--const", "X=1.5")
    ran = day.ok("scan", "--print-config", "--dry-run", "--until", "2025-10-02", *flags)
    config, _ = json.JSONDecoder().raw_decode(ran.out)
    assert config["rules"]["file"] == "configs/rules.yaml"
    assert config["until"] == "2025-10-03T00:00:00+00:00"
    assert config["analysis"] == str(day.part.merged("p2"))
    assert (config["unjudged"], config["consts"], config["dry_run"]) == ("orange", {"X": 1.5}, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "soon"), "--since"),
        (("--until", "9d9"), "--until"),
        (("--since", "2025-10-03", "--until", "2025-10-01"), "--since"),
        (("--since", "1d", "--until", "7d"), "--since"),
        (("--const", "X=nan"), "--const"),
        (("--severity", "pink"), "pink"),
        (("--limit", "0"), "--limit"),
        (("--dry-run", "--findings", "f.jsonl"), "--findings: does not go with --dry-run"),
        (("--fallback", "green"), "--fallback: goes with --allow-legacy"),
        (("--fallback", "skip"), "--fallback: goes with --allow-legacy"),
        (("--offset", "-1"), "--offset"),
        (("--rules", "none.yaml"), "none.yaml"),
        (("--analysis", "none.jsonl"), "none.jsonl"),
        (("--jobs", "0"), "--jobs"),
        (("--profile", "../x"), "profile"),
        (("--dates", "2025-10-02..2025-10-01"), "--dates"),
        (("--dates", "2025-10-01"), "--dates"),
        (("--dates", "2025-10-01..2025-10-02", "--metrics", "m.json"), "--metrics"),
    ],
)
def test_a_wrong_request_is_named_and_nothing_is_written(day: Day, arguments: tuple[str, ...], said: str) -> None:
    day.generated(3)
    ran = day.run("scan", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not day.part.findings.exists()


def test_another_run_on_the_partition_is_named(day: Day) -> None:
    day.generated(1)
    with hold_file(day.part.lease, "modbot tag"):
        ran = day.run("scan")
    assert ran.code == 1
    assert "modbot tag" in ran.err
    assert "rules:" not in ran.err


def test_a_full_disk_leaves_the_day_as_it_was(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    day.generated(20)
    day.ok("scan")
    before = day.part.findings.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modbot.files.atomic.publish", full)
    ran = day.run("scan")
    assert ran.code == 1
    assert "the disk is full" in ran.err
    assert day.part.findings.read_bytes() == before
    assert not list(Path("out").rglob("*.tmp"))


def test_several_days_are_each_written_as_on_their_own(day: Day) -> None:
    for number in (1, 3):
        day.generated(10 * number, seed=number, date=f"2025-10-0{number}")
    ran = day.run("scan", "--dates", "2025-10-01..2025-10-03", "--metrics", "m_{date}.json", date=None)
    assert ran.code == 1
    assert "modbot: 2025-10-02: no p2 records" in ran.err
    for number in (1, 3):
        part = Partition(Path("out"), "current", f"2025-10-0{number}")
        assert len(jsonl(part.findings)) == 10 * number
        assert document(Path(f"m_{part.date}.json")) == document(part.scan_metrics)
    assert "40 findings of 2 days" in ran.out
    assert "left out: 2025-10-02" in ran.err


def test_the_rules_of_several_days_are_told_once_and_counted_by_day(day: Day) -> None:
    day.rules.write_text(
        day.rules.read_text() + '  - {id: RATIO, severity: red, when: "1 / (rating.general * 0) > 2"}\n'
    )
    for number in (1, 2):
        day.generated(10 * number, date=f"2025-10-0{number}")
    ran = day.ok("scan", "--dates", "2025-10-01..2025-10-02", date=None)
    assert ran.err.count("rules: configs/rules.yaml") == 1
    together = _evaluation_issues()
    for number in (1, 2):
        day.ok("scan", date=f"2025-10-0{number}")
    assert together == _evaluation_issues()
    assert all("RATIO" in issues for issues in together)


def _evaluation_issues() -> list[dict[str, dict[str, int]]]:
    parts = (Partition(Path("out"), "current", f"2025-10-0{number}") for number in (1, 2))
    return [document(part.scan_metrics)["ruleset"]["evaluation_issues"] for part in parts]


SCAN_OFTEN = """
import sys
from modbot.cli.main import main
for _ in range(25):
    if code := main(["scan", "--date", sys.argv[1]]):
        sys.exit(code)
"""


def test_two_days_of_a_profile_are_scanned_at_once(day: Day) -> None:
    """Both write the profile's `p3_run.json`."""
    dates = (DATE, "2025-10-02")
    for date in dates:
        day.generated(20, date=date)
    runs = [
        subprocess.Popen([sys.executable, "-c", SCAN_OFTEN, date], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for date in dates
    ]
    for run in runs:
        _, told = run.communicate(timeout=120)
        assert run.returncode == 0, told.decode()
    last = document(day.part.latest_scan)
    assert last == document(Partition(Path("out"), "current", last["context"]["date"]).scan_metrics)
    assert not list(Path("out").rglob("*.tmp"))


def test_the_rules_that_cannot_match_under_open_nsfw_are_named(day: Day) -> None:
    small = plain(0)
    small["wd14"] = {**small["wd14"], "model": "open_nsfw", "general": [], "general_raw": []}
    day.records([json.dumps(small).encode() + b"\n"])
    ran = day.ok("scan")
    assert "model: open_nsfw 1" in ran.out
    assert "cannot match under open_nsfw: GORE, VIOLENCE" in ran.out


def test_a_day_of_calibrated_ratings_says_so(day: Day) -> None:
    lines = [plain(number) for number in range(3)]
    day.records([json.dumps(line).encode() + b"\n" for line in lines])
    assert "calibrated" not in day.ok("scan").out
    for number, said in ((0, {"digest": "0" * 64}), (1, "by hand"), (2, None)):
        lines[number]["wd14"] = {**lines[number]["wd14"], "calibration": said}
    lines[1]["wd14"]["general_raw"] = "no list"
    day.records([json.dumps(line).encode() + b"\n" for line in lines])
    assert "calibrated ratings: 2" in day.ok("scan").out


def test_known_images_are_found_by_their_lists(day: Day) -> None:
    day.generated(5)
    known = jsonl(day.part.merged("p2"))[2]
    near = f"{int(known['phash'], 16) ^ 0b101:016x}"
    Path("configs/hashlists.yaml").write_text(
        f"spam: {{sha256: [{known['sha256']}]}}\n"
        f"alike: {{phash: ['{near}'], distance: 2}}\n"
        f"none: {{phash: ['{near}']}}\n"
    )
    day.rules.write_text(
        day.rules.read_text() + '  - {id: KNOWN, severity: red, priority: 99, when: "known.spam and known.alike"}\n'
        '  - {id: EXACT, severity: red, priority: 100, when: "known.none"}\n'
    )
    day.ok("scan")
    assert [found["rule_id"] == "KNOWN" for found in jsonl(day.part.findings)] == [False, False, True, False, False]


def test_invalid_rules_run_in_warn_and_are_told(day: Day) -> None:
    day.generated(10)
    day.rules.write_text(day.rules.read_text() + '  - {id: BAD, severity: red, when: "2 ** 3"}\n')
    ran = day.ok("scan")
    assert "R2-E001" in ran.err
    assert document(day.part.scan_metrics)["ruleset"]["status"] == "invalid"
    strict = day.run("scan", "--dsl-mode", "strict")
    assert strict.code == 2
    assert "R2-E001" in strict.err
