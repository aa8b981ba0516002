"""The operators' runbook, as written: its commands run through bash on the samples, and their files are looked into."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modbot import settings
from samples.make import write_index, write_pictures
from samples.server import SampleServer

REPOSITORY = Path(__file__).parents[2]
RUNBOOK = Path(__file__).with_name("runbook.ja.md")
DATE = "2025-10-01"

COMMANDS = {
    "providers": """\
python - <<'PY'
import onnxruntime as ort
print("providers:", ort.get_available_providers())
PY
""",
    "split": """\
python scripts/split_index.py \\
  --profile current \\
  --date 2025-10-01 \\
  --shards 10
""",
    "p1": """\
python scripts/run_p1_sharded.py \\
  --profile current \\
  --date 2025-10-01 \\
  --shard-glob "out/profiles/current/p0/shards/shard_*.csv" \\
  --provider cuda \\
  --batch-size ${WD14_BATCH:-48} \\
  --concurrency ${ANALYSIS_CONCURRENCY:-24} \\
  --qps ${ANALYSIS_QPS:-4.0} \\
  --parallel 2 \\
  --resume \\
  --status-file out/profiles/current/status/p1_manifest_current.json
""",
    "p2": """\
python scripts/run_p2_sharded.py \\
  --profile current \\
  --date 2025-10-01 \\
  --shard-glob "out/profiles/current/p0/shards/shard_*.csv" \\
  --qps ${ANALYSIS_QPS:-4.0} \\
  --concurrency 16 \\
  --parallel 2 \\
  --resume \\
  --status-file out/profiles/current/status/p2_manifest_current.json \\
  --extra-args "--nudenet-mode auto"
""",
    "scan": """\
python -m app.cli_scan \\
  --profile current \\
  --date 2025-10-01 \\
  --rules configs/rules.yaml \\
  --metrics out/profiles/current/metrics/p3/p3_metrics_2025-10-01.json \\
  --since 1970-01-01 --until 2099-12-31
""",
    "scan with a trace": """\
python -m app.cli_scan \\
  --profile current \\
  --date 2025-10-01 \\
  --rules configs/rules.yaml \\
  --metrics out/profiles/current/metrics/p3/p3_metrics_2025-10-01.json \\
  --trace-jsonl out/profiles/current/metrics/p3/p3_trace_2025-10-01.jsonl
""",
    "dry run": """\
python -m app.cli_scan \\
  --profile current \\
  --date 2025-10-01 \\
  --rules configs/rules.yaml \\
  --metrics out/profiles/current/metrics/p3/p3_dry_2025-10-01.json \\
  --dry-run --limit 256 \\
  --since 1970-01-01 --until 2099-12-31
""",
    "A/B": """\
python -m app.cli_rules_ab \\
  --profile current \\
  --date 2025-10-01 \\
  --rulesA configs/rules.yaml \\
  --rulesB configs/rules_candidate.yaml \\
  --out-dir out/profiles/current/metrics/ab \\
  --sample-diff 200 \\
  --samples-minimal \\
  --samples-redact-urls
""",
    "sums": """\
python - <<'PY'
import json, glob, collections

def merge(pattern, out_path):
    acc = collections.Counter()
    for path in glob.glob(pattern):
        with open(path, "r", encoding="utf-8") as fp:
            try:
                data = json.load(fp)
            except Exception:
                continue
            for key, value in data.items():
                if isinstance(value, (int, float)):
                    acc[key] += value
    with open(out_path, "w", encoding="utf-8") as out:
        json.dump(acc, out, ensure_ascii=False, indent=2)

merge("out/profiles/current/metrics/p1_metrics_*.json", "out/profiles/current/metrics/p1_metrics.json")
merge("out/profiles/current/metrics/p2_metrics_*.json", "out/profiles/current/metrics/p2_metrics.json")
PY
""",
    "latencies": "jq -r '.metrics.eval_ms // empty' out/profiles/current/p3/findings_2025-10-01.jsonl | head\n",
    "uncertain": """\
