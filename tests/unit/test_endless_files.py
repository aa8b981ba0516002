"""A file without end takes no memory, whatever it is named for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

READ = {
    "the rules": "from modbot.stages.rulebook import *; print(open_rulebook(Path('endless'), ModeRequest()).ruleset)",
    "the vocabulary": "from modbot.stages.configs import *; read_vocabulary(Path('endless'))",
    "the signals": "from modbot.stages.configs import *; read_signal_config(Path('endless'))",
    "the models": "from modbot.models.catalogue import *; read_models(Path('endless'))",
    "the calibration": "from modbot.models.calibration import *; read_calibration(Path('endless'))",
    "the lists": "from modbot.stages.hashlists import *; load_hashlists(Path('endless'))",
}


@pytest.mark.parametrize("code", READ.values(), ids=READ)
def test_a_file_without_end_is_refused(tmp_path: Path, code: str) -> None:
    (tmp_path / "endless").symlink_to("/dev/zero")
    limited = 'ulimit -v 2000000 && exec "$0" -c "$1"'
    ran = subprocess.run(
        ["/bin/bash", "-c", limited, sys.executable, code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "larger than" in ran.stderr
    assert "endless" in ran.stderr
