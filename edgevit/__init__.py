"""edgevit: a trained RepViT to validated INT8 artifacts for phones and edge boards.

    model = edgevit.load("repvit_m0_9.pth")
    train = edgevit.ImageFolder("train/", size=224, resize=256)
    val = edgevit.ImageFolder("val/", like=train)
    result = edgevit.quantize(model, train, val, epochs=4)
    artifact = result.program.compile("tflite", "build/tflite")
    print(result.gate, artifact.parity(val).first_departure)

Importing this package imports no toolkit: a name below imports its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgevit.api import Artifact, compile, load, open, validate
    from edgevit.data.images import Preprocessing
    from edgevit.data.sequence import from_sequence
    from edgevit.data.source import ImageFolder, ImageSource
    from edgevit.errors import EdgevitError, GateFailed, InputError, ToolMissing
    from edgevit.measure.benchmark import benchmark
    from edgevit.program import Program
    from edgevit.quantize.options import QuantizeOptions
    from edgevit.quantize.pipeline import quantize
    from edgevit.quantize.weights_only import weights_program

_MODULES = {
    "edgevit.api": ("Artifact", "compile", "load", "open", "validate"),
    "edgevit.data.images": ("Preprocessing",),
    "edgevit.data.sequence": ("from_sequence",),
    "edgevit.data.source": ("ImageFolder", "ImageSource"),
    "edgevit.errors": ("EdgevitError", "GateFailed", "InputError", "ToolMissing"),
    "edgevit.measure.benchmark": ("benchmark",),
    "edgevit.program": ("Program",),
    "edgevit.quantize.options": ("QuantizeOptions",),
    "edgevit.quantize.weights_only": ("weights_program",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Artifact", "EdgevitError", "GateFailed", "ImageFolder", "ImageSource", "InputError",
    "Preprocessing", "Program", "QuantizeOptions", "ToolMissing", "__version__", "benchmark",
    "compile", "from_sequence", "load", "open", "quantize", "validate", "weights_program",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "quantize":
        # A package that is a function, too: importing a module of it sets this very name.
        return importlib.import_module("edgevit.quantize")
    if name not in _HOMES:
        raise AttributeError(f"module 'edgevit' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
