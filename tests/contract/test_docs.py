"""What the documents tell people to type is taken, what they list is complete, and where they point is something."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from modbot import settings
from samples.pictures import PHOTOGRAPHS
from tests.click_lines import parse

REPOSITORY = Path(__file__).parents[2]
READERS = (
    "README.md",
    "README.ja.md",
    "docs/operators-guide.md",
    "docs/operators-guide.ja.md",
    "docs/models.md",
    "CONTRIBUTING.md",
)
BINARY = {".png", ".jpg", ".gif", ".webp", ".onnx", ".npy", ".npz", ".fuzz"}

# In two parts, so that this file is not among those that hold one.
ABSOLUTE_HOME = re.compile(b"/(?:ro" + b"ot|ho" + rb"me/\w+|Us" + rb"ers/\w+)/")


def _text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def _typed(name: str) -> Iterator[str]:
    """The lines of a document's bash blocks, one a command."""
    for block in re.findall(r"```bash\n(.*?)```", _text(name), re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("name", READERS)
def test_what_is_told_to_be_typed_is_taken(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", _text("Makefile"), re.MULTILINE))
    lines = list(_typed(name))
    assert lines
    for line in lines:
        match shlex.split(line, comments=True):
            case []:
                pass
            case ["make", target]:
                assert target in targets, line
            case ["modbot", *arguments]:
                try:
                    parse(arguments)
                except click.UsageError as error:
                    pytest.fail(f"{line}: {error.format_message()}")
            case ["pip", "install", "-r", file]:
                assert _text(file).endswith("\n-e .\n"), line
            case _:
                pytest.fail(f"{line}: nobody checks this")


@pytest.mark.parametrize("name", READERS)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", _text(name))
    here = (REPOSITORY / name).parent
    assert [link for link in links if "://" not in link and not (here / link).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "README.ja.md", ".env.example"])
def test_every_setting_is_told(name: str) -> None:
    text = _text(name)
    assert [variable for variable in settings._FIELDS if not re.search(rf"\b{variable}\b", text)] == []


def test_every_photograph_has_its_licence() -> None:
    text = _text("docs/licences.md")
    rows = [f"| `{photo.name}` | `{photo.package}` | {photo.licence} | {photo.credit} |" for photo in PHOTOGRAPHS]
    assert [row for row in rows if row not in text] == []


def test_files_end_with_a_line_and_name_nobodys_home() -> None:
    listed = subprocess.run(["/usr/bin/env", "git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True)
    files = [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]
    texts = {file: file.read_bytes() for file in files if file.is_file() and file.suffix not in BINARY}
    assert len(texts) > 50
    assert [file for file, data in texts.items() if data and not data.endswith(b"\n")] == []
    assert [file for file, data in texts.items() if ABSOLUTE_HOME.search(data)] == []
