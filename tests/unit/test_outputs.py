from __future__ import annotations

from pathlib import Path

import pytest

from modbot.errors import SettingError
from modbot.files.outputs import refuse_clashes, same_file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("x")
    Path("linked").symlink_to("in")
    Path("hard").hardlink_to("in")
    Path("folder").mkdir()
    Path("aside").symlink_to("folder")


@pytest.mark.parametrize("out", ["in", "./in", "folder/../in", "linked", "hard", "aside/../in"])
def test_an_output_that_is_an_input_is_refused_by_any_of_its_names(out: str) -> None:
    with pytest.raises(SettingError, match="is what --analysis reads") as refused:
        refuse_clashes([("--analysis", Path("in"))], [("--out", Path(out))])
    assert refused.value.where == "--out"


@pytest.mark.parametrize("second", ["folder/new", "aside/new", "./folder/new"])
def test_two_outputs_of_one_path_are_refused_whether_it_is_there_or_not(second: str) -> None:
    outputs = [("--out", Path("folder/new")), ("--metrics", Path(second))]
    with pytest.raises(SettingError, match="is what --out writes"):
        refuse_clashes([], outputs)
    Path("folder/new").write_text("x")
    with pytest.raises(SettingError, match="is what --out writes"):
        refuse_clashes([], outputs)


@pytest.mark.parametrize(("out", "said"), [("folder", "is a folder"), ("/dev/null", "is no regular file")])
def test_an_output_that_is_no_file_is_refused(out: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        refuse_clashes([], [("--out", Path(out))])


def test_outputs_of_their_own_are_taken() -> None:
    Path("old").write_text("x")
    inputs = [("--rulesA", Path("in")), ("--rulesB", Path("in"))]
    refuse_clashes(inputs, [("--out", Path("new")), ("--metrics", Path("old")), ("--metrics", Path("./old"))])


def test_one_file_has_several_names() -> None:
    assert same_file(Path("in"), Path("linked"))
    assert same_file(Path("folder/none"), Path("aside/none"))
    assert not same_file(Path("in"), Path("new"))
