"""A lint for QDQ ONNX graphs: what TensorRT's explicit INT8 quantization refuses or runs badly."""

from edgevit.lint.checks import lint
from edgevit.lint.rules import RULES, Finding, Rule

__all__ = ["RULES", "Finding", "Rule", "lint"]
