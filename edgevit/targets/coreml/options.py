"""Options of the Core ML target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgevit.errors import InputError
from edgevit.options import check, option
from edgevit.targets.weights_only import Switch, check_weights_only, weights_only_option

FloatType = Literal["float16", "float32"]
ARITHMETIC: tuple[FloatType, ...] = get_args(FloatType)

Rounding = Literal["division", "reciprocal", "fused"]
ROUNDING: tuple[Rounding, ...] = get_args(Rounding)


@dataclass(frozen=True)
class CoremlOptions:
    """How a program is compiled. Raises InputError for a value that is not a choice, and for
    values that do not go together.

    precision    "float16": a float package without any activation quantizer, to compare with
    weights_only "on": int8 weights, activations of `compute_precision`
    input_type   "image": pixels; "tensor": normalised float32 values
    output_type  "classifier": probabilities and the label, not logits
    """

    deployment_target: Literal["iOS17", "iOS18", "iOS16"] = option(
        "iOS17", "Oldest iOS that runs the package."
    )
    precision: Literal["int8", "float16"] = option(
        "int8", "float16 compiles a float artifact, to compare with."
    )
    weights_only: Switch = weights_only_option()
    compute_precision: FloatType = option(
        "float16", "Element type of the values that are not quantized."
    )
    input_type: Literal["image", "tensor"] = option(
        "image", "image: the app passes pixels; tensor: it passes normalised values."
    )
    output_type: Literal["logits", "classifier"] = option(
        "logits", "logits: the raw scores; classifier: probabilities and a label."
    )

    def __post_init__(self) -> None:
        check(self)
        check_weights_only(self)
        if self.precision == "int8" and self.deployment_target == "iOS16":
            lacking = "iOS16 has no int8 activations (quantize and dequantize came with iOS17)"
            if self.weights_only == "on":
                lacking = "coremltools writes int8 weights for iOS17 and later"
            raise InputError(
                f"{lacking}: compile with --deployment-target iOS17, or --precision float16 for a "
                "float package"
            )


@dataclass(frozen=True)
class CoremlRunOptions:
    """How the reference interpreter runs a package. Raises InputError for an unknown value."""

    arithmetic: FloatType | None = option(
        None,
        "Arithmetic of the reference interpreter.",
        default_text="that which the package was compiled for",
    )
    rounding: Rounding = option(
        "division",
        "How the reference interpreter divides by a scale: exactly; by multiplying with the "
        "scale's reciprocal; or, fused, that and a convolution with its quantize in one rounding.",
    )

    def __post_init__(self) -> None:
        check(self)
