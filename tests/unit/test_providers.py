"""What is asked for, what starts, what runs: on stand-ins for builds of ONNX Runtime that are not here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pytest

from modbot.errors import ModelError
from modbot.models import providers
from modbot.models.providers import open_session
from tests.tiny_models import TAGS, write_model

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


class Build:
    """A build of ONNX Runtime that lists `listed` and of which only `working` start; all of them compute on the CPU.

    A provider that does not start makes the session fail (`raises`), or go on without it in silence.
    """

    def __init__(self, listed: list[str], working: set[str], *, raises: bool = False) -> None:
        self.listed = listed
        self.working = working
        self.raises = raises
        self.asked: list[list[tuple[str, dict[str, object]]]] = []
        self.batches: list[int] = []

    def session(self, path: Path, options: object, **asked: Any) -> SimpleNamespace:  # noqa: ANN401 - untyped library
        self.asked.append(asked["providers"])
        names = [name for name, _ in asked["providers"]]
        if self.raises and names[0] not in self.working:
            raise RuntimeError(f"{names[0]} has no driver\n  and more")
        real = ort.InferenceSession(path, options, providers=[CPU])

        def run(outputs: None, inputs: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
            self.batches.append(len(inputs["input"]))
            return real.run(outputs, inputs)

        return SimpleNamespace(
            get_providers=lambda: [name for name in names if name in self.working],
            get_inputs=real.get_inputs,
            get_outputs=real.get_outputs,
            run=run,
        )

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Build:
        stand_in = SimpleNamespace(
            get_available_providers=lambda: self.listed,
            InferenceSession=self.session,
            SessionOptions=ort.SessionOptions,
            GraphOptimizationLevel=ort.GraphOptimizationLevel,
        )
        monkeypatch.setattr(providers, "ort", stand_in)
        return self


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model.onnx", TAGS, size=128)
    return tmp_path / "model.onnx"


def test_cuda_runs_whole_batches_in_full_precision(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build([TENSORRT, CUDA, CPU], {CUDA, CPU}).install(monkeypatch)
    session = open_session(model, "cuda")
    assert (session.provider, session.precision, session.warnings) == ("cuda", "fp32", ())
    assert build.asked == [[(CUDA, {"use_tf32": 0}), (CPU, {})]]
    inputs = [np.full((128, 128, 3), i, np.float32) for i in range(5)]
    rows = session.run(inputs)
    assert build.batches == [5]
    assert [row.shape for row in rows] == [(len(TAGS),)] * 5
    assert np.allclose(rows, open_session(model, "cpu").run(inputs), atol=1e-6)
    assert build.batches == [5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("raises", [True, False])
def test_what_does_not_start_is_told_once_and_the_next_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, *, raises: bool
) -> None:
    build = Build([TENSORRT, CUDA, CPU], {CUDA, CPU}, raises=raises).install(monkeypatch)
    session = open_session(model, "tensorrt")
    assert session.provider == "cuda"
    (warning,) = session.warnings
    assert warning.startswith("tensorrt: ")
    assert warning.endswith("; going on with cuda")
    assert "\n" not in warning
    assert [[name for name, _ in chain] for chain in build.asked] == [[TENSORRT, CUDA, CPU], [CUDA, CPU]]


def test_auto_takes_the_gpu_where_it_works_and_says_so_where_it_does_not(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Build([TENSORRT, CUDA, CPU], {TENSORRT, CUDA, CPU}).install(monkeypatch)
    assert open_session(model, "auto").provider == "cuda"
    Build([CUDA, CPU], {CPU}).install(monkeypatch)
    session = open_session(model, "auto")
    assert session.provider == "cpu"
    assert len(session.warnings) == 1
    Build([CPU], {CPU}).install(monkeypatch)
    assert open_session(model, "auto").warnings == ()


def test_a_cpu_session_has_one_thread_that_does_not_spin(model: Path) -> None:
    options = open_session(model, "cpu").runtime.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        open_session(tmp_path / "nowhere.onnx", "cpu")
