"""Which execution provider of ONNX Runtime is asked for, which one runs, and with which options."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types

from modbot.errors import ModbotError, ModelError, SettingError
from modbot.models import engines
from modbot.models.execution import Execution
from modbot.models.gpu import Gpu, default_batch, this_gpu
from modbot.models.sessions import Array, Session

__all__ = ["Array", "Rewrite", "Session", "check", "open_session"]

Rewrite = Callable[[Path], bytes]
"""Reads a model's file and gives another model, serialised, that gives the same numbers."""

_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""From the fastest: `auto` takes the first that works."""

_CHAINS = {
    "cpu": ("cpu",),
    "openvino": ("openvino", "cpu"),
    "cuda": ("cuda", "cpu"),
    "tensorrt": ("tensorrt", "cuda", "cpu"),
}
_ON_GPU = {"cuda", "tensorrt"}
_DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}
"""Where the buffers of a batch are bound."""

_FLOAT32 = "tensor(float)"
_NOT_BUILT = "this installation of ONNX Runtime does not have it"
_FATAL = 4
_SOURCE = re.compile(r"^/\S+:\d+ .*?\) ")
"""Where in ONNX Runtime's source an error comes from, with which some messages begin."""

# ONNX Runtime reports a provider that does not start on stderr as well; `Session.warnings` says it once.
ort.set_default_logger_severity(_FATAL)


def check(execution: Execution) -> None:
    """Refuses what this installation cannot do, before anything is begun; whether a GPU works, opening tells.

    Raises:
        SettingError: no such provider, or one that is required is not installed, or none that computes in fp16.
    """
    available = ort.get_available_providers()
    missing = f"{execution.provider}: {_NOT_BUILT}"
    chain = [name for name in _chain(execution.provider) if _NAMES[name] in available]
    if execution.precision == "fp16" and not _ON_GPU & set(chain):
        raise _unmet("--precision", execution, [] if execution.provider in {"cpu", "openvino"} else [missing])
    if execution.required and execution.provider not in {"auto", *chain}:
        raise _unmet("--require-provider", execution, [missing])


def open_session(path: Path, execution: Execution, *, digest: str, on_cpu: Rewrite | None = None) -> Session:
    """Loads the model at `path` for the provider that is asked for, or for the next one that works.

    `digest`: its sha256, which what is kept of it is named after. `on_cpu`: what the provider `cpu` runs in its place.

    Raises:
        SettingError: no such provider, or one that is required does not start, or it cannot compute in this precision.
        ModelError: the file is no model, or does not have one input and one output.
        StorageError: CACHE_DIR cannot be written.
    """
    chain = _chain(execution.provider)
    if execution.precision == "fp16":
        chain = tuple(name for name in chain if name in _ON_GPU)
    opening = _Opening(path, execution, digest, on_cpu)
    for name in chain:
        # `auto` takes what is there: TensorRT is an addition that most machines do not have.
        silent = execution.provider == "auto" and name == "tensorrt"
        runtime = opening.start(name, silent=silent)
        if execution.required and opening.failures:
            raise _unmet("--require-provider", execution, opening.failures)
        if runtime is not None:
            return opening.session(runtime, name)
    if execution.precision == "fp16":
        raise _unmet("--precision", execution, opening.failures)
    raise ModelError(
        f"cannot be loaded: {opening.failures[-1]}",
        where=str(path),
        remedy="Fetch it again with modbot models get, or import it again.",
    )


def _chain(provider: str) -> tuple[str, ...]:
    """The providers to try, in order. `auto`: all that this build of ONNX Runtime has."""
    if provider == "auto":
        available = ort.get_available_providers()
        return tuple(name for name, full_name in _NAMES.items() if full_name in available)
    if provider not in _CHAINS:
        raise SettingError(
            f"there is no provider {provider!r}", where="--provider", remedy=f"Use auto, {', '.join(_CHAINS)}."
        )
    return _CHAINS[provider]


def _unmet(flag: str, execution: Execution, failures: Sequence[str]) -> SettingError:
    """The error where what was asked for cannot be had, and the next best is not wanted."""
    if flag == "--precision":
        what = f"fp16 is for GPUs, and none works here ({'; '.join(failures) or execution.provider})"
        return SettingError(what, where=flag, remedy="Use --precision fp32, or mend the GPU's driver and libraries.")
    remedy = "Mend it, or leave out --require-provider to go on with the next one that works."
    return SettingError(f"{execution.provider} does not run here: {failures[0]}", where=flag, remedy=remedy)


