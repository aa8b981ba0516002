"""The parts of the GPU's benchmark, on the CPU and a model of a few thousand numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import pytest

from bench import gpu
from bench.gpu import Bench, Case, Measured, cases, heading, main, table
from bench.vit_model import BASE, LARGE, Vit, build
from modbot.models import engines, registry
from modbot.models.execution import Execution
from modbot.models.gpu import Gpu
from modbot.models.providers import Session, open_session
from modbot.models.tagger import read_tags

TINY = Vit(width=32, depth=2, heads=4, patch=16, size=64, outputs=30)


def test_the_models_have_the_sizes_that_they_are_named_after() -> None:
    assert 280e6 < LARGE.parameters < 330e6
    assert 80e6 < BASE.parameters < 100e6
    assert LARGE.outputs == BASE.outputs == 10_861


def test_a_model_is_a_tagger_of_its_shape(tmp_path: Path) -> None:
    folder = build(tmp_path / "tiny", TINY)
    weights = onnx.load(folder / "model.onnx").graph.initializer
    assert sum(int(np.prod(each.dims)) for each in weights) == pytest.approx(TINY.parameters, rel=0.01)
    assert len(read_tags(folder / "selected_tags.csv").names) == 30
    pictures = np.random.default_rng(1).random((3, 64, 64, 3), dtype=np.float32) * 255
    full, half = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (folder / "model.onnx", engines.half_precision(folder / "model.onnx", tmp_path, "0" * 64))
    )
    rows = full.run(None, {"input": pictures})[0]
    assert rows.shape == (3, 30)
    assert ((rows > 0) & (rows < 1)).all()
    assert len({row.tobytes() for row in rows}) == 3
    assert np.allclose(rows[1:2], full.run(None, {"input": pictures[1:2]})[0], atol=1e-5)
    assert np.allclose(rows, half.run(None, {"input": pictures})[0], atol=5e-3)


def test_every_line_is_planned_once() -> None:
    planned = cases(["cuda", "tensorrt"])
    assert len(set(planned)) == len(planned) == 10
    assert {(case.precision, case.batch) for case in planned if case.model == "large"} == {
        ("fp32", 48), ("fp32", 96), ("fp16", 48), ("fp16", 96)
    }  # fmt: skip


def test_p1_is_measured_against_the_bare_loop(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"tiny": TINY}, images=32, seconds=0.1)
    bench.fill("tiny", "cpu")
    found = bench.measure(Case("tiny", "cpu", "fp32", 4))
    assert found.bare > found.p1
    assert 0 <= found.busy <= 1
    assert found.bottleneck in {"fetch", "decode", "infer", "write"}


def test_what_is_made_of_a_model_is_made_before_p1_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    def opened(path: Path, how: Execution, *, digest: str) -> Session:
        named.append(digest)
        return open_session(path, how, digest=digest)

    bench = Bench(tmp_path, {"tiny": TINY}, images=8, seconds=0.1)
    monkeypatch.setattr(gpu, "open_session", opened)
    bench.measure(Case("tiny", "cpu", "fp32", 4))
    assert named == [registry.check("tiny", tmp_path / "models").digest]


def test_the_table_names_the_card_and_what_was_measured() -> None:
    row = Measured(Case("large", "cuda", "fp16", 96), bare=200.0, p1=194.0, busy=0.97, bottleneck="infer")
    assert table([row]).splitlines()[-1] == "| large | cuda | fp16 | 96 | 200.0 | 194.0 | 0.97 | 97% | infer |"
    assert heading(Gpu("NVIDIA L40S", 46068, 45500)).startswith("NVIDIA L40S, 46068 MiB; ")


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu, "this_gpu", lambda: None)
    monkeypatch.setattr("sys.argv", ["bench.gpu"])
    assert main() == 1
    assert "there is no GPU here" in capsys.readouterr().err
