"""How a model is to be run, as a plain value: who asks for it needs not load ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is to be run.

    `provider`: `auto`, `cpu`, `openvino`, `cuda`, `tensorrt`. `precision`: `fp32`, or `fp16` on a GPU. `batch`: images
    a batch; None: 1 on a CPU, from the GPU's name and memory on a GPU, `most` at most. `required`: a provider that does
    not start is an error, not a warning. `cache_dir`: CACHE_DIR, where engines are kept.
    """

    provider: str = "auto"
    precision: str = "fp32"
    batch: int | None = None
    most: int | None = None
    required: bool = False
    cache_dir: Path = Path("cache")

    @property
    def demanding(self) -> bool:
        """Whether something is asked for that an installation may not be able to do; a CPU can do the rest."""
        return self.required or self.precision != "fp32"
