"""The backbone on real images: any way gives the same bytes, any kill is gone on from, runs do not collide."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from modbot.records.index import attachment_key
from modbot.words import counted
from samples.make import MISSING
from samples.server import SampleServer
from tests.real_day import RealDay, descendants, kill_group, until


@pytest.fixture
def day(tmp_path: Path, server: SampleServer, models_dir: Path, images: Path) -> RealDay:
    made = RealDay(tmp_path / "day", server, models_dir)
    made.index(images)
    server.gets.clear()
    return made


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, server: SampleServer, models_dir: Path, images: Path
) -> RealDay:
    """The day as one shard, one process, one image a batch, without interruption, and NudeNet on every image."""
    made = RealDay(tmp_path_factory.mktemp("undisturbed") / "day", server, models_dir)
    made.index(images)
    made.split(1)
    made.tag()
    made.run("analyze", "--nudenet-mode", "always")
    made.run("scan")
    return made


def test_shards_workers_and_batches_do_not_show_in_the_bytes(day: RealDay, undisturbed: RealDay) -> None:
    day.split(7)
    day.tag("--parallel", "2", "--batch-size", "16", "--concurrency", "3")
    day.run("analyze", "--parallel", "2", "--batch-size", "16", "--extra-args", "--nudenet-mode always")
    day.run("scan")
    for step in ("p1", "p2"):
        assert day.merged(step).read_bytes() == undisturbed.merged(step).read_bytes()
    assert day.findings() == undisturbed.findings()
    assert day.leftovers() == []


def test_p1_goes_on_after_a_kill_and_fetches_nothing_stored_again(
    day: RealDay, undisturbed: RealDay, server: SampleServer
) -> None:
    day.split(3)
    process = day.start("tag", "--qps", "12", "--parallel", "2")
    until(lambda: day.journal_lines("p1") >= 12 and day.requests_put_away() > 0)
    kill_group(process)
    stored = day.stored_links()
    before = day.journal_lines("p1")
    assert 12 <= before < 33
    server.gets.clear()
    day.tag("--parallel", "2", "--resume")
    assert day.merged("p1").read_bytes() == undisturbed.merged("p1").read_bytes()
    fetched = {_link_name(server.base_url + path) for path in server.gets}
    assert fetched & stored == set()
    assert max(server.gets.values()) == 1
    assert day.leftovers() == []
    # Numbers of before the kill are not lost, but for its last second.
    assert day.metrics("p1")["requests"] > server.gets.total()


def _link_name(url: str) -> str:
    return hashlib.sha256(attachment_key(url).encode()).hexdigest()


def test_p2_goes_on_after_a_kill(day: RealDay, undisturbed: RealDay) -> None:
    day.split(3)
    day.tag("--parallel", "2")
    process = day.start("analyze", "--nudenet-mode", "always")
    until(lambda: day.journal_lines("p2") >= 8)
    kill_group(process)
    assert 8 <= day.journal_lines("p2") < 31
    assert not day.merged("p2").exists()
    told = day.run("analyze", "--nudenet-mode", "always", "--resume", "--parallel", "2").stdout
    done = day.metrics("p2")["run"]["done"]
    assert f" s in this run, which did {counted(done, 'record')}; the counts are the day's (nudenet " in told
    assert day.merged("p2").read_bytes() == undisturbed.merged("p2").read_bytes()
    assert day.metrics("p2")["nudenet_executed"] == 28
    assert day.leftovers() == []


def test_a_worker_that_dies_is_replaced(day: RealDay, undisturbed: RealDay) -> None:
    day.split(3)
    process = day.start("tag", "--qps", "25", "--parallel", "2")
    until(lambda: day.journal_lines("p1") >= 5)
    os.kill(max(_workers(process.pid)), signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert day.merged("p1").read_bytes() == undisturbed.merged("p1").read_bytes()


def test_a_decoder_that_is_killed_is_replaced(day: RealDay, undisturbed: RealDay) -> None:
    day.split(2)
    process = day.start("tag", "--qps", "25", "--parallel", "2")
    until(lambda: day.journal_lines("p1") >= 5)
    for pid in _decoders(process.pid):
        os.kill(pid, signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert day.merged("p1").read_bytes() == undisturbed.merged("p1").read_bytes()


def _workers(pid: int) -> list[int]:
    """Worker processes; the helper that Python keeps beside them is none."""
    return _running(pid, b"spawn_main")


def _decoders(pid: int) -> list[int]:
    return _running(pid, b"modbot.models.decoder")


def _running(pid: int, what: bytes) -> list[int]:
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in descendants(pid)}
    return [child for child, command in commands.items() if what in command]


def test_workers_do_not_outlive_the_process_that_leads_them(day: RealDay) -> None:
    day.split(2)
    process = day.start("tag", "--qps", "5", "--parallel", "2")
    until(lambda: day.journal_lines("p1") >= 2)
    workers, decoders = _workers(process.pid), _decoders(process.pid)
    assert (len(workers), len(decoders)) == (2, 2)
    process.kill()
    process.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (*workers, *decoders)), seconds=5)


def test_sigterm_ends_within_seconds_and_keeps_what_was_finished(day: RealDay, undisturbed: RealDay) -> None:
    day.split(3)
    process = day.start("tag", "--qps", "20", "--parallel", "2")
    until(lambda: day.journal_lines("p1") >= 6)
    process.terminate()
    _, told = process.communicate(timeout=5)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert day.journal_lines("p1") >= 6
    day.tag("--resume")
    assert day.merged("p1").read_bytes() == undisturbed.merged("p1").read_bytes()


def test_the_second_run_on_a_partition_says_who_has_it(day: RealDay) -> None:
    day.split(2)
    process = day.start("tag", "--qps", "1")
    until(lambda: day.journal_lines("p1") >= 2)
    for command in (("tag", "--resume"), ("analyze",), ("split", "--shards", "3")):
        told = day.run(*command, code=1).stderr
        assert f"held by 'modbot tag' on {os.uname().nodename}, process {process.pid}" in told
    kill_group(process)
    day.tag("--resume")


def test_a_run_that_lost_its_partition_ends(day: RealDay) -> None:
    day.split(2)
    process = day.start("tag", "--qps", "1")
    until(lambda: day.journal_lines("p1") >= 1)
    (lease,) = day.tree.glob("status/lease_*.json")
    taken = json.loads(lease.read_bytes()) | {"token": "another", "host": "far", "machine": "far"}
    lease.write_text(json.dumps(taken))
    _, told = process.communicate(timeout=15)
    assert process.returncode == 1, told
    assert "held by 'modbot tag' on far" in told
    assert not day.merged("p1").exists()
    states = {shard["state"] for shard in day.manifest("p1")["shards"].values()}
    assert states == {"queued"}


def test_resume_does_only_what_is_unfinished_or_was_done_with_other_settings(
    day: RealDay, server: SampleServer
) -> None:
    day.split(3)
    day.tag()
    first = day.merged("p1").read_bytes()
    folder = day.tree / "p1" / "shards" / "2025-10-01"
    receipts = {path: path.stat().st_mtime_ns for path in folder.glob("*.receipt.json")}
    server.gets.clear()
    day.tag("--resume")
    assert {path: path.stat().st_mtime_ns for path in receipts} == receipts
    assert server.gets.total() == 0
    (folder / "shard_01.receipt.json").unlink()
    day.tag("--resume")
    assert [p.name for p, mtime in receipts.items() if p.stat().st_mtime_ns != mtime] == ["shard_01.receipt.json"]
    day.tag("--resume", "--frames", "2")
    assert all(path.stat().st_mtime_ns != mtime for path, mtime in receipts.items())
    # Only links that had no image are asked for again: the one that is gone, once each time.
    assert server.gets.total() <= 2
    assert set(server.gets) <= {f"/{MISSING}"}
    day.tag()
    assert day.merged("p1").read_bytes() == first


def test_an_edited_vocabulary_is_not_ignored(day: RealDay) -> None:
    day.split(2)
    day.tag("--resume")
    rules = day.root / "own.yaml"
    text = (day.root / "configs" / "rules.yaml").read_text(encoding="utf-8")
    rules.write_text(text.replace("groups:\n", "groups:\n  one_more: [tree]\n", 1), encoding="utf-8")
    folder = day.tree / "p1" / "shards" / "2025-10-01"
    before = json.loads((folder / "shard_00.receipt.json").read_bytes())["settings"]
    day.tag("--resume", "--rules-config", str(rules))
    assert json.loads((folder / "shard_00.receipt.json").read_bytes())["settings"] != before
    assert day.metrics("p1")["settings"]["vocabulary"] == str(rules)


def test_a_malformed_vocabulary_is_told(day: RealDay) -> None:
    day.split(1)
    (day.root / "own.yaml").write_text("version: 2\ngroups: {nsfw_general: 5}\nthresholds: {wd14_explicit: high}\n")
    for told in (
        day.tag("--rules-config", "own.yaml").stderr,
        day.run("analyze", "--extra-args", "--rules-config own.yaml").stderr,
    ):
        assert "warning: own.yaml:2: the group `nsfw_general` must be a list of tags, not a number" in told
        assert "warning: own.yaml:3: the threshold `wd14_explicit` must be a number" in told


def test_p2_refuses_a_p1_file_that_lacks_a_row(day: RealDay) -> None:
    day.split(2)
    day.tag()
    whole = day.merged("p1").read_bytes()
    lines = whole.splitlines(keepends=True)
    for broken, told in (
        (b"".join(lines[:2] + lines[3:]), "of the index is in no record"),
        (b"".join([*lines[:2], lines[1], *lines[2:]]), "comes after row"),
        (whole[:-50], "not a record"),
    ):
        day.merged("p1").write_bytes(broken)
        done = day.run("analyze", code=1 if told == "not a record" else 2)
        assert told in done.stderr
        assert not day.merged("p2").exists()


def test_p2_names_the_p1_line_that_is_damaged_in_what_only_the_shard_reads(day: RealDay) -> None:
    day.split(3)
    day.tag()
    whole = day.merged("p1").read_bytes()
    lines = whole.splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if b'"width":' in line)
    lines[last] = lines[last].replace(b'"width":', b'"wide":', 1)
    day.merged("p1").write_bytes(b"".join(lines))
    said = day.run("analyze", code=2).stderr
    assert f"{day.merged('p1').name}, line {last + 1}: no p1 record (Object missing required field `width`" in said
    assert "Run p1 again with --resume" in said
    day.tag("--resume")
    assert day.merged("p1").read_bytes() == whole
    day.run("analyze", "--resume")


def test_p2_needs_no_detector_where_none_is_to_run(day: RealDay, tmp_path: Path) -> None:
    day.split(1)
    day.tag()
    day.env["MODELS_DIR"] = str(tmp_path / "no models")
    done = day.run("analyze", "--nudenet-mode", "never")
    assert "no detector" in done.stdout
    assert not (tmp_path / "no models").exists()
    metas = [record["meta"] for record in day.records("p2")]
    assert {(meta["nudenet_version"], meta["nudenet_ran"], meta["gate"]) for meta in metas} == {(None, False, "never")}


def test_shards_that_were_edited_or_are_of_another_profile_are_refused(day: RealDay) -> None:
    day.split(2)
    shard = day.tree / "p0" / "shards" / "shard_01.csv"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b"rocket", b"racket"))
    assert "shard_01.csv was changed after the split" in day.tag(code=2).stderr
    shard.write_bytes(whole)
    glob = f"{shard.parent}/shard_*.csv"
    told = day.tag("--profile", "other", "--shard-glob", glob, code=2).stderr
    assert "the shards are of profile current, not of other" in told


def test_a_status_file_of_something_else_is_left_alone(day: RealDay) -> None:
    day.split(1)
    notes = day.root / "notes.json"
    notes.write_text('{"mine": true}')
    told = day.tag("--status-file", "notes.json", code=2).stderr
    assert "notes.json: there is something else than a status file of p1" in told
    assert notes.read_text() == '{"mine": true}'


def test_failed_rows_can_be_tried_again(tmp_path: Path, models_dir: Path, images: Path, undisturbed: RealDay) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("astronaut.png", "rocket.jpg"):
        (few / name).write_bytes((images / name).read_bytes())
    with SampleServer(few) as poor:
        day = RealDay(tmp_path / "day", poor, models_dir)
        day.index(images)
        day.split(3)
        day.tag()
        port = int(poor.host.rpartition(":")[2])
    assert day.metrics("p1")["failed_expired"] > 20
    with SampleServer(images, port) as whole:
        day.tag("--retry-failed=expired")
        assert "/astronaut.png" not in whole.gets
    assert day.metrics("p1")["failed_expired"] == 1
    undisturbed_records = [{**r, "messages": None} for r in undisturbed.records("p1")]
    assert [{**r, "messages": None} for r in day.records("p1")] == undisturbed_records


def test_every_row_is_in_exactly_one_record(day: RealDay) -> None:
    day.split(2)
    day.tag()
    records = day.records("p1")
    rows = [a["row"] for record in records for message in record["messages"] for a in message["attachments"]]
    assert sorted(rows) == list(range(len(rows)))
    assert [record["row"] for record in records] == sorted(record["row"] for record in records)
    by_name = {a["filename"]: record for record in records for m in record["messages"] for a in m["attachments"]}
    assert by_name["coffee.png"] is by_name["morning.png"]
    assert by_name["harbour.jpg"]["phash"] == by_name["harbour_resent.jpg"]["phash"]
    assert by_name["harbour.jpg"]["sha256"] != by_name["harbour_resent.jpg"]["sha256"]
    assert by_name["cut_off.jpg"]["image"]["truncated"] is True
    assert by_name["notes.png"]["error"]["kind"] == "not_an_image"
    assert by_name[MISSING]["error"]["kind"] == "expired"
    day.run("analyze")
    seen = {
        a["filename"]: r["is_nsfw_channel"] for r in day.records("p2") for m in r["messages"] for a in m["attachments"]
    }
    # Once in #general and once in #nsfw: judged as in #general.
    assert seen["coffee.png"] is False
    assert seen["harbour_resent.jpg"] is True


def test_one_csv_gives_the_same_records_as_the_shards(day: RealDay, undisturbed: RealDay) -> None:
    index = day.tree / "p0" / "p0_2025-10-01.csv"
    day.tag("--input", str(index), "--out", "one.jsonl", "--metrics", "one.json")
    assert (day.root / "one.jsonl").read_bytes() == undisturbed.merged("p1").read_bytes()
    assert json.loads((day.root / "one.json").read_bytes())["rows"] == 32
    day.split(2)
    shard = day.tree / "p0" / "shards" / "shard_01.csv"
    day.tag("--input", str(shard), "--out", "shard.jsonl")
    rows = [json.loads(line)["row"] for line in (day.root / "shard.jsonl").read_text().splitlines()]
    assert min(rows) == 16
    day.tag("--input", str(index), "--out", "one.jsonl", "--metrics", "one.json", "--resume")
    assert (day.root / "one.jsonl").read_bytes() == undisturbed.merged("p1").read_bytes()


def test_nothing_is_pruned_while_one_csv_is_tagged(day: RealDay) -> None:
    prune = ("cache", "prune", "--older-than", "1h")
    index = day.tree / "p0" / "p0_2025-10-01.csv"
    process = day.start("tag", "--input", str(index), "--out", "one.jsonl", "--qps", "2")
    until(lambda: len(day.server.gets) > 0)
    told = day.run(*prune, code=1).stderr
    kill_group(process)
    assert "nothing is removed while a step is at work: 'modbot tag --input'" in told
    day.run(*prune)
