"""What ONNX Runtime must be told to compute an artifact on integers, and exactly.

int8    without this an x86 takes int8 activations for unwanted and computes a part in float32
uint8   without this an x86 older than VNNI adds products of uint8 and int8 in 16 bits, which
        saturate: a convolution may be off by half of its range
Both change nothing on ARM. targets/onnx/backend.cpp tells the harness's the same.
"""

from __future__ import annotations

from edgevit.targets.onnx.options import OnnxOptions

SETTINGS = {
    "int8": {"session.qdqisint8allowed": "1"},
    "uint8": {"session.x64quantprecision": "1"},
}
"""Session configuration entries, by the type of the activations."""


def settings_of(options: OnnxOptions) -> dict[str, str]:
    """The session configuration entries for an artifact; none for a float one."""
    return SETTINGS[options.activation_type] if options.precision == "int8" else {}
