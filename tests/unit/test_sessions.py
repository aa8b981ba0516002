"""Batches on a model: bound buffers, two on their way at once, and a device whose memory is too small."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pytest

from modbot.errors import DeviceError
from modbot.models import sessions
from modbot.models.sessions import FAILURES, LANES, Array, Session, is_out_of_memory
from tests.tiny_models import TAGS, write_model

SHAPE = (None, 128, 128, 3)


@pytest.fixture
def runtime(tmp_path: Path) -> ort.InferenceSession:
    write_model(tmp_path / "model.onnx", TAGS, size=128)
    return ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])


def bound(runtime: ort.InferenceSession, *, batch: int) -> Session:
    """A session as a GPU's, its buffers in the CPU's memory."""
    return Session(runtime, "cuda", (), SHAPE, (None, len(TAGS)), batch=batch, device="cpu")


def pictures(count: int, dtype: type = np.uint8) -> list[Any]:
    return [np.full((128, 128, 3), i * 7 % 256, dtype) for i in range(count)]


def one_by_one(runtime: ort.InferenceSession, batch: Sequence[Any]) -> list[Array]:
    return Session(runtime, "cpu", (), SHAPE, (None, len(TAGS))).run(batch)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 11])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bound_buffers_give_what_plain_runs_give(runtime: ort.InferenceSession, count: int, dtype: type) -> None:
    session = bound(runtime, batch=4)
    batch = pictures(count, dtype)
    for _ in range(2):  # the buffers are used again, whatever was in them
        rows = session.run(batch)
        assert len(rows) == count
        assert np.allclose(rows, one_by_one(runtime, batch), atol=1e-6)
    assert np.allclose(session.run(batch[:1]), one_by_one(runtime, batch[:1]), atol=1e-6)


def test_batches_of_several_threads_do_not_mix(runtime: ort.InferenceSession) -> None:
    session = bound(runtime, batch=4)
    assert session.lanes == LANES == 2
    expected = one_by_one(runtime, pictures(36))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda at: session.run(pictures(36)[at : at + 3]), range(0, 36, 3)))
    assert np.allclose([row for part in parts for row in part], expected, atol=1e-6)


def test_the_next_batch_is_copied_while_one_runs(runtime: ort.InferenceSession) -> None:
    session = bound(runtime, batch=2)
    running, copied = threading.Event(), threading.Event()
    binding = runtime.io_binding
    run = runtime.run_with_iobinding

    def slow(bound_buffers: object) -> None:
        running.set()
        assert copied.wait(10)
        run(bound_buffers)

    def noted() -> Any:  # noqa: ANN401 - ONNX Runtime is untyped
        if running.is_set():
            copied.set()
        return binding()

    runtime.run_with_iobinding, runtime.io_binding = slow, noted
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(session.run, pictures(2))
        assert running.wait(10)
        second = pool.submit(session.run, pictures(2))
        assert np.allclose(first.result(), second.result())
    assert session.busy_seconds > 0


class Small:
    """A device whose memory holds `most` images at once; `said` is what the runtime says of more."""

    def __init__(self, most: int, said: str) -> None:
        self.most = most
        self.said = said
        self.batches: list[int] = []

    def run(self, _: None, inputs: dict[str, Array]) -> list[Array]:
        (batch,) = inputs.values()
        self.batches.append(len(batch))
        if len(batch) > self.most:
            raise RuntimeError(self.said)
        return [batch[:, 0, 0]]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="input")]

    def session(self, batch: int) -> Session:
        return Session(self, "cuda", (), (None, 1, 1, 3), (None, 3), batch=batch)


OUT_OF_MEMORY = [
    "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 4096",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    "Available memory of 12 is smaller than requested bytes of 24",
    "std::bad_alloc",
]


@pytest.mark.parametrize("said", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_goes_on(said: str) -> None:
    device = Small(3, said)
    session = device.session(16)
    batch = [np.full((1, 1, 3), i, np.float32) for i in range(20)]
    assert [row[0] for row in session.run(batch)] == list(range(20))
    assert device.batches == [16, 8, 4, *[2] * 10]
    assert (session.batch, session.halved) == (2, 3)
    assert len(session.run(batch[:5])) == 5
    assert device.batches[-3:] == [2, 2, 1]


def test_one_image_that_does_not_fit_is_an_error() -> None:
    session = Small(0, OUT_OF_MEMORY[0]).session(4)
    with pytest.raises(RuntimeError, match="out of memory"):
        session.run([np.zeros((1, 1, 3), np.float32)] * 4)
    assert session.batch == 1


def test_another_error_halves_nothing() -> None:
    session = Small(0, "Non-zero status code returned while running Conv node").session(4)
    with pytest.raises(RuntimeError, match="Conv"):
        session.run([np.zeros((1, 1, 3), np.float32)] * 4)
    assert (session.batch, session.halved) == (4, 0)


def test_a_device_that_fails_for_one_image_after_the_other_is_broken() -> None:
    device = Small(0, "CUDA failure 700: an illegal memory access was encountered")
    session = device.session(4)
    image = [np.zeros((1, 1, 3), np.float32)]

    def fails(count: int) -> None:
        for _ in range(count):
            with pytest.raises(RuntimeError, match="illegal"):
                session.run(image)

    fails(FAILURES - 1)
    device.most = 1
    session.run(image)  # it was the images' fault after all
    device.most = 0
    fails(FAILURES - 1)
    with pytest.raises(DeviceError, match="cuda: gives no results any more: CUDA failure 700: an illegal"):
        session.run(image)
    with pytest.raises(DeviceError):
        session.run(image)


def test_buffers_that_do_not_fit_halve_the_batch_even_for_one_image(
    runtime: ort.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bound(runtime, batch=96)
    make = ort.OrtValue.ortvalue_from_shape_and_type
    rooms: list[int] = []

    def small(shape: tuple[int, ...], *rest: object) -> Any:  # noqa: ANN401 - ONNX Runtime is untyped
        rooms.append(shape[0])
        if shape[0] > 8:
            raise RuntimeError(OUT_OF_MEMORY[0])
        return make(shape, *rest)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", small)
    for picture in pictures(3):
        assert np.allclose(session.run([picture]), one_by_one(runtime, [picture]), atol=1e-6)
    assert rooms[:5] == [96, 48, 24, 12, 6]
    assert (session.batch, session.halved) == (6, 4)


@pytest.mark.parametrize(("refuses", "forgotten"), [(0, 0), (2, 1)])
def test_memory_that_cannot_be_locked_leaves_no_error_behind(
    monkeypatch: pytest.MonkeyPatch, refuses: int, forgotten: int
) -> None:
    asked: list[str] = []

    class Cuda:
        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any function of the library
            asked.append(name)
            return lambda *_: refuses

    monkeypatch.setattr(sessions, "_cuda_runtime", Cuda)
    locked = sessions._PageLocked((1, 2, 2, 3))
    assert locked.locked == (refuses == 0)
    assert asked.count("cudaGetLastError") == forgotten


def test_bound_buffers_shrink_with_the_batch(runtime: ort.InferenceSession) -> None:
    session = bound(runtime, batch=8)
    run, made = runtime.run_with_iobinding, runtime.io_binding
    sizes: list[int] = []

    class Binding:
        def __init__(self) -> None:
            self.real = made()

        def bind_input(self, **binding: Any) -> None:  # noqa: ANN401 - as ONNX Runtime's
            sizes.append(binding["shape"][0])
            self.real.bind_input(**binding)

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as ONNX Runtime's
            return getattr(self.real, name)

    def small(binding: Binding) -> None:
        if sizes[-1] > 2:
            raise RuntimeError(OUT_OF_MEMORY[0])
        run(binding.real)

    runtime.io_binding, runtime.run_with_iobinding = Binding, small
    assert np.allclose(session.run(pictures(9)), one_by_one(runtime, pictures(9)), atol=1e-6)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


def test_what_is_no_shortage_is_not_taken_for_one() -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("memory is fine"))