class _Opening:
    """The opening of one model: what failed so far, and what is asked only once."""

    def __init__(self, path: Path, execution: Execution, digest: str, on_cpu: Rewrite | None) -> None:
        self._path = path
        self._execution = execution
        self._digest = digest
        self._on_cpu = on_cpu
        self._gpu: Gpu | None = None
        self._batch = execution.batch or 1
        self.failures: list[str] = []

    def start(self, name: str, *, silent: bool) -> ort.InferenceSession | None:
        """A session that runs on the provider, or None and a line in `failures`.

        Others stand behind it for the operators that it does not know.

        That ONNX Runtime lists a provider says only that it was built with it: what counts is what the session runs on.
        """
        available = ort.get_available_providers()
        if _NAMES[name] not in available:
            self._failed(f"{name}: {_NOT_BUILT}", silent=silent)
            return None
        self._ask_gpu(name)
        rest = [each for each in _CHAINS[name][1:] if _NAMES[each] in available]
        try:
            with self._prepared(name) as (model, options):
                providers = [(_NAMES[name], options), *((_NAMES[each], self._options(each)) for each in rest)]
                runtime = ort.InferenceSession(model, _session_options(), providers=providers, enable_fallback=0)
        except ModbotError:
            raise
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own exceptions share no base but this
            what = _SOURCE.sub("", " ".join(str(error).split())) or type(error).__name__
            self._failed(f"{name}: {what}", silent=silent)
            return None
        if _NAMES[name] not in runtime.get_providers():
            self._failed(f"{name}: it does not start here (driver or libraries missing)", silent=silent)
            return None
        return runtime

    def session(self, runtime: ort.InferenceSession, name: str) -> Session:
        inputs, outputs = runtime.get_inputs(), runtime.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed", where=str(self._path)
            )
        if inputs[0].type != _FLOAT32:
            raise ModelError(f"takes {inputs[0].type}; {_FLOAT32} is needed", where=str(self._path))
        return Session(
            runtime,
            name,
            tuple(f"{line}; going on with {name}" for line in self.failures),
            _shape(inputs[0]),
            _shape(outputs[0]),
            precision=self._execution.precision,
            batch=self._batch if name in _ON_GPU else self._execution.batch or 1,
            device=_DEVICES.get(name),
        )

    def _failed(self, what: str, *, silent: bool) -> None:
        if not silent:
            self.failures.append(what)

    def _ask_gpu(self, name: str) -> None:
        """Decides the batch before a GPU's provider starts: TensorRT builds its engine for it."""
        if name not in _ON_GPU:
            return
        # TensorRT multiplies in TF32 where nobody keeps it from that, and has no option for it. It is read when its
        # libraries are loaded.
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
        with redirect_stdout(io.StringIO()):  # it prints which libraries it does not find
            ort.preload_dlls(directory="")
        if self._gpu is None:
            self._gpu = this_gpu()
            self._batch = self._execution.batch or default_batch(self._gpu, most=self._execution.most)

    @contextmanager
    def _prepared(self, name: str) -> Iterator[tuple[Path | bytes, dict[str, object]]]:
        """The model to load and the provider's options; what it builds is kept when the block ends well."""
        model: Path | bytes = self._path
        options = self._options(name)
        cache_dir = self._execution.cache_dir
        with ExitStack() as stack:
            if name == "tensorrt":
                precision = self._execution.precision
                folder = engines.tensorrt_engines(
                    cache_dir, self._digest, gpu=self._gpu, precision=precision, batch=self._batch
                )
                options |= self._profile() | _engine_cache(stack.enter_context(engines.building(folder)))
            elif name == "openvino":
                folder = engines.openvino_blobs(cache_dir, self._digest)
                options["cache_dir"] = str(stack.enter_context(engines.building(folder)))
            elif name == "cuda" and self._execution.precision == "fp16":
                model = engines.half_precision(self._path, cache_dir, self._digest)
            elif name == "cpu" and self._on_cpu is not None:
                model = self._on_cpu(self._path)
            yield model, options

    def _options(self, name: str) -> dict[str, object]:
        """Full precision unless asked otherwise: left to themselves, CUDA multiplies in TF32, OpenVINO in bfloat16."""
        half = self._execution.precision == "fp16"
        options: dict[str, dict[str, object]] = {
            "cpu": {},
            "openvino": {"device_type": "CPU", "precision": "FP32", "num_of_threads": 1},
            "cuda": {
                "use_tf32": 0,
                # A search for each size of a batch costs more than it gains, and memory doubled at each step is lost.
                "cudnn_conv_algo_search": "HEURISTIC",
                "arena_extend_strategy": "kSameAsRequested",
            },
            "tensorrt": {"trt_fp16_enable": int(half), "trt_int8_enable": 0},
        }
        return dict(options[name])

    def _profile(self) -> dict[str, object]:
        """TensorRT's range of batches, so that it builds one engine, and builds it now."""
        options = _session_options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        (entry,) = ort.InferenceSession(self._path, options, providers=[_NAMES["cpu"]]).get_inputs()
        batch, *sides = _shape(entry)
        if batch is not None or None in sides:
            return {}
        one, most = (f"{entry.name}:{'x'.join(map(str, (count, *sides)))}" for count in (1, self._batch))
        return {"trt_profile_min_shapes": one, "trt_profile_opt_shapes": most, "trt_profile_max_shapes": most}


def _engine_cache(folder: Path) -> dict[str, object]:
    return {
        "trt_engine_cache_enable": 1,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": 1,
        "trt_timing_cache_path": str(folder),
    }


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


def _shape(node: Any) -> tuple[int | None, ...]:  # noqa: ANN401 - ONNX Runtime is untyped
    return tuple(size if isinstance(size, int) else None for size in node.shape)