python tools/export_uncertain.py \\
  --profile current --date 2025-10-01 \\
  --out out/profiles/current/review/uncertain_top200.csv \\
  --q-thr 0.35 --e-thr 0.20 --eps 0.02 --topn 200
""",
    "check findings": "python -m app.cli_contract check-findings --profile current --date 2025-10-01",
    "check report": "python -m app.cli_contract check-report   --profile current --date 2025-10-01",
}
"""The commands of the runbook's sections 1.2, 4, 5 and appendix C, in its order."""

WITHOUT_JQ = """\
python - out/profiles/current/p3/findings_2025-10-01.jsonl <<'PY'
import json, sys
for line in list(open(sys.argv[1], encoding="utf-8"))[:10]:
    print(json.loads(line)["metrics"]["eval_ms"])
PY
"""

P1_KEYS = {"sha256", "phash", "image", "messages", "wd14", "error"}
P2_KEYS = P1_KEYS | {
    *("guild_id", "channel_id", "message_id", "message_link", "created_at", "author_id", "source", "is_nsfw_channel"),
    *("nudity_detections", "xsignals", "meta"),
}
FINDING_KEYS = P2_KEYS | {"severity", "rule_id", "rule_title", "reasons", "metrics"}
REPORT_HEADER = (
    "severity,rule_id,rule_title,message_link,author_id,is_nsfw_channel,wd14_rating_general,wd14_rating_sensitive,"
    "wd14_rating_questionable,wd14_rating_explicit,top_tags,nudity_tops,exposure_score,placement_risk_pre,nsfw_margin,"
    "nsfw_ratio,nsfw_general_sum,violence_tags,animals_sum,reasons,message_count,other_message_links,other_author_ids,"
    "sha256"
)
DIFF_HEADER = (
    "message_link,severityA,severityB,ruleA,ruleB,rating_questionable,rating_explicit,exposure_score,nsfw_general_sum,"
    "minors_peak_A,gore_peak_A,minors_peak_B,gore_peak_B"
)
FAILED = {"expired": 1, "not_an_image": 1}
"""Of the samples: the link that answers 404, and the text file."""


class Day:
    """A working directory with the runbook's folders, the samples' server, and what its commands said."""

    def __init__(self, root: Path, server: SampleServer, environment: dict[str, str], rows: int) -> None:
        self.root = root
        self.server = server
        self.environment = environment
        self.rows = rows
        self.files = root / "out/profiles/current"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def json(self, name: str) -> Any:  # noqa: ANN401 - JSON
        return json.loads((self.files / name).read_bytes())

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.files / name).read_bytes().splitlines()]

    def table(self, name: str) -> tuple[list[str], list[dict[str, str]]]:
        with (self.files / name).open(encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text)
            rows = list(reader)
        return list(reader.fieldnames or []), rows


@pytest.fixture(params=["out here", "out elsewhere"])
def day(request: pytest.FixtureRequest, tmp_path: Path, models_dir: Path) -> Iterator[Day]:
    """The day before its first command; in the second form OUT_DIR lies elsewhere and ./out is a link to it."""
    root = tmp_path / "repository"
    root.mkdir()
    for folder in ("scripts", "app", "tools", "configs"):
        (root / folder).symlink_to(REPOSITORY / folder)
    write_pictures(tmp_path / "images", with_largest=False)
    known = settings._FIELDS
    environment = {name: value for name, value in os.environ.items() if name not in known}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MODELS_DIR": str(models_dir),
        "WD14_MODEL": "open_nsfw",
        "ANALYSIS_QPS": "500",
    }
    if request.param == "out elsewhere":
        volume = tmp_path / "volume"
        (volume / "out").mkdir(parents=True)
        (root / "out").symlink_to(volume / "out")
        environment |= {"OUT_DIR": str(volume / "out"), "CACHE_DIR": str(volume / "cache")}
    with SampleServer(tmp_path / "images") as server:
        environment["MODBOT_ALLOW_HOSTS"] = server.host
        index = root / f"out/profiles/current/p0/p0_{DATE}.csv"
        rows = write_index(index, tmp_path / "images", base_url=server.base_url)
        yield Day(root, server, environment, rows)


