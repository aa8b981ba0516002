from __future__ import annotations

import json
from pathlib import Path

import pytest

from modbot.records.finding import RANK
from tests.p3_day import Day, document, jsonl, table

B = ("--rulesB", "configs/candidate.yaml")
LEGACY = "version: 1\nrules: []\n"


def test_the_comparison_is_what_two_scans_say(day: Day) -> None:
    day.generated(300)
    day.ok("ab", *B)
    day.ok("scan", "--findings", "a.jsonl")
    day.ok("scan", "--rules", "configs/candidate.yaml", "--findings", "b.jsonl")
    pairs = list(zip(jsonl(Path("a.jsonl")), jsonl(Path("b.jsonl")), strict=True))
    found = document(day.part.ab_compare)
    assert set(found) == {
        *("total", "countsA", "countsB", "delta", "confusion", "top_rule_delta", "modeA", "modeB", "note"),
        *("overlapA", "overlapB"),
    }
    assert found["total"] == 300
    assert found["note"] is None
    for severity in RANK:
        a, b = (sum(pair[side]["severity"] == severity for pair in pairs) for side in (0, 1))
        assert (found["countsA"][severity], found["countsB"][severity], found["delta"][severity]) == (a, b, b - a)
    confusion: dict[str, int] = {}
    for a, b in pairs:
        key = f"{a['severity']}->{b['severity']}"
        confusion[key] = confusion.get(key, 0) + 1
    assert found["confusion"] == confusion
    for rule, change in found["top_rule_delta"].items():
        assert change == sum(b["rule_id"] == rule for _, b in pairs) - sum(a["rule_id"] == rule for a, _ in pairs)
    differing = [(a, b) for a, b in pairs if (a["severity"], a["rule_id"]) != (b["severity"], b["rule_id"])]
    rows = table(day.part.ab_diff)
    assert [row["sha256"] for row in rows] == [a["sha256"] for a, _ in differing]
    for row, (a, b) in zip(rows, differing, strict=True):
        assert (row["severityA"], row["severityB"]) == (a["severity"], b["severity"])
        assert row["gore_peak_A"] == f"{a['metrics']['gore_peak']:.4f}"
        assert row["minors_peak_B"] == f"{b['metrics']['minors_peak']:.4f}"
    assert any(float(row["gore_peak_A"]) > 0 for row in rows)


def test_samples_are_the_largest_differences_ties_in_input_order(day: Day) -> None:
    day.generated(300)
    day.ok("ab", *B, "--sample-diff", "40")
    samples = jsonl(day.part.ab_samples)
    rows = table(day.part.ab_diff)

    def size(row: dict[str, str]) -> float:
        return abs(RANK[row["severityA"]] - RANK[row["severityB"]]) or 0.5

    expected = sorted(rows, key=lambda row: -size(row))[:40]
    assert [(s["sha256"], s["size"]) for s in samples] == [(row["sha256"], size(row)) for row in expected]
    record = next(r for r in jsonl(day.part.merged("p2")) if r["sha256"] == samples[0]["sha256"])
    assert samples[0]["record"] == record


def test_minimal_samples_keep_identity_verdicts_short_reasons_and_key_scores(day: Day) -> None:
    day.generated(100)
    for path in Path("configs").iterdir():
        path.write_text(path.read_text().replace('"explicit {', f'"second", "third", "{"long " * 60}", "{{'))
    day.ok("ab", *B, "--samples-minimal")
    samples = jsonl(day.part.ab_samples)
    reasons = [sample[side]["reasons"] for sample in samples for side in "AB"]
    assert ["second", "third", ("long " * 60)[:119] + "…"] in reasons
    for sample in samples:
        assert set(sample) == {
            *("sha256", "message_link", "message_id", "channel_id", "author_id", "size", "A", "B", "scores")
        }
        assert set(sample["A"]) == {"severity", "rule_id", "rule_title", "reasons"}
        assert set(sample["scores"]) == {"questionable", "explicit", "exposure_score", "nsfw_general_sum"}


def test_redacted_samples_hold_no_link(day: Day) -> None:
    day.generated(100)
    for path in Path("configs").iterdir():
        path.write_text(path.read_text().replace('"explicit {', '"see https://evil.example/x?y=1 {'))
    day.ok("ab", *B, "--samples-redact-urls")
    text = day.part.ab_samples.read_text()
    assert "://" not in text
    assert "see [URL] " in text
    for sample in jsonl(day.part.ab_samples):
        assert sample["message_link"] is None
        assert sample["record"]["messages"][0]["url"] is None
        assert sample["record"]["messages"][0]["attachments"][0]["url"] is None
        assert sample["record"]["messages"][0]["message_id"]


