"""`models calibrate`: labels of a moderator meet the scores of p1; `tag --calibration` applies what came of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from modbot.cli.main import main
from modbot.errors import InputError
from modbot.models.calibration import cooled
from modbot.records.p1 import Rating
from modbot.stages.calibrate import CalibrateRequest, calibrate, read_labels
from samples.server import SampleServer
from tests.real_day import DATE, RealDay
from tests.tiny_models import build

RATINGS = Rating.__struct_fields__


def record(number: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - keys of a record
    """A record that is of one rating, of which the model is far too sure in a third of the cases."""
    chosen = RATINGS[number % 4]
    rating = dict.fromkeys(RATINGS, 0.02) | {RATINGS[(number // 4) % 4] if number % 3 == 0 else chosen: 0.98}
    wd14 = {
        "model": "tiny", "revision": "r1", "input_size": 448, "rating": rating,
        "general": [], "character": [], "general_raw": [],
    }  # fmt: skip
    return {
        "row": number,
        "sha256": f"{number:064x}",
        "messages": [{"message_link": f"https://example.org/{number}"}],
        "wd14": wd14 | changes,
    }


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def labels(path: Path, count: int = 96, *, column: str = "sha256") -> Path:
    name: Callable[[int], str] = (
        (lambda number: f"{number:064X}") if column == "sha256" else (lambda number: f"https://example.org/{number}")
    )
    rows = [f"{name(number)},{RATINGS[number % 4]},a note" for number in range(count)]
    path.write_text(f"{column},rating,note\n" + "\n".join(rows) + "\n")
    return path


def request(tmp_path: Path, records: list[dict[str, Any]] | None = None) -> CalibrateRequest:
    source = write(tmp_path / "p1.jsonl", [record(number) for number in range(96)] if records is None else records)
    return CalibrateRequest(
        labels=labels(tmp_path / "labels.csv"), sources=(source,), model="tiny", out=tmp_path / "calibration.yaml"
    )


@pytest.mark.parametrize("column", ["sha256", "message_link"])
def test_a_model_that_is_too_sure_is_cooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p1.jsonl", [record(number) for number in range(90)])
    labels(tmp_path / "labels.csv", column=column)
    command = [
        "models",
        "calibrate",
        "--labels",
        "labels.csv",
        "--p1",
        "p1.jsonl",
        "--model",
        "tiny",
        "--out",
        "c.yaml",
    ]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "tiny r1, 90 labels, 6 have no scores" in told
    assert "general: temperature" in told
    assert "before 0.9 to 1.0" in told
    written = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert written["model"] == "tiny"
    assert all(temperature > 1 for temperature in written["temperatures"].values())
    for name in RATINGS:
        before, after = written["fitted"][name]["nll"]
        assert after < before


@pytest.mark.parametrize(
    ("scores", "limit"),
    [
        # All of them low, whatever the image: a half of each would be nearer, which only an endless heat would make.
        ((0.001, 0.001), "10 (the highest: no temperature makes these scores fit)"),
        ((0.4, 0.6), "0.1 (the lowest: these labels leave no doubt; use it only with many more)"),
    ],
)
def test_scores_that_no_temperature_fits_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: tuple[float, float], limit: str
) -> None:
    records = [record(number, rating=dict.fromkeys(RATINGS, scores[number % 2])) for number in range(96)]
    write(tmp_path / "p1.jsonl", records)
    rows = "".join(f"{number:064x},{'general' if number % 2 else 'explicit'}\n" for number in range(96))
    (tmp_path / "labels.csv").write_text("sha256,rating\n" + rows)
    files = ["--labels", f"{tmp_path}/labels.csv", "--p1", f"{tmp_path}/p1.jsonl", "--out", f"{tmp_path}/c.yaml"]
    assert main(["models", "calibrate", *files, "--model", "tiny"]) == 0
    told = capsys.readouterr().out
    assert f"general: temperature {limit}" in told
    assert "sensitive: left as it is" in told


def test_calibrated_records_are_taken_by_the_models_own_scores(tmp_path: Path) -> None:
    plain = calibrate(request(tmp_path))
    known: dict[str, Any] = {"digest": "d", "temperatures": {}, "rating": None}
    records = [record(number) for number in range(96)]
    for each in records:
        each["wd14"]["calibration"] = known | {"rating": each["wd14"]["rating"]}
        each["wd14"]["rating"] = dict.fromkeys(RATINGS, 0.5)
    assert calibrate(request(tmp_path, records)).fits == plain.fits


def test_a_message_of_several_images_names_none(tmp_path: Path) -> None:
    asked = request(tmp_path)
    labels(asked.labels, column="message_link")
    records = [record(number) for number in range(96)]
    records[1]["messages"] = [{"message_link": "https://example.org/0"}, {"message_link": "https://example.org/1"}]
    summary = calibrate(CalibrateRequest(
        labels=asked.labels, sources=(write(tmp_path / "p1.jsonl", records),), model="tiny", out=asked.out
    ))  # fmt: skip
    assert (summary.used, summary.missing) == (95, 1)


def test_an_image_that_is_named_twice_is_one_label(tmp_path: Path) -> None:
    asked = request(tmp_path)
    records = [record(number) for number in range(96)]
    records[5]["messages"].append({"message_link": "https://example.org/again"})
    write(tmp_path / "p1.jsonl", records)
    plain = calibrate(asked)
    rows = [f"{number:064x},,{RATINGS[number % 4]}" for number in range(96)]
    said = f"sha256,message_link,rating\n{chr(10).join(rows)}\n,https://example.org/again,"
    asked.labels.write_text(f"{said}{RATINGS[1]}\n")
    assert calibrate(asked) == plain
    asked.labels.write_text(f"{said}explicit\n")
    with pytest.raises(InputError, match=r"line 98: \S+/again is explicit here and sensitive in line 7"):
        calibrate(asked)


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        ([record(number) for number in range(49)], "49 of its 96 labels have scores of tiny; 50 are needed"),
        ([record(number, model="other") for number in range(96)], r"0 of its 96 labels.*\n.*of other: .*--model"),
        ([record(number, revision=f"r{number % 2}") for number in range(96)], "2 revisions of tiny: r0, r1"),
        ([record(number, rating=dict.fromkeys(RATINGS, 0.0)) for number in range(96)], "nothing can be fitted"),
        ([{"row": "x"}, {"sha256": 5}], "line 2: is no p1 record"),
        ([], "0 of its 96 labels"),
    ],
)
def test_what_cannot_be_fitted_is_told(tmp_path: Path, records: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        calibrate(request(tmp_path, records))
    assert not (tmp_path / "calibration.yaml").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sha256,label\n", "no columns of labels"),
        ("rating\nexplicit\n", "no columns of labels"),
        ("sha256,rating\naa,cute\n", "line 2: image 'aa', rating 'cute'"),
        ("sha256,rating\n,explicit\n", "line 2"),
        ("sha256,rating\naa\n", "line 2"),
        ("sha256,rating\naa,explicit\nbb,general\nAA,general\n", "line 4: aa is general here and explicit in line 2"),
        ("sha256,rating\n\xff,general\n", "is no CSV"),
        ('sha256,rating\n"' + "x" * 200_000 + "\n", "is no CSV"),
        ("", "no columns"),
    ],
)
def test_labels_that_are_none_are_told_by_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=complaint):
        read_labels(tmp_path / "labels.csv")


def test_an_image_labelled_twice_alike_counts_once(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("sha256,rating\naa,Explicit\naa,explicit\n")
    assert len(read_labels(tmp_path / "labels.csv")) == 1


def test_a_day_without_p1_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    labels(tmp_path / "labels.csv")
    assert main(["models", "calibrate", "--labels", "labels.csv", "--date", DATE]) == 2
    assert f"p1_{DATE}.jsonl" in capsys.readouterr().err
    write(tmp_path / "p1.jsonl", [])
    clash = ["models", "calibrate", "--labels", "labels.csv", "--p1", "p1.jsonl", "--out", "p1.jsonl"]
    assert main(clash) == 2
    assert "--out" in capsys.readouterr().err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SampleServer]:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        png = BytesIO()
        Image.new("RGB", (64, 64), (60 * number, 40, 200 - 50 * number)).save(png, format="PNG")
        (folder / f"{number}.png").write_bytes(png.getvalue())
    with SampleServer(folder) as running:
        yield running


def test_calibrated_ratings_reach_the_records_which_say_so(tmp_path: Path, server: SampleServer) -> None:
    build(tmp_path / "models" / "tiny")
    day = RealDay(tmp_path / "day", server, tmp_path / "models")
    index = day.tree / "p0" / f"p0_{DATE}.csv"
    index.parent.mkdir(parents=True)
    index.write_text("url\n" + "".join(f"{server.base_url}/{number}.png\n" for number in range(4)))
    day.split(1)
    assert "calibrated" not in day.tag("--model", "tiny").stdout
    plain = day.records("p1")
    calibration = {"model": "tiny", "revision": plain[0]["wd14"]["revision"]}
    calibration["temperatures"] = dict(zip(RATINGS, (2.0, 1.0, 0.5, 3.0), strict=True))
    (day.root / "mine.yaml").write_text(yaml.safe_dump(calibration))
    told = day.tag("--model", "tiny", "--calibration", "mine.yaml", "--resume").stdout
    assert "(tiny on cpu, fp32; calibrated by mine.yaml)" in told
    for before, after in zip(plain, day.records("p1"), strict=True):
        raw, wd14 = before["wd14"]["rating"], after["wd14"]
        assert wd14["rating"] == {name: cooled(raw[name], calibration["temperatures"][name]) for name in RATINGS}
        assert wd14["calibration"]["rating"] == raw
        assert wd14["calibration"]["temperatures"] == calibration["temperatures"]
        assert len(wd14["calibration"]["digest"]) == 64
        assert wd14["general_raw"] == before["wd14"]["general_raw"]
    assert day.metrics("p1")["settings"]["calibration"] == "mine.yaml"
    calibration["revision"] = "another"
    (day.root / "mine.yaml").write_text(yaml.safe_dump(calibration))
    told = day.tag("--model", "tiny", "--calibration", "mine.yaml", code=2).stderr
    assert "mine.yaml: is of tiny another, the tagger is tiny sha256-" in told
