"""The GPU of this machine, and how many images a batch it is given to start with."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

MIB_PER_IMAGE = 256
"""What a batch may take of the GPU's memory an image: a ViT-L at 448 pixels in full precision, with some room."""

MIB_BESIDE = 4096
"""Weights, the CUDA context and the libraries' own workspace."""

CAUTIOUS_BATCH = 32
"""Images a batch on a GPU of which nothing is known: what the smallest of the recommended ones takes."""

_LARGE_MIB = 60_000
_SLICE = re.compile(r"\bMIG (\d+)g\.(\d+)gb\b")
_DEVICE = "name,memory.total,memory.free,mig.mode.current"
_TIMEOUT_S = 10


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name as the driver gives it, its memory and what of it is free, in MiB.

    A slice of one (MIG) has the slice's profile in its name: `NVIDIA A100-SXM4-80GB MIG 3g.40gb`.
    """

    name: str
    total: int
    free: int


def default_batch(gpu: Gpu | None, *, most: int | None = None) -> int:
    """Images a batch where nothing else is said. None: a GPU of which nothing is known.

    The runbook's table (appendix A) by name and memory; of its ranges the upper end where three quarters of the memory
    are free, else the lower. Whatever the name, no more than the free memory holds. `most`: no more than this.
    """
    batch = CAUTIOUS_BATCH if gpu is None else min(_by_name(gpu), _by_memory(gpu.free))
    return batch if most is None else min(batch, most)


def _by_name(gpu: Gpu) -> int:
    if _SLICE.search(gpu.name):  # it has a part of the cores, too
        return CAUTIOUS_BATCH
    roomy = gpu.free >= gpu.total * 3 / 4
    large = gpu.total >= _LARGE_MIB
    match re.search(r"\b(A100|H100|L40S)\b", gpu.name):
        case None:
            return CAUTIOUS_BATCH
        case found if found[1] == "L40S":
            return 64 if roomy else 32
        case _:
            return (96 if roomy else 64) if large else 48


def _by_memory(free: int) -> int:
    """What fits, a multiple of 8 from 8 on: the sizes that the kernels like."""
    fitting = max(1, (free - MIB_BESIDE) // MIB_PER_IMAGE)
    return fitting if fitting < 8 else fitting // 8 * 8  # noqa: PLR2004 - see above


def this_gpu() -> Gpu | None:
    """The first GPU that this process may use, as `nvidia-smi` tells it; None if it cannot be asked."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    told = _nvidia_smi(f"--query-gpu={_DEVICE}", "--format=csv,noheader,nounits", *_chosen(visible))
    if told is None:
        return None
    first = [cell.strip() for cell in (told.splitlines() or [""])[0].split(",")]
    if len(first) != len(_DEVICE.split(",")) or not (first[1].isdecimal() and first[2].isdecimal()):
        return None
    gpu = Gpu(first[0], int(first[1]), int(first[2]))
    return _slice(gpu, _nvidia_smi("-L") or "", visible) if first[3] == "Enabled" else gpu


def _chosen(visible: str) -> tuple[str, ...]:
    """`nvidia-smi`'s flag for the GPU that CUDA_VISIBLE_DEVICES names first. It does not take a slice's name."""
    return (f"--id={visible}",) if visible and not visible.startswith("MIG-") else ()


def _slice(gpu: Gpu, listing: str, visible: str) -> Gpu:
    """The slice that this process works on: the one that CUDA_VISIBLE_DEVICES names, else the first."""
    lines = [line for line in listing.splitlines() if _SLICE.search(line)]
    mine = [line for line in lines if visible.startswith("MIG-") and visible in line] or lines
    found = _SLICE.search(mine[0]) if mine else None
    if found is None:
        return Gpu(f"{gpu.name} MIG 1g.0gb", 0, 0)
    memory = int(found[2]) * 1024 * 9 // 10  # a slice of 10 GB has some 9.5 GiB, of which not all is free
    return Gpu(f"{gpu.name} {found[0]}", memory, memory)


def _nvidia_smi(*arguments: str) -> str | None:
    """What `nvidia-smi` says; None if there is none, or it fails."""
    command = ["nvidia-smi", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, found where the driver put it
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
