"""How many images a batch a GPU begins with, by its name and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbot.models.gpu import CAUTIOUS_BATCH, Gpu, default_batch, this_gpu

GIB = 1024


@pytest.mark.parametrize(
    ("name", "total", "free", "batch"),
    [
        ("NVIDIA A100-SXM4-40GB", 40 * GIB, 39 * GIB, 48),
        ("NVIDIA A100-PCIE-40GB", 40 * GIB, 20 * GIB, 48),
        ("NVIDIA A100-SXM4-80GB", 80 * GIB, 79 * GIB, 96),
        ("NVIDIA A100 80GB PCIe", 80 * GIB, 50 * GIB, 64),
        ("NVIDIA H100 80GB HBM3", 80 * GIB, 79 * GIB, 96),
        ("NVIDIA H100 NVL", 94 * GIB, 60 * GIB, 64),
        ("NVIDIA L40S", 46 * GIB, 45 * GIB, 64),
        ("NVIDIA L40S", 46 * GIB, 30 * GIB, 32),
        ("NVIDIA L40", 46 * GIB, 45 * GIB, CAUTIOUS_BATCH),
        ("NVIDIA GeForce RTX 4090", 24 * GIB, 23 * GIB, CAUTIOUS_BATCH),
        ("NVIDIA T4", 15 * GIB, 8 * GIB, 16),
        ("NVIDIA H100 80GB HBM3", 80 * GIB, 7 * GIB, 8),
        ("NVIDIA H100 80GB HBM3", 80 * GIB, 5 * GIB, 4),
        ("NVIDIA H100 80GB HBM3", 80 * GIB, 0, 1),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 36 * GIB, 36 * GIB, CAUTIOUS_BATCH),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9 * GIB, 9 * GIB, 16),
    ],
)
def test_the_table_and_what_is_free(name: str, total: int, free: int, batch: int) -> None:
    assert default_batch(Gpu(name, total, free)) == batch


def test_of_an_unknown_gpu_little_is_expected() -> None:
    assert default_batch(None) == CAUTIOUS_BATCH
    assert default_batch(None, most=16) == 16


@given(st.sampled_from(["NVIDIA A100-SXM4-80GB", "NVIDIA L40S", "Other"]), st.integers(0, 100_000), st.integers(1, 9))
def test_more_free_memory_never_means_less(name: str, free: int, more: int) -> None:
    fewer, larger = (default_batch(Gpu(name, 100_000, memory)) for memory in (free, free + more * 1000))
    assert 1 <= fewer <= larger <= 96


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "NVIDIA L40S, 46068, 45500, [N/A]\nNVIDIA L40S, 46068, 100, [N/A]"
    smi(tmp_path / "bin", monkeypatch, f'echo "$@" >> {tmp_path}/asked; printf "{lines}\n"')
    assert this_gpu() == Gpu("NVIDIA L40S", 46068, 45500)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    this_gpu()
    plain, chosen = (tmp_path / "asked").read_text().splitlines()
    assert "--id" not in plain
    assert chosen.endswith("--id=1")


def test_a_slice_is_told_by_its_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-aaa)
  MIG 1g.10gb     Device  1: (UUID: MIG-bbb)"""
    smi(
        tmp_path / "bin",
        monkeypatch,
        f'if [ "$1" = -L ]; then echo "{listing}"; else echo "NVIDIA A100-SXM4-80GB, 81920, 80000, Enabled"; fi',
    )
    assert this_gpu() == Gpu("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 36864, 36864)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-bbb")
    assert this_gpu() == Gpu("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9216, 9216)


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found", "echo a, b, c, d", "true"])
def test_a_driver_that_does_not_answer_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    smi(tmp_path / "bin", monkeypatch, script)
    assert this_gpu() is None
    (tmp_path / "bin" / "nvidia-smi").unlink()
    assert this_gpu() is None
