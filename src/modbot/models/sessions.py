"""How batches run on a model that is loaded: one by one on a CPU, through bound buffers on a GPU."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray

from modbot.errors import DeviceError

Array: TypeAlias = NDArray[np.float32]
Input: TypeAlias = NDArray[Any]
"""One input of a model, in whatever type it comes; it is float32 when the model gets it."""

LANES = 2
"""Batches on their way to a GPU at once: one runs while the next is put together and copied over."""

FAILURES = 4
"""So many images one after the other that fail, each by itself, are not at fault: all have the same shape and type."""

_OUT_OF_MEMORY = (
    "out of memory",
    "out_of_memory",
    "failed to allocate memory",
    "status_alloc_failed",
    "device_allocation_failed",
    "bad_alloc",
    "smaller than requested bytes",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the device's memory is used up: ONNX Runtime has no type of its own for it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def stacked(batch: Sequence[Input]) -> Array:
    """The batch as a model takes it on a CPU: one array, float32."""
    return np.stack(batch, dtype=np.float32)


class Session:
    """A model that is ready to run; safe to use in as many threads at once as it has `lanes`.

    `provider` is what runs (`cpu`, `openvino`, `cuda`, `tensorrt`), whatever was asked for; `warnings` has one line
    for each provider that was asked for and did not start. `inputs` and `outputs` are the shapes of the model's one
    input and one output; a dimension that is left open is None. `batch` is how many images go in one batch: it is
    halved when the device's memory does not hold them, which `halved` counts. `device`: where bound buffers lie
    (`cuda`); None: none are bound. `busy_seconds` is how long the device was at work, copies not counted.
    """

    def __init__(
        self,
        runtime: ort.InferenceSession,
        provider: str,
        warnings: tuple[str, ...],
        inputs: tuple[int | None, ...],
        outputs: tuple[int | None, ...],
        *,
        precision: str = "fp32",
        batch: int = 1,
        device: str | None = None,
    ) -> None:
        self.runtime = runtime
        self.provider = provider
        self.warnings = warnings
        self.inputs = inputs
        self.outputs = outputs
        self.precision = precision
        self.batch = batch
        self.halved = 0
        self.busy_seconds = 0.0
        self._failures = 0
        self._input = runtime.get_inputs()[0].name
        # On a CPU: the kernels that suit a single row and those that suit many round differently, so that a score would
        # depend on its neighbours; and a CPU gains nothing from a batch.
        self._singly = provider in {"cpu", "openvino"} or inputs[0] is not None
        self._running = threading.Lock()
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        self.lanes = LANES if device and not self._singly else 1
        if device and not self._singly:
            for _ in range(self.lanes):
                self._lanes.put(_Lane(runtime, device))
        self._bound = device is not None and not self._singly

    def run(self, batch: Sequence[Input]) -> list[Array]:
        """The model's output for each input, without the batch dimension; of any number of inputs.

        Raises:
            DeviceError: it failed for `FAILURES` single images one after the other: it is of no more use here.
            Exception: what the runtime raised for this batch; try again image by image.
        """
        rows: list[Array] = []
        while len(rows) < len(batch):
            size = 1 if self._singly else self.batch
            some = batch[len(rows) : len(rows) + size]
            # Bound buffers have the room of a whole batch, however few images there are.
            room = size if self._bound else len(some)
            try:
                rows += self._one_batch(some, room)
            except Exception as error:
                if room > 1 and is_out_of_memory(error):
                    self._halve(room)
                    continue
                self._failures += len(some) == 1
                if self._failures < FAILURES:
                    raise
                what = f"gives no results any more: {' '.join(str(error).split())[:200] or type(error).__name__}"
                raise DeviceError(what, where=self.provider) from error
            self._failures = 0
        return rows

    def _one_batch(self, some: Sequence[Input], room: int) -> list[Array]:
        if not self._bound:
            feed = {self._input: stacked(some)}
            return list(self._timed(lambda: self.runtime.run(None, feed)[0]))
        lane = self._lanes.get()
        try:
            lane.fill(some, room=room)
            return list(self._timed(lane.run))
        except Exception:
            lane.empty()
            raise
        finally:
            self._lanes.put(lane)

    def _timed(self, run: Callable[[], Any]) -> Array:
        """One batch at a time: what waits here was copied over meanwhile."""
        with self._running:
            started = monotonic()
            try:
                return np.asarray(run(), dtype=np.float32)
            finally:
                self.busy_seconds += monotonic() - started

    def _halve(self, size: int) -> None:
        with self._running:
            if self.batch > size // 2:
                self.batch = max(1, size // 2)
                self.halved += 1


class _Lane:
    """The way of one batch to the device: a buffer on the host, one on the device, and the binding of the latter."""

    def __init__(self, runtime: ort.InferenceSession, device: str) -> None:
        self._runtime = runtime
        self._device = device
        self._input = runtime.get_inputs()[0].name
        self._output = runtime.get_outputs()[0].name
        self._host: _PageLocked | None = None
        self._there: ort.OrtValue | None = None
        self._binding: ort.IOBinding | None = None

    def fill(self, batch: Sequence[Input], *, room: int) -> None:
        """Puts the batch together and copies it over. `room`: images that the buffers are made for."""
        host, there = self._buffers((room, *batch[0].shape))
        for place, one in zip(host.array, batch, strict=False):
            place[...] = one
        there.update_inplace(host.array)
        # Bound anew each time: an output that was allocated for another size would be taken for this one's.
        self._binding = self._runtime.io_binding()
        self._binding.bind_input(
            name=self._input,
            device_type=self._device,
            device_id=0,
            element_type=np.float32,
            shape=(len(batch), *batch[0].shape),
            buffer_ptr=there.data_ptr(),
        )
        self._binding.bind_output(self._output, "cpu")

    def run(self) -> Array:
        """Runs what was filled in; the output is on the host when it returns."""
        if self._binding is None:
            raise RuntimeError("run before fill")
        self._runtime.run_with_iobinding(self._binding)
        output: Array = self._binding.copy_outputs_to_cpu()[0]
        return output

    def empty(self) -> None:
        """Gives the buffers back."""
        self._host = self._there = self._binding = None

    def _buffers(self, shape: tuple[int, ...]) -> tuple[_PageLocked, ort.OrtValue]:
        if self._host is None or self._there is None or self._host.array.shape != shape:
            self.empty()
            self._host = _PageLocked(shape)
            self._there = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self._device, 0)
        return self._host, self._there


class _PageLocked:
    """An array that the GPU's copy engine can read while the CPU does other things, as far as CUDA allows it.

    ONNX Runtime's Python has no way to ask for such memory. Where there is no CUDA (in tests, on a CPU) it is an array
    like any other.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.array = np.zeros(shape, np.float32)
        self._cuda = _cuda_runtime()
        pointer, size = ctypes.c_void_p(self.array.ctypes.data), ctypes.c_size_t(self.array.nbytes)
        self.locked = self._cuda is not None and self._cuda.cudaHostRegister(pointer, size, 0) == 0
        if self._cuda is not None and not self.locked:
            self._cuda.cudaGetLastError()  # forgets the refusal, which ONNX Runtime would take for its own next call's

    def __del__(self) -> None:
        if self.locked and self._cuda is not None:
            self._cuda.cudaHostUnregister(ctypes.c_void_p(self.array.ctypes.data))


def _cuda_runtime() -> ctypes.CDLL | None:
    """The CUDA runtime library that ONNX Runtime's provider has loaded into this process; None if it has none."""
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "/libcudart.so" in line}
    return ctypes.CDLL(min(paths)) if paths else None
