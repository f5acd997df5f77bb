"""A lint for QDQ ONNX graphs: what TensorRT's explicit INT8 quantization refuses or runs badly."""

from edgevit.targets.tensorrt.lint.checks import lint
from edgevit.targets.tensorrt.lint.rules import RULES, Finding, Rule

__all__ = ["RULES", "Finding", "Rule", "lint"]
