"""What cannot be done is refused in one or two lines that name it, and nothing that was there is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from modbot.cli.main import main
from modbot.files.atomic import write_bytes
from modbot.settings import load
from tests.real_day import DATE

INDEX = Path("out/profiles/current/p0") / f"p0_{DATE}.csv"
HEADER = "url,note\n"
GOOD = HEADER + "https://cdn.discordapp.com/a/1.png,x\nhttps://cdn.discordapp.com/a/2.png,y\n"


@pytest.fixture(autouse=True)
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and no settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("OUT_DIR", "CACHE_DIR", "MODELS_DIR", "MODBOT_PROFILE", "MODBOT_TZ", "WD14_MODEL", "ANALYSIS_QPS"):
        monkeypatch.delenv(name, raising=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Runs the command, which must end with `code` and at most three lines; gives what it told."""
    assert main(list(arguments)) == code
    told = capsys.readouterr().err
    assert told.startswith("modbot: ")
    assert 1 <= len(told.splitlines()) <= 3, told
    return told


SPLIT = ("split", "--date", DATE)
TAG = ("tag", "--date", DATE, "--model", "open_nsfw")


def test_a_name_that_is_told_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nope\ufffd[2J\ufffd.csv: there is no" in refused(capsys, *SPLIT, "--input", "nope\x1b[2J\u202e.csv")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "empty: not even a header"),
        (HEADER, "no rows: there is nothing to split"),
        ("link,note\nhttps://x/1.png,x\n", "no column 'url' (the header is: link, note)"),
        ("url,url\nhttps://x/1.png,x\n", "column 'url' stands twice"),
        ("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not a CSV file"),
        ("url,row\nhttps://x/1.png,1\n", "column 'row' is one that shards add"),
    ],
)
def test_a_file_that_is_no_index(content: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_bytes(INDEX, content.encode("latin-1"))
    told = refused(capsys, *SPLIT)
    assert named in told
    assert str(INDEX) in told
    assert not (INDEX.parent / "shards" / "shards.json").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("split", "--date", "2025-13-01"), "--date: '2025-13-01' is no date"),
        (("split", "--date", "20251001"), "is no date"),
        (("split", "--date", "../x"), "is no date"),
        (("split", "--date", DATE, "--profile", "../x"), "--profile: '../x' cannot be a profile's name"),
        (("split", "--date", DATE, "--profile", ""), "cannot be a profile's name"),
        (("split", "--date", DATE, "--profile", "a/b"), "cannot be a profile's name"),
        ((*SPLIT, "--shards", "0"), "--shards"),
        ((*SPLIT, "--shards", "many"), "--shards"),
        ((*SPLIT, "--shards", "1000000"), "--shards: 1000000 is more than"),
        ((*SPLIT, "--input", "nope.csv"), "nope.csv: there is no such index"),
        ((*TAG, "--qps", "0"), "--qps"),
        ((*TAG, "--qps", "-1"), "--qps"),
        ((*TAG, "--qps", "nan"), "--qps"),
        (
            (*TAG, "--qps", "unlimited"),
            "--qps: 'unlimited' is not for Discord (shard_00.csv, row 0: cdn.discordapp.com)",
        ),
        ((*TAG, "--batch-size", "0"), "--batch-size"),
        ((*TAG, "--concurrency", "0"), "--concurrency"),
        ((*TAG, "--parallel", "0"), "--parallel"),
        ((*TAG, "--provider", "gpu"), "--provider"),
        ((*TAG, "--provider", "cuda", "--require-provider"), "--require-provider: cuda does not run here"),
        ((*TAG, "--precision", "fp16"), "--precision: fp16 is for GPUs"),
        (
            (*TAG, "--precision", "fp16", "--provider", "cpu"),
            "--precision: fp16 is for GPUs, and none works here (cpu)",
        ),
        ((*TAG, "--precision", "int8"), "--precision"),
        ((*TAG, "--calibration", "nope.yaml"), "nope.yaml: cannot be read"),
        (("analyze", "--date", DATE, "--provider", "tensorrt", "--require-provider"), "tensorrt does not run here"),
        ((*TAG, "--engine", "ray"), "--engine: there is no engine 'ray' yet"),
        ((*TAG, "--retry-failed=lost"), "--retry-failed: there is no kind 'lost'"),
        ((*TAG, "--allow-host", "a/b"), "a/b"),
        ((*TAG, "--rules-config", "nope.yaml"), "nope.yaml"),
        ((*TAG, "--out", "x.jsonl"), "goes with --input"),
        ((*TAG, "--input", str(INDEX), "--out", str(INDEX)), f"--out: {INDEX} is what --input reads"),
        ((*TAG, "--input", str(INDEX), "--out", "x", "--metrics", "x"), "--metrics: x is what --out writes"),
        ((*TAG, "--input", str(INDEX), "--out", "out"), "--out: out is a folder"),
        ((*TAG, "--status-file", str(INDEX)), f"--status-file: {INDEX} is what the split reads"),
        ((*TAG, "--status-file", "out"), "--status-file: out is a folder"),
        ((*SPLIT, "--input", "out/profiles/current/p0/shards/shard_00.csv"), "shard_00.csv is what the split reads"),
        (("index", "urls", str(INDEX), "--out", str(INDEX), "--replace"), f"--out: {INDEX} is what SOURCE reads"),
        ((*TAG, "--input", "out/profiles/current/p0/p0_2025-10-01.csv"), "--out: is missing"),
        (("analyze", "--date", DATE, "--nudenet-mode", "maybe"), "--nudenet-mode"),
        (("analyze", "--date", DATE, "--extra-args", "--nudenet-mode 'auto"), "--extra-args"),
        (("analyze", "--date", DATE, "--extra-args", "--no-such-flag"), "--no-such-flag"),
        (("analyze", "--date", DATE, "--model", "open_nsfw"), "open_nsfw"),
    ],
)
def test_a_flag_that_cannot_be_used(arguments: Sequence[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_bytes(INDEX, GOOD.encode())
    assert main([*SPLIT, "--shards", "2"]) == 0
    capsys.readouterr()
    before = sorted((path, path.read_bytes()) for path in Path("out").rglob("*") if path.is_file())
    assert named in refused(capsys, *arguments)
    assert sorted((path, path.read_bytes()) for path in Path("out").rglob("*") if path.is_file()) == before


def test_shards_that_are_not_those_of_the_day(capsys: pytest.CaptureFixture[str]) -> None:
    write_bytes(INDEX, GOOD.encode())
    assert "no shard matches out/profiles/current/p0/shards/shard_*.csv (OUT_DIR is out)" in refused(capsys, *TAG)
    assert main([*SPLIT, "--shards", "2"]) == 0
    capsys.readouterr()
    mend = f"modbot split --profile current --date {DATE} --shards 2"
    write_bytes(INDEX, GOOD.replace("x", "edited").encode())
    told = refused(capsys, *TAG)
    assert "are not of" in told
    assert mend in told
    write_bytes(INDEX, GOOD.encode())
    told = refused(capsys, "tag", "--date", "2025-10-02", "--model", "open_nsfw")
    assert f"the shards are of {DATE}, not of 2025-10-02" in told
    assert "modbot split --profile current --date 2025-10-02 --shards 2\n" in told
    assert "--input" not in told
    told = refused(capsys, *TAG, "--shard-glob", "out/profiles/current/p0/shards/shard_00.csv")
    assert "1 shard matches where shards.json counts 2" in told
    (INDEX.parent / "shards" / "shards.json").unlink()
    assert "the split did not end" in refused(capsys, *TAG)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        (("5", "5"), "shards.csv: row 5 stands twice in the shard"),
        (("", "1"), "shards.csv: line 2: no row number"),
        (("0", "9" * 5_000), "shards.csv: line 3: no row number"),
    ],
)
def test_a_shard_that_was_put_together_by_hand(
    numbers: Sequence[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"https://x/{place}.png,,{number}\n" for place, number in enumerate(numbers))
    Path("shards.csv").write_text(f"url,bad_row,row\n{rows}")
    assert named in refused(capsys, *TAG, "--input", "shards.csv", "--out", "x.jsonl")


def test_a_model_that_is_not_there_names_both_ways_out(capsys: pytest.CaptureFixture[str]) -> None:
    write_bytes(INDEX, GOOD.encode())
    assert main([*SPLIT, "--shards", "2"]) == 0
    capsys.readouterr()
    told = refused(capsys, "tag", "--date", DATE)
    assert "modbot models get wd-eva02-large-tagger-v3" in told
    assert "--model open_nsfw" in told


def test_p2_before_p1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> None:
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    write_bytes(INDEX, GOOD.encode())
    assert main([*SPLIT, "--shards", "2"]) == 0
    capsys.readouterr()
    told = refused(capsys, "analyze", "--date", DATE)
    assert f"p1_{DATE}.jsonl: there is no merged p1 file" in told
    assert "Run p1 first" in told


def test_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_bytes(INDEX, GOOD.encode())
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("OUT_DIR", str(blocked / "out"))
    told = refused(capsys, *SPLIT, "--input", str(INDEX), code=1)
    assert str(blocked) in told
    assert "a part of the path is a file" in told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("MODBOT_TZ=UTC\nthis is no setting\n", ".env, line 2"),
        ("\n\nOUT_DIR='unclosed\n", ".env, line 3"),
        ("ANALYSIS_QPS=0\n", ".env: ANALYSIS_QPS"),
        ("WD14_BATCH=-1\n", ".env: WD14_BATCH"),
        ("MODBOT_TZ=Mars/Olympus\n", ".env: MODBOT_TZ"),
        ("WD14_PROVIDER=gpu\n", ".env: WD14_PROVIDER"),
        ("MODBOT_DSL_MODE=loud\n", ".env: MODBOT_DSL_MODE"),
        ("MODBOT_DISCORD_API=https://evil.example/api\n", ".env: MODBOT_DISCORD_API"),
        ("MODBOT_DISCORD_API=http://localhost:80@evil.example\n", ".env: MODBOT_DISCORD_API"),
        ("MODBOT_PROFILE=../x\n", ".env: MODBOT_PROFILE"),
    ],
)
def test_a_broken_dotenv(text: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text(text)
    assert named in refused(capsys, *SPLIT)


def test_a_dotenv_that_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_bytes(b"\xff\xfe\x00")
    assert ".env: cannot be read (not UTF-8 text)" in refused(capsys, *SPLIT)


def test_a_secret_is_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text("DISCORD_BOT_TOKEN=tell-nobody\n")
    settings = load()
    shown = f"{settings} {settings!r} {settings.discord_token} {[settings.discord_token]}"
    assert "tell-nobody" not in shown
    assert settings.discord_token is not None
    assert settings.discord_token.reveal() == "tell-nobody"
    Path(".env").write_text("DISCORD_BOT_TOKEN=tell-nobody\nDISCORD_BOT_TOKEN tell-nobody\n")
    assert "tell-nobody" not in refused(capsys, *SPLIT)


def test_environment_wins_over_dotenv_and_a_flag_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("MODBOT_PROFILE=from_file\nANALYSIS_QPS=1.5\n")
    monkeypatch.setenv("MODBOT_PROFILE", "from_environment")
    assert (load().profile, load().analysis_qps) == ("from_environment", 1.5)
    path = Path("out/profiles/from_flag/p0") / f"p0_{DATE}.csv"
    write_bytes(path, GOOD.encode())
    assert main([*SPLIT, "--profile", "from_flag"]) == 0


@pytest.mark.parametrize("token", ["sesame\nX-Header: 1", "Bot sesame", "sesamé.sesame", "\x7fsesame"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(
    token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".env").write_text(f'DISCORD_BOT_TOKEN="{token}"\n', encoding="utf-8")
    told = refused(capsys, *SPLIT)
    assert "DISCORD_BOT_TOKEN: " in told
    assert "sesam" not in told


def test_white_space_around_a_token_is_no_part_of_it() -> None:
    token = load({"DISCORD_BOT_TOKEN": "sesame\r\n"}).discord_token
    assert token is not None
    assert token.reveal() == "sesame"
