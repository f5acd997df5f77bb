"""Golden manifests, which the readers in Python, C++, Kotlin (through C++) and Swift are held to.

table.json says of each file what each reader does with it: null where it takes the file, else a
part of the message it refuses it with. `python -m tests.manifests.make` wrote them; those of
version 1 were written by the last edgevit that wrote it, and must never change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit.data.images import Preprocessing
from edgevit.targets.manifest import (
    ArtifactFile,
    InputTensor,
    Manifest,
    Model,
    OutputTensor,
    ProgramFile,
)

FOLDER = Path(__file__).resolve().parent
TABLE = FOLDER / "table.json"


@dataclass(frozen=True)
class Golden:
    """A row of table.json."""

    file: str
    python: str | None
    cpp: str | None
    swift: str | None

    def read(self) -> bytes:
        return (FOLDER / self.file).read_bytes()


def goldens() -> list[Golden]:
    return [Golden(**row) for row in json.loads(TABLE.read_text(encoding="utf-8"))]


@dataclass(frozen=True)
class Step:
    """A quantizer."""

    scale: float
    zero_point: int


def null_manifest(
    labels: tuple[str, ...], preprocessing: Preprocessing, sha256: str, size_bytes: int, **more: Any
) -> Manifest:
    """An artifact model.bin of the null back-end, whose input holds the pixels themselves."""
    input_ = InputTensor.of(
        "input", (1, *preprocessing.pixel_shape), "NHWC", "uint8", Step(1.0, 0), [range(256)] * 3
    )
    fields: dict[str, Any] = {
        "target": "null",
        "artifact": ArtifactFile("model.bin", sha256, size_bytes),
        "program": ProgramFile("m.evq", "0" * 64),
        "profile": "portable",
        "model": Model("repvit_m0_9", len(labels)),
        "tools": {},
        "options": {},
        "input": input_,
        "outputs": (OutputTensor.of("logits", (1, len(labels)), "int8", Step(0.25, 0)),),
        "preprocessing": preprocessing,
        "labels": labels,
        "drops": (),
        "ops": {},
        "audit": None,
        "reference": None,
    }
    return Manifest(**(fields | more))