def test_the_commands_are_the_runbooks() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    assert [name for name, command in COMMANDS.items() if command not in text] == []


def test_the_runbooks_day(day: Day) -> None:
    for name, command in COMMANDS.items():
        typed = WITHOUT_JQ if name == "latencies" and shutil.which("jq") is None else command
        said = day.run(typed)
        assert said.returncode == 0, f"{name}: exit {said.returncode}\n{said.stdout}{said.stderr}"
        CHECKS[name](day, said)
    assert not list(day.files.rglob("*.tmp"))
    if "OUT_DIR" in day.environment:
        assert not (day.root / "cache").exists()


def _providers(_: Day, said: subprocess.CompletedProcess[str]) -> None:
    assert "CPUExecutionProvider" in said.stdout


def _split(day: Day, _: subprocess.CompletedProcess[str]) -> None:
    shards = day.json("p0/shards/shards.json")
    assert (shards["date"], shards["count"], sum(shards["rows"])) == (DATE, 10, day.rows)
    assert len(list((day.files / "p0/shards").glob("shard_*.csv"))) == 10


def _p1(day: Day, said: subprocess.CompletedProcess[str]) -> None:
    assert "cuda" in said.stderr  # it does not start here: one warning, and the CPU does the work
    records = day.lines(f"p1/p1_{DATE}.jsonl")
    assert all(set(record) >= P1_KEYS for record in records)
    rows = [a["row"] for record in records for message in record["messages"] for a in message["attachments"]]
    assert sorted(rows) == list(range(day.rows))
    assert Counter(record["error"]["kind"] for record in records if record["error"]) == FAILED
    assert {record["wd14"]["model"] for record in records if record["wd14"]} == {"open_nsfw"}
    metrics = day.json(f"metrics/p1_metrics_{DATE}.json")
    assert (metrics["rows"], metrics["records"], metrics["failed"]) == (day.rows, len(records), sum(FAILED.values()))
    assert {kind: metrics[f"failed_{kind}"] for kind in FAILED} == FAILED
    _additive(metrics)
    _manifest(day, "p1")
    assert set(day.server.gets.values()) == {1}


def _p2(day: Day, _: subprocess.CompletedProcess[str]) -> None:
    before, records = day.lines(f"p1/p1_{DATE}.jsonl"), day.lines(f"p2/p2_{DATE}.jsonl")
    assert [record["sha256"] for record in records] == [record["sha256"] for record in before]
    assert all(set(record) >= P2_KEYS for record in records)
    metrics = day.json(f"metrics/p2_metrics_{DATE}.json")
    assert metrics["records"] == len(records)
    assert metrics["nudenet_executed"] == sum(record["meta"]["nudenet_ran"] for record in records)
    assert metrics["nudenet_failed"] == 0
    _additive(metrics)
    _manifest(day, "p2")
    assert set(day.server.gets.values()) == {1}  # p2 sends no requests


def _scan(day: Day, _: subprocess.CompletedProcess[str]) -> None:
    findings = day.lines(f"p3/findings_{DATE}.jsonl")
    assert len(findings) == len(day.lines(f"p2/p2_{DATE}.jsonl"))
    assert all(set(finding) >= FINDING_KEYS for finding in findings)
    assert all(finding["severity"] == "yellow" for finding in findings if finding["error"])
    run = day.json("metrics/p3_run.json")
    severities = {name: number for name, number in run["severity"].items() if number}
    assert severities == Counter(finding["severity"] for finding in findings)
    assert run["total"] == len(findings)
    assert {"winning", "winning_ratio", "throughput_rps", "latency_ms_avg", "latency_ms_p95", "wall_time_s"} <= set(run)
    assert (run["context"]["profile"], run["context"]["date"]) == ("current", DATE)
    assert day.json(f"metrics/p3/p3_metrics_{DATE}.json")["severity"] == run["severity"]
    columns, rows = day.table(f"p3/report_{DATE}.csv")
    assert ",".join(columns) == REPORT_HEADER
    assert [row["severity"] for row in rows] == [finding["severity"] for finding in findings]


