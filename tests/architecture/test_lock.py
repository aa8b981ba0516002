"""The lock holds what pyproject.toml asks for, and the requirement files hold what the lock does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUNTIMES = {"requirements-cpu.txt": "cpu", "requirements-gpu.txt": "gpu", "requirements-gpu-cu12.txt": "gpu-cu12"}


def _pins(name: str) -> dict[str, set[str]]:
    """The versions that a file pins by package: more than one where Pythons differ."""
    pins: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==(\S+)", _text(name), re.MULTILINE):
        pins.setdefault(canonicalize_name(package), set()).add(version)
    return pins


def _text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "extras"),
    [("locks/dev.txt", ["cpu", "demo", "dev"]), *((name, [kind, "demo"]) for name, kind in RUNTIMES.items())],
)
def test_what_is_asked_for_is_pinned(name: str, extras: list[str]) -> None:
    asked = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    pins = _pins(name)
    for requirement in map(Requirement, asked):
        versions = pins.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement.name} is not in {name}: run `make lock`"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: run `make lock`"


@pytest.mark.parametrize("name", RUNTIMES)
def test_requirements_are_of_one_resolution_and_end_with_the_package(name: str) -> None:
    lock = _pins("locks/dev.txt")
    others = {package: versions for package, versions in _pins(name).items() if package != "onnxruntime-gpu"}
    assert {package: lock.get(package) for package in others} == others
    assert _text(name).endswith("\n-e .\n")
    assert ("onnxruntime" in others) == (name == "requirements-cpu.txt")


@pytest.mark.parametrize("name", ["locks/dev.txt", *RUNTIMES])
def test_no_host_is_named(name: str) -> None:
    assert "://" not in _text(name)
    assert "--index" not in _text(name)
