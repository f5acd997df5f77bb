"""Names that a user chooses among. They stand here so that the command line needs no torch."""

from __future__ import annotations

from typing import Literal, get_args

Profile = Literal["portable", "asymmetric"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
"""portable: every zero-point is 0, which every target can run; asymmetric: TFLite and Core ML."""

Activation = Literal["gelu", "hard-swish", "quick-gelu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

Augmentation = Literal["none", "flip", "dihedral"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

Interpolation = Literal["bicubic", "bilinear"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

ClassOrder = Literal["default", "natural"]
CLASS_ORDERS: tuple[ClassOrder, ...] = get_args(ClassOrder)
"""Of class folders: default is torchvision's, by code point; natural is timm's."""
