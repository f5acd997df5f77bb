"""Tests of the targets for phones' NPUs: over a stand-in of the vendors' compilers, and, where
onnxruntime-qnn is installed, over Qualcomm's own (`make test-qnn`)."""

from edgevit.targets import load_target, target_names

NPU_TARGETS = [name for name in target_names() if hasattr(load_target(name), "vendor")]
"""Their file is the tflite target's, whatever a compiler makes of it."""
OWN_FORMAT = [name for name in target_names() if name not in NPU_TARGETS]
"""The targets that write a format of their own."""
