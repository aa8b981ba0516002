"""What tests of every kind share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from modbot.models import registry
from tests.counts import Count, counter, summary

REPOSITORY = Path(__file__).parents[1]

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("modbot", deadline=None)
settings.load_profile("modbot")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """MODELS_DIR with open_nsfw and NudeNet in it: fetched the first time, as a user's first run does."""
    folder = REPOSITORY / os.environ.get("MODELS_DIR", "models")
    registry.locate("open_nsfw", folder, kind="tagger")
    registry.locate("320n", folder, kind="detector")
    return folder


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Tells a line of what a test counted in the summary of the run."""
    assert isinstance(request.node, pytest.Item)
    return counter(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for stat in ("passed", "failed") for report in terminalreporter.getreports(stat)]
    lines = [*summary(report for report in reports if report.when == "call")]
    if lines:
        terminalreporter.section("counted")
        terminalreporter.write("".join(f"{line}\n" for line in lines))