@pytest.mark.parametrize("options", [(), ("--samples-redact-urls",)])
@pytest.mark.parametrize("odd", ["[" * 600 + "]" * 600, "1e999", "9" * 5_000])
def test_an_odd_part_of_a_record_that_no_rule_reads_stays_in_its_sample(
    day: Day, odd: str, options: tuple[str, ...]
) -> None:
    day.generated(50)
    day.ok("ab", *B, "--sample-diff", "1")
    sha256 = jsonl(day.part.ab_samples)[0]["sha256"]
    lines = day.part.merged("p2").read_bytes().splitlines(keepends=True)
    extra = f'{{"odd":{odd},'.encode()
    day.records(extra + line[1:] if sha256.encode() in line else line for line in lines)
    day.ok("ab", *B, "--sample-diff", "1", *options)
    sample = day.part.ab_samples.read_bytes()
    assert sample.count(extra) == 1
    assert (b"://" in sample) == (not options)


def test_a_folder_gets_all_three_as_well(day: Day) -> None:
    day.generated(50)
    day.ok("ab", *B, "--out-dir", "ab")
    for path in (day.part.ab_compare, day.part.ab_diff, day.part.ab_samples):
        assert (Path("ab") / path.name).read_bytes() == path.read_bytes()


def test_named_files_win_over_both(day: Day) -> None:
    day.generated(50)
    day.ok("ab", *B, "--out-dir", "ab", "--out-json", "x.json", "--out-csv", "x.csv")
    assert document(Path("x.json"))["total"] == 50
    assert table(Path("x.csv"))
    assert sorted(path.name for path in Path("ab").iterdir()) == ["p3_ab_diff_samples.jsonl"]
    assert not day.part.ab_compare.exists()
    assert not day.part.ab_diff.exists()


def test_the_same_rules_do_not_differ(day: Day) -> None:
    day.generated(50)
    ran = day.ok("ab", "--rulesB", "configs/rules.yaml")
    assert "0 differ" in ran.out
    assert table(day.part.ab_diff) == []
    assert day.part.ab_samples.read_bytes() == b""
    assert document(day.part.ab_compare)["top_rule_delta"] == {}


def test_legacy_rules_end_the_comparison(day: Day) -> None:
    day.generated(5)
    Path("configs/candidate.yaml").write_text(LEGACY)
    ran = day.run("ab", *B)
    assert ran.code == 2
    assert "configs/candidate.yaml" in ran.err
    assert not day.part.ab_compare.exists()


def test_allowed_legacy_rules_leave_a_note_and_remove_older_files(day: Day) -> None:
    day.generated(50)
    day.ok("ab", *B)
    assert day.part.ab_diff.exists()
    Path("configs/candidate.yaml").write_text(LEGACY)
    day.ok("ab", *B, "--allow-legacy")
    assert document(day.part.ab_compare)["note"] == "skipped due to legacy ruleset"
    assert not day.part.ab_diff.exists()
    assert not day.part.ab_samples.exists()


def test_the_locked_mode_is_both_sides(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    day.generated(5)
    monkeypatch.setenv("MODBOT_DSL_MODE", "warn")
    day.rules.write_text(f"dsl_mode: warn\n{day.rules.read_text()}")
    ran = day.ok("ab", *B, "--lock-mode", "strict", "--dsl-mode", "warn")
    found = document(day.part.ab_compare)
    assert (found["modeA"], found["modeB"]) == ("strict", "strict")
    assert ran.err.count("(from --lock-mode)") == 2


def test_each_side_has_its_files_own_mode(day: Day) -> None:
    day.generated(5)
    day.rules.write_text(f"dsl_mode: strict\n{day.rules.read_text()}")
    day.ok("ab", *B)
    found = document(day.part.ab_compare)
    assert (found["modeA"], found["modeB"]) == ("strict", "warn")


def test_days_are_compared_as_one(day: Day) -> None:
    day.generated(20, seed=1, date="2025-10-01")
    day.generated(30, seed=2, date="2025-10-02")
    day.ok("ab", *B, "--dates", "2025-10-01..2025-10-02", date=None)
    assert document(day.part.ab_compare)["total"] == 50


def test_a_day_that_is_missing_is_told_and_ends_with_exit_code_1(day: Day) -> None:
    for number in (1, 3):
        day.generated(20, seed=number, date=f"2025-10-0{number}")
    ran = day.run("ab", *B, "--dates", "2025-10-01..2025-10-03", date=None)
    assert ran.code == 1
    assert "modbot: 2025-10-02: no p2 records\n" in ran.err
    assert document(day.part.ab_compare)["total"] == 40


def test_odd_lines_are_compared_too(day: Day) -> None:
    day.records([b"{\n", json.dumps({"wd14": {"rating": {"explicit": "0.7"}}}).encode() + b"\n"])
    day.ok("ab", *B)
    found = document(day.part.ab_compare)
    assert found["confusion"] == {"yellow->red": 1, "yellow->yellow": 1}
