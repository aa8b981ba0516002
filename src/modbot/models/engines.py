"""What is made of a model for one machine and kept under CACHE_DIR: TensorRT engines, OpenVINO blobs, fp16 copies.

All of it can be deleted at any time, and is made again.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types

from modbot.errors import ModelError
from modbot.files.atomic import storage_errors, writing
from modbot.files.processes import lives, owner
from modbot.models.gpu import Gpu

_BUILDING = ".building-"
_TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so.9")
_LOUD = re.compile(r"[^A-Za-z0-9.]+")


def tensorrt_engines(cache_dir: Path, digest: str, *, gpu: Gpu | None, precision: str, batch: int) -> Path:
    """Where the engines of a model lie: they are good for one GPU, one TensorRT, one ONNX Runtime, up to one batch."""
    made_for = [
        gpu.name if gpu else "unknown",
        f"tensorrt{tensorrt_version() or 'unknown'}",
        f"ort{ort.__version__}",
        precision,
        f"batch{batch}",
    ]
    return cache_dir / "trt" / digest[:16] / "_".join(_LOUD.sub("-", part).strip("-") for part in made_for)


def openvino_blobs(cache_dir: Path, digest: str) -> Path:
    """Where OpenVINO's compiled forms of a model lie: they are good for one kind of processor, one ONNX Runtime."""
    return cache_dir / "openvino" / digest[:16] / f"{_processor()}_ort{ort.__version__}"


def tensorrt_version() -> int | None:
    """As the library itself tells it, for example 101300 for 10.13.0; None if there is no TensorRT here."""
    for name in _TENSORRT:
        try:
            return int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return None


def _processor() -> str:
    """Names what the processor can do: OpenVINO compiles for it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.exists() else []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:12]


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """The folder to build in: `folder` if it is there, else one that becomes it when the block ends well.

    Several machines may build the same at once: each for itself, and the first to end is kept.
    """
    if folder.is_dir():
        yield folder
        return
    with storage_errors(folder), _alone():
        if folder.is_dir():
            yield folder
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with TemporaryDirectory(prefix=f"{_BUILDING}{owner()}-", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            yield new
            if any(new.iterdir()):
                _put(new, folder)


def _put(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # another machine was faster
            raise


def _sweep(folder: Path) -> None:
    """Removes what was being built by processes of this machine that live no more."""
    for left in folder.glob(f"{_BUILDING}*"):
        name, _, _ = left.name.removeprefix(_BUILDING).partition("-")
        if lives(name) is False:
            shutil.rmtree(left)


@contextmanager
def _alone() -> Iterator[None]:
    """One process of this installation at a time; the others wait, and then find what they wanted to make.

    A converted model is gigabytes of memory, and an engine minutes of a GPU: not to be spent by every worker at once.
    The lock is on this very file: it leaves nothing behind, and is as local as anything.
    """
    held = os.open(__file__, os.O_RDONLY)
    try:
        # Not every volume has locks: there each makes its own, which is only slower.
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def half_precision(path: Path, cache_dir: Path, digest: str) -> Path:
    """The model with its weights and arithmetic in fp16, its inputs and outputs still float32; made once.

    Raises:
        ModelError: the model cannot be converted.
        StorageError: the disk refused.
    """
    half = cache_dir / "fp16" / f"{digest[:16]}_ort{ort.__version__}.onnx"
    if half.is_file():
        return half
    import onnx
    from onnxruntime.transformers.float16 import (  # type: ignore[import-untyped]  # as onnxruntime
        convert_float_to_float16,
    )

    with _alone():
        if half.is_file():
            return half
        try:
            model = convert_float_to_float16(onnx.load(path), keep_io_types=True).SerializeToString()
        except Exception as error:
            # The converter raises whatever a graph that it does not know provokes.
            what = f"cannot be converted to fp16 ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            raise ModelError(what, where=str(path), remedy="Use --precision fp32.") from error
        with writing(half) as file:
            file.write(model)
    return half
