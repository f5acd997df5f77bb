"""The onnx package, which is imported here and nowhere else."""

from __future__ import annotations

from types import ModuleType

from edgevit.errors import ToolMissing

METADATA_PREFIX = "edgevit."
"""Of the names of a model's properties that are ours."""

PROBABILITIES = "probabilities"
"""The name of an output behind a softmax."""


def onnx() -> ModuleType:
    """The onnx package, with its helper. Raises ToolMissing where it is not installed."""
    try:
        import onnx.helper
    except ImportError as error:
        raise ToolMissing(
            f"an ONNX file is written and read with onnx ({error}): pip install 'edgevit[onnx]'"
        ) from error
    return onnx
