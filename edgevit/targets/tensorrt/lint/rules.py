"""What the lint looks for, and why: one entry a rule.

What TensorRT refuses was read in its ONNX parser (onnx-tensorrt, importers of QuantizeLinear and
DequantizeLinear) and its operator reference; where a rule rests on an issue, the issue is named.
Not every error stops a build: TensorRT-RTX 1.7 accepts graphs that break rules 1, 4, 5, 6, 10, 14
or 16, and infinite scales. The warnings come from NVIDIA's documentation and its maintainers'
answers, not from a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"
FLOAT_WEIGHTED = "TRT009"
"""The rule that `strict` makes an error."""


@dataclass(frozen=True)
class Rule:
    """A rule: "error" where TensorRT refuses or changes values, "warning" where it runs slower."""

    id: str
    level: str
    title: str
    why: str
    fix: str


@dataclass(frozen=True)
class Finding:
    """A rule that a graph breaks: at which node, what is there, why it matters, what to do."""

    rule: str
    level: str
    node: str
    what: str
    why: str
    fix: str


_RULES = (
    Rule(
        "TRT001",
        ERROR,
        "a scale is not a build-time constant",
        "TensorRT's operator reference asks for a scale that is fixed when the engine is built: "
        "the int8 kernels that it fuses Q/DQ into have it as a parameter.",
        "Calibrate statically, and store the scale as an initializer or a Constant (Identity and "
        "Cast may lie between).",
    ),
    Rule(
        "TRT002",
        ERROR,
        "a scale is not positive and finite",
        "The parser refuses a scale of zero or less; an infinite one makes every value zero or "
        "not a number. Zero comes from a channel or tensor that was all zero in calibration.",
        "Raise the scale to a small positive number (float32 or float16 must hold it).",
    ),
    Rule(
        "TRT003",
        ERROR,
        "a zero-point is not zero",
        "TensorRT quantizes symmetrically on a GPU: the parser refuses other zero-points.",
        "Quantize symmetrically (edgevit: profile portable; ONNX Runtime: ActivationSymmetric and "
        "WeightSymmetric).",
    ),
    Rule(
        "TRT004",
        ERROR,
        "a tensor is quantized to a type other than int8",
        "TensorRT's parser reads a uint8 zero-point, or none at all (which ONNX defines as uint8), "
        "as int8, with a warning at most: values above 127 saturate. Types of 16 bits are refused; "
        "FP8 and INT4 are not, and are outside this lint.",
        "Quantize to int8, with a zero-point of that type.",
    ),
    Rule(
        "TRT005",
        ERROR,
        "an activation is quantized per channel",
        "The scale of the input channel cannot be taken out of a convolution's int32 sum, so no "
        "INT8 kernel exists for it; a builder that accepts it runs float.",
        "Quantize activations with one scale a tensor (NNCF: per_channel=False).",
    ),
    Rule(
        "TRT006",
        ERROR,
        "a weight's scales are not one per output channel",
        "Only scales along the output channels can be applied to the finished sums: axis 0 for "
        "Conv and Gemm with transB, 1 for ConvTranspose and Gemm without, the last for MatMul.",
        "Quantize the weight along its output channels and give that axis to both "
        "QuantizeLinear and DequantizeLinear.",
    ),
    Rule(
        "TRT007",
        WARNING,
        "a weight has one scale for all output channels",
        "It is valid, but costs accuracy where channels differ in range, above all in depthwise "
        "convolutions, and per-channel scales cost no time.",
        "Quantize weights per output channel.",
    ),
    Rule(
        "TRT008",
        WARNING,
        "only one input of a weighted operator is quantized",
        "An INT8 kernel needs both; TensorRT dequantizes first and runs the operator in float "
        "(TensorRT issue 2383).",
        "Put Q/DQ on the other input, or take it away from this one.",
    ),
    Rule(
        FLOAT_WEIGHTED,
        WARNING,
        "a weighted operator is not quantized",
        "It runs in float, with a conversion before and after it. TensorRT 11 has no other way to "
        "INT8 than Q/DQ.",
        "Put Q/DQ on its activation and its weight, unless it is float on purpose.",
    ),
    Rule(
        "TRT010",
        ERROR,
        "QuantizeLinear and DequantizeLinear do not pair",
        "TensorRT takes the quantization of a tensor from the pair. Operators that read int8 "
        "themselves (QLinearConv, ConvInteger) are refused (onnx-tensorrt issue 560), and what any "
        "other operator makes of one half of a pair is integers without a scale.",
        "Write the QDQ form: each QuantizeLinear read by DequantizeLinear, each DequantizeLinear "
        "reading a QuantizeLinear, a constant or an int8 graph input.",
    ),
    Rule(
        "TRT011",
        WARNING,
        "Q/DQ between a convolution and its activation",
        "TensorRT fuses the activation into the convolution when nothing lies between; this pair "
        "keeps them apart and rounds once more (TensorRT issues 2383, 3861).",
        "Move the pair behind the activation.",
    ),
    Rule(
        "TRT012",
        WARNING,
        "Q/DQ on the convolution's branch of a residual Add",
        "The Add fuses into the convolution when it reads its float output; this pair blocks that "
        "and rounds once more (TensorRT issue 3861; NVIDIA's advice on residual Q/DQ cases).",
        "Drop the pair between the convolution and the Add; keep the one on the shortcut.",
    ),
    Rule(
        "TRT013",
        WARNING,
        "no Q/DQ on the shortcut of a residual Add",
        "The Add then reads a float tensor and runs in float (TensorRT issue 1992).",
        "Put Q/DQ on the shortcut; it may be the pair that the next convolution reads. Where both "
        "inputs are convolutions, on one of them.",
    ),
    Rule(
        "TRT014",
        ERROR,
        "a scale's type is not a float type that TensorRT takes",
        "The parser takes float32, float16 and bfloat16. Others it refuses or converts, float64 to "
        "float32, so that scales and types are not those of the file.",
        "Store the scale in float32 or float16.",
    ),
    Rule(
        "TRT015",
        ERROR,
        "an operator reads different float types",
        "Strongly typed networks, which are the only ones in TensorRT 11, have no implicit "
        "conversion: the build stops here.",
        "Cast the inputs to one type; after a DequantizeLinear, give the scale that type.",
    ),
    Rule(
        "TRT016",
        ERROR,
        "scales per channel before opset 13",
        "QuantizeLinear and DequantizeLinear have one scale and no axis before opset 13, so which "
        "axis is meant is left to the reader.",
        "Export with opset 13 or newer.",
    ),
    Rule(
        "TRT017",
        ERROR,
        "DequantizeLinear of an int32 tensor",
        "ONNX allows it, for biases, and TensorRT refuses it: 'only activation types allowed' "
        "(onnxruntime issue 14229, onnx-tensorrt issue 850).",
        "Keep biases in float: TensorRT adds them to the scaled int32 sum (ONNX Runtime: "
        "QuantizeBias=False).",
    ),
    Rule(
        "TRT018",
        WARNING,
        "a part of the graph is not linted",
        "Not looked into are subgraphs (If, Loop, Scan), functions local to the model, and scales "
        "that are computed from constants by other than Identity and Cast, or that are too many.",
        "Fold constants and constant branches, inline functions with onnx.inliner, and lint again.",
    ),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in _RULES}
"""Every rule by its id."""
