"""Sessions of ONNX Runtime: which execution provider is asked for, which one runs, and how a batch is run on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray

from modbot.errors import ModelError, SettingError

Array: TypeAlias = NDArray[np.float32]

_NAMES = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_CHAINS = {
    "cpu": ("cpu",),
    "openvino": ("openvino", "cpu"),
    "cuda": ("cuda", "cpu"),
    "tensorrt": ("tensorrt", "cuda", "cpu"),
}
# Full precision everywhere: left to themselves, CUDA multiplies in TF32 and OpenVINO in what the processor is best at.
_OPTIONS: dict[str, dict[str, object]] = {
    "cpu": {},
    "openvino": {"device_type": "CPU", "precision": "FP32"},
    "cuda": {"use_tf32": 0},
    "tensorrt": {"trt_fp16_enable": 0, "trt_int8_enable": 0},
}
_FATAL = 4

# ONNX Runtime reports a provider that does not start on stderr as well; `Session.warnings` says it once.
ort.set_default_logger_severity(_FATAL)


@dataclass(frozen=True)
class Session:
    """A model that is ready to run.

    `provider` is what runs (`cpu`, `openvino`, `cuda`, `tensorrt`), whatever was asked for; `warnings` has one line
    for each provider that was asked for and did not start. `inputs` and `outputs` are the shapes of the model's one
    input and one output; a dimension that is left open is None.
    """

    runtime: ort.InferenceSession
    provider: str
    warnings: tuple[str, ...]
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    precision: str = "fp32"

    def run(self, batch: Sequence[Array]) -> list[Array]:
        """The model's output for each input, without the batch dimension.

        On a CPU they run one by one: the kernels that suit a single row and those that suit many round differently, so
        that a score would depend on its neighbours; and a CPU gains nothing from a batch.
        """
        if not batch:
            return []
        if self.provider in {"cpu", "openvino"} or self.inputs[0] is not None:
            return [self._run(one[np.newaxis])[0] for one in batch]
        return list(self._run(np.stack(batch)))

    def _run(self, stacked: Array) -> Array:
        (output,) = self.runtime.run(None, {self.runtime.get_inputs()[0].name: stacked})
        return np.asarray(output, dtype=np.float32)


def open_session(path: Path, provider: str) -> Session:
    """Loads the model at `path` for `provider`, or for the next one that works.

    Raises:
        SettingError: no such provider.
        ModelError: the file is no model, or does not have one input and one output.
    """
    warnings: list[str] = []
    chain = _chain(provider)
    for i, name in enumerate(chain):
        runtime = _start(path, chain[i:], warnings)
        if runtime is not None:
            return _session(path, runtime, name, warnings)
    raise ModelError("cannot be loaded: " + warnings[-1], where=str(path), remedy="Fetch it again: modbot models get.")


def _chain(provider: str) -> tuple[str, ...]:
    """The providers to try, in order. `auto`: CUDA where this build of ONNX Runtime has it, then the CPU."""
    if provider == "auto":
        return _CHAINS["cuda" if _NAMES["cuda"] in ort.get_available_providers() else "cpu"]
    if provider not in _CHAINS:
        raise SettingError(
            f"there is no provider {provider!r}", where="--provider", remedy=f"Use auto, {', '.join(_CHAINS)}."
        )
    return _CHAINS[provider]


def _start(path: Path, chain: tuple[str, ...], warnings: list[str]) -> ort.InferenceSession | None:
    """A session that runs on the chain's first provider, or None and a line in `warnings`.

    The others are for the operators that the first does not know.

    That ONNX Runtime lists a provider says only that it was built with it: what counts is what the session runs on.
    """
    name = chain[0]
    available = ort.get_available_providers()
    if _NAMES[name] not in available:
        warnings.append(f"{name}: this installation of ONNX Runtime does not have it")
        return None
    providers = [(_NAMES[each], _OPTIONS[each]) for each in chain if _NAMES[each] in available]
    try:
        runtime = ort.InferenceSession(path, _session_options(), providers=providers, enable_fallback=0)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own exceptions share no base but this
        warnings.append(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")
        return None
    if _NAMES[name] not in runtime.get_providers():
        warnings.append(f"{name}: it does not start here (driver or libraries missing)")
        return None
    return runtime


def _session_options() -> ort.SessionOptions:
    """One thread that does not spin: the work is spread over processes, and a waiting thread must not burn a core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL
    return options


def _session(path: Path, runtime: ort.InferenceSession, name: str, warnings: list[str]) -> Session:
    inputs, outputs = runtime.get_inputs(), runtime.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed", where=str(path), remedy=None
        )
    said = tuple(f"{line}; going on with {name}" for line in warnings)
    return Session(runtime, name, said, _shape(inputs[0]), _shape(outputs[0]))


def _shape(node: Any) -> tuple[int | None, ...]:  # noqa: ANN401 - ONNX Runtime is untyped
    return tuple(size if isinstance(size, int) else None for size in node.shape)
