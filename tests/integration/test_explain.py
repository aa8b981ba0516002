"""`modbot explain`: which records it finds, what it says of them, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.p2_records import plain
from tests.p3_day import DATE, Day, jsonl


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Day:
    monkeypatch.chdir(tmp_path)
    return Day(tmp_path, capsys)


def records(day: Day, *given: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(day.ok("explain", "--json", *given).out)["records"]
    return found


def test_every_record_is_explained_as_the_scan_judged_it(day: Day) -> None:
    """By its row, in both modes, unjudged ones too; and the trace holds the same."""
    day.generated(60)
    for mode in ("warn", "strict"):
        day.ok("scan", "--dsl-mode", mode, "--unjudged", "orange", "--trace-jsonl", "t.jsonl")
        for found, traced in zip(jsonl(day.part.findings), jsonl(Path("t.jsonl")), strict=True):
            if found["row"] % 12 not in {0, 1}:
                continue
            (told,) = records(day, "--row", str(found["row"]), "--dsl-mode", mode, "--unjudged", "orange")
            assert {key: told[key] for key in ("severity", "rule_id", "rule_title", "reasons")} == {
                key: found[key] for key in ("severity", "rule_id", "rule_title", "reasons")
            }
            assert told["origin"] == found["metrics"]["winning"]["origin"]
            assert (told["explanation"], told["override"]) == (traced["explanation"], traced["override"])
            if told["explanation"] is not None:
                features = {each["name"]: each["value"] for each in told["explanation"]["features"]}
                assert features == found["metrics"]["dsl"]
                assert told["explanation"]["signals"]["gore_peak"] == found["metrics"]["gore_peak"]


def test_records_of_an_error_say_that_the_rules_were_not_asked(day: Day) -> None:
    day.generated(50)
    (told,) = records(day, "--row", "49")
    assert told["explanation"] is None
    assert "the rules were not asked" in told["override"]


def lines(*found: dict[str, Any]) -> list[bytes]:
    return [json.dumps(record).encode() + b"\n" for record in found]


def shown(number: int, *links: str) -> dict[str, Any]:
    """A record that these messages show."""
    message = plain(number)["messages"][0]
    return plain(number, messages=[{**message, "message_link": link} for link in links], message_link=links[0])


LINK = "https://discord.com/channels/1/2/30"


def test_any_message_of_a_record_leads_to_it(day: Day) -> None:
    day.records(
        lines(shown(1, "https://discord.com/channels/1/2/9", LINK), shown(2, "https://discord.com/channels/1/2/8"))
    )
    assert [told["row"] for told in records(day, "--message", LINK)] == [1]
    told = records(day, "--message", LINK)[0]
    assert told["message_links"] == ["https://discord.com/channels/1/2/9", LINK]


@pytest.mark.parametrize(
    "link",
    ["https://discordapp.com/channels/1/2/30", "https://ptb.discord.com/channels/1/2/30/", f"<{LINK}>", f" {LINK} "],
)
def test_a_link_may_be_spelled_otherwise(day: Day, link: str) -> None:
    day.records(lines(shown(1, LINK)))
    assert len(records(day, "--message", link)) == 1


@pytest.mark.parametrize(
    "link", ["https://discord.com/channels/1/2/3", "https://x.example/channels/1/2/30", LINK + "0", ""]
)
def test_another_link_is_not_found(day: Day, link: str) -> None:
    day.records(lines(shown(1, LINK)))
    ran = day.run("explain", "--message", link)
    assert ran.code == 2
    assert "no record of the message" in ran.err


def test_all_images_of_a_message_are_explained(day: Day) -> None:
    day.records(lines(shown(1, LINK), shown(2, "https://discord.com/channels/1/2/8"), shown(3, LINK)))
    ran = day.ok("explain", "--message", LINK)
    assert "record 1 of 2\nrow 1," in ran.out
    assert "record 2 of 2\nrow 3," in ran.out
    assert [told["row"] for told in records(day, "--message", LINK)] == [1, 3]


def test_a_later_row_of_the_image_leads_to_it(day: Day) -> None:
    record = plain(4)
    record["messages"][0]["attachments"].append({**record["messages"][0]["attachments"][0], "row": 77})
    day.records(lines(plain(3), record))
    assert [told["row"] for told in records(day, "--row", "77")] == [4]


def test_a_digest_may_be_cut(day: Day) -> None:
    digest = plain(7)["sha256"]
    day.records(lines(plain(6), plain(7)))
    assert [told["row"] for told in records(day, "--sha256", digest[:8].upper())] == [7]
    assert [told["row"] for told in records(day, "--sha256", digest)] == [7]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "which record?"),
        (["--row", "1", "--message", LINK], "which record?"),
        (["--row", "-1"], "--row"),
        (["--row", "x"], "--row"),
        (["--sha256", "12"], "is no SHA-256"),
        (["--sha256", "g" * 64], "is no SHA-256"),
        (["--row", "99"], "no record of row 99"),
        (["--row", "1", "--analysis", "nowhere.jsonl"], "nowhere.jsonl: the p2 records cannot be read"),
        (["--row", "1", "--rules", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_request_that_is_wrong_is_refused(day: Day, given: list[str], told: str) -> None:
    day.generated(3)
    ran = day.run("explain", *given)
    assert ran.code == 2
    assert told in ran.err
    assert ran.out == ""


def test_legacy_rules_are_refused(day: Day) -> None:
    day.generated(3)
    day.rules.write_text("version: 1\nrules: []\n", encoding="utf-8")
    ran = day.run("explain", "--row", "1")
    assert ran.code == 2
    assert "legacy" in ran.err


def test_lines_that_cannot_be_read_are_counted_where_nothing_is_found(day: Day) -> None:
    day.records([*lines(plain(1)), b"{torn\n"])
    assert "1 of its lines cannot be read" in day.run("explain", "--row", "5").err


def test_other_rules_and_constants_are_tried_out(day: Day) -> None:
    day.generated(30)
    changed = day.rules.read_text(encoding="utf-8").replace("rating.explicit >= 0.75", "rating.explicit >= const_limit")
    Path("tried.yaml").write_text(changed.replace("thresholds:\n", "thresholds:\n  limit: 0.75\n"), encoding="utf-8")
    (before,) = records(day, "--row", "1", "--rules", "tried.yaml")
    (after,) = records(day, "--row", "1", "--rules", "tried.yaml", "--const", "limit=0")
    assert before["rule_id"] != "ADULT"
    assert after["rule_id"] == "ADULT"


def test_a_terminal_gets_colours_and_nothing_hostile(day: Day) -> None:
    record = shown(1, "https://x.example/[bold]\x1b[2J")
    record["wd14"]["general_raw"] = [["\x1b[31m sword", 0.9], ["[red]sword", 0.8]]
    day.records(lines(record))
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "modbot.cli.main", "explain", "--date", DATE, "--row", "1"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=slave, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(slave)
        said = b""
        while True:
            try:
                chunk = os.read(master, 65_536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not chunk:
                break
            said += chunk
    os.close(master)
    assert process.returncode == 0
    text = said.decode()
    assert "\x1b[1m" in text
    assert "\x1b[2J" not in text
    assert "\x1b[31m_sword" not in text
    assert "[red]sword" in text
    assert "[bold]" in text
