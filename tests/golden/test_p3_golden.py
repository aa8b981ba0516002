"""The day's files, byte for byte; a change that is meant is written with UPDATE_GOLDEN=1, and its diff read."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from modbot.cli.main import main
from modbot.files.paths import Partition

GOLDEN = Path(__file__).parent / "p3"
PART = Partition(Path("out"), "current", "2025-10-01")
FILES = {
    "findings.jsonl": PART.findings,
    "report.csv": PART.report,
    "metrics.json": PART.scan_metrics,
    "trace.jsonl": Path("trace.jsonl"),
    "compare.json": PART.ab_compare,
    "diff.csv": PART.ab_diff,
    "samples.jsonl": PART.ab_samples,
    "uncertain.csv": PART.uncertain,
}
TIMES = re.compile(r'("(?:eval_ms|latency_ms_avg|latency_ms_p95|wall_time_s|throughput_rps)": ?)[0-9.e-]+')


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("day")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        PART.merged("p2").parent.mkdir(parents=True)
        shutil.copy(GOLDEN / "p2.jsonl", PART.merged("p2"))
        Path("configs").mkdir()
        for name in ("rules.yaml", "candidate.yaml"):
            shutil.copy(GOLDEN / name, Path("configs") / name)
        day = ["--date", PART.date]
        assert main(["scan", *day, "--trace-jsonl", "trace.jsonl"]) == 0
        assert main(["ab", *day, "--rulesB", "configs/candidate.yaml", "--sample-diff", "3", "--samples-minimal"]) == 0
        assert main(["uncertain", *day, "--eps", "0.2"]) == 0
        return {name: TIMES.sub(r"\g<1>0", path.read_text(encoding="utf-8")) for name, path in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_it_was(written: dict[str, str], name: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(written[name], encoding="utf-8")
    assert written[name] == golden.read_text(encoding="utf-8")
