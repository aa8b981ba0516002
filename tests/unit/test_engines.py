"""What is made of a model for one machine: where it is kept, and that it appears whole."""

from __future__ import annotations

import errno
import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pytest

from modbot.errors import ModelError
from modbot.files.processes import owner
from modbot.models import engines
from modbot.models.gpu import Gpu
from tests.tiny_models import TAGS, write_model

DIGEST = "ab" * 32


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_engines_are_kept_by_all_that_they_are_made_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a100, h100 = Gpu("NVIDIA A100-SXM4-80GB", 1, 1), Gpu("NVIDIA H100 80GB HBM3", 1, 1)

    def folder(digest: str = DIGEST, gpu: Gpu | None = a100, precision: str = "fp32", batch: int = 48) -> Path:
        return engines.tensorrt_engines(tmp_path, digest, gpu=gpu, precision=precision, batch=batch)

    first = folder()
    assert first.parent == tmp_path / "trt" / DIGEST[:16]
    others = {folder("cd" * 32), folder(gpu=h100), folder(gpu=None), folder(precision="fp16"), folder(batch=96)}
    monkeypatch.setattr(engines, "tensorrt_version", lambda: 101300)
    others.add(folder())
    assert "tensorrt101300" in folder().name
    monkeypatch.setattr("onnxruntime.__version__", "9.9.9")
    others.add(folder())
    assert len(others | {first}) == 8
    assert engines.openvino_blobs(tmp_path, DIGEST) != engines.openvino_blobs(tmp_path, "cd" * 32)


def test_a_name_from_the_driver_stays_one_folder(tmp_path: Path) -> None:
    hostile = Gpu("../../x/\0 y", 1, 1)
    folder = engines.tensorrt_engines(tmp_path, DIGEST, gpu=hostile, precision="fp32", batch=1)
    assert folder.parent == tmp_path / "trt" / DIGEST[:16]
    assert "\0" not in folder.name


def test_what_is_built_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "trt" / "x" / "y"

    def killed() -> None:
        with engines.building(folder) as new:
            (new / "engine").write_bytes(b"half of")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        killed()
    assert list(folder.parent.iterdir()) == []
    with engines.building(folder) as new:
        (new / "engine").write_bytes(b"mine")
        # A volume without locks is what two machines share.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fcntl, "flock", no_locks)
            with engines.building(folder) as others:
                (others / "engine").write_bytes(b"another machine was faster")
    assert (folder / "engine").read_bytes() == b"another machine was faster"
    with engines.building(folder) as again:
        assert again == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_a_machine_that_was_faster_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "trt" / "x" / "y"
    is_dir = Path.is_dir
    with engines.building(folder) as new:
        (new / "engine").write_bytes(b"mine")
        folder.mkdir()
        (folder / "engine").write_bytes(b"another machine's")
        # As a network volume may tell for a while.
        monkeypatch.setattr(Path, "is_dir", lambda path: path != folder and is_dir(path))
    assert (folder / "engine").read_bytes() == b"another machine's"


def test_what_a_killed_builder_left_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / "trt" / "x" / "y"
    table, pid, _ = owner().split(".")
    lefts = {
        f".building-{table}.{pid}.1-abc": False,  # a process of the same id that ended
        f".building-{owner()}-abc": True,
        ".building-0123456789ab.7.7-abc": True,  # another machine's
    }
    for name in lefts:
        (folder.parent / name / "new").mkdir(parents=True)
    with engines.building(folder) as new:
        (new / "engine").write_bytes(b"mine")
    assert {name: (folder.parent / name).exists() for name in lefts} == lefts


def test_nothing_built_is_nothing_kept(tmp_path: Path) -> None:
    with engines.building(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a" / "b").exists()


def test_half_precision_is_made_once_and_stays_close(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", TAGS, size=128)
    half = engines.half_precision(tmp_path / "model.onnx", tmp_path / "cache", DIGEST)
    kinds = {weights.data_type for weights in onnx.load(half).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds
    picture = {"input": np.full((2, 128, 128, 3), 90, np.float32)}
    full, converted = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, picture)[0]
        for path in (tmp_path / "model.onnx", half)
    )
    assert converted.dtype == np.float32
    assert np.allclose(full, converted, atol=5e-3)
    made = half.stat().st_mtime_ns
    assert engines.half_precision(tmp_path / "model.onnx", tmp_path / "cache", DIGEST) == half
    assert half.stat().st_mtime_ns == made


def test_what_several_want_at_once_is_made_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model.onnx", TAGS, size=128)
    conversions: list[int] = []
    load = onnx.load

    def counted(path: Path) -> onnx.ModelProto:
        conversions.append(1)
        sleep(0.2)  # long enough for the others to ask
        return load(path)

    monkeypatch.setattr(onnx, "load", counted)
    builders: list[Path] = []
    folder = tmp_path / "trt" / "x" / "y"

    def build(_: int) -> Path:
        with engines.building(folder) as place:
            if place != folder:
                builders.append(place)
                sleep(0.2)
                (place / "engine").write_bytes(b"made")
        return engines.half_precision(tmp_path / "model.onnx", tmp_path / "cache", DIGEST)

    with ThreadPoolExecutor(4) as crew:
        (half,) = set(crew.map(build, range(4)))
    assert half.is_file()
    assert (len(conversions), len(builders)) == (1, 1)
    assert [path.name for path in half.parent.iterdir()] == [half.name]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_model_that_cannot_be_converted_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"model\.onnx: cannot be converted to fp16"):
        engines.half_precision(tmp_path / "model.onnx", tmp_path / "cache", DIGEST)
    assert list((tmp_path / "cache").rglob("*.onnx*")) == []