def _scan_with_trace(day: Day, said: subprocess.CompletedProcess[str]) -> None:
    _scan(day, said)
    assert len(day.lines(f"metrics/p3/p3_trace_{DATE}.jsonl")) == len(day.lines(f"p3/findings_{DATE}.jsonl"))


def _dry_run(day: Day, _: subprocess.CompletedProcess[str]) -> None:
    dry = day.json(f"metrics/p3/p3_dry_{DATE}.json")
    assert dry["total"] == len(day.lines(f"p3/findings_{DATE}.jsonl"))
    assert (
        day.json("metrics/p3_run.json")["wall_time_s"] == day.json(f"metrics/p3/p3_metrics_{DATE}.json")["wall_time_s"]
    )
    assert not list((day.files / "p3").glob("*.part.*"))


def _ab(day: Day, _: subprocess.CompletedProcess[str]) -> None:
    compare = day.json("metrics/p3_ab_compare.json")
    findings = day.lines(f"p3/findings_{DATE}.jsonl")
    assert compare["total"] == len(findings)
    severities = Counter(finding["severity"] for finding in findings)
    assert {name: number for name, number in compare["countsA"].items() if number} == severities
    assert {"countsB", "delta", "confusion", "top_rule_delta", "modeA", "modeB", "note"} <= set(compare)
    columns, rows = day.table("exports/p3_ab_diff.csv")
    assert ",".join(columns).startswith(DIFF_HEADER)
    assert len(rows) == len(day.lines("exports/p3_ab_diff_samples.jsonl"))
    for name in ("metrics/p3_ab_compare.json", "exports/p3_ab_diff.csv", "exports/p3_ab_diff_samples.jsonl"):
        copy = day.files / "metrics/ab" / Path(name).name
        assert copy.read_bytes() == (day.files / name).read_bytes()
    assert "http" not in (day.files / "exports/p3_ab_diff_samples.jsonl").read_text(encoding="utf-8")


def _sums(day: Day, _: subprocess.CompletedProcess[str]) -> None:
    for step in ("p1", "p2"):
        one = day.json(f"metrics/{step}_metrics_{DATE}.json")
        numbers = {key: value for key, value in one.items() if isinstance(value, int | float)}
        assert day.json(f"metrics/{step}_metrics.json") == pytest.approx(numbers)


def _latencies(_: Day, said: subprocess.CompletedProcess[str]) -> None:
    numbers = [float(line) for line in said.stdout.split()]
    assert len(numbers) == 10
    assert all(number >= 0 and number == round(number, 3) for number in numbers)


def _uncertain(day: Day, _: subprocess.CompletedProcess[str]) -> None:
    columns, rows = day.table("review/uncertain_top200.csv")
    assert columns[:4] == ["message_link", "questionable", "explicit", "exposure"]
    for row in rows:
        near = min(
            abs(float(row["questionable"]) - 0.35),
            abs(float(row["explicit"]) - 0.20),
            abs(float(row["exposure"]) - 0.30),
        )
        assert near <= 0.02 + 1e-4


def _says_nothing_wrong(_: Day, said: subprocess.CompletedProcess[str]) -> None:
    assert said.stderr == ""


def _additive(metrics: dict[str, Any]) -> None:
    """Top level: numbers that can be summed over days, or nested objects; no booleans."""
    assert all(type(value) in {int, float, dict, list} for value in metrics.values())
    assert type(metrics["wall_time_s"]) is float


def _manifest(day: Day, step: str) -> None:
    manifest = day.json(f"status/{step}_manifest_current.json")
    assert manifest["date"] == DATE
    assert [shard["state"] for shard in manifest["shards"].values()] == ["done"] * 10


CHECKS: dict[str, Callable[[Day, subprocess.CompletedProcess[str]], None]] = {
    "providers": _providers,
    "split": _split,
    "p1": _p1,
    "p2": _p2,
    "scan": _scan,
    "scan with a trace": _scan_with_trace,
    "dry run": _dry_run,
    "A/B": _ab,
    "sums": _sums,
    "latencies": _latencies,
    "uncertain": _uncertain,
    "check findings": _says_nothing_wrong,
    "check report": _says_nothing_wrong,
}
