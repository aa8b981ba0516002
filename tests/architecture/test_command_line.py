"""`modbot --help` and every command's: quick, complete, and with an example that works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import click
import pytest

from modbot.cli.group import COMMANDS
from modbot.cli.main import RESUMABLE
from tests.click_lines import commands, parse

REPOSITORY = Path(__file__).parents[2]
EVERY = {" ".join(path): command for path, command in commands()}
LEAVES = {path: command for path, command in EVERY.items() if not isinstance(command, click.Group)}

HEAVY = {
    *("PIL", "aiohttp", "asyncio", "cv2", "huggingface_hub", "imagehash", "jsonschema_rs"),
    *("multiprocessing", "numpy", "onnxruntime", "rich", "yaml", "yarl"),
}
"""Libraries that a help text has no use for."""

HELP_ALL = """
import contextlib, io, json, sys
from modbot.cli.main import main
reached = {}
for path in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main([*path.split(), "--help"])
    assert code == 0 and "Usage: modbot" in said.getvalue(), path
    reached[path] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(reached))
"""

ENTRY_POINTS = {
    "scripts/split_index.py": "split",
    "scripts/run_p1_sharded.py": "tag",
    "scripts/run_p2_sharded.py": "analyze",
    "app/cli_wd14.py": "tag",
    "app/cli_scan.py": "scan",
    "app/cli_rules_ab.py": "ab",
    "app/cli_rules.py": "rules",
    "app/cli_report.py": "report",
    "app/cli_contract.py": "contract",
    "tools/export_uncertain.py": "uncertain",
}


def test_help_imports_nothing_heavy() -> None:
    said = subprocess.run(
        [sys.executable, "-c", HELP_ALL, json.dumps(["", *EVERY])], capture_output=True, text=True, check=True
    )
    reached = {path: HEAVY.intersection(modules) for path, modules in json.loads(said.stdout).items()}
    assert {path: modules for path, modules in reached.items() if modules} == {}


@pytest.mark.parametrize(("arguments", "seconds"), [(["--help"], 0.4), (["scan", "--help"], 0.5)])
def test_help_is_quick(arguments: list[str], seconds: float) -> None:
    def once() -> float:
        started = perf_counter()
        subprocess.run([sys.executable, "-m", "modbot.cli.main", *arguments], capture_output=True, check=True)
        return perf_counter() - started

    assert min(once() for _ in range(5)) < seconds


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_the_list_of_commands_tells_what_each_is_for(path: str) -> None:
    assert COMMANDS[path][1].endswith(".")
    assert EVERY[path].help


def test_the_commands_that_can_resume_are_known() -> None:
    assert {
        path for path, command in LEAVES.items() if any("--resume" in option.opts for option in command.params)
    } == RESUMABLE


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_every_flag_is_explained(path: str) -> None:
    silent = [
        option.opts[0]
        for option in LEAVES[path].params
        if isinstance(option, click.Option) and not (option.help or option.hidden)
    ]
    assert silent == []


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_every_command_has_an_example_that_click_takes(path: str) -> None:
    examples = re.findall(r"modbot ([^\n]+)", LEAVES[path].epilog or "")
    assert examples, "no example in the epilog"
    for example in examples:
        context = parse(shlex.split(example))
        assert context.command_path == f"modbot {path}"


@pytest.mark.parametrize(("file", "command"), ENTRY_POINTS.items())
def test_the_runbooks_entry_points_decide_nothing(file: str, command: str) -> None:
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert text == f'from modbot.cli.main import run\n\nif __name__ == "__main__":\n    run("{command}")\n'
