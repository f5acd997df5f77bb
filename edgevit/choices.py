"""Names that a user chooses among. They stand here so that the command line needs no torch."""

from __future__ import annotations

from typing import Literal, get_args

Profile = Literal["portable", "asymmetric"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
"""portable: every zero-point is 0, which every target can run; asymmetric: TFLite and Core ML."""

WEIGHTS_ONLY = "weights-only"
"""The profile of what has int8 weights and real activations; no program file has it."""

Activation = Literal["gelu", "hard-swish", "quick-gelu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

OutputType = Literal["int8", "float32"]
OUTPUT_TYPES: tuple[OutputType, ...] = get_args(OutputType)
"""Of a quantized net: rounded as every tensor is, or as the operation makes it of int8 inputs."""

RangeRule = Literal["minmax", "mse"]
RANGE_RULES: tuple[RangeRule, ...] = get_args(RangeRule)
"""How far an activation's range reaches: to what was seen, or to where the error is least."""

Augmentation = Literal["none", "flip", "dihedral"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

Interpolation = Literal["bicubic", "bilinear", "nearest", "box", "area"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

ResizeMode = Literal["shorter", "exact", "fit"]
RESIZE_MODES: tuple[ResizeMode, ...] = get_args(ResizeMode)
"""shorter: the shape is kept and the input filled; exact: stretched; fit: kept, and padded."""

Channels = Literal["RGB", "BGR", "L", "RGBA"]
CHANNELS: tuple[Channels, ...] = get_args(Channels)
"""The planes that a network takes, in its order; L is grey."""

PadPosition = Literal["centre", "top-left"]
PAD_POSITIONS: tuple[PadPosition, ...] = get_args(PadPosition)

ClassOrder = Literal["default", "natural"]
CLASS_ORDERS: tuple[ClassOrder, ...] = get_args(ClassOrder)
"""Of class folders: default is torchvision's, by code point; natural is timm's."""

Device = Literal["auto", "cpu", "cuda"]
"""auto: CUDA where torch sees it, else the CPU."""

Precision = Literal["tf32", "float32"]
"""Of matrix products and convolutions on CUDA; tf32 has float32's range and 10 bits of mantissa."""

ReportForm = Literal["html", "md", "junit"]
"""A page, Markdown for a pull request, JUnit's XML for a continuous integration."""
