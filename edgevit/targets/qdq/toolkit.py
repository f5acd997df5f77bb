"""The onnx package, which is imported here and nowhere else."""

from __future__ import annotations

from types import ModuleType

from edgevit.errors import ToolMissing

METADATA_PREFIX = "edgevit."
"""Of the names of a model's properties that are ours."""


def onnx() -> ModuleType:
    """The onnx package, with its helper. Raises ToolMissing where it is not installed."""
    try:
        import onnx.helper
    except ImportError as error:
        raise ToolMissing(
            f"an ONNX file is written and read with onnx ({error}): pip install onnx==1.23.2"
        ) from error
    return onnx
