"""The list of models: what it says is checked, and what is wrong is told by file, model and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modbot.errors import InputError
from modbot.models.catalogue import BUILT_IN, MODELS_CONFIG, Hub, Import, known_models, read_models

REPOSITORY = Path(__file__).parents[2]
DIGEST = "0" * 64
ENTRY = {
    "kind": "tagger",
    "source": {"from": "hub", "repo": "somebody/something", "revision": "main"},
    "files": {"model.onnx": DIGEST, "selected_tags.csv": None},
    "input_size": 448,
    "licence": "MIT",
}


def write(path: Path, entry: dict[str, Any], name: str = "mine") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"models": {name: entry}}))
    return path


def test_the_list_holds_what_the_documents_promise() -> None:
    models = read_models(BUILT_IN)
    family = {f"wd-{name}-tagger-v3" for name in ("eva02-large", "vit-large", "vit", "swinv2", "convnext")}
    assert set(models) == family | {"open_nsfw", "320n", "640m"}
    for name in family:
        known = models[name]
        assert isinstance(known.source, Hub)
        assert known.source.repo == f"SmilingWolf/{name}"
        assert known.pinned == known.source.revision
        assert (known.licence, known.input_size, known.tested) == ("Apache-2.0", 448, True)
    assert isinstance(models["640m"].source, Import)
    assert not models["640m"].tested
    assert models["320n"].licence == models["640m"].licence == "AGPL-3.0"


def test_the_repositorys_file_is_the_packages() -> None:
    assert (REPOSITORY / MODELS_CONFIG).samefile(BUILT_IN)


def test_a_file_in_the_working_directory_adds_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert known_models() == read_models(BUILT_IN)
    write(MODELS_CONFIG, ENTRY)
    assert known_models().keys() == {*read_models(BUILT_IN), "mine"}
    assert known_models()["mine"].pinned is None  # a branch says nothing about files that are here
    write(MODELS_CONFIG, ENTRY | {"thresholds": {"general": 0.5}}, "wd-vit-tagger-v3")
    replaced = known_models()["wd-vit-tagger-v3"]
    assert (replaced.thresholds.general, replaced.thresholds.character) == (0.5, 0.85)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda entry: entry.pop("licence"), "licence"),
        (lambda entry: entry.update(kind="judge"), "kind"),
        (lambda entry: entry.update(colour="red"), "colour"),
        (lambda entry: entry.update(name="other"), "name"),
        (lambda entry: entry.update(input_size=0), "input_size"),
        (lambda entry: entry.update(thresholds={"general": 2}), "thresholds.general"),
        (lambda entry: entry["source"].update({"from": "ftp"}), "source"),
        (lambda entry: entry["source"].update(repo="../x"), "source.repo"),
        (lambda entry: entry["source"].update(revision="a b"), "source.revision"),
        (lambda entry: entry["files"].update({"model.onnx": "abc"}), "files.model.onnx"),
        (lambda entry: entry["files"].update({"../x": None}), "files"),
        (lambda entry: entry["files"].pop("selected_tags.csv"), "files"),
        (lambda entry: entry.update(files=None), "files"),
        (
            lambda entry: entry.update(
                source={"from": "wheel", "package": "x", "version": "1.0", "members": {"model.onnx": "x"}}
            ),
            "source.members",
        ),
    ],
)
def test_what_is_wrong_is_told_by_file_model_and_key(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], key: str
) -> None:
    entry = yaml.safe_load(yaml.safe_dump(ENTRY))
    change(entry)
    path = write(tmp_path / "configs" / "models.yaml", entry)
    with pytest.raises(InputError) as caught:
        read_models(path)
    assert f"{path}: models.mine" in str(caught.value)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models: [", "not YAML"),
        ("[1, 2]", "Expected `object`"),
        ("things: {}", "the one key `models`"),
        ("models: [a]", "Expected `object`"),
        ("models: {../x: {}}", "cannot be a model's name"),
        ("models: {x: " + "[" * 5000 + "]" * 5000 + "}", "not YAML"),
        ("models: {x: !!bool maybe}", "not YAML"),
        ("models: {x: !!timestamp now}", "not YAML"),
        ("models: {x: !!int ''}", "not YAML"),
        ("models: {x: 1" + ":1" * 300 + ".5}", "not YAML"),
        ("#" * 1024**2 + "\n", "larger than 1 MiB"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        read_models(tmp_path / "models.yaml")
    assert str(tmp_path / "models.yaml") in str(caught.value)


def test_an_empty_list_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models:\n")
    assert read_models(tmp_path / "models.yaml") == {}
