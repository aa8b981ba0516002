"""What is asked for, what starts, what runs: on stand-ins for builds of ONNX Runtime that are not here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pytest

from modbot.errors import ModelError, SettingError
from modbot.models import providers
from modbot.models.execution import Execution
from modbot.models.gpu import Gpu
from modbot.models.providers import Session
from tests.tiny_models import TAGS, write_model

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
L40S = Gpu("NVIDIA L40S", 46068, 45500)


class Build:
    """A build of ONNX Runtime that lists `listed` and of which only `working` start; all of them compute on the CPU.

    A provider that does not start makes the session fail (`raises`), or go on without it in silence.
    """

    def __init__(self, listed: list[str], working: set[str], *, raises: bool = False) -> None:
        self.listed = listed
        self.working = working
        self.raises = raises
        self.asked: list[list[tuple[str, dict[str, object]]]] = []
        self.loaded: list[Path] = []

    def session(self, path: Path, options: object, **asked: Any) -> Any:  # noqa: ANN401 - untyped library
        names = [name if isinstance(name, str) else name[0] for name in asked["providers"]]
        real = ort.InferenceSession(path, options, providers=[CPU])
        if isinstance(asked["providers"][0], str):
            return real  # only its shape is asked for
        self.asked.append(asked["providers"])
        self.loaded.append(path)
        if self.raises and names[0] not in self.working:
            raise RuntimeError(
                f"/src/state.cc:729 void f(Options&, const Options&) {names[0]} has no driver\n  and more"
            )
        for key in ("trt_engine_cache_path", "cache_dir"):
            if folder := asked["providers"][0][1].get(key):
                (Path(folder) / "engine").write_text(names[0])

        return SimpleNamespace(
            get_providers=lambda: [name for name in names if name in self.working],
            get_inputs=real.get_inputs,
            get_outputs=real.get_outputs,
            run=real.run,
            io_binding=real.io_binding,
            run_with_iobinding=real.run_with_iobinding,
        )

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Build:
        stand_in = SimpleNamespace(
            get_available_providers=lambda: self.listed,
            InferenceSession=self.session,
            SessionOptions=ort.SessionOptions,
            GraphOptimizationLevel=ort.GraphOptimizationLevel,
            preload_dlls=lambda **_: sys.stdout.write("Failed to load libcudart.so"),
        )
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
        monkeypatch.setattr(providers, "ort", stand_in)
        monkeypatch.setattr(providers, "this_gpu", lambda: L40S)
        monkeypatch.setitem(providers._DEVICES, "cuda", "cpu")
        monkeypatch.setitem(providers._DEVICES, "tensorrt", "cpu")
        return self


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model.onnx", TAGS, size=128)
    return tmp_path / "model.onnx"


def open_session(model: Path, provider: str, **how: Any) -> Session:  # noqa: ANN401 - fields of Execution
    execution = Execution(provider=provider, cache_dir=model.parent / "cache", **how)
    return providers.open_session(model, execution, digest="ab" * 32)


def test_cuda_runs_in_full_precision_and_batches_by_the_gpu(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Build([TENSORRT, CUDA, CPU], {CUDA, CPU}).install(monkeypatch)
    session = open_session(model, "cuda")
    assert (session.provider, session.precision, session.warnings) == ("cuda", "fp32", ())
    assert (session.batch, session.lanes) == (64, 2)
    ((cuda, options), cpu) = build.asked[0]
    assert (cuda, options["use_tf32"], cpu) == (CUDA, 0, (CPU, {}))
    inputs = [np.full((128, 128, 3), i, np.float32) for i in range(5)]
    assert np.allclose(session.run(inputs), open_session(model, "cpu").run(inputs), atol=1e-6)
    assert open_session(model, "cuda", batch=7).batch == 7
    assert open_session(model, "cuda", most=16).batch == 16
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("raises", [True, False])
def test_what_does_not_start_is_told_once_and_the_next_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, *, raises: bool
) -> None:
    build = Build([TENSORRT, CUDA, CPU], {CUDA, CPU}, raises=raises).install(monkeypatch)
    session = open_session(model, "tensorrt")
    assert session.provider == "cuda"
    (warning,) = session.warnings
    said = f"{TENSORRT} has no driver and more" if raises else "it does not start here (driver or libraries missing)"
    assert warning == f"tensorrt: {said}; going on with cuda"
    assert "\n" not in warning
    assert [[name for name, _ in chain] for chain in build.asked] == [[TENSORRT, CUDA, CPU], [CUDA, CPU]]


@pytest.mark.parametrize(
    ("listed", "working", "runs"),
    [
        ([TENSORRT, CUDA, CPU], {TENSORRT, CUDA, CPU}, ("tensorrt", 0)),
        ([TENSORRT, CUDA, CPU], {CUDA, CPU}, ("cuda", 0)),  # TensorRT is an addition that most machines do not have
        ([TENSORRT, CUDA, CPU], {CPU}, ("cpu", 1)),
        ([OPENVINO, CPU], {OPENVINO, CPU}, ("openvino", 0)),
        ([OPENVINO, CPU], {CPU}, ("cpu", 1)),
        ([CPU], {CPU}, ("cpu", 0)),
    ],
)
def test_auto_takes_the_best_that_works_and_says_what_should_have(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: list[str],
    working: set[str],
    runs: tuple[str, int],
) -> None:
    Build(listed, working).install(monkeypatch)
    session = open_session(model, "auto")
    assert (session.provider, len(session.warnings)) == runs


def test_a_required_provider_that_does_not_start_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Build([TENSORRT, CUDA, CPU], {CUDA, CPU}).install(monkeypatch)
    assert open_session(model, "cuda", required=True).provider == "cuda"
    assert open_session(model, "auto", required=True).provider == "cuda"
    with pytest.raises(SettingError, match="--require-provider: tensorrt does not run here: tensorrt: ") as caught:
        open_session(model, "tensorrt", required=True)
    assert caught.value.exit_code == 2
    Build([CUDA, CPU], {CPU}).install(monkeypatch)
    with pytest.raises(SettingError, match="auto does not run here: cuda: "):
        open_session(model, "auto", required=True)


def test_tensorrt_is_told_its_batches_and_where_engines_are_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build([TENSORRT, CUDA, CPU], {TENSORRT, CUDA, CPU}).install(monkeypatch)
    assert open_session(model, "tensorrt").provider == "tensorrt"
    ((_, options), *_) = build.asked[0]
    assert options["trt_fp16_enable"] == 0
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert options["trt_profile_min_shapes"] == "input:1x128x128x3"
    assert options["trt_profile_opt_shapes"] == options["trt_profile_max_shapes"] == "input:64x128x128x3"
    (engine,) = (model.parent / "cache" / "trt").rglob("engine")
    assert "NVIDIA-L40S" in engine.parent.name
    assert open_session(model, "tensorrt", precision="fp16").precision == "fp16"
    ((_, options), *_) = build.asked[1]
    assert options["trt_fp16_enable"] == 1
    open_session(model, "tensorrt")
    ((_, options), *_) = build.asked[2]
    assert options["trt_engine_cache_path"] == str(engine.parent)


def test_openvino_keeps_its_blobs_and_full_precision(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build([OPENVINO, CPU], {OPENVINO, CPU}).install(monkeypatch)
    session = open_session(model, "openvino")
    assert (session.provider, session.batch, session.lanes) == ("openvino", 1, 1)
    assert build.asked[0][0][1]["precision"] == "FP32"
    assert len(list((model.parent / "cache" / "openvino").rglob("engine"))) == 1


def test_half_precision_on_cuda_runs_a_converted_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build([CUDA, CPU], {CUDA, CPU}).install(monkeypatch)
    session = open_session(model, "cuda", precision="fp16")
    assert (session.provider, session.precision) == ("cuda", "fp16")
    assert build.loaded[0].parent == model.parent / "cache" / "fp16"
    inputs = [np.full((128, 128, 3), 90, np.uint8)]
    assert np.allclose(session.run(inputs), open_session(model, "cpu").run(inputs), atol=5e-3)


@pytest.mark.parametrize("provider", ["cpu", "openvino", "auto", "cuda"])
def test_half_precision_is_refused_without_a_gpu(model: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    Build([CUDA, OPENVINO, CPU], {OPENVINO, CPU}).install(monkeypatch)
    with pytest.raises(SettingError, match="--precision: fp16 is for GPUs"):
        open_session(model, provider, precision="fp16")


def test_a_cpu_session_has_one_thread_that_does_not_spin(model: Path) -> None:
    options = open_session(model, "cpu").runtime.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_only_a_cpu_runs_what_was_rewritten_for_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = model.with_name("other.onnx")
    write_model(other, TAGS[:3], size=128)

    def opened(provider: str) -> Session:
        execution = Execution(provider=provider, cache_dir=model.parent / "cache")
        return providers.open_session(model, execution, digest="ab" * 32, on_cpu=lambda _: other.read_bytes())

    assert opened("cpu").outputs == (None, 3)
    build = Build([OPENVINO, CUDA, CPU], {OPENVINO, CUDA, CPU}).install(monkeypatch)
    assert opened("cuda").outputs == opened("openvino").outputs == (None, len(TAGS))
    build.working = {CPU}
    assert opened("cuda").outputs == (None, 3)


def test_a_model_of_another_input_type_is_refused(tmp_path: Path) -> None:
    parsed = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> half (float16[N, 8] x) => (float16[N, 8] y) { y = Sigmoid(x) }'
    )
    onnx.save(parsed, tmp_path / "half.onnx")
    with pytest.raises(ModelError, match=r"half\.onnx: takes tensor\(float16\); tensor\(float\) is needed"):
        open_session(tmp_path / "half.onnx", "cpu")


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        open_session(tmp_path / "nowhere.onnx", "cpu")
