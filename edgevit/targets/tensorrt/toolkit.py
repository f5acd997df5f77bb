"""The onnx package, which is imported here and nowhere else."""

from __future__ import annotations

from types import ModuleType

from edgevit.errors import ToolMissing


def onnx() -> ModuleType:
    """The onnx package, with its helper. Raises ToolMissing where it is not installed."""
    try:
        import onnx.helper
    except ImportError as error:
        raise ToolMissing(
            f"the TensorRT target needs onnx ({error}): pip install onnx==1.23.2"
        ) from error
    return onnx
